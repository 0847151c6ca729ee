"""Standard output and what is printable on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len


def printable(text: str) -> str:
    """The text on one line, without anything a terminal would obey: control characters are written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


# Standard output, while `sys.stdout` is somebody else's.
_ours: list[Any] = []


def standard_output() -> Any:
    """Where what machines read is written: standard output, whatever :func:`prints_aside` has done with it."""
    return _ours[-1] if _ours else sys.stdout


@contextmanager
def prints_aside() -> Iterator[None]:
    """While it lasts, what others' code prints, in Python or in C, goes to standard error."""
    before = sys.stdout
    before.flush()
    saved = os.dup(1) if _descriptor(before) == 1 and _descriptor(sys.stderr) == 2 else None
    ours: Any = before
    if saved is not None:
        os.dup2(2, 1)
        ours = open(saved, "w", encoding=before.encoding, errors=before.errors)  # noqa: PTH123, SIM115 - a descriptor
    _ours.append(ours)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = before
        _ours.pop()
        if saved is not None:
            os.dup2(saved, 1)
            ours.close()


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):  # what tests and notebooks put in its place
        return None


def elided(text: str, width: int) -> str:
    """The text, with ``…`` in its middle where it is wider than so many cells of a terminal."""
    if cell_len(text) <= width:
        return text
    head, tail = "", ""
    for first, last in zip(text, reversed(text), strict=True):
        if cell_len(head + first + tail) > width - 1:
            break
        head += first
        if cell_len(head + last + tail) > width - 1:
            break
        tail = last + tail
    return f"{head}…{tail}"
