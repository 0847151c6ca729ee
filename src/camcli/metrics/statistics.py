"""What is kept of many numbers that come batch by batch: statistics, and which were the greatest."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, Float64, Int64

T = TypeVar("T", bound=Hashable)

# What differs by less than this part of the greatest value is float32's rounding, and no spread.
FLAT = 1e-6


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of each of ``c`` channels over ``count`` pictures.

    Attributes:
        count: n.
        mean: of the values.
        max: the greatest.
        std: sqrt(sum (x - mean)^2 / n), that of these pictures; NumPy's ``std``.
        active: the share of values above zero.
        correlation: Pearson's r with the other number; NaN where it is undefined, since one of the two is constant.
    """

    count: int
    mean: Float64[np.ndarray, " c"]
    max: Float64[np.ndarray, " c"]
    std: Float64[np.ndarray, " c"]
    active: Float64[np.ndarray, " c"]
    correlation: Float64[np.ndarray, " c"]


class Moments:
    """Statistics of ``c`` channels, in one pass and in double precision; memory does not grow with the pictures.

    Each batch's mean and sum of squared (and mixed) deviations are merged into those of all before it, by the pairwise
    updating formulas of Chan, Golub and LeVeque 1983 (Algorithms for computing the sample variance, The American
    Statistician 37). Sums of squares are never formed, so a large mean costs no digits.

    Args:
        channels: c.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._mean = np.zeros(channels)
        self._squares = np.zeros(channels)
        self._least = np.full(channels, np.inf)
        self._most = np.full(channels, -np.inf)
        self._above = np.zeros(channels, np.int64)
        self._other = Beside()
        self._mixed = np.zeros(channels)

    def add(self, values: Float[np.ndarray, "n c"], beside: Float[np.ndarray, " n"] | None = None) -> None:
        """Take in a batch.

        Args:
            values: finite.
            beside: for each picture the number that the channels are compared with, in every batch or in none.
        """
        if not len(values):
            return
        values = np.asarray(values, np.float64)
        own = values.mean(0)
        around = values - own
        before, count = self.count, len(values)
        after = before + count
        step = own - self._mean
        weight = before * count / after
        if beside is not None:
            other = np.asarray(beside, np.float64)
            apart = other - other.mean()
            self._mixed += apart @ around + step * (other.mean() - self._other.mean) * weight
            self._other.add(other, before)
        self._squares += (around * around).sum(0) + step * step * weight
        self._mean += step * (count / after)
        self._least = np.minimum(self._least, values.min(0))
        self._most = np.maximum(self._most, values.max(0))
        self._above += (values > 0).sum(0)
        self.count = after

    def statistics(self) -> Statistics:
        """What was found.

        Raises:
            ValueError: nothing was taken in.
        """
        if not self.count:
            raise ValueError("no values were taken in")
        # Rounding of the mean must not give a constant channel a spread.
        spread = np.where(self._least == self._most, 0.0, np.sqrt(self._squares / self.count))
        size = np.maximum(np.abs(self._least), np.abs(self._most))
        known = (spread > FLAT * size) & (self._other.least < self._other.most)
        scale = np.where(known, np.sqrt(self._squares) * math.sqrt(self._other.squares), 1.0)
        correlation = np.where(known, np.clip(self._mixed / scale, -1, 1), np.nan)
        return Statistics(
            self.count, self._mean.copy(), self._most.copy(), spread, self._above / self.count, correlation
        )


class Beside:
    """The same of one number a picture."""

    def __init__(self) -> None:
        self.mean = self.squares = 0.0
        self.least, self.most = math.inf, -math.inf

    def add(self, values: Float64[np.ndarray, " n"], before: int) -> None:
        """Take in a batch, after so many others."""
        own, count = float(values.mean()), len(values)
        step = own - self.mean
        self.squares += float(((values - own) ** 2).sum()) + step * step * before * count / (before + count)
        self.mean += step * count / (before + count)
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))


class Greatest(Generic[T]):
    """For each of ``c`` channels the pictures with its greatest values; of equal ones the earlier.

    A value of exactly zero counts for nothing: where a channel says nothing at all, no picture drives it.

    Args:
        channels: c.
        most: how many are kept of each.
    """

    def __init__(self, channels: int, most: int) -> None:
        self._values = np.full((channels, most), -np.inf)
        self._numbers = np.full((channels, most), -1, np.int64)
        self._known: dict[int, T] = {}
        self._met = 0

    def add(self, values: Float[np.ndarray, "n c"], pictures: Sequence[T]) -> None:
        """Take in a batch of pictures and what each channel says of them."""
        most = self._values.shape[1]
        fresh = np.where(values == 0, -np.inf, values).T.astype(np.float64)
        numbers = np.arange(self._met, self._met + len(pictures))
        self._known |= dict(zip(numbers.tolist(), pictures, strict=True))
        self._met += len(pictures)
        all_values = np.concatenate([self._values, fresh], axis=1)
        all_numbers = np.concatenate([self._numbers, np.broadcast_to(numbers, fresh.shape)], axis=1)
        # Stable, so that of equal values the earlier picture stays.
        order = np.argsort(-all_values, axis=1, kind="stable")[:, :most]
        self._values = np.take_along_axis(all_values, order, 1)
        self._numbers = np.take_along_axis(all_numbers, order, 1)
        if len(self._known) > 2 * self._numbers.size:
            kept: Int64[np.ndarray, " k"] = np.unique(self._numbers)
            self._known = {number: self._known[number] for number in kept.tolist() if number in self._known}

    def of(self, channel: int) -> list[tuple[T, float]]:
        """A channel's pictures with their values, the greatest first."""
        pairs = zip(self._numbers[channel].tolist(), self._values[channel].tolist(), strict=True)
        return [(self._known[number], value) for number, value in pairs if value > -math.inf]


def chance(channels: int, count: int) -> float | None:
    """The |r| that the best of so many channels reaches about every other time though none has to do with the number.

    Of ``channels`` independent normal variables and one more, over ``count`` pictures: the median of the greatest
    ``|r|``, by Fisher's z, whose standard deviation is 1 / sqrt(count - 3). None where that is not defined.
    """
    if count <= 3:
        return None
    share = 0.5 ** (1 / channels)
    return math.tanh(NormalDist().inv_cdf((1 + share) / 2) / math.sqrt(count - 3))
