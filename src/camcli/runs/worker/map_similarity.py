"""Similarity of the maps of an image, whose cells may differ, and its mean over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from camcli.images.placement import Placement
from camcli.images.view import View
from camcli.metrics import similarity

MEASURES = tuple(similarity.MEASURE_NAMES)
DIGITS = 6
# Pixels of the model's input up to which the places of cells, which are measured, are the same.
PLACE_TOLERANCE = 0.5

# A similarity of each two maps, NaN where undefined; and by measure.
Matrix = Float64[np.ndarray, "k k"]
Matrices = Mapping[str, Matrix]


@dataclass(frozen=True, slots=True)
class PlacedMap:
    """Map of an image, ``(h, w)``, and the part of the image that the model saw with the places of the map's cells."""

    map: Float32[np.ndarray, "h w"]
    view: View

    def has_cells_of(self, other: PlacedMap) -> bool:
        """Return whether both maps have the same cells in the same places of the same image."""
        if self.map.shape != other.map.shape or self.view.placed(None) != other.view.placed(None):
            return False
        own, others = (
            (one.view.placement or Placement.even(one.map.shape, one.view.input)).numbers for one in (self, other)
        )
        return bool(np.allclose(own, others, rtol=0, atol=PLACE_TOLERANCE))


def measure_similarity(maps: Sequence[PlacedMap | None]) -> tuple[dict[str, Matrix], Bool[np.ndarray, "k k"]]:
    """Compute Pearson's r, SSIM and overlap of each two maps of an image.

    Of maps with the same cells in the same places, r and overlap are of the cells that show the image, and SSIM of the
    maps at the model's input size, as in :data:`camcli.metrics.similarity.MEASURE_MEANINGS`. Of other maps all three
    are of the maps over the pixels of the image that all the models see, the image as large as the first one's input.

    Args:
        maps: the maps; None where one is missing.

    Returns:
        By measure a symmetric matrix, NaN where undefined or a map is missing; and which pairs share their cells.
    """
    matrices: dict[str, Matrix] = {name: np.full((len(maps), len(maps)), np.nan) for name in MEASURES}
    same = np.zeros((len(maps), len(maps)), bool)
    groups = _group_by_cells(maps)
    there = sorted(number for group in groups for number in group)
    if len(groups) > 1:
        for name, values in _compare_on_image([one for one in maps if one]).items():
            matrices[name][np.ix_(there, there)] = values
    for group in groups:
        block = np.ix_(group, group)
        same[block] = True
        for name, values in _compare_cells([one for number in group if (one := maps[number])]).items():
            matrices[name][block] = values
    return matrices, same


def _group_by_cells(maps: Sequence[PlacedMap | None]) -> list[list[int]]:
    """Return the numbers of the maps that are there, those of the same cells together."""
    groups: list[tuple[PlacedMap, list[int]]] = []
    for number, one in enumerate(maps):
        if one is None:
            continue
        for first, numbers in groups:
            if one.has_cells_of(first):
                numbers.append(number)
                break
        else:
            groups.append((one, [number]))
    return [numbers for _, numbers in groups]


def _compare_cells(maps: Sequence[PlacedMap]) -> dict[str, np.ndarray]:
    """Compare maps with the same cells."""
    view, both = maps[0].view, np.stack([one.map for one in maps])
    whole = view.view_of_input()
    pixels = np.stack([whole.onto_picture(map) for map in both])
    # The input's pixels divide it evenly, whatever the places of the map's cells.
    return _compare(
        both[:, *view.visible_window(both.shape[1:])], pixels[:, *view.placed(None).visible_window(view.input)]
    )


def _compare_on_image(maps: Sequence[PlacedMap]) -> dict[str, np.ndarray]:
    """Compare maps over the pixels of the image that all the models see."""
    view = maps[0].view
    height, width = view.picture
    scale = max(view.input) / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    drawn = np.stack([one.view.scale(*size).onto_picture(one.map) for one in maps])
    seen = np.isfinite(drawn).all(0)
    if not seen.any():
        return {}
    pixels = drawn[:, *np.ix_(seen.any(1), seen.any(0))]
    return _compare(pixels, pixels)


def _compare(cells: np.ndarray, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "pearson": similarity.pearson(cells),
        "ssim": similarity.ssim(pixels),
        "overlap": similarity.topk_iou(cells),
    }


class MeanSimilarity:
    """Mean similarity of each two maps over images; memory does not grow with these.

    Args:
        size: number of maps of an image.

    Attributes:
        counts: for each measure and pair, the number of images in which it is defined.
    """

    def __init__(self, size: int) -> None:
        self.counts = {name: np.zeros((size, size), np.int64) for name in MEASURES}
        self._sums = {name: np.zeros((size, size)) for name in MEASURES}

    def add(self, matrices: Matrices) -> None:
        """Add an image."""
        for name in MEASURES:
            self._sums[name] += np.nan_to_num(matrices[name])
            self.counts[name] += ~np.isnan(matrices[name])

    def average(self) -> dict[str, Matrix]:
        """Return, for each measure, the mean over the images; NaN where it is defined in none."""
        return {
            name: np.where(counts > 0, self._sums[name] / np.maximum(counts, 1), np.nan)
            for name, counts in self.counts.items()
        }

    def average_pairs(self, pairs: Bool[np.ndarray, "k k"]) -> dict[str, float | None]:
        """Return, for each measure, the mean over pairs and images; None where it is defined for none."""
        counts = {name: self.counts[name][pairs].sum() for name in MEASURES}
        return {
            name: round_value(self._sums[name][pairs].sum() / counts[name]) if counts[name] else None
            for name in MEASURES
        }


def round_value(value: float | np.floating[Any]) -> float:
    """Round a number as in the files."""
    return round(float(value), DIGITS)


def nan_to_none(values: Matrix) -> list[list[float | None]]:
    """Convert a matrix for JSON, with None in place of NaN."""
    return [[None if np.isnan(value) else round_value(value) for value in row] for row in values]


def none_to_nan(values: Sequence[Any]) -> Float[np.ndarray, "..."]:
    """Convert values from JSON, with NaN in place of None."""
    return np.array(values, np.float64)
