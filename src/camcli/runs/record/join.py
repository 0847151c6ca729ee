"""Joining of the ledgers of shards into the ledger of their output folder."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camcli.base import atomic
from camcli.base.errors import OutputError
from camcli.images.own_outputs import find_line_records
from camcli.runs.job.shard import Shard
from camcli.runs.record.folder import Folder
from camcli.runs.record.lines import LineFile, R

# Ledgers that are read at once, well below the number of files that a process may have open.
MAX_OPEN = 200


def join_shards(folder: Folder, lines: LineFile[Any]) -> None:
    """Move the lines of shards' ledgers to the folder's, in the order of their runs.

    A crash leaves every line in a ledger; one that is in two is dropped later, as all lines that others replace.

    Args:
        folder: the output folder, locked for all shards.
        lines: its ledger.

    Raises:
        RequestError: a ledger cannot be read.
        OutputError: the lines cannot be written.
    """
    there = [path for path in find_line_records(folder.path, lines.path.name) if path != lines.path]
    for first in range(0, len(there), MAX_OPEN):
        some = there[first : first + MAX_OPEN]
        try:
            _write_joined(folder, lines, [lines.at(path) for path in some])
            for path in some:
                path.unlink()
        except OSError as error:
            raise OutputError(f"{lines.path} cannot be written to: {error.strerror}") from error


def find_other_files(lines: LineFile[R], path: Path, shard: Shard | None) -> list[LineFile[R]]:
    """Return the ledgers in which images of a shard may be besides its own: the folder's, and other numbers' shards'.

    Args:
        lines: the shard's ledger.
        path: the output folder.
        shard: the shard; there are no others without one.
    """
    if shard is None:
        return []
    others = find_line_records(path, lines.path.name)
    return [lines.at(one) for one in others if not one.parent.name.endswith(f"-of-{shard.count}")]


def _write_joined(folder: Folder, lines: LineFile[Any], others: Sequence[LineFile[Any]]) -> None:
    """Write the lines of ledgers to the first, whose runs, as those of each, are in order."""
    temporary = atomic.make_temporary_path(folder.records)
    try:
        with temporary.open("xb") as file:
            blocks = (one.iter_blocks() for one in (lines, *others))
            for _, block in heapq.merge(*blocks, key=lambda found: found[1][0].run):
                file.writelines(head.line for head in block)
            if folder.durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(lines.path)
        if folder.durable:
            atomic.sync(folder.records)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
