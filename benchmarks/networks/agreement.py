"""How often the encrypted network predicts what the plaintext network predicts, through a real server process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.benchmarks.harness.summary import spread
from ciphershift.benchmarks.networks import layer_noise
from ciphershift.client import Client, Keystore, Timings
from ciphershift.he_layers import simulate
from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.crypto import noise
from ciphershift.he_layers.program import Program
from ciphershift.models.training import sets
from ciphershift.server.settings import Settings, available_cpus


def count_agreement(model: str, *, images: int, start: int, times: bool = True) -> dict[str, Any]:
    """Returns agreement, accuracy, sizes and, unless others use the machine, times over `images` test images from `start` on.

    The plaintext network is the integer Program without noise; `all_logits_equal` counts the images whose every logit is its logit.
    `layer_noise` is that of the first image (benchmarks.networks.layer_noise), evaluated once more in this process.
    """
    folder = Settings().models / model
    program, card = Program.load(folder), read_card(folder)
    splits = sets.of_card(card)
    test = splits.test
    chosen = slice(start, start + images)
    pixels, labels = test.images[chosen], test.labels[chosen]
    integers = simulate.plain(program, pixels)
    plain = integers.argmax(axis=1)
    with (
        tempfile.TemporaryDirectory() as keys,
        running_server() as server,
        Client(server.url, model=model, keystore=Keystore(Path(keys)), show_progress=False) as client,
    ):
        profile = client.profile()
        client.prepare()
        logits, timings = [], []
        for image in watched(splits.inputs.as_sent(pixels), f"{model}: encrypted inference"):
            logits.append(client.predict(image)[0])
            timings.append(client.timings)
        memory, traffic = server.peak_memory_bytes(), client.traffic
    predictions, seconds = np.argmax(logits, axis=1), [timing.total for timing in timings]
    equal = np.isclose(np.stack(logits), integers * program.output.scales, rtol=0, atol=1e-6 * program.output.scales)
    return envelope("agreement", params=profile.params) | {
        "model": model,
        "program": program.digest,
        "profile": profile.profile,
        "lookup_error_4bit": noise.lookup_error(profile.params),
        "log2_failure_per_image": noise_budget.log2_failure(noise_budget.of_program(program, profile.params)),
        "images": len(pixels),
        "start": start,
        "agree": int((predictions == plain).sum()),
        "all_logits_equal": int(equal.all(axis=1).sum()),
        "correct_encrypted": int((predictions == labels).sum()),
        "correct_plain": int((plain == labels).sum()),
        "accuracy_simulated": card["accuracy_simulated"],
        **(spread(seconds) | {"stage_median_s": _stages(timings)} if times else {}),
        "bootstraps_per_image": profile.bootstraps,
        "upload_bytes": traffic.sent,
        "download_bytes": traffic.received,
        "key_bytes": profile.key_bytes,
        "server_peak_memory_bytes": memory,
        "layer_noise": layer_noise.measure_layers(program, pixels[:1], threads=available_cpus()),
    }


def timed(records: Sequence[Record]) -> list[Record]:
    """Returns those that say how long an image took."""
    return [record for record in records if "median_s" in record]


def _stages(timings: Sequence[Timings]) -> dict[str, float]:
    return {stage: round(median(each.stages()[stage] for each in timings), 4) for stage in timings[0].stages()}


def read_card(folder: Path) -> dict[str, Any]:
    """Returns the card of a model of the zoo; models.training.cards would need torch."""
    card: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    return card
