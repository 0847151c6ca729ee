"""Beginnings of lines, which a ledger keeps in mind, read without the rest of it, which takes a third of the time."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class Head(NamedTuple):
    """Beginning of a line: what it says of its image; ``files`` and ``error`` are as they are written."""

    name: str
    stamp: str
    job: str
    run: str
    part: str
    root: str
    files: str
    error: str

    @property
    def failed(self) -> bool:
        """True if there is an error."""
        return self.error not in ("null", '""')

    @property
    def has_result(self) -> bool:
        """True if a file was made, or none was to be."""
        return self.error in ("null", '""') or self.files != "{}"


# The fields at the beginning of a usual line, in this order: text without escapes, and mappings of such text.
_TEXT, _MAPPING = r'"([^"\\]*)"', r"\{[^{}\\]*\}"
_FIRST = {
    "source": r'"[^"\\]*"',
    **dict.fromkeys(("name", "stamp", "job", "run", "part"), _TEXT),
    "page": r"\d+",
    "root": _TEXT,
    "files": f"({_MAPPING})",
    "sizes": _MAPPING,
    "looks": _MAPPING,
}


def make_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    """Return the pattern of the usual lines with fields of these names; None if these are in an unusual order."""
    if [*names[: len(_FIRST)]] != [*_FIRST] or names[-1] != "error":
        return None
    first = ", ".join(f'"{name}": {pattern}' for name, pattern in _FIRST.items())
    # Two lines that were glued together have a brace too many. The rest is checked when it is used.
    return re.compile(rf'\{{{first}, [^{{}}\\]*"error": (null|"[^"\\]*")\}}\n')


def parse_head(line: bytes, pattern: re.Pattern[str] | None) -> Head | None:
    """Return the head of a line; None if it is not a usual one, and is to be read as a whole."""
    try:
        found = pattern.fullmatch(line.decode()) if pattern else None
    except UnicodeDecodeError:
        found = None
    if found is None:
        return None
    return Head._make(found.groups())


def make_head(values: dict[str, Any]) -> Head:
    """Return the head of a line that was read as a whole."""
    name, stamp, job, run, part, root = (values[key] for key in ("name", "stamp", "job", "run", "part", "root"))
    files = json.dumps(values["files"], ensure_ascii=False)
    return Head(name, stamp, job, run, part, root, files, json.dumps(values["error"]))


def is_whole_block(block: Sequence[Head]) -> bool:
    """Return whether an image was done by one job with all its maps."""
    first = block[0]
    if first.part == "1/1":
        return first.error == "null" and len(block) == 1
    return first.part == f"1/{len(block)}" and not any(head.failed or head.job != first.job for head in block)
