"""Boxes of objects in images, from a CSV file."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from camcli.base.delimited import find_column, normalize_title, read_rows, read_text
from camcli.base.errors import RequestError
from camcli.images.manifest import PathIndex, normalize
from camcli.images.manifest_rows import PICTURE_COLUMNS
from camcli.images.view import View

EDGES = ("x0", "y0", "x1", "y1")
FORMAT_HINT = "write the header image,x0,y0,x1,y1 (perhaps also label), then a line for each box"


@dataclass(frozen=True, slots=True)
class Box:
    """Box of an object.

    Attributes:
        edges: x0, y0, x1, y1 in pixels of the upright image, counted from its upper left corner.
        index: its class; None if it counts for every class.
    """

    edges: tuple[float, float, float, float]
    index: int | None = None


class BoxFile:
    """A CSV file with the boxes of objects, a line for each.

    Columns are named by the first row: that of the image, ``x0``, ``y0``, ``x1``, ``y1``, and perhaps ``label``.
    Without titles they come in this order. Images are named as for :class:`PathIndex`.

    Args:
        file: path of the file.
        find_class: from a label to its class.
        folders: folders that images are taken from.

    Attributes:
        unmatched: names in the file that match no image.

    Raises:
        RequestError: the file cannot be read; a row has no box, an unknown label, or names an image that two folders
            have.
    """

    def __init__(self, file: Path, find_class: Callable[[str], int], folders: Sequence[Path] = ()) -> None:
        self.file = file
        self._boxes: dict[Path, list[Box]] = defaultdict(list)
        names = PathIndex(file, folders)
        self.unmatched = names.unmatched
        for line, picture, edges, label in self._read_rows():
            try:
                box = Box(_parse_edges(edges), find_class(label) if label else None)
            except RequestError as error:
                raise RequestError(f"{file}, line {line} ({picture!r}): {error.message}", error.hint) from error
            place = names.find(picture, f"line {line}")
            if place is not None:
                self._boxes[place].append(box)

    def count_listed(self, paths: Iterable[Path]) -> int:
        """Return how many of these images the file has boxes of."""
        return sum(normalize(path) in self._boxes for path in paths)

    def find_region(self, path: Path, index: int, view: View) -> Bool[np.ndarray, "h w"]:
        """Return the pixels of the model's input whose centres lie in any box of a class in an image."""
        x, y = view.pixel_centres()
        region = np.zeros(view.input, bool)
        for box in self._boxes.get(normalize(path), ()):
            if box.index in (None, index):
                x0, y0, x1, y1 = box.edges
                region |= np.outer((y >= y0) & (y < y1), (x >= x0) & (x < x1))
        return region

    def _read_rows(self) -> Iterator[tuple[int, str, list[str], str]]:
        """Iterate over line number, image, edges and label of each row, as written."""
        columns: list[int] | None = None
        count = 0
        try:
            for line, cells in read_rows(read_text(self.file, f"the boxes file {str(self.file)!r}", FORMAT_HINT)):
                if columns is None:
                    titles = [*map(normalize_title, cells)]
                    columns, named = self._find_columns(titles)
                    if named:
                        continue
                if len(cells) <= max(columns[:5]):
                    raise ValueError(f"line {line} has {len(cells)} cells")
                count += 1
                picture, *edges = (cells[column] for column in columns[:5])
                yield line, picture, edges, "".join(cells[column] for column in columns[5:] if column < len(cells))
        except ValueError as error:
            raise RequestError(f"{self.file}, {error}", FORMAT_HINT) from error
        if not count:
            raise RequestError(f"the boxes file {str(self.file)!r} lists nothing", FORMAT_HINT)

    def _find_columns(self, titles: Sequence[str]) -> tuple[list[int], bool]:
        """Return the columns of image, edges and perhaps label, and whether the first row names them."""
        picture = find_column(titles, PICTURE_COLUMNS)
        if picture is None:
            return [*range(6)], False
        if missing := [edge for edge in EDGES if edge not in titles]:
            raise RequestError(f"{self.file} has no column {missing[0]!r}", FORMAT_HINT)
        labels = [titles.index("label")] if "label" in titles else []
        return [picture, *map(titles.index, EDGES), *labels], True


def _parse_edges(cells: Sequence[str]) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = map(float, cells)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (x0 < x1 and y0 < y1) or not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise RequestError(f"{', '.join(cells)} is no box", "give x0 < x1 and y0 < y1, in pixels of the upright image")
    return x0, y0, x1, y1
