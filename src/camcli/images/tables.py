"""Images in rows of Parquet and Arrow files, as Hugging Face's ``datasets`` writes them, read where they lie."""

# Paths stay strings, as in the search.
# ruff: noqa: PTH113, PTH116, PTH118, PTH208

from __future__ import annotations

import io
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from camcli.base.delimited import find_column, normalize_title
from camcli.base.errors import PictureError, did_you_mean
from camcli.images.formats import TABLE_SUFFIXES, suffix_of
from camcli.images.manifest_rows import PICTURE_COLUMNS
from camcli.images.row_readers import ArrowRows, ParquetRows, open_rows

# A row is named by so many digits, or more.
ROW_DIGITS = 6
# Files in a folder that ``save_to_disk`` wrote: of one part, and of several.
STATE_FILE, INFO_FILE, PARTS_FILE = "state.json", "dataset_info.json", "dataset_dict.json"
# Files that are open at a time.
MAX_OPEN = 4


class ToldClass(NamedTuple):
    """Class that a dataset tells of an image.

    Attributes:
        number: its number in the dataset; None if there is none.
        name: its name; empty if there is none.
    """

    number: int | None = None
    name: str = ""


class TableImages:
    """Images in a column of a table; iterating gives their names.

    Attributes:
        refused: why the rest of the table is not read, if it is not.
        duplicates, unread: none; archives may have some.
    """

    duplicates = 0
    unread: Sequence[str] = ()

    def __init__(self, rows: ArrowRows | ParquetRows, column: str) -> None:
        self._rows, self._column = rows, column
        self.refused = [rows.damage] if rows.damage else []

    def __iter__(self) -> Iterator[str]:
        before = f"{self._column}/" if self._column else ""
        return (f"{before}{row:0{ROW_DIGITS}}" for row in range(self._rows.count))


def is_table(path: str) -> bool:
    """Return whether a file is a table by its name."""
    return suffix_of(path) in TABLE_SUFFIXES


def find_named_tables(path: str) -> list[tuple[str, str]]:
    """Return the tables that a path names: itself, or those of the dataset in its folder; and the column after it.

    Raises:
        PictureError: as :func:`find_tables`.
    """
    if os.path.lexists(path):
        tables = [path] if is_table(path) and os.path.isfile(path) else []
        return [(one, "") for one in tables or find_tables(path)]
    parent, column = os.path.split(path.rstrip("/"))
    if not os.path.lexists(parent) or is_row(column):
        return []
    return [(one, column) for one, _ in find_named_tables(parent)]


def find_tables(folder: str) -> list[str]:
    """Return the tables of a folder that ``save_to_disk`` wrote, in order; none for another folder.

    Raises:
        PictureError: a file of the folder says something else than expected.
    """
    if os.path.isfile(os.path.join(folder, PARTS_FILE)):
        parts = _read_json(os.path.join(folder, PARTS_FILE)).get("splits") or []
        return [table for part in parts for table in find_tables(os.path.join(folder, str(part)))]
    if os.path.isfile(os.path.join(folder, STATE_FILE)):
        state = _read_json(os.path.join(folder, STATE_FILE))
        if state.get("_indices_data_files"):
            raise PictureError("its rows are chosen by a list of indices", "flatten_indices() and save it again")
        names = [str(one.get("filename", "")) for one in state.get("_data_files") or [] if isinstance(one, dict)]
    elif os.path.isfile(os.path.join(folder, INFO_FILE)):
        names = sorted(one for one in os.listdir(folder) if suffix_of(one) in TABLE_SUFFIXES)
    else:
        return []
    return [os.path.join(folder, name) for name in names if name and os.path.basename(name) == name]  # noqa: PTH119


def check_table(file: str, column: str = "") -> None:
    """Check that a table can be read and has a column of images.

    Raises:
        PictureError: it cannot, or has none or several.
    """
    _find_image_column(_open(file), column)


def read_images(file: str, column: str = "") -> TableImages:
    """Return the images in a table.

    Args:
        file: path of the table.
        column: name of the column; empty for the only one that has images.

    Raises:
        PictureError: it cannot be read, or has no such column.
    """
    rows = _open(file)
    _find_image_column(rows, column)
    return TableImages(rows, column)


def is_row(member: str) -> bool:
    """Return whether the rest of a path through a table names a row, and not a column."""
    return member.rpartition("/")[2].isdecimal()


def open_row(file: str, member: str) -> io.BytesIO:
    """Return the file of the image in a row.

    Raises:
        PictureError: there is no such row, or no image in it.
    """
    rows = _open(file)
    column, row = _parse_member(rows, member)
    found = rows.read_image(_find_image_column(rows, column), row)
    given = found.get("bytes") if isinstance(found, dict) else found
    if isinstance(found, dict) and not given and found.get("path"):
        raise PictureError("its row holds a path and not the image", "write paths to a table, and name that as @TABLE")
    if not isinstance(given, bytes) or not given:
        raise PictureError("its row holds no image")
    return io.BytesIO(given)


def read_row_stamp(file: str, member: str) -> str:
    """Return a stamp of a row: its file's, and its number; empty if it is missing."""
    try:
        rows = _open(file)
        return f"{rows.stamp}-{_parse_member(rows, member)[1]}"
    except PictureError:
        return ""


def read_row_classes(file: str, member: str, name: str, titles: Sequence[str]) -> tuple[str, Any]:
    """Return the column of a row's classes, and its value in which numbers with names are :class:`ToldClass`.

    Args:
        file: path of the table.
        member: the row.
        name: name of the column; empty for the only one whose classes have names, or the first of ``titles``.
        titles: usual names of such a column.

    Raises:
        PictureError: there is no such row or column.
    """
    rows = _open(file)
    row = _parse_member(rows, member)[1]
    column = name or _find_class_column(rows, titles)
    if column not in rows.kinds:
        near = did_you_mean(column, list(rows.kinds)) or f"there are: {', '.join(rows.kinds)}"
        raise PictureError(f"its dataset has no column {column or 'of classes'!r}", near)
    names = _find_class_names(rows.features.get(column))
    given = rows.read_value(column, row)

    def tell(one: Any) -> Any:
        return ToldClass(one, names[one]) if type(one) is int and 0 <= one < len(names) else one

    return column, [tell(one) for one in given] if isinstance(given, list) else tell(given)


def _find_class_column(rows: ArrowRows | ParquetRows, titles: Sequence[str]) -> str:
    named = [column for column in rows.kinds if _find_class_names(rows.features.get(column))]
    if len(named) == 1:
        return named[0]
    columns = named or list(rows.kinds)
    place = find_column([normalize_title(one) for one in columns], titles)
    return "" if place is None else columns[place]


def _find_class_names(feature: Any) -> list[str]:
    """Return the names of a feature's classes, which may be one of a list's items."""
    if isinstance(feature, list) and feature:
        return _find_class_names(feature[0])
    if not isinstance(feature, dict):
        return []
    if feature.get("_type") == "ClassLabel":
        return [str(one) for one in feature.get("names") or []]
    return _find_class_names(feature.get("feature"))


def _find_image_column(rows: ArrowRows | ParquetRows, wanted: str) -> str:
    """Return the column of images: the wanted one, or the only one.

    Structs with bytes are images; without any, what is binary is.
    """
    kinds = rows.kinds
    images = [one for one in kinds if kinds[one] == "image"] or [one for one in kinds if kinds[one] == "binary"]
    listed = ", ".join(map(repr, images))
    if wanted:
        if kinds.get(wanted) in ("image", "binary"):
            return wanted
        hint = did_you_mean(wanted, images) or (f"there are: {listed}" if images else "")
        raise PictureError(f"has no column of images {wanted!r}", hint)
    if not images:
        named = find_column([normalize_title(one) for one in kinds], PICTURE_COLUMNS) is not None
        hint = "a table of paths is named with @ before it" if named else f"its columns are: {', '.join(kinds)}"
        raise PictureError("has no column of images", hint)
    usual = [one for one in images if kinds[one] == "binary" and normalize_title(one) in PICTURE_COLUMNS]
    if len(images) > 1 and len(usual) != 1:
        raise PictureError(f"has several columns of images: {listed}", f"name one: {rows.file}/{images[0]}")
    return images[0] if len(images) == 1 else usual[0]


def _parse_member(rows: ArrowRows | ParquetRows, member: str) -> tuple[str, int]:
    column, _, number = member.rpartition("/")
    row = int(number) if number.isascii() and number.isdecimal() else -1
    if not 0 <= row < rows.count or number != f"{row:0{ROW_DIGITS}}":
        raise PictureError(
            f"there is no row {number!r} in the table", f"it has {rows.count}, from {0:0{ROW_DIGITS}} on"
        )
    return column, row


_opened: OrderedDict[str, ArrowRows | ParquetRows] = OrderedDict()
_lock = Lock()


def _open(file: str) -> ArrowRows | ParquetRows:
    """Return the rows of a table; the last tables stay open while they do not change."""
    try:
        status = os.stat(file)
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error
    stamp = f"{status.st_size}-{status.st_mtime_ns}"
    with _lock:
        rows = _opened.get(file)
        if rows is None or rows.stamp != stamp:
            rows = _opened[file] = open_rows(file, stamp)
        _opened.move_to_end(file)
        while len(_opened) > MAX_OPEN:
            _opened.popitem(last=False)
    return rows


def _read_json(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise PictureError(f"its {os.path.basename(path)} cannot be read: {error}") from error  # noqa: PTH119
    return found if isinstance(found, dict) else {}
