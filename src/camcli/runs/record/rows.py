"""Tables of plain values for other programs, written row by row: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError
from camcli.images.address import is_url, show_path, to_url

SUFFIXES = (".csv", ".jsonl", ".parquet")
# Rows in a row group.
GROUP_ROWS = 20_000

ColumnType = Literal["text", "number", "integer", "truth", "texts"]


class _TableFile(Protocol):
    """File of one of the formats."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def close(self) -> None: ...


def check_rows_file(path: Path) -> None:
    """Check that a table of rows can be written to a file.

    Raises:
        RequestError: it is an address, has another suffix, its folder is missing, or pyarrow is.
    """
    from camcli.runs.record.table import check_table  # brings Pillow, which those who name columns do without

    if is_url(str(path)) or to_url(path):
        raise RequestError(
            f"the table is written to local files, not to {show_path(path)!r}", "name a file, and copy it"
        )
    check_table(path, SUFFIXES)


class RowWriter:
    """Writer of a table whose rows come one by one, as a ``with`` block; the file is there whole at its end, or not.

    Args:
        path: the file, whose suffix is one of ``SUFFIXES``.
        columns: types of the columns, by name and in order; a value may be None.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, columns: Mapping[str, ColumnType]) -> None:
        self._path, self._columns = path, columns
        self._temporary = atomic.make_temporary_path(path.absolute().parent)
        self._rows: list[Mapping[str, Any]] = []

    def __enter__(self) -> RowWriter:
        kinds: dict[str, Callable[[Path, Mapping[str, ColumnType]], _TableFile]] = {
            ".csv": _CsvFile,
            ".jsonl": _LinesFile,
            ".parquet": _ParquetFile,
        }
        with self._explaining():
            self._file = kinds[self._path.suffix.lower()](self._temporary, self._columns)
        return self

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, which may lack columns."""
        self._rows += ({name: row.get(name) for name in self._columns} for row in rows)
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._explaining():
                if error is None:
                    self._flush()
                self._file.close()
                if error is None:
                    self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        with self._explaining():
            self._file.write(self._rows)
        self._rows = []

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error


def encode_row(row: Mapping[str, Any]) -> bytes:
    """Return a row as one JSON line, ended by a newline; also for names that are not valid UTF-8."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


class _LinesFile:
    def __init__(self, path: Path, columns: Mapping[str, ColumnType]) -> None:  # noqa: ARG002
        self._file = path.open("xb")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file.writelines(map(encode_row, rows))

    def close(self) -> None:
        self._file.close()


class _CsvFile:
    def __init__(self, path: Path, columns: Mapping[str, ColumnType]) -> None:
        self._file = path.open("x", encoding="utf-8", errors="backslashreplace", newline="")
        self._columns = columns
        self._writer = csv.DictWriter(self._file, [*columns], lineterminator="\n")
        self._writer.writeheader()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        numbered = (_to_numbers(row, self._columns) for row in rows)
        self._writer.writerows({name: _to_cell(value) for name, value in row.items()} for row in numbered)

    def close(self) -> None:
        self._file.close()


class _ParquetFile:
    def __init__(self, path: Path, columns: Mapping[str, ColumnType]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        types = {"text": pa.string(), "number": pa.float64(), "integer": pa.int64(), "truth": pa.bool_()}
        types["texts"] = pa.list_(pa.string())
        self._columns = columns
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(path, self._schema)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import pyarrow as pa

        numbered = (_to_numbers(row, self._columns) for row in rows)
        valid = [{name: _to_valid_text(value) for name, value in row.items()} for row in numbered]
        self._writer.write_table(pa.Table.from_pylist(valid, self._schema))

    def close(self) -> None:
        self._writer.close()


def _to_numbers(row: Mapping[str, Any], columns: Mapping[str, ColumnType]) -> dict[str, Any]:
    """Return a row with 1 and 0 for the truths in columns of numbers, which JSON lines keep as they are."""
    return {
        name: float(value) if isinstance(value, bool) and columns[name] == "number" else value
        for name, value in row.items()
    }


def _to_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "; ".join(value) if isinstance(value, list | tuple) else value


def _to_valid_text(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
