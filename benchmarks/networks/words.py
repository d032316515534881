"""The language model of docs/examples/words.py, which predicts the word after 25 words, on encrypted windows of a novel."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.benchmarks.harness.summary import spread
from ciphershift.benchmarks.networks import layer_noise
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import available_cpus


def measure(folder: Path, *, windows: int) -> dict[str, Any]:
    """Returns the perplexity with simulated noise on all windows, and how some fare through a real server.

    Args:
        folder: that the example wrote.
        windows: that are encrypted, of all parts of the novel.
    """
    (path,) = folder.glob("*/program.json")
    program = Program.load(path.parent)
    with np.load(folder / "table.npz") as arrays:
        vectors, direct, table, bias = (arrays[name] for name in ("vectors", "direct", "table", "bias"))
    with np.load(folder / "test.npz") as arrays:
        words, samples, following = arrays["words"], arrays["samples"], arrays["following"]

    def logits(answers: NDArray[np.float64], part: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray((answers + vectors[words[part, -1]] @ direct.T) @ table.T.astype(np.float64) + bias)

    parts = np.array_split(np.arange(len(samples)), -(-len(samples) // 500))
    rng, drawn = np.random.default_rng(0), params.get(program.params)
    losses = [
        losses_of(logits(simulate.run(program, drawn, samples[part], rng), part), following[part])
        for part in watched(parts, f"{program.name}: simulated")
    ]
    chosen = np.linspace(0, len(following) - 1, min(windows, len(following))).astype(int)
    with (
        tempfile.TemporaryDirectory() as keys,
        running_server(models=folder) as server,
        Client(server.url, model=program.name, keystore=Keystore(Path(keys)), show_progress=False) as client,
    ):
        profile = client.profile()
        client.prepare()
        answers, timings = [], []
        for window in watched(words[chosen], f"{program.name}: encrypted"):
            answers.append(client.predict(vectors[window].T[None])[0])
            timings.append(client.timings)
        traffic = client.traffic
    plain = logits(simulate.plain(program, samples[chosen]) * program.output.scales, chosen)
    encrypted = logits(np.stack(answers), chosen)
    figures: dict[str, Any] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    return envelope("words", params=profile.params) | {
        "model": program.name,
        "program": program.digest,
        "figures": figures,
        "windows": len(following),
        "perplexity_simulated": perplexity(np.concatenate(losses)),
        "lookups": program.lookups,
        "encrypted": len(answers),
        "agree": int((encrypted.argmax(1) == plain.argmax(1)).sum()),
        "perplexity_encrypted": perplexity(losses_of(encrypted, following[chosen])),
        "perplexity_plain": perplexity(losses_of(plain, following[chosen])),
        **spread([timing.total for timing in timings]),
        "upload_bytes": traffic.sent,
        "download_bytes": traffic.received,
        "layer_noise": layer_noise.measure_layers(program, samples[:1], threads=available_cpus()),
    }


def losses_of(logits: NDArray[np.float64], following: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cross-entropy of each row of logits [count, words] to the word that follows."""
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), following])


def perplexity(losses: NDArray[np.float64]) -> float:
    """The exponential of the mean loss."""
    return round(float(np.exp(losses.mean())), 2)
