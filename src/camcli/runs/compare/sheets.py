"""Sheets of compared maps: which image and map is in which cell, with captions, scales and similarities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.metrics.similarity import MEASURE_NAMES, TOP_SHARE
from camcli.outputs.matrix import draw_matrix
from camcli.outputs.sheet import GAP, TEXT, Layout, Sheet, SheetColumn, SheetRow, SheetTile, wrap_text
from camcli.runs.compare import SIDE, Axis, CompareJob
from camcli.runs.compare.drawing import Scales, draw_cell
from camcli.runs.compare.explain import Missing, Subject
from camcli.runs.compare.grid import Arrangement, Grid
from camcli.runs.compare.merge import ComparedImage
from camcli.runs.compare.words import (
    describe_fixed,
    describe_measures,
    describe_numbers,
    list_numbers,
    make_title,
    name_image,
)
from camcli.runs.record.failures import format_error
from camcli.runs.worker.map_similarity import MEASURES, Matrices
from camcli.runs.worker.threads import batched

TEXT_WIDTH, ROW_NAME = 172, 17
# Tile in which there is nothing to see.
BLANK = SheetTile("", np.full((1, 1, 3), 255, np.uint8))
# A smaller probability is not written out.
LEAST_SHOWN = 0.01
# More maps than this are not compared in a matrix on the sheet.
MAX_MATRIX = 24
SHORT_NAMES = {"pearson": "r", "ssim": "SSIM", "overlap": f"top {TOP_SHARE:.0%}"}


@dataclass(frozen=True, slots=True)
class NumberedSheet:
    """A sheet.

    Attributes:
        sheet: its content.
        images: the images that it shows.
        columns: number of tiles in a row.
        matrices: a row at the end with the similarities, if there is one.
    """

    sheet: Sheet
    images: tuple[ComparedImage, ...]
    columns: int
    matrices: SheetRow | None = None


class SheetMaker:
    """Maker of sheets from images as they come.

    Args:
        compare_job: the job.
        subjects: what each pass explains.
        grid: the maps of each image.
        arrangement: what is in rows, columns and on sheets.
        scales: values at full strength.
    """

    def __init__(
        self,
        compare_job: CompareJob,
        subjects: Sequence[Subject],
        grid: Grid,
        arrangement: Arrangement,
        scales: Scales,
    ) -> None:
        self._job, self._subjects, self._grid = compare_job, subjects, grid
        self._arrangement, self._scales = arrangement, scales
        self.layout = Layout(SIDE, TEXT_WIDTH, ROW_NAME, compare_job.panel_side / SIDE)

    def make(self, images: Iterable[ComparedImage]) -> Iterator[NumberedSheet]:
        """Yield the sheets; as many images are held as one of them shows."""
        axis = self._arrangement.sheets
        shown = 1 if axis == "images" else self._job.per_sheet
        values = 1 if axis == "images" else len(self._grid.names[axis])
        for some in batched(images, shown):
            for value in range(values):
                yield self._make_sheet(some, {axis: value} if values > 1 else {})

    def _make_sheet(self, images: Sequence[ComparedImage], fixed: dict[Axis, int]) -> NumberedSheet:
        rows, columns = self._arrangement.rows, self._arrangement.columns
        places = [*self._list_values(rows, images)], [*self._list_values(columns, images)]
        # The image itself stands beside each row, or above each column; of one image once.
        beside = columns != "images"
        made = [] if beside else [SheetRow("image", [], [*map(self._make_picture, images)])]
        for at, row in enumerate(places[0]):
            tiles = [
                self._make_tile(self._choose_image(images, at, number), {**fixed, rows: row, columns: column})
                for number, column in enumerate(places[1])
            ]
            if rows == "images":
                tiles = [self._make_picture(images[at]), *tiles]
            elif beside:
                tiles = [self._make_picture(images[0]) if at == 0 else BLANK, *tiles]
            name = name_image(images[at]) if rows == "images" else self._grid.names[rows][row]
            made.append(SheetRow(name, self._list_row_lines(images, at), tiles, bar=self._scales.make_bar("row", row)))
        headings = [
            SheetColumn(
                self._grid.names[columns][column] if beside else name_image(images[number]),
                self._scales.make_bar("column", column),
            )
            for number, column in enumerate(places[1])
        ]
        one = images[0] if len(images) == 1 else None
        # Two maps have their similarity in a caption.
        numbered = one is not None and not fixed and 2 < len(self._grid) <= MAX_MATRIX and not self._job.plain
        matrices = self._make_matrix_row(one.similarity, ["of each two maps"]) if one and numbered else None
        headings = [SheetColumn("image"), *headings] if beside else headings
        sheet = Sheet("", (), made, (), headings, self._scales.make_bar("run"))
        if not self._job.plain:
            sheet = replace(
                sheet,
                title=make_title(self._grid, self._arrangement, images, fixed),
                heading=[*describe_fixed(self._grid, self._subjects, {rows, columns, *fixed})],
                footing=[*describe_numbers(self._grid, self._job.draw, self._is_framed(images), numbered)],
            )
        return NumberedSheet(sheet, tuple(images), len(headings), matrices)

    def _list_values(self, axis: Axis, images: Sequence[ComparedImage]) -> Iterable[int]:
        return [one.number for one in images] if axis == "images" else range(len(self._grid.names[axis]))

    def _choose_image(self, images: Sequence[ComparedImage], row: int, column: int) -> ComparedImage:
        if self._arrangement.rows == "images":
            return images[row]
        return images[column] if self._arrangement.columns == "images" else images[0]

    # ---- tiles

    def _make_picture(self, image: ComparedImage) -> SheetTile:
        """Make the tile of an image itself."""
        if image.pixels is None:
            return SheetTile("", reason=image.error or "")
        is_named = "images" in (self._arrangement.rows, self._arrangement.columns)
        return SheetTile("" if is_named else name_image(image), image.pixels)

    def _make_tile(self, image: ComparedImage, place: dict[Axis, int]) -> SheetTile:
        number = self._grid.find(place)
        cell = image.cells[number]
        if isinstance(cell, Missing):
            words = "no map" if image.pixels is None else f"no map: {cell.reason}" if cell.failed else cell.reason
            return SheetTile("", reason=words)
        assert image.pixels is not None  # an image with a map was read
        full = self._scales.find(cell, place[self._arrangement.rows], place[self._arrangement.columns])
        try:
            drawn = draw_cell(cell, image.pixels, full, self._job, self._is_untrained(number))
        except PictureError as error:
            return SheetTile("", reason=f"not drawn: {format_error(error)}")
        lines = [_describe_class(cell), *self._describe_alike(image, number, place), self._scales.describe(cell, full)]
        return SheetTile("\n".join(filter(None, lines)), drawn)

    def _is_untrained(self, number: int) -> bool:
        place = self._grid.places[number]
        return self._subjects[place["models"] * len(self._grid.names["scales"]) + place["scales"]].untrained

    def _describe_alike(self, image: ComparedImage, number: int, place: dict[Axis, int]) -> Iterator[str]:
        """Yield how alike a map is to the first one of its row, or of its column where images are in columns."""
        first = self._grid.find({**place, self._reference_axis: 0})
        if first != number:
            values = (f"{SHORT_NAMES[name]} {_format(image.similarity[name][first, number])}" for name in MEASURES)
            yield "  ".join(values)
        elif len(self._grid.names[self._reference_axis]) > 1:
            yield "others are compared with this map"

    @property
    def _reference_axis(self) -> Axis:
        axis = self._arrangement.columns
        if axis == "images":
            axis = self._arrangement.rows
        return "methods" if axis == "images" else axis

    # ---- words

    def _is_framed(self, images: Sequence[ComparedImage]) -> bool:
        """Return whether a frame is drawn in any cell."""
        if self._job.job.outside != "dim" or self._job.draw == "heatmap":
            return False
        views = [cell.view for one in images for cell in one.cells if isinstance(cell, Explanation)]
        seen = ((view.picture, view.crop()) for view in views if view)
        return any((rows.stop - rows.start, columns.stop - columns.start) != size for size, (rows, columns, _) in seen)

    def _list_row_lines(self, images: Sequence[ComparedImage], row: int) -> list[str]:
        """Return what is told of an image beside its row: the class that is predicted, by one model."""
        if self._job.plain or self._arrangement.rows != "images" or len(self._grid.names["models"]) > 1:
            return []
        labels = [one.predicted_label for one in images[row].cells if isinstance(one, Explanation)]
        found = next(filter(None, labels), None)
        return wrap_text(f"predicted: {found}", TEXT, self.layout.text_width - 2 * GAP) if found else []

    def _make_matrix_row(self, similarity: Matrices, lines: Sequence[str]) -> SheetRow:
        """Make a row of the similarities as matrices."""
        widest = max(SIDE, 3 * SIDE // len(MEASURES)) - GAP
        tiles = [
            SheetTile(MEASURE_NAMES[name], draw_matrix(similarity[name], widest, self.layout.scale))
            for name in MEASURES
        ]
        return SheetRow("similarity", [*lines, "by their numbers"], tiles)

    def make_summary(self, similarity: Matrices, images: int) -> NumberedSheet:
        """Make a sheet of the mean similarities over all images."""
        row = self._make_matrix_row(similarity, [f"mean over {images} images"])
        footing = [describe_measures(), list_numbers(self._grid)]
        sheet = Sheet("Similarity of the maps", [*describe_fixed(self._grid, self._subjects, set())], [], footing)
        return NumberedSheet(sheet, (), len(MEASURES), row)


def _describe_class(cell: Explanation) -> str:
    label = f"{cell.label} over {cell.versus}" if cell.versus else cell.label
    if cell.probability is not None:
        words = f"{cell.probability:.2f}" if cell.probability >= LEAST_SHOWN else f"<{LEAST_SHOWN}"
        return f"{words} {label}"
    return f"score {cell.score:.3g}, {label}"


def _format(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}"
