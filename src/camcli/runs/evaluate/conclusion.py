"""What the numbers of several methods say of them, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from camcli.base.words import count_of
from camcli.runs.evaluate.columns import MapKey, Numbers
from camcli.runs.evaluate.differences import MIN_IMAGES, Comparison
from camcli.runs.evaluate.ranks import Rank
from camcli.runs.evaluate.summary import BLURRED_COPY, TableRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A method against its controls.

    Attributes:
        map, layer: name of the method, and its layer if there are several.
        judged: metrics with a better direction, a control that proves anything, and images enough.
        above_controls: those by which it is better than every control.
        above_blurred: those by which it is better than its blurred copy.
    """

    map: str
    layer: str
    judged: tuple[str, ...]
    above_controls: tuple[str, ...]
    above_blurred: tuple[str, ...]

    @property
    def words(self) -> str:
        """The standing in words."""
        if not self.judged:
            return f"{_name(self.map, self.layer)}: no metric can judge it"
        return (
            f"{_name(self.map, self.layer)} beats every control by {_count(self.above_controls, len(self.judged))}, "
            f"and its blurred copy by {_count(self.above_blurred, 0)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """The method that comes first against another.

    Attributes:
        map, layer: name of the first, and its layer if there are several.
        other, other_layer: those of the other.
        judged: metrics with a better direction that both have images enough of.
        better, worse: those by which the first is better, or worse, than the other.
    """

    map: str
    layer: str
    other: str
    other_layer: str
    judged: tuple[str, ...]
    better: tuple[str, ...]
    worse: tuple[str, ...]

    def describe(self, images: int) -> str:
        """Return it in words."""
        one, two = _name(self.map, self.layer), _name(self.other, self.other_layer)
        if not self.judged:
            return f"{one} and {two}: no metric can judge them"
        if not self.better and not self.worse:
            return f"{images} images do not separate {one} and {two}: by no metric is one better, image by image"
        ways = ((one, two, _count(self.better, len(self.judged))), (two, one, _count(self.worse, 0)))
        return "; ".join(f"{first} beats {second} by {found}" for first, second, found in ways)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """Standings of the methods against their controls, and of the best against the others.

    Attributes:
        images: number of images.
        least_images: number of images from which on anything is judged.
        standings: the methods against their controls, the one of best mean rank first.
        duels: the first against each of the others.
    """

    images: int
    least_images: int
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]

    @property
    def lines(self) -> Iterator[str]:
        """Its words, line by line."""
        count = count_of(self.images, "image")
        if self.images < self.least_images:
            yield f"conclusion: none from {count}; methods are judged from {self.least_images} images on"
            return
        yield (
            f"conclusion from {count}, by 95% intervals of the differences image by image, which are wide with few "
            f"images (judged from {self.least_images} on):"
        )
        yield from (f"  {one.words}" for one in self.standings)
        yield from (f"  {one.describe(self.images)}" for one in self.duels)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, with its words."""
        return {**asdict(self), "words": [line.strip() for line in self.lines]}


def draw_conclusion(numbers: Numbers, rows: Sequence[TableRow], ranks: Sequence[Rank], seed: int = 0) -> Conclusion:
    """Compare the methods with their controls, and the one of best mean rank with each of the others.

    Args:
        numbers: those of each image.
        rows: the table of these.
        ranks: ranks of the methods; of fewer than two, or where no metric has any, the methods stay in their order.
        seed: of the bootstrap.
    """
    keys = _order_methods(rows, ranks)
    comparisons = [Comparison(metric, arrays, seed) for metric, arrays in numbers.iter_metrics()]
    return Conclusion(
        images=numbers.count,
        least_images=MIN_IMAGES,
        standings=tuple(_judge(key, rows) for key in keys),
        duels=tuple(_compare(keys[0], other, comparisons) for other in keys[1:]),
    )


def _order_methods(rows: Sequence[TableRow], ranks: Sequence[Rank]) -> list[MapKey]:
    """Return the methods by the mean over the metrics of their mean ranks."""

    def average(key: MapKey) -> float:
        return fmean([one.rank for one in ranks if (one.map, one.layer) == key[1:]] or [0.0])

    return sorted(dict.fromkeys(row.key for row in rows if row.kind == "method"), key=average)


def _judge(key: MapKey, rows: Sequence[TableRow]) -> Standing:
    judged = [row for row in rows if row.key == key and row.images >= MIN_IMAGES and (row.above or row.not_above)]
    return Standing(
        map=key[1],
        layer=key[2],
        judged=tuple(row.metric for row in judged),
        above_controls=tuple(
            row.metric for row in judged if {*row.above} - {BLURRED_COPY} and not {*row.not_above} - {BLURRED_COPY}
        ),
        above_blurred=tuple(row.metric for row in judged if BLURRED_COPY in row.above),
    )


def _compare(one: MapKey, other: MapKey, comparisons: Sequence[Comparison]) -> Duel:
    found = {
        each.row.name: difference
        for each in comparisons
        if one in each.arrays and (difference := each.subtract(one, other)) and difference.is_judged
    }
    return Duel(
        map=one[1],
        layer=one[2],
        other=other[1],
        other_layer=other[2],
        judged=tuple(found),
        better=tuple(name for name, difference in found.items() if difference.is_better),
        worse=tuple(name for name, difference in found.items() if difference.is_worse),
    )


def _name(map: str, layer: str) -> str:
    return f"{map} at {layer}" if layer else map


def _count(found: Sequence[str], of: int) -> str:
    if not found:
        return f"none of {count_of(of, 'metric')}" if of else "none"
    return f"{len(found)} of {count_of(of, 'metric')} ({', '.join(found)})" if of else ", ".join(found)
