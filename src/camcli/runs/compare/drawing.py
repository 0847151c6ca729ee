"""Drawing of maps as cells of a sheet, on scales that several share."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.images.source import Picture, PictureSource
from camcli.images.view import is_fine
from camcli.outputs import Normalize
from camcli.outputs.contour import draw_contours
from camcli.outputs.heatmap import draw_heatmap
from camcli.outputs.overlay import draw_overlay
from camcli.outputs.panel import format_value
from camcli.outputs.sheet import ColourBar
from camcli.outputs.signed import draw_signed, signed_peak
from camcli.outputs.style import Style, peak_value, rectify
from camcli.runs.compare import Axis, CompareJob
from camcli.runs.compare.explain import Cell
from camcli.runs.compare.grid import Arrangement, Grid

DRAWERS: dict[str, Callable[[Picture, Explanation, Style], UInt8[np.ndarray, "h w 3"]]] = {
    "overlay": draw_overlay,
    "heatmap": draw_heatmap,
    "contour": draw_contours,
    "signed": draw_signed,
}
OWN_SCALES = ("image", "range")


def measure_peak(cell: Cell, drawing: str) -> float:
    """Return the value that is drawn at full strength when a map has a scale of its own; NaN without a map.

    Args:
        cell: the map.
        drawing: how it is drawn.
    """
    if not isinstance(cell, Explanation):
        return math.nan
    assert cell.view is not None  # every compared map has one
    fine = is_fine(cell.map, cell.view)
    return signed_peak(cell.map, fine) if drawing == "signed" else peak_value(cell.map, fine)


@dataclass(slots=True)
class Scales:
    """Values at full strength, of all maps.

    Attributes:
        mode: which maps share one: a value of :data:`camcli.runs.compare.ColourScale`.
        drawing: how maps are drawn.
        colormap: name of the colour map.
        rows, columns: the axes of the sheets.
    """

    mode: str
    drawing: str
    colormap: str
    rows: Axis
    columns: Axis
    _greatest: dict[tuple[str, int], float]

    @classmethod
    def from_peaks(
        cls, compare_job: CompareJob, arrangement: Arrangement, grid: Grid, peaks: Sequence[Sequence[float]]
    ) -> Scales:
        """Find the scales.

        Args:
            compare_job: says which maps share a scale.
            arrangement: what is in rows and columns.
            grid: the maps of each image.
            peaks: of each image, the value at full strength of each map; NaN where it has none.
        """
        greatest: dict[tuple[str, int], float] = defaultdict(float)
        for image, values in enumerate(peaks):
            for place, value in zip(grid.places, values, strict=True):
                whole = {**place, "images": image}
                for key in (("run", 0), ("row", whole[arrangement.rows]), ("column", whole[arrangement.columns])):
                    if value > greatest[key]:  # no comparison with NaN is true
                        greatest[key] = value
        job = compare_job.job
        return cls(
            compare_job.normalize, compare_job.draw, job.colormap, arrangement.rows, arrangement.columns, dict(greatest)
        )

    def find(self, cell: Explanation, row: int, column: int) -> float:
        """Return the value at full strength of a map in a row and column, numbered over all sheets."""
        if self.mode in OWN_SCALES:
            return measure_peak(cell, self.drawing)
        return 1.0 if self.mode == "none" else self._greatest.get(self._key(row, column), 0.0)

    def _key(self, row: int, column: int) -> tuple[str, int]:
        return self.mode, {"row": row, "column": column}.get(self.mode, 0)

    def describe(self, cell: Explanation, peak: float) -> str:
        """Describe the scale of a map, if it is the map's own: the value at full strength."""
        if self.mode not in OWN_SCALES:
            return ""
        if self.mode == "range":
            return f"{format_value(float(rectify(cell.map).min()))} to {format_value(peak)}"
        return f"{'max |value|' if self.drawing == 'signed' else 'max'} {format_value(peak)}"

    def make_bar(self, mode: str, number: int = 0) -> ColourBar | None:
        """Return the bar of a row's or column's scale, or of the sheet's; None if these have none.

        Args:
            mode: ``row``, ``column``, or ``run`` for the sheet's.
            number: number of the row or column over all sheets.
        """
        if self.drawing == "contour":
            return None
        if mode in ("row", "column"):
            return self._make_bar(self._greatest.get((mode, number), 0.0), "") if self.mode == mode else None
        if self.mode in ("run", "none"):
            value = 1.0 if self.mode == "none" else self._greatest.get(("run", 0), 0.0)
            words = "for all maps" if self.mode == "run" else "not normalised; values above are drawn as 1"
            return self._make_bar(value, words)
        if self.mode == "image":
            low, words = ("-100%", "the greatest magnitude") if self.drawing == "signed" else ("0", "the maximum")
            return ColourBar(self._colours, low, "100%", f"of {words} of each map, which is given below it")
        if self.mode == "range":
            words = "from the minimum to the maximum of each map, which are given below it"
            return ColourBar(self._colours, "0", "100%", words)
        return None

    @property
    def _colours(self) -> str:
        return "" if self.drawing == "signed" else self.colormap

    def _make_bar(self, value: float, words: str) -> ColourBar:
        low = format_value(-value) if self.drawing == "signed" else "0"
        return ColourBar(self._colours, low, format_value(value), words)


def draw_cell(
    cell: Explanation, pixels: UInt8[np.ndarray, "h w 3"], full_scale: float, compare_job: CompareJob, untrained: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a map as ``camcli explain`` draws it, over the image at a sheet's size.

    Args:
        cell: the map.
        pixels: the image at that size.
        full_scale: the value at full strength.
        compare_job: says how it is drawn.
        untrained: the weights are random: the drawing has a banner.

    Raises:
        PictureError: it cannot be drawn.
    """
    job = compare_job.job
    normalize: Normalize = "range" if compare_job.normalize == "range" else "run"
    style = Style(job.colormap, job.alpha, normalize, full_scale, job.outside, untrained=untrained)
    assert cell.view is not None  # every compared map has one
    if not np.isfinite(cell.map).all():
        raise PictureError("the map has values that are not finite")
    view = cell.view.scale(*pixels.shape[:2])
    picture = Picture(PictureSource(cell.source, ""), pixels, view)
    return DRAWERS[compare_job.draw](picture, replace(cell, view=view), style)
