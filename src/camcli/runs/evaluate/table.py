"""The table of all images as a file for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from camcli.base import atomic
from camcli.base.errors import OutputError
from camcli.runs.evaluate.summary import TableRow

SUFFIXES = (".csv", ".jsonl", ".parquet")


def write_table(rows: Sequence[TableRow], path: Path) -> None:
    """Write the table to a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = atomic.make_temporary_path(path.absolute().parent)
    try:
        temporary.write_bytes(_encode(rows, path.suffix.lower()))
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _encode(rows: Sequence[TableRow], suffix: str) -> bytes:
    values = [row.as_dict() for row in rows]
    if suffix == ".jsonl":
        return "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in values).encode()
    if suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        types = {name: pa.float64() for name in ("mean", "low", "high")}
        types |= {name: pa.int64() for name in ("images", "undefined")}
        names = [one.name for one in fields(TableRow)]
        schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
        target = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(values, schema), target)
        return bytes(target.getvalue().to_pybytes())
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(TableRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(values)
    return text.getvalue().encode()
