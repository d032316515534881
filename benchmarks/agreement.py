"""How often the encrypted network predicts what the plaintext network predicts, through a real server process."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.envelope import envelope
from benchmarks.server_process import running_server
from client import Client, Keystore
from he_layers import simulate
from he_layers.program import Program
from models import data
from server.settings import Settings


def measure(model: str, *, images: int, start: int) -> dict[str, Any]:
    """Returns agreement, accuracy, times and sizes over `images` test images from `start` on.

    The plaintext network is the integer Program without noise.
    """
    settings = Settings()
    program = Program.load(settings.models / model)
    test = data.load(_data_set(settings.models / model)).test
    chosen = slice(start, start + images)
    pixels, labels = test.images[chosen], test.labels[chosen]
    plain = simulate.plain(program, pixels).argmax(axis=1)
    with tempfile.TemporaryDirectory() as folder, running_server() as server:
        client = Client(server.url, model=model, keystore=Keystore(Path(folder)), show_progress=False)
        profile = client.profile()
        client.prepare()
        client.predict(pixels[:1])  # the first request expands the keys on the server
        encrypted, seconds = [], []
        for image in track(pixels, f"{model}: encrypted inference", console=Console(stderr=True)):
            encrypted.append(client.predict(image).argmax())
            seconds.append(client.timings.total)
        memory = server.peak_memory_bytes()
    predictions = np.asarray(encrypted)
    return envelope("agreement") | {
        "model": model,
        "profile": profile.profile,
        "params_id": profile.params_id,
        "security_bits": profile.security_bits,
        "images": len(pixels),
        "start": start,
        "agree": int((predictions == plain).sum()),
        "correct_encrypted": int((predictions == labels).sum()),
        "correct_plain": int((plain == labels).sum()),
        "median_s": round(median(seconds), 4),
        "p90_s": round(float(np.quantile(seconds, 0.9)), 4),
        "bootstraps_per_image": profile.bootstraps,
        "upload_bytes": client.traffic.sent,
        "download_bytes": client.traffic.received,
        "key_bytes": profile.key_bytes,
        "server_peak_memory_bytes": memory,
    }


def _data_set(folder: Path) -> str:
    return str(json.loads((folder / "card.json").read_text(encoding="utf-8"))["dataset"])
