"""Similarity of maps before and after a change, and what it says."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from camcli.base.words import count_of
from camcli.images.view import View
from camcli.metrics import similarity
from camcli.outputs.style import rectify
from camcli.runs.sanity import SAME_FROM, SHIFTED_FROM, SanityRow, Verdict
from camcli.runs.worker.map_similarity import PlacedMap, measure_similarity

MEASURES = ("pearson", "spearman", "ssim")
# Bins of a map's histogram, between its least value and its greatest.
BINS = 100
# Method and layer.
Kind = tuple[str, str]


@dataclass(slots=True)
class Similarities:
    """Similarities of the maps of one method at one layer."""

    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MEASURES})
    rises: list[float] = field(default_factory=list)
    maps: int = 0
    undefined: int = 0
    equal: int = 0

    def add(self, before: np.ndarray, after: np.ndarray | None, view: View) -> None:
        """Add a map; ``after`` is None if it could not be made again, or no other class is there to explain."""
        self.maps += 1
        if after is None:
            self.undefined += 1
            return
        self.equal += np.array_equal(before, after)
        found = compare(_flatten(before), _flatten(after), view)
        if math.isnan(found["pearson"]):
            self.undefined += 1
            return
        for name, value in found.items():
            if not math.isnan(value):
                self.values[name].append(value)
        one, other = (measure_complexity(_flatten(map), view) for map in (before, after))
        self.rises += [other / one - 1] if one else []

    def make_row(self, kind: Kind, **words: Any) -> SanityRow:
        """Make the row of a step."""
        words |= {name: float(np.median(one)) if one else None for name, one in self.values.items()}
        words["rise"] = float(np.median(self.rises)) if self.rises else None
        words |= {"maps": self.maps, "undefined": self.undefined, "equal": self.equal}
        return SanityRow(method=kind[0], layer=kind[1], **words)


def compare(before: Float32[np.ndarray, "h w"], after: Float32[np.ndarray, "h w"], view: View) -> dict[str, float]:
    """Return the similarity of two maps with the same cells by each measure, NaN where undefined.

    It is of what shows the image: padding beyond it is left out.
    """
    matrices, _ = measure_similarity([PlacedMap(before, view), PlacedMap(after, view)])
    both = np.stack([before, after])[:, *view.visible_window(before.shape)]
    matrices["spearman"] = similarity.pearson(np.stack([*map(rank, both)]))
    return {name: float(matrices[name][0, 1]) for name in MEASURES}


def measure_complexity(map: Float32[np.ndarray, "h w"], view: View) -> float:
    """Return the entropy of the histogram of a map's values at the model's input size, where it shows the image.

    Its relative rise when all of a network is drawn anew is eMPRT (Hedström et al. 2024, arXiv:2405.02383).
    """
    pixels = view.view_of_input().onto_picture(map)[view.visible_window(view.input)]
    counts, _ = np.histogram(pixels, BINS)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def rank(map: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Return the rank of each value, from 1 on; equal ones share the mean of theirs.

    The correlation of ranks is Spearman's (Spearman 1904, doi:10.2307/1412159).
    """
    _, places, counts = np.unique(map, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(means[places].reshape(map.shape))


def _flatten(map: Float32[np.ndarray, "*d h w"]) -> Float32[np.ndarray, "h w"]:
    """Reduce a map with colours to the greatest magnitude over them, as for drawing."""
    return rectify(map) if map.ndim == 3 else map


def judge(rows: Iterable[SanityRow]) -> list[Verdict]:
    """Return the verdict of each test on each method at each layer."""
    curves: Mapping[tuple[str, str, str], list[SanityRow]] = defaultdict(list)
    for row in rows:
        curves[row.test, row.method, row.layer].append(row)
    return [_judge_curve(*key, curve) for key, curve in curves.items()]


def _judge_curve(test: str, method: str, layer: str, rows: Sequence[SanityRow]) -> Verdict:
    if test == "repeat":
        [row] = rows
        words = f"{row.equal} of {count_of(row.maps, 'map', 'are')} equal to the bit"
        return Verdict(test, method, layer, row.equal == row.maps, float(row.equal), words)
    if test == "full":
        [row] = rows
        words = "undefined" if row.rise is None else f"{row.rise:+.2f}"
        return Verdict(test, method, layer, None, row.rise, f"rise (eMPRT) {words}; nothing is judged by it")
    if test == "bottom-up":
        return Verdict(test, method, layer, None, None, "the curve alone; nothing is judged by it")
    half = rows[: max(1, len(rows) // 2)] if test == "cascade" else rows
    values = [row.pearson for row in half if row.pearson is not None]
    if not values:
        what = (
            "of another class could be compared; perhaps none competes"
            if test == "class"
            else ("of the changed network could be compared")
        )
        return Verdict(test, method, layer, None, None, f"no map {what}")
    value = float(np.mean(values))
    if test == "shift":
        return Verdict(test, method, layer, value >= SHIFTED_FROM, value, f"r {value:.2f}, at least {SHIFTED_FROM}")
    where = {
        "cascade": f"mean r {value:.2f} while the {len(half)} parts next to the output are drawn anew",
        "independent": f"mean r {value:.2f} over the parts",
        "class": f"r {value:.2f} with the map of another class",
    }[test]
    return Verdict(test, method, layer, value <= SAME_FROM, value, f"{where}, at most {SAME_FROM}")
