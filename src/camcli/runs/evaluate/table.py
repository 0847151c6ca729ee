"""The table of all images as a file for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from camcli.runs.evaluate.summary import TableRow
from camcli.runs.record.rows import ColumnType, RowWriter

_TYPES: Mapping[str, ColumnType] = {
    **dict.fromkeys(("mean", "low", "high"), "number"),
    **dict.fromkeys(("images", "undefined"), "integer"),
}
COLUMNS: Mapping[str, ColumnType] = {one.name: _TYPES.get(one.name, "text") for one in fields(TableRow)}


def write_table(rows: Sequence[TableRow], path: Path) -> None:
    """Write the table to a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with RowWriter(path, COLUMNS) as writer:
        writer.write(row.as_dict() for row in rows)
