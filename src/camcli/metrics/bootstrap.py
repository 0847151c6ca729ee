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


def bootstrap_curve(
    values: Float64[np.ndarray, "n t"], seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> tuple[Float64[np.ndarray, " t"], Float64[np.ndarray, " t"]] | None:
    """Return the percentile interval of each number's mean, as :func:`bootstrap_mean` does; None of fewer than two.

    Args:
        values: several numbers of each image.
        seed: of the draws.
        draws: number of samples.
        level: share of the samples that each interval holds.
    """
    count = len(values)
    if count < 2:
        return None
    rng, found = np.random.default_rng(seed), list[Float64[np.ndarray, "m t"]]()
    for first in range(0, draws, some := max(1, CHUNK // count)):
        picked = rng.integers(count, size=(min(some, draws - first), count))
        # How often each image is in each sample.
        rows = np.arange(len(picked))[:, None] * count
        times = np.bincount((rows + picked).ravel(), minlength=picked.size).reshape(picked.shape)
        found.append(times @ values / count)
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
