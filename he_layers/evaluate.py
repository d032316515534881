"""Evaluate a Program on encrypted images: CKKS ciphertexts in, one packed CKKS answer out, progress on the way.

Runs each layer's circuit (he_layers.layers) on LWE ciphertext lists. Knows no secret, no HTTP and no bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from he_layers.crypto import lwe, packing, pbs
from he_layers.crypto.ciphertexts import Binding, CkksCiphertext, LweCiphertextList, PackedAnswer
from he_layers.crypto.errors import BadShapeError, WrongParamsError
from he_layers.crypto.evaluation_keys import ServerKeys
from he_layers.layers.layer import FloatArray, IntArray, LinearLayer, Shape, flat_size
from he_layers.program import Program


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """State after a layer.

    Attributes:
        layer: name of the layer that is done.
        index: its place, from 0.
        lookups_done: look-ups so far, of ``lookups_total``.
        seconds: since the evaluation began.
        answer: the packed logits, with the last item only.
    """

    layer: str
    index: int
    lookups_done: int
    lookups_total: int
    seconds: float
    answer: PackedAnswer | None = None


class EncryptedCircuit:
    """The circuit operations (he_layers.layers.layer.Circuit) on LWE ciphertexts.

    A list is under the CKKS input key, under the big key, or under both one after the other: its dimension tells. The last comes from
    adding the first two (a max-pool right after the first linear layer) and costs a second key switch at its next look-up.
    """

    def __init__(self, keys: ServerKeys, *, threads: int) -> None:
        """Args: threads: of the kernel."""
        self.keys = keys
        self.threads = threads
        self.input_dimension = keys.params.input_ring.ring_degree
        self.big_dimension = keys.params.big_dimension

    def linear(self, x: LweCiphertextList, layer: LinearLayer, shape: Shape) -> LweCiphertextList:
        """The layer's integer combinations of rows."""
        entries = layer.entries(shape)
        matrix = lwe.ShiftMatrix.from_entries(
            entries.rows, entries.columns, entries.row, entries.column, entries.values
        )
        return lwe.linear(x, matrix, threads=self.threads)

    def add_constant(self, x: LweCiphertextList, turns: FloatArray) -> LweCiphertextList:
        """Constants on the bodies."""
        return lwe.add_constant(x, lwe.to_words(turns))

    def add(self, a: LweCiphertextList, b: LweCiphertextList) -> LweCiphertextList:
        """Sum of rows, under the keys of both."""
        a, b = self._under_same_keys(a, b)
        return LweCiphertextList(a.data + b.data)

    def subtract(self, a: LweCiphertextList, b: LweCiphertextList) -> LweCiphertextList:
        """Difference of rows, under the keys of both."""
        a, b = self._under_same_keys(a, b)
        return LweCiphertextList(a.data - b.data)

    def select(self, x: LweCiphertextList, index: IntArray) -> LweCiphertextList:
        """The rows at the given places."""
        return LweCiphertextList(x.data[index])

    def lookup(self, x: LweCiphertextList, tables: FloatArray, table_index: NDArray[np.int32]) -> LweCiphertextList:
        """Key switch, modulus switch, blind rotation, sample extraction."""
        return pbs.pbs(x, self.keys, tables, table_index, threads=self.threads)

    def _under_same_keys(
        self, a: LweCiphertextList, b: LweCiphertextList
    ) -> tuple[LweCiphertextList, LweCiphertextList]:
        if a.dimension == b.dimension:
            return a, b
        return self._under_both_keys(a), self._under_both_keys(b)

    def _under_both_keys(self, x: LweCiphertextList) -> LweCiphertextList:
        """The same rows with a mask of zeros for the key that they lack."""
        both = self.input_dimension + self.big_dimension
        if x.dimension == both:
            return x
        data = np.zeros((len(x), both + 1), dtype=np.uint32)
        start = 0 if x.dimension == self.input_dimension else self.input_dimension
        data[:, start : start + x.dimension] = x.data[:, :-1]
        data[:, -1] = x.data[:, -1]
        return LweCiphertextList(data)


def run(
    program: Program, keys: ServerKeys, ciphertexts: Sequence[CkksCiphertext], *, threads: int = 1
) -> Iterator[Progress]:
    """Evaluates a Program on one encrypted image, layer by layer.

    Args:
        program: the network.
        keys: expanded evaluation keys of the ciphertexts' owner.
        ciphertexts: the image's values in C order, ``ring_degree`` of them in each but the last.
        threads: of the kernel.

    Yields:
        Progress after every layer; the last item has the answer.

    Raises:
        BadShapeError: the ciphertexts hold another number of values than the Program's input.
        WrongParamsError: keys or ciphertexts belong to another parameter set than the Program's.
    """
    params = keys.params
    if program.params != params.name or any(ciphertext.params.id != params.id for ciphertext in ciphertexts):
        raise WrongParamsError(
            f"program {program.name!r} is made for {program.params}; the keys are under {params.name}"
        )
    messages = sum(len(ciphertext.c0) for ciphertext in ciphertexts)
    if messages != flat_size(program.input.shape):
        raise BadShapeError(f"{messages} values are encrypted; the program takes {program.input.shape}")
    started = perf_counter()
    binding = Binding.of(ciphertexts, program.digest)
    circuit = EncryptedCircuit(keys, threads=threads)
    pixels = LweCiphertextList(np.concatenate([lwe.sample_extract(ciphertext).data for ciphertext in ciphertexts]))
    done = 0
    for index, (stage, result) in enumerate(program.walk(circuit, pixels, params.polynomial_size)):
        done += stage.lookups
        last = index == len(program.stages) - 1
        yield Progress(
            layer=stage.layer.name,
            index=index,
            lookups_done=done,
            lookups_total=program.lookups,
            answer=packing.packing_key_switch(result, keys, binding) if last else None,
            seconds=perf_counter() - started,
        )
