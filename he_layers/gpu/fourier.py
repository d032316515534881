"""The negacyclic Fourier transform of native/src/fft.hpp by torch.fft, its points in natural order.

A real polynomial of N coefficients is folded into M = N/2 complex points z_j = c_j + i c_{j+M}; point u is exp(i pi (1 + 4 u) / N).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Fourier:
    """Transforms for one polynomial size, with their tables on one device."""

    def __init__(self, polynomial_size: int, device: torch.device) -> None:
        """Makes the tables."""
        n = polynomial_size
        self.points = n // 2
        angles = torch.arange(2 * n, dtype=torch.float64, device=device) * (math.pi / n)
        self.roots = torch.polar(torch.ones_like(angles), angles)  # [2N]: exp(i pi r / N)
        self._twist = self.roots[: self.points]
        self._odd = 1 + 4 * torch.arange(self.points, device=device)

    def forward(self, z: Tensor) -> Tensor:
        """[..., M] -> the values at the M points."""
        values: Tensor = torch.fft.ifft(z * self._twist, norm="forward")
        return values

    def inverse(self, values: Tensor) -> Tensor:
        """M times the polynomial of these values; a Fourier key has the factor 1 / M in it."""
        z: Tensor = torch.fft.fft(values)
        return z * self._twist.conj()

    def monomials(self, exponents: Tensor) -> Tensor:
        """The values of X^a for each a in 0..2N - 1; int32 [...] -> [..., M]."""
        return self.roots[(exponents[..., None] * self._odd) & (len(self.roots) - 1)]


def natural_order(points: int) -> NDArray[np.int64]:
    """Where point u stands in the kernel's order, which is bit-reversed."""
    bits = points.bit_length() - 1
    return np.array([int(f"{u:0{bits}b}"[::-1], 2) for u in range(points)])
