"""Boxes in a CSV file, a line for each.

Columns are named by the first row: that of the image, ``x0``, ``y0``, ``x1``, ``y1``, and perhaps ``label``. Without
titles they come in this order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from camcli.base.delimited import find_column, normalize_title, read_rows, read_text
from camcli.base.errors import RequestError
from camcli.images.manifest_rows import PICTURE_COLUMNS
from camcli.images.objects.entry import Box, Entry, parse_edges

EDGES = ("x0", "y0", "x1", "y1")
FORMAT_HINT = "write the header image,x0,y0,x1,y1 (perhaps also label), then a line for each box"


def read_entries(file: Path) -> Iterator[Entry]:
    """Iterate over the boxes.

    Raises:
        RequestError: the file cannot be read, or a row has no box.
    """
    columns: list[int] | None = None
    count = 0
    try:
        for line, cells in read_rows(read_text(file, f"the boxes file {str(file)!r}", FORMAT_HINT)):
            if columns is None:
                columns, named = _find_columns(file, [*map(normalize_title, cells)])
                if named:
                    continue
            if len(cells) <= max(columns[:5]):
                raise ValueError(f"line {line} has {len(cells)} cells")
            count += 1
            picture, *edges = (cells[column] for column in columns[:5])
            label = "".join(cells[column] for column in columns[5:] if column < len(cells))
            try:
                yield Entry(f"line {line}", picture, Box(parse_edges(edges)), label)
            except RequestError as error:
                raise RequestError(f"{file}, line {line} ({picture!r}): {error.message}", error.hint) from error
    except ValueError as error:
        raise RequestError(f"{file}, {error}", FORMAT_HINT) from error
    if not count:
        raise RequestError(f"the boxes file {str(file)!r} lists nothing", FORMAT_HINT)


def _find_columns(file: Path, titles: Sequence[str]) -> tuple[list[int], bool]:
    """Return the columns of image, edges and perhaps label, and whether the first row names them."""
    picture = find_column(titles, PICTURE_COLUMNS)
    if picture is None:
        return [*range(6)], False
    if missing := [edge for edge in EDGES if edge not in titles]:
        raise RequestError(f"{file} has no column {missing[0]!r}", FORMAT_HINT)
    labels = [titles.index("label")] if "label" in titles else []
    return [picture, *map(titles.index, EDGES), *labels], True
