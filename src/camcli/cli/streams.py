"""Standard output, and text that is printable on it."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len


def to_printable(text: str) -> str:
    """Return the text on one line, with control characters, which a terminal would obey, written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


# Standard outputs saved while `sys.stdout` is redirected.
_saved_outputs: list[Any] = []


def get_standard_output() -> Any:
    """Return standard output, for machine-readable lines, also inside :func:`redirect_prints_to_stderr`."""
    return _saved_outputs[-1] if _saved_outputs else sys.stdout


def print_lines(records: Iterable[Any]) -> None:
    """Print records, such as outcomes, to standard output as lines of JSON."""
    out = get_standard_output().buffer
    out.writelines(one.as_line() for one in records)
    out.flush()


@contextmanager
def redirect_prints_to_stderr() -> Iterator[None]:
    """Send what other code prints, in Python or in C, to standard error while the block runs."""
    before = sys.stdout
    before.flush()
    saved = os.dup(1) if _get_descriptor(before) == 1 and _get_descriptor(sys.stderr) == 2 else None
    ours: Any = before
    if saved is not None:
        os.dup2(2, 1)
        ours = open(saved, "w", encoding=before.encoding, errors=before.errors)  # noqa: PTH123, SIM115 - a descriptor
    _saved_outputs.append(ours)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = before
        _saved_outputs.pop()
        if saved is not None:
            os.dup2(saved, 1)
            ours.close()


def _get_descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):  # a replacement without a descriptor, as in tests and notebooks
        return None


def wrap_words(text: str, width: int, indent: int) -> str:
    """Wrap a line at words; a longer word stays whole, for the terminal to break, so that it can be copied."""
    lines = textwrap.wrap(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def elide(text: str, width: int) -> str:
    """Return the text, with ``…`` in its middle if it is wider than ``width`` cells of a terminal."""
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
