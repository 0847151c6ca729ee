"""Running statistics and greatest values of numbers that come batch by batch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, Float64, Int64

T = TypeVar("T", bound=Hashable)

# A standard deviation below this share of the greatest value is rounding of float32: the channel is constant.
CONSTANT_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of each of ``c`` channels over ``count`` images.

    Attributes:
        count: number of images n.
        mean: mean of the values.
        max: greatest value.
        std: sqrt(sum (x - mean)^2 / n), as NumPy's ``std``.
        active: share of values above zero.
        correlation: Pearson's r with the paired number; NaN where one of the two is constant.
    """

    count: int
    mean: Float64[np.ndarray, " c"]
    max: Float64[np.ndarray, " c"]
    std: Float64[np.ndarray, " c"]
    active: Float64[np.ndarray, " c"]
    correlation: Float64[np.ndarray, " c"]


class RunningStats:
    """Statistics of ``c`` channels, in one pass, double precision and constant memory.

    The mean and the sum of squared (and mixed) deviations of each batch are merged into those of the batches before, by
    the pairwise updating formulas of Chan, Golub and LeVeque 1983 (Algorithms for computing the sample variance, The
    American Statistician 37). Sums of squares are never formed, so that a large mean costs no digits.

    Args:
        channels: number of channels c.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._mean = np.zeros(channels)
        self._squared_deviations = np.zeros(channels)
        self._min = np.full(channels, np.inf)
        self._max = np.full(channels, -np.inf)
        self._positive_count = np.zeros(channels, np.int64)
        self._paired = RunningScalar()
        self._mixed_deviations = np.zeros(channels)

    def add(self, values: Float[np.ndarray, "n c"], paired: Float[np.ndarray, " n"] | None = None) -> None:
        """Add a batch.

        Args:
            values: finite values.
            paired: the number of each image to correlate the channels with, in every batch or in none.
        """
        if not len(values):
            return
        values = np.asarray(values, np.float64)
        batch_mean = values.mean(0)
        deviations = values - batch_mean
        before, count = self.count, len(values)
        after = before + count
        step = batch_mean - self._mean
        weight = before * count / after
        if paired is not None:
            paired_values = np.asarray(paired, np.float64)
            paired_deviations = paired_values - paired_values.mean()
            self._mixed_deviations += (
                paired_deviations @ deviations + step * (paired_values.mean() - self._paired.mean) * weight
            )
            self._paired.add(paired_values, before)
        self._squared_deviations += (deviations * deviations).sum(0) + step * step * weight
        self._mean += step * (count / after)
        self._min = np.minimum(self._min, values.min(0))
        self._max = np.maximum(self._max, values.max(0))
        self._positive_count += (values > 0).sum(0)
        self.count = after

    def compute(self) -> Statistics:
        """Return the statistics of all batches.

        Raises:
            ValueError: no batch was added.
        """
        if not self.count:
            raise ValueError("no values were added")
        # Rounding of the mean must not give a constant channel a standard deviation.
        std = np.where(self._min == self._max, 0.0, np.sqrt(self._squared_deviations / self.count))
        size = np.maximum(np.abs(self._min), np.abs(self._max))
        is_defined = (std > CONSTANT_TOLERANCE * size) & (self._paired.min < self._paired.max)
        scale = np.where(
            is_defined, np.sqrt(self._squared_deviations) * math.sqrt(self._paired.squared_deviations), 1.0
        )
        correlation = np.where(is_defined, np.clip(self._mixed_deviations / scale, -1, 1), np.nan)
        return Statistics(
            self.count, self._mean.copy(), self._max.copy(), std, self._positive_count / self.count, correlation
        )


class RunningScalar:
    """Running statistics of a single number an image."""

    def __init__(self) -> None:
        self.mean = self.squared_deviations = 0.0
        self.min, self.max = math.inf, -math.inf

    def add(self, values: Float64[np.ndarray, " n"], count_before: int) -> None:
        """Add a batch of values after ``count_before`` others."""
        batch_mean, count = float(values.mean()), len(values)
        step = batch_mean - self.mean
        self.squared_deviations += float(((values - batch_mean) ** 2).sum()) + step * step * count_before * count / (
            count_before + count
        )
        self.mean += step * count / (count_before + count)
        self.min, self.max = min(self.min, float(values.min())), max(self.max, float(values.max()))


class TopK(Generic[T]):
    """Images of the ``k`` greatest values for each of ``c`` channels; of equal values the earlier.

    Values of exactly zero are ignored: no image activates a channel there.

    Args:
        channels: number of channels c.
        k: number of images kept for each.
    """

    def __init__(self, channels: int, k: int) -> None:
        self._values = np.full((channels, k), -np.inf)
        self._numbers = np.full((channels, k), -1, np.int64)
        self._items: dict[int, T] = {}
        self._count = 0

    def add(self, values: Float[np.ndarray, "n c"], pictures: Sequence[T]) -> None:
        """Add a batch of images and each channel's values for them."""
        k = self._values.shape[1]
        fresh = np.where(values == 0, -np.inf, values).T.astype(np.float64)
        numbers = np.arange(self._count, self._count + len(pictures))
        self._items |= dict(zip(numbers.tolist(), pictures, strict=True))
        self._count += len(pictures)
        all_values = np.concatenate([self._values, fresh], axis=1)
        all_numbers = np.concatenate([self._numbers, np.broadcast_to(numbers, fresh.shape)], axis=1)
        # Stable, so that the earlier image of two with equal values is kept.
        order = np.argsort(-all_values, axis=1, kind="stable")[:, :k]
        self._values = np.take_along_axis(all_values, order, 1)
        self._numbers = np.take_along_axis(all_numbers, order, 1)
        if len(self._items) > 2 * self._numbers.size:
            kept: Int64[np.ndarray, " k"] = np.unique(self._numbers)
            self._items = {number: self._items[number] for number in kept.tolist() if number in self._items}

    def top_of(self, channel: int) -> list[tuple[T, float]]:
        """Return a channel's images with their values, the greatest first."""
        pairs = zip(self._numbers[channel].tolist(), self._values[channel].tolist(), strict=True)
        return [(self._items[number], value) for number, value in pairs if value > -math.inf]


def chance_correlation(channels: int, count: int) -> float | None:
    """Return the median of the greatest |r| among so many channels that are independent of the number.

    It is that of ``channels`` independent normal variables with one more, over ``count`` images, by Fisher's z, whose
    standard deviation is 1 / sqrt(count - 3). None where that is undefined.
    """
    if count <= 3:
        return None
    share = 0.5 ** (1 / channels)
    return math.tanh(NormalDist().inv_cdf((1 + share) / 2) / math.sqrt(count - 3))
