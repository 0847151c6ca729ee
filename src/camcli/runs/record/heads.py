"""What a ledger keeps in mind of a line, read without the rest of it, which takes a third of the time."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class Head(NamedTuple):
    """What a line says of its image; ``files`` is as it is written, ``failed`` whether there is an error."""

    name: str
    stamp: str
    job: str
    run: str
    part: str
    root: str
    files: str
    failed: bool

    @property
    def has_result(self) -> bool:
        """True if a file was made, or none was to be."""
        return not self.failed or self.files != "{}"


# Text without escapes, and any value that is plain or a list or mapping of plain ones.
_TEXT = r'"([^"\\]*)"'
_VALUE = r'(?:[^][{}",\\]+|"[^"\\]*"|\[[^][{}\\]*\]|\{[^{}\\]*\})'
_KEPT = dict.fromkeys(("name", "stamp", "job", "run", "part", "root"), _TEXT)
_KEPT["files"] = r'(\{(?:"[^"\\]*": "[^"\\]*"(?:, )?)*\})'


def make_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    """Return the pattern of the usual lines with fields of these names; None if these are in an unusual order."""
    kept = [name for name in names if name in _KEPT]
    if kept != list(_KEPT) or names[-1] != "error":
        return None
    first = names[: names.index("files") + 1]
    fields = (f'"{name}": {_KEPT.get(name, _VALUE)}' for name in first)
    # Two lines that were glued together have a brace too many. The rest is checked when it is used.
    rest = rf'(?:, "\w+": {_VALUE}){{2}}, [^{{}}\\]*"error": (null|"[^"\\]*")'
    return re.compile(r"\{" + ", ".join(fields) + rest + r"\}\n")


def parse_head(line: bytes, pattern: re.Pattern[str] | None) -> Head | None:
    """Return the head of a line; None if it is not a usual one, and is to be read as a whole."""
    try:
        found = pattern.fullmatch(line.decode()) if pattern else None
    except UnicodeDecodeError:
        found = None
    if found is None:
        return None
    name, stamp, job, run, part, root, files, error = found.groups()
    return Head(name, stamp, job, run, part, root, files, error != "null")


def make_head(values: dict[str, Any]) -> Head:
    """Return the head of a line that was read as a whole."""
    name, stamp, job, run, part, root = (values[key] for key in ("name", "stamp", "job", "run", "part", "root"))
    files = json.dumps(values["files"], ensure_ascii=False)
    return Head(name, stamp, job, run, part, root, files, bool(values["error"]))
