"""Summary of all images: the mean similarity of each two maps that differ in one thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camcli.runs.compare.grid import Grid
from camcli.runs.worker.map_similarity import MeanSimilarity, round_value


@dataclass(frozen=True, slots=True)
class PairSummary:
    """Mean similarity of two maps that differ in one thing.

    Attributes:
        one, other: the values in which they differ.
        shared: what both have.
        means: for each measure the mean over the images; None where it is defined in none.
        images: number of images in which r is defined.
    """

    one: str
    other: str
    shared: str
    means: dict[str, float | None]
    images: int


def list_pairs(grid: Grid, similarity: MeanSimilarity) -> list[PairSummary]:
    """Return the mean similarities of each two maps that differ in one thing."""
    means, counts = similarity.average(), similarity.counts
    return [
        PairSummary(
            *grid.name_pair(*pair),
            {name: None if np.isnan(one[pair]) else round_value(one[pair]) for name, one in means.items()},
            int(counts["pearson"][pair]),
        )
        for pair in grid.list_pairs()
    ]


def format_pair(pair: PairSummary) -> tuple[str, ...]:
    """Return the words of a pair for a table."""
    means = ("" if value is None else f"{value:+.3f}" for value in pair.means.values())
    return pair.one, pair.other, pair.shared, *means, str(pair.images)
