"""How long the server's primitives take on this machine: measured on random words of the right shape, for any parameter set.

No key is needed, so a set can be timed before anybody has made keys for it. A bootstrap is timed over a part of its steps and
scaled to all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np

from ciphershift.he_layers.crypto import lwe, packing
from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList
from ciphershift.he_layers.crypto.params import CkksRing, Gadget, ParameterSet
from ciphershift.he_layers.native import _kernel

BITS = 320
"""Bits of the small key whose steps are timed: their part of the key is then too large for most caches, as the whole key is."""
REPETITIONS = 5
ENTRIES_PER_ROW = 32
LOGITS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class PrimitiveTimes:
    """Seconds on this machine with ``threads`` threads at work.

    Attributes:
        threads: of the kernel.
        lanes: ciphertexts that a thread bootstraps side by side, two for each that the kernel does where they share masks; a call with
            fewer takes as long.
        bootstrap: ``lanes`` ciphertexts on one thread while the others do the same; where they share masks, with their key switch.
        input_key_switch: one ciphertext under the CKKS key, all threads together; where masks are shared, its merge.
        big_key_switch: one ciphertext under the big key, likewise.
        linear_word: one word of one weight's product, all threads together.
        packing_key_switch: one of those that bring logits into the answer, all threads together.
    """

    threads: int
    lanes: int
    bootstrap: float
    input_key_switch: float
    big_key_switch: float
    linear_word: float
    packing_key_switch: float


def measure(params: ParameterSet, threads: int) -> PrimitiveTimes:
    """Times the primitives of one parameter set; a fraction of a second, and nothing for what another set had in common.

    Args:
        params: the set.
        threads: of the kernel.
    """
    gadget, bodies = params.key_switch, params.bodies
    step = _step_seconds(
        params.glwe_dimension,
        params.polynomial_size,
        params.pbs,
        params.grouping_factor,
        params.block_length,
        bodies,
        threads,
    )
    per_word = _key_switch_seconds(gadget, threads) * (params.lwe_dimension + bodies) / bodies
    lanes, bootstrap = _kernel.lanes() * bodies, step * params.steps
    from_input, from_big = per_word * params.input_ring.ring_degree, per_word * params.big_dimension
    if bodies > 1:
        bootstrap += from_big * lanes * threads
        from_input, from_big = (
            _merge_seconds(
                words // params.polynomial_size,
                params.glwe_dimension,
                params.polynomial_size,
                params.pbs,
                bodies,
                threads,
            )
            for words in (params.input_ring.ring_degree, params.big_dimension)
        )
    return PrimitiveTimes(
        threads=threads,
        lanes=lanes,
        bootstrap=bootstrap,
        input_key_switch=from_input,
        big_key_switch=from_big,
        linear_word=_linear_word_seconds(threads),
        packing_key_switch=_packing_seconds(params.answer_ring, params.answer, threads),
    )


def _median_seconds(call: Callable[[], object]) -> float:
    call()  # warms caches and page tables
    times = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times)


@cache
def _step_seconds(
    glwe_dimension: int,
    polynomial_size: int,
    gadget: Gadget,
    grouping_factor: int,
    block_length: int,
    bodies: int,
    threads: int,
) -> float:
    """One step of the blind rotation for one vector of rows on each thread."""
    bits = grouping_factor * block_length
    rng, columns, steps = np.random.default_rng(0), glwe_dimension + bodies, BITS // bits
    groups = 4 * threads
    count = groups * _kernel.lanes()
    entries = steps * (2**grouping_factor - 1 if block_length == 1 else block_length)
    key = rng.uniform(-1, 1, (entries, polynomial_size // 2, columns, columns * gadget.levels, 2))
    switched = rng.integers(0, 2 * polynomial_size, (count, steps * bits + bodies), dtype=np.int32)
    split_shape = ((bodies - 1) * glwe_dimension, polynomial_size // 2, glwe_dimension + 1, gadget.levels, 2)
    split_key = rng.uniform(-1, 1, split_shape)
    table, index = rng.uniform(-0.25, 0.25, (1, polynomial_size)), np.zeros(count * bodies, np.int32)
    seconds = _median_seconds(
        lambda: _kernel.blind_rotate(
            switched,
            table,
            index,
            key,
            base_log=gadget.base_log,
            levels=gadget.levels,
            grouping_factor=grouping_factor,
            block_length=block_length,
            bodies=bodies,
            threads=threads,
            split_key=split_key,
        )
    )
    return seconds * threads / groups / steps


@cache
def _key_switch_seconds(gadget: Gadget, threads: int) -> float:
    """A key switch's work for one word of the mask and one word of the result, among as many ciphertexts as share the kernel's tables."""
    rng, dimension, output, count = np.random.default_rng(0), 512, 767, 256
    x = rng.integers(0, 2**32, (count, dimension + 1), dtype=np.uint32)
    key = rng.integers(0, 2**32, ((output + 1) // 32, dimension * gadget.levels, 32), dtype=np.uint32)
    seconds = _median_seconds(
        lambda: _kernel.key_switch(
            x,
            key,
            output_dimension=output,
            base_log=gadget.base_log,
            levels=gadget.levels,
            binary_key=True,
            threads=threads,
        )
    )
    return seconds / count / (dimension * (output + 1))


@cache
def _merge_seconds(
    sources: int, glwe_dimension: int, polynomial_size: int, gadget: Gadget, bodies: int, threads: int
) -> float:
    """One ciphertext of so many polynomials."""
    rng, count = np.random.default_rng(0), 8 * threads * _kernel.lanes() * bodies
    x = rng.integers(0, 2**32, (count, sources * polynomial_size + 1), dtype=np.uint32)
    key = rng.uniform(-1, 1, (sources, polynomial_size // 2, glwe_dimension + bodies, bodies * gadget.levels, 2))
    seconds = _median_seconds(
        lambda: _kernel.merge(x, key, bodies=bodies, base_log=gadget.base_log, levels=gadget.levels, threads=threads)
    )
    return seconds / count


@cache
def _linear_word_seconds(threads: int) -> float:
    rng, rows, columns, words = np.random.default_rng(0), 256, 512, 2049
    row = np.repeat(np.arange(rows), ENTRIES_PER_ROW)
    column = rng.integers(0, columns, len(row))
    x = LweCiphertextList(rng.integers(0, 2**32, (columns, words), dtype=np.uint32))
    weight = rng.choice(np.array([-4, -2, -1, 1, 2, 4]), len(row))
    matrix = lwe.ShiftMatrix.from_entries(rows, columns, row, column, weight)
    return _median_seconds(lambda: lwe.linear(x, matrix, threads=threads)) / (len(row) * words)


@cache
def _packing_seconds(ring: CkksRing, gadget: Gadget, threads: int) -> float:
    """One key switch."""
    rng, rows = np.random.default_rng(0), ring.ring_degree.bit_length() * gadget.levels + 1
    key = rng.integers(0, ring.modulus, (rows, 2, ring.ring_degree), dtype=np.uint64)
    x = rng.integers(0, 2**32, (LOGITS, ring.ring_degree + 1), dtype=np.uint32)
    seconds = _median_seconds(
        lambda: _kernel.packing_key_switch(
            x,
            key,
            modulus=ring.modulus,
            base_log=gadget.base_log,
            levels=gadget.levels,
            error_std_dev=1.0,
            flooding_std_dev=1.0,
            seed=bytes(32),
            threads=threads,
        )
    )
    return seconds / packing.key_switches(LOGITS, ring)


def forget() -> None:
    """Measure anew at the next call: what was measured before is kept for the life of the process otherwise."""
    for measured in (_step_seconds, _key_switch_seconds, _merge_seconds, _linear_word_seconds, _packing_seconds):
        measured.cache_clear()
