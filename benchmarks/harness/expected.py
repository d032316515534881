"""Checks of encrypted answers: the plaintext network's logits, within the noise of the circuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.served import served_params
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program

REPEATS = 30  # of the simulation
TOLERANCE = 6.0  # standard deviations


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedLogits:
    """Mean and spread of the logits of some images under the circuit's noise, [images, classes] each."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, program: Program, images: NDArray[np.uint8], engine: str | None = None) -> Self:
        """Simulates; a thousandth of the largest logit is added to the spread, since there are few repeats.

        Args:
            program: the network.
            images: uint8 [B, C, H, W].
            engine: the server's, if not the default.
        """
        rng, served = np.random.default_rng(0), served_params(program, engine)
        runs = np.stack([simulate.run(program, served, images, rng) for _ in range(REPEATS)])
        return cls(mean=runs.mean(axis=0), spread=runs.std(axis=0) + np.abs(runs).max() / 1000)

    def deviation(self, logits: NDArray[np.float64], images: NDArray[np.intp] | slice) -> NDArray[np.float64]:
        """Returns how far each answer's worst logit is from what the image numbers in `images` give, in standard deviations."""
        worst: NDArray[np.float64] = np.max(np.abs(logits - self.mean[images]) / self.spread[images], axis=1)
        return worst

    def fit(self, logits: NDArray[np.float64], images: NDArray[np.intp] | slice) -> bool:
        """Whether answers can be those to these images."""
        return bool(np.all(self.deviation(logits, images) < TOLERANCE))
