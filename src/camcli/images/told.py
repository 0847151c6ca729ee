"""What a dataset tells about its images, such as their classes: files beside them in archives, columns of tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camcli.base.errors import PictureError, did_you_mean
from camcli.images import archives, tables
from camcli.images.tables import ToldClass

# Names of files beside an image, by their suffix; other names are those of values in its ``.json``.
CLASS_FILE, TEXT_FILE = "cls", "txt"


def read_told_classes(path: Path, name: str, titles: Sequence[str] = ()) -> list[ToldClass]:
    """Return the classes that a dataset tells of an image.

    Args:
        path: path of an image in an archive or a table.
        name: in an archive, ``cls`` (the default, if empty) or ``txt`` for the file with that suffix beside it, or a
            name in its ``.json``; in a table, a column (by default the one of classes).
        titles: usual names of a column of classes.

    Raises:
        PictureError: nothing is told, or it cannot be a class.
    """
    place = archives.split_path(path)
    if place is None:
        raise PictureError("is in no dataset that tells its class", "list classes in a file: --targets classes.csv")
    if tables.is_table(place[0]):
        column, given = tables.read_row_classes(*place, name, titles)
        return _as_classes(given, column)
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


def _as_classes(given: Any, name: str) -> list[ToldClass]:
    """Return a value, or those of a list, as classes; 3.0 is an index too, and a negative number none."""
    values = given if isinstance(given, list) else [given]
    if not values or any(one in (None, "") or (type(one) in (int, float) and one < 0) for one in values):
        raise PictureError(f"its dataset gives it no {name or 'class'}: {given!r}")
    found = [one for one in map(_as_class, values) if one]
    if len(found) < len(values):
        raise PictureError(f"the {name or 'class'} that its dataset gives it is no class: {repr(given)[:100]}")
    return found


def _as_class(given: Any) -> ToldClass | None:
    if isinstance(given, ToldClass):
        return given
    if isinstance(given, str):
        return ToldClass(name=given)
    is_index = type(given) is int or (isinstance(given, float) and given.is_integer())
    return ToldClass(int(given)) if is_index else None
