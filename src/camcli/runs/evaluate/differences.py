"""Differences of two kinds of maps by one metric, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from camcli.metrics import METRICS
from camcli.metrics.bootstrap import bootstrap_mean
from camcli.runs.evaluate.columns import MapKey, keep_defined

# Fewer images show nothing at 95%: even where all agree, a sign test has p = 2^(1 - n), which is 0.06 for five.
MIN_IMAGES = 6

Statistic = Callable[[Float64[np.ndarray, "m t"]], Float64[np.ndarray, " m"]]


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one kind of map is better than another.

    Attributes:
        low, high: 95% bootstrap interval over the images that both have a number of; positive is better.
        images: number of these.
    """

    low: float
    high: float
    images: int

    @property
    def is_judged(self) -> bool:
        """True if there are images enough to tell."""
        return self.images >= MIN_IMAGES

    @property
    def is_better(self) -> bool:
        """True if the first is better, as far as these images can show it."""
        return self.is_judged and self.low > 0

    @property
    def is_worse(self) -> bool:
        """True if the first is worse, as far as these images can show it."""
        return self.is_judged and self.high < 0


class Comparison:
    """Numbers of one metric, compared image by image.

    Args:
        metric: name of the metric.
        arrays: its numbers of each kind of map.
        seed: of the bootstrap.

    Attributes:
        row: the metric's row.
        arrays: of the numbers, those that the table's number is made of.
        statistic: from the mean numbers of several images to the number of these.
    """

    def __init__(self, metric: str, arrays: Mapping[MapKey, Float64[np.ndarray, "n t"]], seed: int) -> None:
        self.row = METRICS.find(metric)
        self.seed = seed
        self.statistic: Statistic = lambda means: means[:, 0]
        self.arrays = arrays
        if self.row.pooled:
            pooled = METRICS.load_function(self.row, self.row.pooled)
            self.statistic = lambda means: pooled(means[:, 1:])
        else:
            self.arrays = {key: array[:, :1] for key, array in arrays.items()}

    def subtract(self, one: MapKey, other: MapKey) -> Difference | None:
        """Return by how much one kind of map is better than another; None where that cannot be told."""
        if not self.row.better or other not in self.arrays:
            return None
        # A map that is undefined in all images has no curve.
        if self.arrays[one].shape != self.arrays[other].shape:
            return None
        sign = 1 if self.row.better == "higher" else -1

        def subtract(means: Float64[np.ndarray, "m 2 t"]) -> Float64[np.ndarray, " m"]:
            return np.asarray(sign * (self.statistic(means[:, 0]) - self.statistic(means[:, 1])))

        pairs = keep_defined(np.stack([self.arrays[one], self.arrays[other]], 1))
        interval = bootstrap_mean(pairs, self.seed, statistic=subtract)
        return Difference(*interval, len(pairs)) if interval else None
