"""What a dataset tells about its images, such as their classes: files beside them in archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from camcli.base.errors import PictureError, did_you_mean
from camcli.images import archives

# Names of files beside an image, by their suffix; other names are those of values in its ``.json``.
CLASS_FILE, TEXT_FILE = "cls", "txt"


def read_told_classes(path: Path, name: str) -> list[int | str]:
    """Return the classes that a dataset tells of an image, each an index or a name.

    Args:
        path: path of an image in an archive.
        name: ``cls`` (the default, if empty) or ``txt`` for the file with that suffix beside it, or a name in its
            ``.json``.

    Raises:
        PictureError: nothing is told, or it cannot be a class.
    """
    place = archives.split_path(path)
    if place is None:
        raise PictureError("is in no dataset that tells its class", "list classes in a file: --targets classes.csv")
    return _as_classes(_read_beside(*place, name or CLASS_FILE), name)


def _read_beside(archive: str, member: str, name: str) -> Any:
    suffix = f".{name}" if name in (CLASS_FILE, TEXT_FILE) else ".json"
    try:
        content = archives.read_telling(archive, member, suffix)
    except OSError as error:
        raise PictureError(f"its archive cannot be read: {error.strerror or error}") from error
    if content is None:
        raise PictureError(f"its archive has no {suffix} file beside it", "--target dataset:NAME takes it from .json")
    try:
        if suffix != ".json":
            text = content.decode("utf-8-sig").strip()
            return int(text) if text.isascii() and text.isdecimal() else text
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PictureError(f"the {suffix} file beside it cannot be read: {error}") from error
    if not isinstance(values, dict) or name not in values:
        names = [str(one) for one in values] if isinstance(values, dict) else []
        near = did_you_mean(name, names) or (f"there are: {', '.join(names)[:200]}" if names else "")
        raise PictureError(f"the .json file beside it has no {name!r}", near)
    return values[name]


def _as_classes(given: Any, name: str) -> list[int | str]:
    """Return a value, or those of a list, as classes; 3.0 is an index too, and a negative number none."""
    found = [
        int(one) if isinstance(one, float) and one.is_integer() else one
        for one in (given if isinstance(given, list) else [given])
    ]
    if not found or any(one is None or one == "" or (type(one) is int and one < 0) for one in found):
        raise PictureError(f"its dataset gives it no {name or 'class'}: {given!r}")
    if not all(type(one) in (int, str) for one in found):
        raise PictureError(f"the {name or 'class'} that its dataset gives it is no class: {repr(given)[:100]}")
    return found
