"""The cost model against the clock: predicted and measured seconds of every layer of one network, in one run."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto import ckks, timing
from ciphershift.he_layers.crypto.ciphertexts import ciphertext_type
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings


def compare_with_prediction(model: str, *, repetitions: int) -> dict[str, Any]:
    """Returns predicted and measured seconds of the server for one image, in all and by layer (medians), and their ratio.

    Primitives are timed before and after each evaluation, and the median is taken, so that a machine that changes its speed meanwhile
    changes both sides alike.
    """
    settings = Settings()
    program = Program.load(settings.models / model)
    parameter_set = served_params(program)
    keys = ClientKeys.generate(parameter_set)
    server_keys = keys.evaluation_keys(settings.engine_url.threads).expand(settings.engine_url.threads)
    pixels = np.zeros(int(np.prod(program.input.shape)))
    image = ckks.encrypt(keys, "00" * 32, pixels, ciphertext_type(program.lookups))
    work = {layer.layer: layer for layer in cost.work(program)}
    chains = [[stage.layer.name for stage in chain] for chain in evaluate.chains(program)]  # what is evaluated together
    predicted, measured = [], []
    for _ in watched(range(repetitions), f"{model}: evaluations"):
        timing.forget()
        times = timing.measure(parameter_set, settings.engine_url.threads)
        seconds = [sum(cost.layer_seconds(work[name], parameter_set, times) for name in chain) for chain in chains]
        predicted.append([*seconds, sum(seconds)])
        steps = evaluate.run(program, server_keys, [[image]], threads=settings.engine_url.threads)
        ends = list({progress.layer: progress.seconds for progress in steps}.values())  # of each chain, its last slice
        measured.append([*np.diff([0.0, *ends]), ends[-1]])
    predicted_medians, measured_medians = (
        [median(column) for column in zip(*rows, strict=True)] for rows in (predicted, measured)
    )
    return envelope("cost", params=parameter_set) | {
        "model": model,
        "program": program.digest,
        "predicted_seconds": round(predicted_medians[-1], 4),
        "measured_seconds": round(measured_medians[-1], 4),
        "ratio": round(predicted_medians[-1] / measured_medians[-1], 3),
        "repetitions": repetitions,
        "layers": [
            {"layer": " ".join(chain), "predicted_seconds": round(guess, 4), "measured_seconds": round(clock, 4)}
            for chain, guess, clock in zip(chains, predicted_medians, measured_medians, strict=False)
        ],
    }
