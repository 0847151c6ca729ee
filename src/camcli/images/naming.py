"""The name of a picture under the output folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from camcli.base import paths

LONGEST_COMPONENT = 180


def output_name(path: str | Path, root: str | Path) -> str:
    """The name a picture has under the output folder: a function of its path alone.

    Relative to ``root``; outside it ``%root/`` and the absolute path. A first part that begins with ``%`` has it
    written ``%25``, so that two paths never share a name. Links are not resolved, but before ``..``. A part of more
    than 180 bytes is cut and ends in ``~`` and 12 hex digits of its SHA-256.
    """
    absolute = paths.absolute(path)
    parts = Path(os.path.relpath(absolute, root)).parts
    if parts and parts[0] == "..":
        parts = ("%root", *Path(absolute).parts[1:])
    elif parts and parts[0].startswith("%"):
        parts = ("%25" + parts[0][1:], *parts[1:])
    return "/".join(map(_short, parts)) or "."


def stamp(path: Path) -> str:
    """The file's size and time of change, to see later whether it is still the same; empty if it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _short(part: str) -> str:
    full = os.fsencode(part)
    if len(full) <= LONGEST_COMPONENT:
        return part
    mark = "~" + hashlib.sha256(full).hexdigest()[:12]
    kept = part[:LONGEST_COMPONENT]
    while len(os.fsencode(kept)) + len(mark) > LONGEST_COMPONENT:
        kept = kept[:-1]
    return kept + mark


LONGEST_FILE_NAME = 255  # bytes, on every common file system


def fit_path(stem: str, suffix: str) -> str:
    """A path whose last part no file system finds too long; what is cut off is replaced by its hash."""
    folder, slash, name = stem.rpartition("/")
    if len(os.fsencode(name + suffix)) > LONGEST_FILE_NAME:
        mark = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
        name = os.fsencode(name)[: LONGEST_FILE_NAME - len(suffix) - len(mark)].decode("utf-8", "ignore") + mark
    return folder + slash + name + suffix
