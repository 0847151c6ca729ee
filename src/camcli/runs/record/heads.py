"""Beginnings of lines, which a ledger keeps in mind, read without the rest of it, which takes a third of the time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple


class Head(NamedTuple):
    """Beginning of a line: what it says of its image, and the line; mappings and ``error`` are as they are written."""

    name: str
    stamp: str
    job: str
    run: str
    part: str
    root: str
    files: str
    sizes: str
    looks: str
    error: str
    line: bytes

    @property
    def failed(self) -> bool:
        """True if there is an error."""
        return self.error not in ("null", '""')

    @property
    def has_result(self) -> bool:
        """True if a file was made, or none was to be."""
        return self.error in ("null", '""') or self.files != "{}"

    def read_files(self) -> Mapping[str, str]:
        """Return the paths of its files by kind, relative to the output folder."""
        found: dict[str, str] = json.loads(self.files)
        return found


# The lines of one image from one run.
Block = Sequence[Head]


def _map_to(value: str) -> str:
    one = f'"[^"]*": {value}'
    return f"({{(?:{one}(?:, {one})*)?}})"


# The fields at the beginning of a usual line, in this order: text, and mappings of text or numbers.
_TEXT = '"([^"]*)"'
_FIRST = {
    "source": '"[^"]*"',
    **dict.fromkeys(("name", "stamp", "job", "run", "part"), _TEXT),
    "page": "[0-9]+",
    "root": _TEXT,
    "files": _map_to('"[^"]*"'),
    "sizes": _map_to("[0-9]+"),
    "looks": _map_to('"[^"]*"'),
}
_DONE = ', "error": null}\n'


def make_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    """Return the pattern of the first fields of usual lines; None if these fields are in an unusual order."""
    if [*names[: len(_FIRST)]] != [*_FIRST] or names[-1] != "error":
        return None
    return re.compile("{" + "".join(f'"{name}": {pattern}, ' for name, pattern in _FIRST.items()))


def parse_head(line: bytes, pattern: re.Pattern[str] | None) -> Head | None:
    """Return the head of a line; None if it is not a usual one, and is to be read as a whole.

    A usual line has no escapes and no error. Two lines that were glued together have a brace too many. The rest is
    checked when it is used.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    found = pattern.match(text) if pattern else None
    if found is None or "\\" in text or not text.endswith(_DONE) or text.find("{", found.end()) >= 0:
        return None
    return Head._make((*found.groups(), "null", line))


def make_head(values: Mapping[str, Any], line: bytes) -> Head:
    """Return the head of a line that was read as a whole."""
    texts = (values[key] for key in ("name", "stamp", "job", "run", "part", "root"))
    mappings = (json.dumps(values[key], ensure_ascii=False) for key in ("files", "sizes", "looks", "error"))
    return Head._make((*texts, *mappings, line))


def is_whole(block: Block) -> bool:
    """Return whether an image was done by one job with all its maps."""
    first = block[0]
    if first.part == "1/1":
        return first.error == "null" and len(block) == 1
    return first.part == f"1/{len(block)}" and not any(head.failed or head.job != first.job for head in block)


def has_result(block: Block) -> bool:
    """Return whether any map of an image was done."""
    return any(head.has_result for head in block)


class Worth(IntEnum):
    """Worth of the lines of one image from one run: not all are there, no map was made, some were."""

    CUT, FAILED, RESULT = range(3)


def find_worth(block: Block) -> Worth:
    """Return how much the lines of an image are worth.

    Of an image's blocks that with the greatest worth counts, and among equals that of the latest run: a failure never
    replaces a result, but a later result does, also of a part of its maps, since it has written over the files. A block
    that lacks lines (a crash cut it short, or other files replaced its own) counts for nothing: other lines would be
    read in their place.
    """
    if block[0].part != f"1/{len(block)}":
        return Worth.CUT
    return Worth.RESULT if has_result(block) else Worth.FAILED
