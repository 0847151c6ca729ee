"""Names of images under the output folder."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from camcli.base import paths

MAX_COMPONENT_BYTES = 180
DIGITS = re.compile("([0-9]+)")
# What a name has before its suffix where another image has the same name, or where its last part was cut.
MARK = "~"
NAME_MARK = re.compile(MARK + r"[0-9a-f]{12}(?=(\.[^./]*)?$)", re.ASCII)


def output_name(path: str | Path, root: str | Path) -> str:
    """Return the name of an image under the output folder, a function of its path alone.

    It is relative to ``root``; outside of it, ``%root/`` and the absolute path. A first part that begins with ``%`` is
    written with ``%25``, so that two paths never share a name. Links are only resolved before ``..``. A part of more
    than 180 bytes is cut and ends in ``~`` and 12 hex digits of its SHA-256.
    """
    absolute = paths.absolute(path)
    parts = Path(os.path.relpath(absolute, root)).parts
    if parts and parts[0] == "..":
        parts = ("%root", *Path(absolute).parts[1:])
    elif parts and parts[0].startswith("%"):
        parts = ("%25" + parts[0][1:], *parts[1:])
    return "/".join(map(shorten_component, parts)) or "."


def mark_name(name: str, path: str | Path) -> str:
    """Return an image's name with ``~`` and 12 hex digits of its path's SHA-256, where another has the name."""
    return mark_text(name, paths.absolute(path))


def mark_text(name: str, text: str) -> str:
    """Return a name with ``~`` and 12 hex digits of a text's SHA-256 before its suffix."""
    mark = MARK + hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  a name, no path
    return f"{stem}{mark}{suffix}"


def shorten_component(part: str) -> str:
    """Return a part of a path; one of more than 180 bytes is cut, and ends in a hash of it."""
    if 4 * len(part) <= MAX_COMPONENT_BYTES:
        return part
    full = os.fsencode(part)
    if len(full) <= MAX_COMPONENT_BYTES:
        return part
    mark = MARK + hashlib.sha256(full).hexdigest()[:12]
    kept = part[:MAX_COMPONENT_BYTES]
    while len(os.fsencode(kept)) + len(mark) > MAX_COMPONENT_BYTES:
        kept = kept[:-1]
    return kept + mark


MAX_FILE_NAME_BYTES = 255  # bytes, on every common file system


def fit_path(stem: str, suffix: str) -> str:
    """Return a path whose last part is short enough for any file system; a hash replaces what is cut off."""
    folder, slash, name = stem.rpartition("/")
    if len(os.fsencode(name + suffix)) > MAX_FILE_NAME_BYTES:
        mark = MARK + hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
        name = os.fsencode(name)[: MAX_FILE_NAME_BYTES - len(suffix) - len(mark)].decode("utf-8", "ignore") + mark
    return folder + slash + name + suffix


def natural_key(name: str) -> tuple[str, str]:
    """Return a sort key that puts 2 before 10: each run of digits is preceded by its length."""
    parts = DIGITS.split(name.casefold())
    for place in range(1, len(parts), 2):
        digits = parts[place].lstrip("0")
        parts[place] = f"{len(digits):03}{digits}"
    return "".join(parts), name
