"""Text tables whose delimiter (comma, semicolon, tab or blank) is detected from their content."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from camcli.base.errors import RequestError

DELIMITERS = (",", ";", "\t")
# The delimiter of pairs without any of these, such as `ILSVRC2012_val_00000001.JPEG 65`.
BLANK = " "
# Number of rows that the delimiter is detected from.
SAMPLE_ROWS = 50


def read_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Iterate over the non-empty rows of a table: the number of the line that each ends in, and its stripped cells.

    Raises:
        ValueError: a row is not CSV; the message gives its line.
    """
    reader = csv.reader(io.StringIO(text), delimiter=detect_delimiter(text), skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error})") from error


def detect_delimiter(text: str) -> str:
    """Detect the delimiter of a table: one that its first rows hold equally often; of several, the first to occur.

    Delimiters in quoted cells do not count. A table without any of :data:`DELIMITERS` is delimited by blanks if all
    rows are two words.
    """
    widths = {one: list(_count_cells(text, one)) for one in DELIMITERS}
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    present = [one for one in DELIMITERS if widths[one] and widths[one][0] > 1]
    even = [one for one in present if len(set(widths[one])) == 1]
    if present:
        return min(even or present, key=first.index)
    anywhere = any(width > 1 for found in widths.values() for width in found)
    pairs = [len(line.split()) == 2 for line in islice(filter(str.strip, io.StringIO(text)), SAMPLE_ROWS)]
    return BLANK if pairs and all(pairs) and not anywhere else DELIMITERS[0]


def _count_cells(text: str, separator: str) -> Iterator[int]:
    """Iterate over the numbers of cells in the first rows."""
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    try:
        yield from islice((len(row) for row in reader if any(map(str.strip, row))), SAMPLE_ROWS)
    except csv.Error:  # such as a NUL, or an unterminated quote: reported when the table is read
        return


def normalize_title(cell: str) -> str:
    """Normalize a column's title for comparison: ``Image Path`` becomes ``image_path``."""
    return "_".join(cell.casefold().replace("-", " ").replace("_", " ").split())


def find_column(titles: Sequence[str], known: Iterable[str]) -> int | None:
    """Return the position of the first known name among normalized titles; None if there is none."""
    return next((titles.index(name) for name in known if name in titles), None)


def read_text(file: Path, what: str, hint: str = "") -> str:
    """Read a text file.

    Raises:
        RequestError: the file cannot be read, or is not UTF-8; its message begins with ``what``.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RequestError(f"{what} cannot be read: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        advice = _describe_encoding(error.object)
        raise RequestError(f"{what} is not UTF-8 text", "\n".join(filter(None, [advice, hint]))) from error


def _describe_encoding(content: bytes) -> str:
    """Return what to do about a file that is not UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is UTF-16: save it as UTF-8, or: iconv -f utf-16 -t utf-8 FILE"
    if b"\0" in content:
        return "it is no text at all: is it the file that was meant?"
    return "save it as UTF-8; if it is of Windows or Excel: iconv -f windows-1252 -t utf-8 FILE"
