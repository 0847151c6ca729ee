"""A ledger without its replaced lines, and the output folder without the files that only these name."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from camcli.base import atomic
from camcli.runs.record.folder import Folder
from camcli.runs.record.lines import LineFile, hash_text, is_whole

# Whether a line stays, by the number of its block and its values.
Stays = Callable[[int, dict[str, Any]], bool]


def compact(lines: LineFile[Any], folder: Folder, stays: Stays) -> OSError | None:
    """Drop lines that do not stay and a torn end; and the files that only they name; the first that could not be.

    Raises:
        OSError: the lines cannot be written, and stay as they were.
    """
    kept = {
        hash_text(name)
        for number, block in enumerate(lines.blocks())
        for values, _ in block
        if stays(number, values)
        for name in values["files"].values()
    }
    temporary = atomic.temporary(folder.path)
    try:
        with temporary.open("xb") as file:
            for number, block in enumerate(lines.blocks()):
                file.writelines(line for values, line in block if stays(number, values))
            if folder.durable:
                file.flush()
                os.fsync(file.fileno())
        # First the files, while the old ledger still says that they can go: a crash between loses none of them.
        trouble = _remove_files(lines, folder, stays, kept)
        temporary.replace(lines.path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return trouble


def find_staying(
    lines: LineFile[Any], unwanted: Callable[[int, dict[str, Any]], bool], cleared: Container[int]
) -> Stays:
    """Find the lines that stay: of each picture the last that are whole, and what later failures left standing.

    Args:
        lines: all of them.
        unwanted: whether a line is to be dropped, by its picture's hash and its values.
        cleared: hashes of pictures whose failures are to be dropped, since they were done before.
    """
    since: dict[int, int] = {}  # a picture to the last block of it that is whole
    trailing: dict[int, int] = {}  # to the last block of it behind that
    for number, block in enumerate(lines.blocks()):
        key = hash_text(block[0][0]["name"])
        if is_whole(block):
            since[key] = number
            trailing.pop(key, None)
        else:
            since.setdefault(key, number)
            trailing[key] = number
    named = {
        hash_text(file): number
        for number, block in enumerate(lines.blocks() if trailing else ())
        if hash_text(block[0][0]["name"]) in trailing
        for values, _ in block
        for file in values["files"].values()
    }

    def stays(number: int, values: dict[str, Any]) -> bool:
        key = hash_text(values["name"])
        if number < since[key] or unwanted(key, values):
            return False
        failed = bool(values["error"]) and not values["files"]
        if number == trailing.get(key, since[key]):
            return not (failed and key in cleared)
        return not failed and all(named[hash_text(file)] == number for file in values["files"].values())

    return stays


def _remove_files(lines: LineFile[Any], folder: Folder, stays: Stays, kept: set[int]) -> OSError | None:
    """Delete the files of lines that go, unless others name them; the first that could not be."""
    trouble: OSError | None = None
    for number, block in enumerate(lines.blocks()):
        gone = (name for values, _ in block if not stays(number, values) for name in values["files"].values())
        for name in gone:
            file = None if hash_text(name) in kept else folder.inside(name)
            try:
                if file is not None:
                    file.unlink(missing_ok=True)
            except OSError as error:
                trouble = trouble or error
    return trouble


def is_torn(path: Path) -> bool:
    """Whether a file ends within a line."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return False
        file.seek(-1, 2)
        return file.read() != b"\n"
