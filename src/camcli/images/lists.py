"""Lists of images: names one a line, or a column of a table."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from camcli.base.delimited import detect_delimiter, find_column, normalize_title
from camcli.base.errors import RequestError, did_you_mean
from camcli.images.formats import suffix_of
from camcli.images.manifest_rows import PICTURE_COLUMNS
from camcli.images.name_stream import BOM, read_entries
from camcli.images.source import ByteStream

# Bytes of a table that its delimiter is detected from.
SAMPLE_BYTES = 2**16


def iter_entries(names: ByteStream | str, end: bytes) -> Iterator[bytes | None]:
    """Iterate over the names in a stream, as ``read_entries`` does, or in the file of this path.

    A file ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.parquet`` is a table with a column of images, titled by one
    of ``PICTURE_COLUMNS``; a CSV file without titles that has a single column is a list. Rows are read one by one.

    Raises:
        RequestError: the file is not such a table.
        OSError: it cannot be read.
    """
    if not isinstance(names, str):
        yield from read_entries(names, end)
    elif read := _READERS.get(suffix_of(names)):
        for where, given in read(names):
            name = _encode(given)
            if name is None:
                raise RequestError(f"the list {names!r}, {where}: {given!r} is not a path")
            yield name
    else:
        with Path(names).open("rb") as file:
            yield from read_entries(file, end)


def _encode(given: Any) -> bytes | None:
    try:
        return os.fsencode(given.strip()) or None
    except (AttributeError, TypeError, UnicodeError):  # no text, or text that no file name can be
        return None


def _read_csv(path: str) -> Iterator[tuple[str, Any]]:
    with Path(path).open("rb") as start:
        sample = start.read(SAMPLE_BYTES).removeprefix(BOM).rpartition(b"\n")[0] or Path(path).read_bytes()
    delimiter = detect_delimiter(sample.decode("utf-8", "surrogateescape"))
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            titles = next(rows, [])
            column = find_column([normalize_title(one) for one in titles], PICTURE_COLUMNS)
            if column is None and len(titles) == 1:
                column = 0
                yield "line 1", titles[0]
            elif column is None:
                raise _make_column_error(path, titles)
            for cells in rows:
                if any(map(str.strip, cells)):
                    yield f"line {rows.line_num}", cells[column] if column < len(cells) else ""
        except csv.Error as error:
            raise RequestError(f"the list {path!r}, line {rows.line_num}: is not CSV ({error})") from error


def _read_json_lines(path: str) -> Iterator[tuple[str, Any]]:
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.removeprefix(BOM) if number == 1 else line)
            except ValueError as error:
                raise RequestError(f"the list {path!r}, line {number}: is not JSON ({error})") from error
            if isinstance(row, dict):
                key = next((one for one in PICTURE_COLUMNS if one in row), None)
                if key is None:
                    raise _make_column_error(path, list(row), f", line {number}")
                row = row[key]
            yield f"line {number}", row


def _read_parquet(path: str) -> Iterator[tuple[str, Any]]:
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
            number = 0
            for batch in table.iter_batches(columns=[titles[column]]):
                for given in batch.column(0).to_pylist():
                    number += 1
                    yield f"row {number}", given
    except ArrowException as error:
        raise RequestError(f"the list {path!r} is not a table that can be read: {error}") from error


def _make_column_error(path: str, titles: Sequence[str], where: str = "") -> RequestError:
    near = did_you_mean("path", titles)
    known = f"call the column of images path; there are: {', '.join(map(repr, titles)) or 'none'}"
    return RequestError(f"the list {path!r}{where} has no column of images", "\n".join(filter(None, [near, known])))


_READERS: dict[str, Callable[[str], Iterator[tuple[str, Any]]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
