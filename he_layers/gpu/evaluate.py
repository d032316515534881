"""Evaluate a Program on a device, several images at once: he_layers.evaluate with tensors [images, values, words] in place of lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ciphershift.errors import BusyError
from ciphershift.he_layers.crypto import lwe as words_of
from ciphershift.he_layers.crypto import packing
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, LweCiphertextList, PackedAnswer
from ciphershift.he_layers.evaluate import Progress, State, check_images, multiplied, walk
from ciphershift.he_layers.gpu import lwe
from ciphershift.he_layers.gpu.device import free_bytes, words_from, words_to
from ciphershift.he_layers.gpu.keys import DeviceKeys
from ciphershift.he_layers.gpu.pbs import pbs
from ciphershift.he_layers.layers.layer import FloatArray, IntArray, LinearLayer, Shape, flat_size
from ciphershift.he_layers.program import Program

MOST_ROWS, CPU_ROWS = 65536, 1024
"""Ciphertexts of a slice's sums, and of one layer of all images that are evaluated together: a second or so of a card's work."""
BYTES_PER_ROW = 1 << 19
"""What one of them may cost of a card's free memory: 8 KB itself, sixteen in double precision, and a layer has many inputs for it."""


class DeviceCircuit:
    """The circuit operations on int32 tensors [images, values, words]; see he_layers.evaluate.EncryptedCircuit."""

    def __init__(self, keys: DeviceKeys) -> None:
        """Args: keys: of all images' owner."""
        self.keys = keys
        self.slice_rows, self.slices_at_once = rows_together(keys.device), 1
        self.input_dimension = keys.params.input_ring.ring_degree
        self.big_dimension = keys.params.big_dimension

    def linear(self, x: Tensor, layer: LinearLayer, shape: Shape) -> Tensor:
        """The layer's integer combinations of rows."""
        return lwe.linear(x, layer, shape)

    def add_constant(self, x: Tensor, turns: FloatArray) -> Tensor:
        """Constants on the bodies."""
        result = x.clone()
        result[..., -1] += words_to(self.keys.device, words_of.to_words(turns))
        return result

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Sum of rows, under the keys of both."""
        a, b = self._under_same_keys(a, b)
        return a + b

    def subtract(self, a: Tensor, b: Tensor) -> Tensor:
        """Difference of rows, under the keys of both."""
        a, b = self._under_same_keys(a, b)
        return a - b

    def select(self, x: Tensor, index: IntArray) -> Tensor:
        """The rows at the given places."""
        return x[:, torch.from_numpy(index).to(x.device)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """All rows, one part after the other, under the keys of all; a single part is not copied."""
        if len(parts) == 1:
            return parts[0]
        if len({part.shape[-1] for part in parts}) > 1:
            parts = [self._under_both_keys(part) for part in parts]
        return torch.cat(list(parts), dim=1)

    def lookup(
        self, x: Tensor, tables: FloatArray, table_index: NDArray[np.int32], second: NDArray[np.int32] | None = None
    ) -> Tensor:
        """Key switch, modulus switch, blind rotation, sample extraction."""
        device = self.keys.device
        index = torch.from_numpy(table_index).to(device, torch.int64).repeat(len(x))
        on_device = torch.from_numpy(np.ascontiguousarray(tables, dtype=np.float64)).to(device)
        places = None if second is None else torch.from_numpy(second).to(device)[index]
        found = pbs(x.flatten(0, 1), self.keys, on_device, index, places)
        return torch.cat(found.view(-1, *x.shape[:2], found.shape[-1]).unbind(), dim=1)

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The rows from ``start`` up to ``stop``."""
        return x[:, start:stop]

    def room(self, count: int, like: Tensor) -> Tensor:
        """Room for ``count`` rows of each image, under the keys of ``like``."""
        return like.new_empty((len(like), count, like.shape[-1]))

    def put(self, room: Tensor, start: int, part: Tensor) -> None:
        """Writes rows into a room, from ``start`` on."""
        room[:, start : start + part.shape[1]] = part

    def _under_same_keys(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        if a.shape[-1] == b.shape[-1]:
            return a, b
        return self._under_both_keys(a), self._under_both_keys(b)

    def _under_both_keys(self, x: Tensor) -> Tensor:
        """The same rows with a mask of zeros for the key that they lack."""
        both, dimension = self.input_dimension + self.big_dimension, x.shape[-1] - 1
        if dimension == both:
            return x
        result = x.new_zeros((*x.shape[:-1], both + 1))
        start = 0 if dimension == self.input_dimension else self.input_dimension
        result[..., start : start + dimension] = x[..., :-1]
        result[..., -1] = x[..., -1]
        return result


def rows_together(device: torch.device) -> int:
    """Ciphertexts that are dealt with at once."""
    return CPU_ROWS if device.type == "cpu" else max(CPU_ROWS, min(MOST_ROWS, free_bytes(device) // BYTES_PER_ROW))


def images_together(program: Program, device: torch.device) -> int:
    """How many images are evaluated at once: as many as fill a card, and one on a CPU, whose caches hold no more."""
    largest = max(flat_size(program.input.shape), *(flat_size(stage.output_shape) for stage in program.stages))
    return 1 if device.type == "cpu" else max(1, rows_together(device) // largest)


def run(program: Program, keys: DeviceKeys, images: Sequence[Sequence[CkksCiphertext]]) -> Iterator[Progress]:
    """Evaluates a Program on encrypted images of one client, all of them slice by slice.

    Args:
        program: the network.
        keys: on the device.
        images: the ciphertexts of each, as he_layers.evaluate.run takes them.

    Yields:
        Progress after every slice, with the look-ups of each image; the last item has their answers.

    Raises:
        BadShapeError, WrongParamsError: see he_layers.evaluate.run.
        BusyError: the device's memory does not hold it.
    """
    for image in images:
        check_images(program, keys.params, image)
    if not program.lookups:
        yield multiplied(program, keys, images)
        return
    started = perf_counter()
    circuit = DeviceCircuit(keys)
    try:
        inputs = torch.stack(
            [torch.cat([lwe.sample_extract(ciphertext, keys.device) for ciphertext in image]) for image in images]
        )
        slices = walk(program, circuit, State.first(inputs), keys.params.polynomial_size)
        del inputs
        for done in slices:
            answers = () if done.logits is None else _pack(done.logits, program, keys, images)
            if keys.device.type == "cuda":
                torch.cuda.synchronize(keys.device)  # progress is told, and a job stopped, when the work is done
            yield Progress.of(done, program, seconds=perf_counter() - started, answers=answers)
    except torch.OutOfMemoryError as error:
        raise BusyError(
            f"{keys.device} has no memory left for {program.name} on {len(images)} images ({str(error).splitlines()[0]}): "
            "other programs use it, or the network is too large for this card"
        ) from None


def _pack(
    logits: Tensor, program: Program, keys: DeviceKeys, images: Sequence[Sequence[CkksCiphertext]]
) -> tuple[PackedAnswer, ...]:
    """On the host: a few rows, products modulo a prime of 50 bits, and randomness from the operating system."""
    return tuple(
        packing.packing_key_switch(LweCiphertextList(rows), keys, Binding.of(image, program.digest))
        for rows, image in zip(words_from(logits), images, strict=True)
    )
