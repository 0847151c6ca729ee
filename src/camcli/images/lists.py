"""Lists of images: names one a line, or a column of a table."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from camcli.base.delimited import detect_delimiter, find_column, normalize_title
from camcli.base.errors import RequestError, did_you_mean
from camcli.images.formats import suffix_of
from camcli.images.manifest_rows import PICTURE_COLUMNS
from camcli.images.name_stream import BOM, read_entries
from camcli.images.source import ByteStream

# Bytes of a table that its delimiter is detected from.
SAMPLE_BYTES = 2**16


class Entry(NamedTuple):
    """A name in a list.

    Attributes:
        name: what the file system calls it.
        columns: values that are carried along, as a JSON object; empty if none are.
    """

    name: bytes
    columns: str = ""


# Where a row is, the name in it, and the values that are carried along.
_Row = tuple[str, Any, Sequence[Any]]


def iter_entries(names: ByteStream | str, end: bytes, carry: Sequence[str] = ()) -> Iterator[Entry | None]:
    """Iterate over the names in a stream, as ``read_entries`` does, or in the file of this path.

    A file ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.parquet`` is a table with a column of images, titled by one
    of ``PICTURE_COLUMNS``; a CSV file without titles that has a single column is a list. Rows are read one by one.

    Args:
        names: the stream, or the path.
        end: separator of names that are in no table.
        carry: columns of a table whose values are carried along.

    Raises:
        RequestError: the file is not such a table, or a column is not in it.
        OSError: it cannot be read.
    """
    read = _READERS.get(suffix_of(names)) if isinstance(names, str) else None
    if read and isinstance(names, str):
        for where, given, values in read(names, carry):
            name = _encode(given)
            if name is None:
                raise RequestError(f"the list {names!r}, {where}: {given!r} is not a path")
            yield Entry(name, _to_json(names, where, carry, values) if carry else "")
        return
    if carry:
        raise RequestError(
            f"a list of names has no columns to carry along: {', '.join(carry)}",
            "name a table: @files.csv, @files.jsonl",
        )
    if isinstance(names, str):
        with Path(names).open("rb") as file:
            yield from _as_entries(read_entries(file, end))
    else:
        yield from _as_entries(read_entries(names, end))


def _as_entries(names: Iterator[bytes | None]) -> Iterator[Entry | None]:
    return (None if one is None else Entry(one) for one in names)


def _to_json(path: str, where: str, carry: Sequence[str], values: Sequence[Any]) -> str:
    """Return the values of a row that are carried along; missing numbers of Parquet files are null."""
    plain = [None if isinstance(one, float) and math.isnan(one) else one for one in values]
    try:
        return json.dumps(dict(zip(carry, plain, strict=True)), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"the list {path!r}, {where}: a value of {', '.join(carry)} cannot be carried along: {error}",
            "carry text and numbers",
        ) from error


def _encode(given: Any) -> bytes | None:
    try:
        return os.fsencode(given.strip()) or None
    except (AttributeError, TypeError, UnicodeError):  # no text, or text that no file name can be
        return None


def _read_csv(path: str, carry: Sequence[str]) -> Iterator[_Row]:
    with Path(path).open("rb") as start:
        sample = start.read(SAMPLE_BYTES).removeprefix(BOM).rpartition(b"\n")[0] or Path(path).read_bytes()
    delimiter = detect_delimiter(sample.decode("utf-8", "surrogateescape"))
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            titles = next(rows, [])
            column = find_column([normalize_title(one) for one in titles], PICTURE_COLUMNS)
            if column is None and len(titles) == 1 and not carry:
                column = 0
                yield "line 1", titles[0], ()
            elif column is None:
                raise _make_column_error(path, titles)
            _check_carried(path, carry, titles)
            places = [titles.index(one) for one in carry]
            for cells in rows:
                if any(map(str.strip, cells)):
                    values = [cells[place] if place < len(cells) else None for place in places]
                    yield f"line {rows.line_num}", cells[column] if column < len(cells) else "", values
        except csv.Error as error:
            raise RequestError(f"the list {path!r}, line {rows.line_num}: is not CSV ({error})") from error


def _read_json_lines(path: str, carry: Sequence[str]) -> Iterator[_Row]:
    first = True
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.removeprefix(BOM) if number == 1 else line)
            except ValueError as error:
                raise RequestError(f"the list {path!r}, line {number}: is not JSON ({error})") from error
            values = row if isinstance(row, dict) else {}
            if first:  # others may lack a value
                _check_carried(path, carry, list(values))
                first = False
            if isinstance(row, dict):
                key = next((one for one in PICTURE_COLUMNS if one in row), None)
                if key is None:
                    raise _make_column_error(path, list(row), f", line {number}")
                row = row[key]
            yield f"line {number}", row, [values.get(one) for one in carry]


def _read_parquet(path: str, carry: Sequence[str]) -> Iterator[_Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        hint = "pip install 'camcli-vision[parquet]'"
        raise RequestError(f"the list {path!r} needs pyarrow, which is not installed", hint) from error
    try:
        with parquet.ParquetFile(path) as table:
            titles = table.schema_arrow.names
            column = find_column([normalize_title(one) for one in titles], PICTURE_COLUMNS)
            if column is None:
                raise _make_column_error(path, titles)
            _check_carried(path, carry, titles)
            number = 0
            for batch in table.iter_batches(columns=list(dict.fromkeys([titles[column], *carry]))):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row[titles[column]], [row[one] for one in carry]
    except ArrowException as error:
        raise RequestError(f"the list {path!r} is not a table that can be read: {error}") from error


def _check_carried(path: str, carry: Sequence[str], titles: Sequence[str]) -> None:
    """Raise RequestError for a column that is to be carried along and is not there."""
    for one in carry:
        if one not in titles:
            known = f"there are: {', '.join(map(repr, titles)) or 'none'}"
            near = did_you_mean(one, titles)
            raise RequestError(f"the list {path!r} has no column {one!r}", "\n".join(filter(None, [near, known])))


def _make_column_error(path: str, titles: Sequence[str], where: str = "") -> RequestError:
    near = did_you_mean("path", titles)
    known = f"call the column of images path; there are: {', '.join(map(repr, titles)) or 'none'}"
    return RequestError(f"the list {path!r}{where} has no column of images", "\n".join(filter(None, [near, known])))


_READERS: dict[str, Callable[[str, Sequence[str]], Iterator[_Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
