"""How does time grow with the number of activations? One topology, wider and wider, with random weights: only the clock matters."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.summary import spread
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto import ckks, params, timing
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers import Conv2d, Flatten, Linear, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program

MAPS = (1, 2, 4, 8, 16, 32)


def network(maps: int, parameter_set: str) -> Program:
    """Two convolutions with activations and a dense layer on 28 x 28 pixels: 169 look-ups for each map."""
    rng = np.random.default_rng(maps)

    def weights(*shape: int) -> np.ndarray[Any, np.dtype[np.int8]]:
        return rng.choice(np.array([-2, -1, 0, 1, 2], dtype=np.int8), shape)

    def relu(name: str) -> ReLU:
        bias, multiplier = np.zeros(maps, dtype=np.int32), np.full(maps, 0.2)
        return ReLU(name=name, bias=bias, multiplier=multiplier, levels=15, delta_out=1 / 1024)

    return Program(
        name=f"growth-{maps}",
        version="1",
        params=parameter_set,
        input=InputSpec(shape=(1, 28, 28), levels=15, delta=1 / 1024),
        layers=(
            Conv2d(name="conv1", weight=weights(maps, 1, 5, 5), stride=(2, 2), padding=(0, 0)),
            relu("relu1"),
            Conv2d(name="conv2", weight=weights(maps, maps, 3, 3), stride=(2, 2), padding=(0, 0)),
            relu("relu2"),
            Flatten(name="flatten"),
            Linear(name="dense", weight=weights(10, 25 * maps)),
        ),
        output=OutputSpec(classes=tuple("0123456789"), scale=1.0),
    )


def time_widths(name: str, *, maps: Sequence[int] = MAPS, threads: int, repetitions: int) -> Iterator[dict[str, Any]]:
    """Yields the server's measured and predicted seconds for one image, one object per width.

    Args:
        name: of the parameter set.
        maps: widths.
        threads: of the kernel.
        repetitions: evaluations of each.
    """
    parameter_set = params.get(name)
    keys = ClientKeys.generate(parameter_set)
    server_keys = keys.evaluation_keys(threads).expand(threads)
    image = ckks.encrypt(keys, "00" * 32, np.zeros(28 * 28))
    timing.forget()  # the machine may have changed its speed since
    times = timing.measure(parameter_set, threads)
    for width in maps:
        program = network(width, name)
        seconds = []
        for _ in range(repetitions):
            started = time.perf_counter()
            for _ in evaluate.run(program, server_keys, [[image]], threads=threads):
                pass
            seconds.append(time.perf_counter() - started)
        yield envelope("growth", threads=threads, params=parameter_set) | {
            "maps": width,
            "lookups": program.lookups,
            "products": sum(count for layer in cost.work(program) for count, _ in layer.products),
            "predicted_s": round(cost.predict(program, parameter_set, times), 4),
            **spread(seconds),
        }
