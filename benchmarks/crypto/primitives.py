"""Time of each primitive: median with 10th and 90th percentile over rounds, in which sets, primitives and thread counts take turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.he_layers.crypto import ckks, lwe, packing, params
from ciphershift.he_layers.crypto.ciphertexts import Binding, LweCiphertextList
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers.conv import Conv2d
from ciphershift.he_layers.native import _kernel

REPETITIONS = 9
LOGITS = 10
IMAGE = (1, 28, 28)
NAMES = tuple(name for name, parameter_set in params.SETS.items() if not parameter_set.is_toy)
KEY_ID = "00" * 32  # nothing is sent anywhere


@dataclass(frozen=True, kw_only=True, slots=True)
class Primitive:
    """One call to be timed.

    Attributes:
        call: takes the number of threads.
        items: that one call deals with.
        nbytes: that one call must read or write at least once: keys, inputs and results.
        threaded: whether it uses more than one thread.
    """

    call: Callable[[int], object]
    items: int
    nbytes: int
    threaded: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A primitive under a parameter set, with so many threads."""

    op: str
    threads: int
    set: str


class Workbench:
    """Keys and random inputs of the right shapes for all primitives of one parameter set."""

    def __init__(self, parameter_set: ParameterSet, batch: int) -> None:
        """Args: batch: look-ups in one call, rounded up to whole rows where they share masks."""
        bodies = parameter_set.bodies
        batch = -(-batch // bodies) * bodies
        self.params, self.batch, rng = parameter_set, batch, np.random.default_rng(0)
        self.keys = ClientKeys.generate(parameter_set)
        self.sent = self.keys.evaluation_keys(os.cpu_count() or 1)
        self.server = self.sent.expand(os.cpu_count() or 1)
        self.image = ckks.encrypt(self.keys, KEY_ID, rng.uniform(-0.2, 0.2, int(np.prod(IMAGE))))
        self.pixels = lwe.sample_extract(self.image)
        self.from_input = replace(self.pixels, data=np.resize(self.pixels.data, (batch, self.pixels.data.shape[1])))
        self.big = LweCiphertextList(rng.integers(0, 2**32, (batch, parameter_set.big_dimension + 1), dtype=np.uint32))
        self.merged = lwe.merge(self.big, self.server) if bodies > 1 else self.big
        self.small = lwe.key_switch(self.merged, self.server, threads=os.cpu_count() or 1)
        self.switched = self._modulus_switch()
        self.table = rng.uniform(-0.25, 0.25, (1, parameter_set.polynomial_size))
        weight = rng.choice(np.array([-4, -2, -1, 0, 1, 2, 4], dtype=np.int8), (3, 1, 5, 5))
        entries = Conv2d(name="conv", weight=weight, stride=(2, 2)).matrix(IMAGE)
        self.matrix = lwe.ShiftMatrix.from_entries(
            entries.rows, entries.columns, entries.row, entries.column, entries.values
        )

    def primitives(self) -> dict[str, Primitive]:
        """All calls by name; ``floor`` is the transforms and products of the bootstrap alone."""
        server, batch = self.server, self.batch
        rotated = server.fourier_bsk.nbytes + self.switched.nbytes + self.big.data.nbytes
        maps = self.matrix.rows * self.pixels.data.shape[1] * 4
        logits = replace(self.big, data=np.resize(self.big.data, (LOGITS, self.big.data.shape[1])))
        binding = Binding(key_id=KEY_ID, request=KEY_ID, program=KEY_ID)
        return (self._merges() if self.params.bodies > 1 else self._input_switch()) | {
            "key_generation": Primitive(
                call=lambda threads: ClientKeys.generate(self.params).evaluation_keys(threads),
                items=1,
                nbytes=EvaluationKeys.nbytes(self.params),
            ),
            "key_expansion": Primitive(call=self.sent.expand, items=1, nbytes=server.nbytes),
            "sample_extract": Primitive(
                call=lambda _: lwe.sample_extract(self.image),
                items=len(self.pixels),
                nbytes=self.pixels.data.nbytes,
                threaded=False,
            ),
            "shift_linear_conv_5x5_stride_2": Primitive(
                call=lambda threads: lwe.linear(self.pixels, self.matrix, threads=threads),
                items=1,
                nbytes=self.pixels.data.nbytes + maps,
            ),
            "key_switch": Primitive(
                call=lambda threads: lwe.key_switch(self.merged, server, threads=threads),
                items=batch,
                nbytes=server.ksk.nbytes + self.merged.data.nbytes + self.small.data.nbytes,
            ),
            "modulus_switch": Primitive(
                call=lambda _: self._modulus_switch(),
                items=batch,
                nbytes=2 * self.small.data.nbytes,
                threaded=False,
            ),
            "bootstrap": Primitive(
                call=self._rotation(_kernel.blind_rotate, split_key=server.split_key),
                items=batch,
                nbytes=rotated + server.split_key.nbytes,
            ),
            "floor": Primitive(call=self._rotation(_kernel.bootstrap_floor), items=batch, nbytes=rotated),
            "packing": Primitive(
                call=lambda _: packing.packing_key_switch(logits, server, binding),
                items=LOGITS,
                nbytes=server.answer_key.nbytes + logits.data.nbytes,
                threaded=False,
            ),
        }

    def _input_switch(self) -> dict[str, Primitive]:
        return {
            "key_switch_from_input": Primitive(
                call=lambda threads: lwe.key_switch(self.from_input, self.server, threads=threads),
                items=self.batch,
                nbytes=self.server.input_ksk.nbytes + self.from_input.data.nbytes + self.small.data.nbytes,
            )
        }

    def _merges(self) -> dict[str, Primitive]:
        key = self.server.merge_key

        def merge(x: LweCiphertextList) -> Primitive:
            sources = x.dimension // self.params.polynomial_size
            return Primitive(
                call=lambda threads: lwe.merge(x, self.server, threads=threads),
                items=self.batch,
                nbytes=key.nbytes // len(key) * sources + x.data.nbytes + self.merged.data.nbytes,
            )

        return {"merge_from_input": merge(self.from_input), "merge": merge(self.big)}

    def _modulus_switch(self) -> NDArray[np.int32]:
        return _kernel.modulus_switch(
            self.small.data,
            polynomial_size=self.params.polynomial_size,
            block_length=self.params.block_length,
            bodies=self.params.bodies,
        )

    def _rotation(self, kernel: Callable[..., object], **keys: object) -> Callable[[int], object]:
        gadget, index = self.params.pbs, np.zeros(self.batch, np.int32)
        return lambda threads: kernel(
            self.switched,
            self.table,
            index,
            self.server.fourier_bsk,
            base_log=gadget.base_log,
            levels=gadget.levels,
            grouping_factor=self.params.grouping_factor,
            block_length=self.params.block_length,
            bodies=self.params.bodies,
            threads=threads,
            **keys,
        )


def time_primitives(names: Sequence[str], *, threads: tuple[int, ...], batch: int) -> Iterator[dict[str, Any]]:
    """Yields one object per parameter set, primitive and number of threads.

    ``median_us_per_item`` is wall-clock time per item, times threads: per item and core. ``lookup`` is the key switch and the bootstrap of
    one round, and the merge where look-ups share masks. A bootstrap's object also has ``floor_us``, the same transforms and products alone,
    and ``ratio_to_floor``; one of several threads has ``speed_up`` over the first number of threads. Those of every set but the first have
    ``ratio``: the median of the time for one item over that under the first set in the same round, a moment before. On a busy machine it
    says more than the times.

    Args:
        names: of the parameter sets, in turns.
        threads: of the kernel, all in the same run.
        batch: look-ups in one call.
    """
    sets = {name: Workbench(params.get(name), batch).primitives() for name in dict.fromkeys(names)}
    first = names[0]
    runs = [
        Run(op=op, threads=count, set=name)
        for op in dict.fromkeys(op for made in sets.values() for op in made)
        for count in threads
        for name, made in sets.items()
        if op in made and (made[op].threaded or count == threads[0])
    ]
    rounds: dict[Run, list[float]] = {run: [] for run in runs}
    for repetition in watched(range(REPETITIONS + 1), "rounds"):
        for run in runs:
            primitive = sets[run.set][run.op]
            started = time.perf_counter()
            primitive.call(run.threads)
            if repetition:  # the first round warms the caches
                used = run.threads if primitive.threaded else 1
                rounds[run].append((time.perf_counter() - started) * 1e6 * used / primitive.items)
    times = {run: np.array(found) for run, found in rounds.items()}
    for run in [run for run in runs if run.op == "bootstrap"]:
        parts = [replace(run, op=op) for op in ("merge", "key_switch", "bootstrap")]
        times[replace(run, op="lookup")] = np.sum([times[part] for part in parts if part in times], axis=0)
    for run, found in times.items():
        if run.op == "floor":
            continue
        primitive = sets[run.set]["bootstrap" if run.op == "lookup" else run.op]
        low, median, high = np.quantile(found, [0.1, 0.5, 0.9])
        result = {
            "op": run.op,
            "batch": primitive.items,
            "median_us_per_item": round(median, 1),
            "p10": round(low, 1),
            "p90": round(high, 1),
            "bytes_touched_per_item": round(primitive.nbytes / primitive.items),
        }
        if run.op == "bootstrap":
            floor = float(np.median(times[replace(run, op="floor")]))
            result |= {"floor_us": round(floor, 1), "ratio_to_floor": round(median / floor, 3)}
        if primitive.threaded and run.threads != threads[0]:
            result["speed_up"] = round(
                run.threads / threads[0] * _ratio(times[replace(run, threads=threads[0])], found), 3
            )
        if run.set != first and (beside := times.get(replace(run, set=first))) is not None:
            result |= {"ratio": round(_ratio(found, beside), 3), "ratio_to": first}
        yield (
            envelope("primitives", threads=run.threads if primitive.threaded else 1, params=params.get(run.set))
            | result
        )


def _ratio(times: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Of two times, round by round; the median."""
    return float(np.median(times / others))
