"""Bootstrap intervals of means."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

LEVEL = 0.95
DRAWS = 2000
# Numbers drawn at a time.
CHUNK = 2**20


def bootstrap_mean(
    values: Float64[np.ndarray, " n"], seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the percentile interval of the mean over samples drawn again with replacement; None of fewer than two.

    Efron and Tibshirani 1993, An introduction to the bootstrap, sec. 13.3.
    """
    count = len(values)
    if count < 2:
        return None
    rng, means = np.random.default_rng(seed), list[float]()
    while len(means) < draws:
        some = min(draws - len(means), max(1, CHUNK // count))
        means += values[rng.integers(count, size=(some, count))].mean(1).tolist()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
