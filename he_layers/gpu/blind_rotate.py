"""Blind rotation and sample extraction by torch's own operations, a step of the key at a time (CGGI, eprint 2018/421, Algorithm 9).

As native/src/blind_rotate.hpp has it: the accumulator is on the torus in [-1/2, 1/2), here as complex [count, k + 1, M], and a step adds
the inverse transform of sum_c (X^a_c - 1) sum_r FFT(digit_r) key_cr. Every intermediate result goes through the device's memory;
he_layers.gpu.fused does all steps in one launch where the device and the parameter set allow it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ciphershift.he_layers.crypto.params import Gadget, ParameterSet
from ciphershift.he_layers.gpu.fourier import Fourier
from ciphershift.he_layers.gpu.steps import StepShape


def key_for_steps(fourier_bsk: Tensor, shape: StepShape) -> Tensor:
    """Brings a key into the order in which a step multiplies by it.

    Args:
        fourier_bsk: complex128 [entries, M, outputs, rows], points in natural order.
        shape: of the steps.

    Returns:
        [steps, M, keys * rows, outputs].
    """
    _, points, outputs, rows = fourier_bsk.shape
    grouped = fourier_bsk.reshape(shape.steps, shape.keys, points, outputs, rows)
    return grouped.permute(0, 2, 1, 4, 3).reshape(shape.steps, points, shape.keys * rows, outputs).contiguous()


def bytes_per_ciphertext(params: ParameterSet) -> int:
    """About what blind_rotate takes of the device's memory for each ciphertext."""
    shape = StepShape.of(params)
    arrays = 5 * shape.polynomials + 3 * shape.rows + shape.keys * (1 + 2 * shape.rows)
    return 16 * (params.polynomial_size // 2) * arrays


def blind_rotate(
    switched: Tensor, tables: Tensor, table_index: Tensor, key: Tensor, params: ParameterSet, fourier: Fourier
) -> Tensor:
    """Rotates the table of each ciphertext by its phase, and extracts the constant coefficient.

    Args:
        switched: int32 [count, n + 1] in 0..2N - 1.
        tables: float64 [tables, N], turns.
        table_index: int64 [count].
        key: of key_for_steps.
        params: of the key.
        fourier: of its polynomial size.

    Returns:
        int32 [count, k * N + 1].
    """
    acc = load_tables(switched[:, -1], tables, table_index, params)
    run_steps(acc, switched, key, params, fourier)
    return extract(acc)


def load_tables(body: Tensor, tables: Tensor, table_index: Tensor, params: ParameterSet) -> Tensor:
    """(0, ..., 0, X^-b v) for each table v: complex128 [count, k + 1, M]."""
    n = params.polynomial_size
    at = torch.arange(n, device=body.device) + body[:, None]
    values = tables[table_index].gather(1, at & (n - 1)) * (1 - 2 * ((at & n) != 0).to(torch.float64))
    acc = torch.zeros((len(body), params.glwe_dimension + 1, n // 2), dtype=torch.complex128, device=body.device)
    acc[:, -1] = torch.complex(values[:, : n // 2], values[:, n // 2 :])
    return acc


def run_steps(acc: Tensor, switched: Tensor, key: Tensor, params: ParameterSet, fourier: Fourier) -> None:
    """As many steps as the key has, on the accumulators in place."""
    shape, parts = StepShape.of(params), torch.view_as_real(acc)
    for step in range(len(key)):
        exponents = switched[:, step * shape.bits : (step + 1) * shape.bits]
        points = fourier.forward(decompose(acc, params.pbs))
        factors = shape.factors(exponents, fourier)
        products = (factors[:, :, None] * points[:, None]).reshape(len(acc), -1, fourier.points)
        sums = torch.bmm(products.permute(2, 0, 1).contiguous(), key[step])
        acc += fourier.inverse(sums.permute(1, 2, 0).contiguous())
        parts -= parts.round()


def decompose(acc: Tensor, gadget: Gadget) -> Tensor:
    """Digits as fractions of the torus, [count, k + 1, M] -> [count, (k + 1) * levels, M]: for each polynomial its levels in turn."""
    rest, found = torch.view_as_real(acc), []
    for level in range(1, gadget.levels + 1):
        unit = 2.0 ** (gadget.base_log * level)
        digit = (rest * unit).round() / unit
        rest = rest - digit
        found.append(torch.view_as_complex(digit))
    return torch.stack(found, dim=2).flatten(1, 2)


def extract(acc: Tensor) -> Tensor:
    """The constant coefficient of each accumulator as an LWE ciphertext, int32 [count, k * N + 1]."""
    coefficients = torch.cat([acc.real, acc.imag], dim=-1)
    mask = -torch.roll(coefficients[:, :-1].flip(-1), 1, dims=-1)
    mask[..., 0] = coefficients[:, :-1, 0]
    torus = torch.cat([mask.flatten(1), coefficients[:, -1, :1]], dim=1)
    return torch.floor(torus * 2.0**32 + 0.5).to(torch.int64).to(torch.int32)
