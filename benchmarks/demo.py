"""The demonstration: a real server classifies ten encrypted handwritten digits."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from ciphershift.benchmarks.harness.envelope import ROOT
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings

SAMPLES = ROOT / "client" / "samples"
REQUIRED_AGREEMENT = 9


def run(model: str, larger: str | None) -> bool:
    """Runs the demonstration; returns whether enough encrypted predictions equal the plaintext network's.

    Args:
        model: classifies all ten digits.
        larger: classifies the first one, to show what a larger network costs; None skips it.
    """
    images, labels = samples()
    console = Console(highlight=False)
    console.print("starting a server, and making keys that stay with the client …")
    with tempfile.TemporaryDirectory() as folder, running_server() as server:
        keystore = Keystore(Path(folder))
        agree = _classify(console, Client(server.url, model=model, keystore=keystore), model, images, labels)
        if larger is not None:
            _classify(console, Client(server.url, model=larger, keystore=keystore), larger, images[:1], labels)
    console.print("draw a digit of your own: make page, or ciphershift page")
    return agree >= REQUIRED_AGREEMENT


def _classify(
    console: Console, client: Client, model: str, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> int:
    """Prints a line for each image and a summary; returns how many predictions equal the plaintext network's."""
    program = Program.load(Settings().models / model)
    plain = simulate.plain(program, images).argmax(axis=1)
    console.print(f"{model}, {program.lookups} look-ups an image:")
    predictions, seconds = [], []
    with client:
        for i, image in enumerate(images):
            predictions.append(int(client.predict(image).argmax()))
            took = client.timings
            seconds.append(took.total - took.keys)
            console.print(
                f"image {i}: prediction {predictions[-1]}, label {labels[i]}, plaintext network {plain[i]} | "
                + ", ".join(f"{stage} {value:.3f} s" for stage, value in took.stages().items() if value > 1e-4),
                soft_wrap=True,
            )
        key_bytes = client.profile().key_bytes
    agree = int((np.asarray(predictions) == plain).sum())
    correct = int((np.asarray(predictions) == labels[: len(images)]).sum())
    console.print(
        f"demo: model={model} images={len(images)} agree={agree} correct={correct} median_s={median(seconds):.3f} "
        f"upload_bytes={client.traffic.sent} download_bytes={client.traffic.received} key_bytes={key_bytes}",
        soft_wrap=True,
    )
    return agree


def samples() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns the shipped images [10, 1, 28, 28] and their labels."""
    found = {
        int(i): (path, int(label))
        for path in SAMPLES.glob("mnist-*.png")
        for i, label in [re.findall(r"\d+", path.name)]
    }
    images = np.stack([np.asarray(Image.open(found[i][0]), dtype=np.uint8) for i in sorted(found)])
    return images[:, None], np.asarray([found[i][1] for i in sorted(found)], dtype=np.int64)
