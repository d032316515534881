"""The whole blind rotation in one launch (blind_rotate.cu): on NVIDIA cards, polynomials of 512 coefficients, one decomposition level.

Compiled for the card on first use, and used there only after one step of it agreed with torch's own operations. Whoever loads the keys asks
for it: tests run it on the CPU (tests/gpu/test_fused.py), on a card it has not been measured yet (docs/gpu.md).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.gpu import blind_rotate
from ciphershift.he_layers.gpu.fourier import Fourier
from ciphershift.he_layers.gpu.nvrtc import Kernel, KernelError, compile_cubin, shared_memory_limit
from ciphershift.he_layers.gpu.steps import StepShape

SOURCE = Path(__file__).with_name("blind_rotate.cu")
POLYNOMIAL_SIZE, LANES, EXCHANGE, BYTES = 512, 16, 272, 16  # as the kernel has them
TOGETHER = (4, 3, 2)
"""Ciphertexts of one block: the more, the less often the key is read; what the card's shared memory holds is used."""
WORD_BOUND = 1 << 9
"""Largest difference of a word after one step: the rounding of two transforms (tests/he_layers/native/test_kernel.py)."""
_log = logging.getLogger("ciphershift.gpu")


def covers(params: ParameterSet) -> bool:
    """Whether the kernel is written for this parameter set."""
    return params.polynomial_size == POLYNOMIAL_SIZE and params.pbs.levels == 1


def defines(params: ParameterSet, together: int) -> dict[str, int]:
    """The kernel's macros."""
    shape = StepShape.of(params)
    return {
        "K1": shape.polynomials,
        "KEYS": shape.keys,
        "BITS": shape.bits,
        "PRODUCTS": int(shape.products),
        "BASE_LOG": params.pbs.base_log,
        "TOGETHER": together,
    }


def threads(params: ParameterSet, together: int) -> int:
    """Of one block."""
    return together * (params.glwe_dimension + 1) * LANES


def shared_bytes(params: ParameterSet, together: int) -> int:
    """Shared memory of one block: roots, twiddles, digits and sums, exponents."""
    points = 2 * POLYNOMIAL_SIZE + POLYNOMIAL_SIZE // 2 + 2 * together * (params.glwe_dimension + 1) * EXCHANGE
    return BYTES * points + 4 * together * StepShape.of(params).bits


def key_for_kernel(fourier_bsk: Tensor, shape: StepShape) -> Tensor:
    """complex128 [entries, M, outputs, rows], points in natural order -> [steps, keys, rows, outputs, M]."""
    grouped = fourier_bsk.reshape(shape.steps, shape.keys, *fourier_bsk.shape[1:])
    return grouped.permute(0, 1, 4, 3, 2).contiguous()


class FusedRotation:
    """The compiled kernels of one parameter set on one card."""

    def __init__(self, params: ParameterSet, fourier: Fourier, device: torch.device) -> None:
        """Compiles and loads; a second or two.

        Raises:
            KernelError: compiler or driver refuse it.
        """
        self.params, self.fourier, self.device = params, fourier, device
        major, minor = torch.cuda.get_device_capability(device)
        limit, source = shared_memory_limit(device), SOURCE.read_text(encoding="utf-8")
        self.kernels = {}
        for together in TOGETHER:
            if (shared := shared_bytes(params, together)) <= limit:
                cubin = compile_cubin(source, defines(params, together), f"sm_{major}{minor}")
                self.kernels[together] = Kernel(cubin, "blind_rotate", shared_bytes=shared, device=device)
        if not self.kernels:
            raise KernelError(f"a block of this card has {limit} bytes of shared memory, the kernel needs {shared}")
        self._processors = torch.cuda.get_device_properties(device).multi_processor_count

    def together(self, count: int) -> int:
        """As many ciphertexts a block as the card takes, or fewer if else some of its processors had none."""
        return next((few for few in sorted(self.kernels) if few * self._processors >= count), max(self.kernels))

    def __call__(
        self, switched: Tensor, tables: Tensor, table_index: Tensor, key: Tensor, *, together: int | None = None
    ) -> Tensor:
        """As blind_rotate.blind_rotate, with a key of key_for_kernel; as many steps as the key has."""
        count, chosen = len(switched), together or self.together(len(switched))
        out = torch.empty((count, self.params.big_dimension + 1), dtype=torch.int32, device=self.device)
        arguments: list[Tensor | int] = [
            switched.contiguous(),
            tables,
            table_index.to(torch.int32),
            key,
            self.fourier.roots,
            out,
            count,
            len(key),
        ]
        self.kernels[chosen].launch(-(-count // chosen), threads(self.params, chosen), arguments)
        return out

    def worst_difference(self) -> int:
        """Largest difference of a word from torch's own operations, after one step with a random key, for each kernel."""
        shape, random = StepShape.of(self.params), torch.Generator(self.device).manual_seed(1)
        points, count = self.fourier.points, 9
        size = (shape.keys, points, shape.polynomials, shape.rows, 2)
        scale = 2.0**self.params.pbs.base_log / points
        raw = torch.view_as_complex(
            torch.randn(size, generator=random, device=self.device, dtype=torch.float64) * scale
        )
        one = replace(shape, steps=1)
        switched = torch.randint(
            2 * POLYNOMIAL_SIZE, (count, shape.bits + 1), generator=random, device=self.device, dtype=torch.int32
        )
        tables = torch.rand((2, POLYNOMIAL_SIZE), generator=random, device=self.device, dtype=torch.float64) / 2 - 0.25
        index = torch.arange(count, device=self.device) % 2
        acc = blind_rotate.load_tables(switched[:, -1], tables, index, self.params)
        blind_rotate.run_steps(acc, switched, blind_rotate.key_for_steps(raw, one), self.params, self.fourier)
        expected, key = blind_rotate.extract(acc), key_for_kernel(raw, one)
        results = [self(switched, tables, index, key, together=together) for together in self.kernels]
        return max(int((result - expected).abs().max()) for result in results)


@cache
def fused_rotation(params: ParameterSet, fourier: Fourier, device: torch.device) -> FusedRotation | None:
    """The kernels for a parameter set, or None where torch's own operations have to do; the log says why."""
    if device.type != "cuda" or torch.version.hip or not covers(params):
        return None
    try:
        fused = FusedRotation(params, fourier, device)
        difference = fused.worst_difference()
    except KernelError as error:
        _log.warning("no fused blind rotation for %s on %s: %s", params.name, device, error)
        return None
    if difference >= WORD_BOUND:
        _log.error(
            "the fused blind rotation for %s on %s is off by %d words and is not used", params.name, device, difference
        )
        return None
    return fused
