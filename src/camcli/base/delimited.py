"""Text tables whose cells are parted by a comma, a semicolon, a tab or a blank: which of them, their content says."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from camcli.base.errors import RequestError

DELIMITERS = (",", ";", "\t")
# A list of pairs without any of these, such as `ILSVRC2012_val_00000001.JPEG 65`, has blanks.
BLANK = " "
# So many rows are looked at to find the delimiter.
SAMPLE = 50


def rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table that are not empty: the number of the line that each ends in, and its cells, stripped.

    Raises:
        ValueError: a row is no CSV; the message says which.
    """
    reader = csv.reader(io.StringIO(text), delimiter=delimiter(text), skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error})") from error


def delimiter(text: str) -> str:
    """What parts the cells of a table: what is in its first rows, and as often in each; of several what comes first.

    A cell in quotes may hold any of them. Without one of :data:`DELIMITERS` in it, a table whose rows are all two words
    is parted by blanks.
    """
    widths = {one: list(_widths(text, one)) for one in DELIMITERS}
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    there = [one for one in DELIMITERS if widths[one] and widths[one][0] > 1]
    even = [one for one in there if len(set(widths[one])) == 1]
    if there:
        return min(even or there, key=first.index)
    anywhere = any(width > 1 for found in widths.values() for width in found)
    pairs = [len(line.split()) == 2 for line in islice(filter(str.strip, io.StringIO(text)), SAMPLE)]
    return BLANK if pairs and all(pairs) and not anywhere else DELIMITERS[0]


def _widths(text: str, delimiter: str) -> Iterator[int]:
    """How many cells the first rows have."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        yield from islice((len(row) for row in reader if any(map(str.strip, row))), SAMPLE)
    except csv.Error:  # such as a NUL, or a field that never ends: told when the table is read
        return


def title(cell: str) -> str:
    """A column's title as titles are compared: ``Image Path`` is ``image_path``."""
    return "_".join(cell.casefold().replace("-", " ").replace("_", " ").split())


def column(titles: Sequence[str], known: Iterable[str]) -> int | None:
    """Which of the titles, as :func:`title` has them, is the first of those known; None if none is."""
    return next((titles.index(name) for name in known if name in titles), None)


def read_text(file: Path, what: str, hint: str = "") -> str:
    """The text of a file.

    Raises:
        RequestError: it cannot be read, or is no text; of the message ``what`` is the beginning.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RequestError(f"{what} cannot be read: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8 text", hint) from error
