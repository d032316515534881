"""Does the cost model hold at full size? The first stage of AlexNet on an encrypted image of 224 x 224, with a few of its 64 maps.

Random weights: only the clock matters. Convolution 11 x 11 with stride 4, max-pool 3 x 3 with stride 2, activation, then a dense layer to
ten values, since a Program ends with one. The faster of two runs counts: the image's 150 528 ciphertexts fill 620 MB, which a
virtual machine may have to get from its host at first.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto import ckks, params, timing
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program

SIDE, KERNEL, ALL_MAPS = 224, 11, 64
RUNS = 2


def stage(maps: int, parameter_set: str) -> Program:
    """So many of the 64 maps."""
    rng = np.random.default_rng(0)
    pooled = ((SIDE + 4 - KERNEL) // 4 + 1 - 3) // 2 + 1
    weights = np.array([-2, -1, 0, 1, 2], dtype=np.int8)
    return Program(
        name="alexnet-first-stage",
        version="1",
        params=parameter_set,
        input=InputSpec(shape=(3, SIDE, SIDE), levels=15, delta=1 / 4096),
        layers=(
            Conv2d(name="conv", weight=rng.choice(weights, (maps, 3, KERNEL, KERNEL)), stride=(4, 4), padding=(2, 2)),
            MaxPool2d(name="pool", kernel=(3, 3), stride=(2, 2)),
            ReLU(
                name="relu",
                bias=np.zeros(maps, dtype=np.int32),
                multiplier=np.full(maps, 0.1),
                levels=15,
                delta_out=1 / 4096,
            ),
            Flatten(name="flatten"),
            Linear(name="dense", weight=rng.choice(weights, (10, maps * pooled * pooled))),
        ),
        output=OutputSpec(classes=tuple("0123456789"), scale=1.0),
    )


def run_first_stage(name: str, *, maps: int, threads: int) -> dict[str, Any]:
    """Returns predicted and measured seconds, and their ratio."""
    parameter_set = params.get(name)
    program = stage(maps, name)
    keys = ClientKeys.generate(parameter_set)
    server_keys = keys.evaluation_keys(threads).expand(threads)
    image = ckks.encrypt(keys, "00" * 32, np.zeros(3 * SIDE * SIDE))
    timing.forget()  # the machine may have changed its speed since
    predicted = cost.predict(program, parameter_set, timing.measure(parameter_set, threads))
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        for _ in evaluate.run(program, server_keys, [[image]], threads=threads):
            pass
        seconds.append(time.perf_counter() - started)
    measured = min(seconds)
    return envelope("first-stage", threads=threads, params=parameter_set) | {
        "network": f"AlexNet's first stage, {maps} of {ALL_MAPS} maps, 3 x {SIDE} x {SIDE} pixels",
        "lookups": program.lookups,
        "predicted_s": round(predicted, 2),
        "measured_s": round(measured, 2),
        "ratio": round(predicted / measured, 3),
        "upload_bytes": len(image.to_bytes()),
    }
