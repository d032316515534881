"""A few samples of one figure, as every benchmark writes them: median, 10th and 90th percentile, and how many there were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spread(seconds: Sequence[float]) -> dict[str, float | int]:
    """Returns median_s, p10_s, p90_s and samples."""
    low, median, high = (round(float(value), 4) for value in np.quantile(seconds, [0.1, 0.5, 0.9]))
    return {"median_s": median, "p10_s": low, "p90_s": high, "samples": len(seconds)}
