"""Compaction of a ledger: drop replaced lines, and the files that only they name."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from camcli.base import atomic
from camcli.runs.record.folder import Folder
from camcli.runs.record.heads import Head, is_whole
from camcli.runs.record.lines import LineFile, hash_text

CHUNK = 2**16
# Returns whether a line stays, given where its block begins.
LineFilter = Callable[[int, Head], bool]


def compact(lines: LineFile[Any], folder: Folder, keeps_line: LineFilter) -> OSError | None:
    """Drop lines that do not stay, and files that only they name; return the first error of a file.

    Raises:
        OSError: the lines cannot be written, and stay as they were.
    """
    kept = {
        hash_text(name)
        for number, block in lines.iter_blocks()
        for head in block
        if keeps_line(number, head)
        for name in head.read_files().values()
    }
    temporary = atomic.make_temporary_path(folder.records)
    try:
        with temporary.open("xb") as file:
            for number, block in lines.iter_blocks():
                file.writelines(head.line for head in block if keeps_line(number, head))
            if folder.durable:
                file.flush()
                os.fsync(file.fileno())
        folder.save_records()  # no file goes before what replaced it is recorded
        # Files go first, while the old ledger still shows that they can go: a crash in between leaves none behind.
        trouble = _remove_files(lines, folder, keeps_line, kept)
        temporary.replace(lines.path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return trouble


def make_line_filter(
    lines: LineFile[Any], is_unwanted: Callable[[int, Head], bool], cleared: Container[int]
) -> LineFilter:
    """Find the lines that stay: of each image the last whole ones, and those that later failures did not replace.

    Args:
        lines: all of them.
        is_unwanted: returns whether to drop a line, given its image's hash.
        cleared: hashes of images whose failures are dropped, since the images were done before.
    """
    since: dict[int, int] = {}  # an image to its last whole block, else its first block
    trailing: dict[int, int] = {}  # an image to its last block after that
    for number, block in lines.iter_blocks():
        key = hash_text(block[0].name)
        if is_whole(block):
            since[key] = number
            trailing.pop(key, None)
        else:
            since.setdefault(key, number)
            trailing[key] = number
    named = {
        hash_text(file): number
        for number, block in (lines.iter_blocks() if trailing else ())
        if hash_text(block[0].name) in trailing
        for head in block
        for file in head.read_files().values()
    }

    def keeps_line(number: int, head: Head) -> bool:
        key = hash_text(head.name)
        if number < since[key] or is_unwanted(key, head):
            return False
        failed = not head.has_result
        if number == trailing.get(key, since[key]):
            return not (failed and key in cleared)
        return not failed and all(named[hash_text(file)] == number for file in head.read_files().values())

    return keeps_line


def _remove_files(lines: LineFile[Any], folder: Folder, keeps_line: LineFilter, kept: set[int]) -> OSError | None:
    """Delete the files of lines that go, unless others name them; return the first error."""
    trouble: OSError | None = None
    for number, block in lines.iter_blocks():
        gone = (name for head in block if not keeps_line(number, head) for name in head.read_files().values())
        for name in gone:
            try:
                if hash_text(name) not in kept:
                    folder.remove(name)
            except OSError as error:
                trouble = trouble or error
    return trouble


def drop_torn_end(path: Path) -> None:
    """Cut a file that ends within a line after the last whole one.

    Raises:
        OSError: it cannot be written to.
    """
    if not path.exists() or not (size := path.stat().st_size):
        return
    with path.open("rb+") as file:
        end = size
        tail = b""
        while end and b"\n" not in tail:
            end = max(0, end - CHUNK)
            file.seek(end)
            tail = file.read(CHUNK)
        whole = end + tail.rfind(b"\n") + 1
        if whole < size:
            file.truncate(whole)
