"""Rows of Parquet and Arrow files by number, in memory that does not grow with the file, through pyarrow."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from itertools import accumulate
from threading import Lock
from typing import Any, TypeVar

from camcli.base.errors import PictureError
from camcli.images.formats import suffix_of

T = TypeVar("T")

# Images of a Parquet file that are decoded at a time, and lots of them that are kept: threads ask nearly in order.
LOT_ROWS, KEPT_LOTS = 16, 4
# Bytes of a Parquet file that are read at a time.
BUFFER_BYTES = 2**20
ARROW_FILE_MARK = b"ARROW1"


def open_rows(file: str, stamp: str) -> ArrowRows | ParquetRows:
    """Open a table.

    Raises:
        PictureError: it cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise PictureError("needs pyarrow, which is not installed", "pip install 'camcli-vision[parquet]'") from error
    kind = ParquetRows if suffix_of(file) == ".parquet" else ArrowRows
    return _explaining(lambda: kind(file, stamp), f"is not {'a Parquet' if kind is ParquetRows else 'an Arrow'} file")


def _explaining(work: Callable[[], T], what: str) -> T:
    """Return what a function does; what pyarrow raises becomes the image's or the file's error."""
    try:
        return work()
    except PictureError:
        raise
    except Exception as error:  # a damaged file can raise anything
        said = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise PictureError(f"{what}, or is damaged: {said}") from error


class _Rows:
    """Base of both kinds of tables.

    Attributes:
        file: path of the file.
        stamp: its stamp.
        count: number of rows.
        kinds: ``image`` (a struct with bytes), ``binary`` or ``other`` by column.
        features: what ``datasets`` wrote about columns.
        damage: why rows after those are not read; empty if all are.
    """

    def __init__(self, file: str, stamp: str, schema: Any) -> None:
        self.file, self.stamp = file, stamp
        self.count = 0
        self.damage = ""
        self.kinds: dict[str, str] = {one.name: _find_kind(one.type) for one in schema}
        self.features = _read_features(schema.metadata)


class ArrowRows(_Rows):
    """Rows of an Arrow file or stream, which is mapped into memory and not read into it.

    Of a stream that is cut short the rows before that are read.
    """

    def __init__(self, file: str, stamp: str) -> None:
        import pyarrow as pa

        source = pa.memory_map(file)
        whole = source.read(len(ARROW_FILE_MARK)) == ARROW_FILE_MARK
        source.seek(0)
        reader = pa.ipc.open_file(source) if whole else pa.ipc.open_stream(source)
        super().__init__(file, stamp, reader.schema)
        batches: list[Any] = []
        try:
            number = reader.num_record_batches if whole else None
            while number is None or len(batches) < number:
                batches.append(reader.get_batch(len(batches)) if whole else reader.read_next_batch())
        except StopIteration:
            pass
        except (pa.ArrowException, OSError) as error:
            self.damage = f"it is damaged or cut short after {sum(map(len, batches))} rows: {str(error)[:200]}"
        self._table = pa.Table.from_batches(batches, reader.schema)
        self.count = self._table.num_rows

    def read_image(self, column: str, row: int) -> Any:
        """Return the value of a column of images."""
        return self.read_value(column, row)

    def read_value(self, column: str, row: int) -> Any:
        """Return a value.

        Raises:
            PictureError: it cannot be read.
        """
        return _explaining(lambda: self._table.column(column)[row].as_py(), "its row cannot be read")


class ParquetRows(_Rows):
    """Rows of a Parquet file, whose images are decoded a few at a time, from each row group's beginning on."""

    def __init__(self, file: str, stamp: str) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(
            file, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
        super().__init__(file, stamp, self._file.schema_arrow)
        meta = self._file.metadata
        self.count = meta.num_rows
        self._starts = list(accumulate((meta.row_group(at).num_rows for at in range(meta.num_row_groups)), initial=0))
        self._lock = Lock()
        self._lots: deque[tuple[str, int, Any]] = deque(maxlen=KEPT_LOTS)
        self._lots_ahead: Iterator[Any] = iter(())
        # Column, row group and row of the next lot.
        self._next = ("", -1, -1)
        self._broken: dict[tuple[str, int], tuple[int, str]] = {}
        self._columns: dict[str, Any] = {}

    def read_image(self, column: str, row: int) -> Any:
        """Return the value of a column of images.

        Raises:
            PictureError: it cannot be read.
        """
        with self._lock:
            return _explaining(lambda: self._find(column, row), "its row cannot be read")

    def read_value(self, column: str, row: int) -> Any:
        """Return a value of a column that is small enough to be held as a whole.

        Raises:
            PictureError: it cannot be read.
        """
        if self.kinds[column] != "other":
            raise PictureError(f"its dataset's column {column!r} holds no classes but binary data")
        with self._lock:
            if column not in self._columns:
                self._columns[column] = _explaining(
                    lambda: self._file.read(columns=[column], use_threads=False).column(column),
                    f"its dataset's column {column!r} cannot be read",
                )
            return self._columns[column][row].as_py()

    def _find(self, column: str, row: int) -> Any:
        for one, start, lot in self._lots:
            if one == column and start <= row < start + len(lot):
                return lot[row - start].as_py()
        group = bisect_right(self._starts, row) - 1
        first_broken, why = self._broken.get((column, group), (row + 1, ""))
        if row >= first_broken:
            raise PictureError(why)
        if self._next[:2] != (column, group) or self._next[2] > row:
            self._lots_ahead = self._file.iter_batches(
                LOT_ROWS, row_groups=[group], columns=[column], use_threads=False
            )
            self._next = (column, group, self._starts[group])
        while True:
            start = self._next[2]
            try:
                lot = next(self._lots_ahead).column(0)
            except Exception as error:  # a damaged page can raise anything, and ends its row group
                said = (str(error) or type(error).__name__).splitlines()[0][:300]
                self._broken[column, group] = (start, f"its row group is damaged from row {start} on: {said}")
                self._next = ("", -1, -1)
                raise PictureError(self._broken[column, group][1]) from error
            self._next = (column, group, start + len(lot))
            if self._next[2] >= self._starts[group + 1]:  # pages of a row group that was read are let go
                self._lots_ahead, self._next = iter(()), ("", -1, -1)
            if row < start + len(lot):
                self._lots.append((column, start, lot))
                return lot[row - start].as_py()


def _find_kind(kind: Any) -> str:
    import pyarrow as pa

    def is_binary(one: Any) -> bool:
        return bool(pa.types.is_binary(one) or pa.types.is_large_binary(one) or pa.types.is_binary_view(one))

    if pa.types.is_struct(kind):
        return "image" if any(one.name == "bytes" and is_binary(one.type) for one in kind) else "other"
    return "binary" if is_binary(kind) else "other"


def _read_features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    try:
        found = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
