"""Picture files to tensors and back: the words for it."""

from __future__ import annotations

import math
import re
from typing import Literal

from camcli.base.errors import RequestError

Decode = Literal["full", "reduced"]
Crop = Literal["model", "center", "none", "squash"]
# What makes a group: so many pictures, or those of a folder.
BY_FOLDER = "folder"
GROUP = re.compile(rf"[1-9]\d{{0,5}}|{BY_FOLDER}", re.ASCII)

# Which values of a picture of more than 8 bits become black and white: all that there are in it.
ALL_THERE_IS = "auto"
# Of a file with several pages: the first, or every one; others are named by their numbers.
FIRST, EVERY = "first", "all"
PAGES = re.compile(r"[1-9]\d{0,8}(-[1-9]\d{0,8})?", re.ASCII)


def value_range(words: str) -> tuple[float, float] | None:
    """The least and the greatest value meant by ``0,4095``; None if none is named (``auto``, or nothing).

    Raises:
        RequestError: it is no range.
    """
    if words in ("", ALL_THERE_IS):
        return None
    try:
        low, high = (float(word) for word in words.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise RequestError(
            f"range cannot be {words!r}",
            "give the values that become black and white, the smaller first: 0,4095 (of 12 bits), -1000,400; or "
            f"{ALL_THERE_IS} for each file's own least and greatest",
        )
    return low, high


def page_ranges(words: str) -> tuple[tuple[int, int | None], ...]:
    """The first and the last of each range of pages meant by ``1,3``, ``2-5`` or ``all`` (with None for the end).

    Nothing is meant by ``first``: the first page then stands for its file.

    Raises:
        RequestError: these are no pages.
    """
    if words == FIRST:
        return ()
    if words == EVERY:
        return ((1, None),)
    found = []
    for word in words.split(","):
        first, _, last = word.strip().partition("-")
        if not PAGES.fullmatch(word.strip()) or int(last or first) < int(first):
            raise RequestError(
                f"pages cannot be {words!r}",
                f"give {FIRST}, {EVERY}, or numbers from 1 on, joined by commas, and ranges of them: 1,3 or 2-5",
            )
        found.append((int(first), int(last or first)))
    return tuple(found)


def page_of(path: str, page: int) -> str:
    """A file, or a page of it, in words."""
    return f"{path}, page {page}" if page else path
