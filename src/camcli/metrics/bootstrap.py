"""Bootstrap intervals of means, and of numbers made of means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

LEVEL = 0.95
DRAWS = 2000
# Numbers drawn at a time.
CHUNK = 2**20


def bootstrap_mean(
    values: Float64[np.ndarray, "n *t"],
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
    statistic: Callable[[Float64[np.ndarray, "m *t"]], Float64[np.ndarray, " m"]] | None = None,
) -> tuple[float, float] | None:
    """Return the percentile interval of the mean over samples drawn again with replacement; None of fewer than two.

    Efron and Tibshirani 1993, An introduction to the bootstrap, sec. 13.3.

    Args:
        values: a number, or several, of each image.
        seed: of the draws.
        draws: number of samples.
        level: share of the samples that the interval holds.
        statistic: from the means of samples to a number for each, if each mean is not that.
    """
    count = len(values)
    if count < 2:
        return None
    rng, found = np.random.default_rng(seed), list[float]()
    while len(found) < draws:
        some = min(draws - len(found), max(1, CHUNK // values.size))
        means = values[rng.integers(count, size=(some, count))].mean(1)
        found += (statistic(means) if statistic else means).tolist()
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
