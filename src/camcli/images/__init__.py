"""Reading of image files, and the parsing of its options."""

from __future__ import annotations

import math
import re
from typing import Literal

from camcli.base.errors import RequestError

Decode = Literal["full", "reduced"]
Crop = Literal["model", "center", "none", "squash"]
# A group is a number of images, or the images of one folder.
BY_FOLDER = "folder"
GROUP_PATTERN = re.compile(rf"[1-9]\d{{0,5}}|{BY_FOLDER}", re.ASCII)

# The value range of an image of more than 8 bits that is taken from its own least and greatest value.
AUTO_RANGE = "auto"
# Pages of a file with several: the first, or all; others are given by number.
FIRST_PAGE, ALL_PAGES = "first", "all"
PAGES_PATTERN = re.compile(r"[1-9]\d{0,8}(-[1-9]\d{0,8})?", re.ASCII)


# Suffixes of videos, whose frames are read if a step from one to the next is given.
VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".mts", ".m2ts", ".3gp"),
        *(".ogv", ".mxf", ".vob", ".y4m"),
    }
)
EVERY_PATTERN = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*(ms|s|min|m)|[0-9]{1,9}", re.ASCII)
UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0}


def parse_every(words: str) -> tuple[float, int]:
    """Return the step between a video's frames in ``1s``, ``0.5s``, ``2min``, or in ``10`` frames: seconds, frames.

    The other of the two is 0, and both are for an empty text.

    Raises:
        RequestError: the text is no step.
    """
    if not words:
        return 0.0, 0
    match = EVERY_PATTERN.fullmatch(words.strip())
    seconds = float(match[1]) * UNITS[match[2]] if match and match[1] else 0.0
    frames = int(match[0]) if match and not match[1] else 0
    if not (seconds or frames):
        raise RequestError(
            f"every cannot be {words!r}", "give the time between a video's frames, as 1s or 500ms; or 10 for each tenth"
        )
    return seconds, frames


def parse_value_range(words: str) -> tuple[float, float] | None:
    """Return the least and greatest value of a range such as ``0,4095``; None for ``auto`` or an empty text.

    Raises:
        RequestError: the text is not a range.
    """
    if words in ("", AUTO_RANGE):
        return None
    try:
        low, high = (float(word) for word in words.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise RequestError(
            f"range cannot be {words!r}",
            "give the values that become black and white, the smaller first: 0,4095 (of 12 bits), -1000,400; or "
            f"{AUTO_RANGE} for each file's own least and greatest",
        )
    return low, high


def parse_page_ranges(words: str) -> tuple[tuple[int, int | None], ...]:
    """Return the first and last page of each range in ``1,3``, ``2-5`` or ``all`` (whose end is None).

    ``first`` gives no ranges: the first page then stands for its file.

    Raises:
        RequestError: the text does not name pages.
    """
    if words == FIRST_PAGE:
        return ()
    if words == ALL_PAGES:
        return ((1, None),)
    found = []
    for word in words.split(","):
        first, _, last = word.strip().partition("-")
        if not PAGES_PATTERN.fullmatch(word.strip()) or int(last or first) < int(first):
            raise RequestError(
                f"pages cannot be {words!r}",
                f"give {FIRST_PAGE}, {ALL_PAGES}, or numbers from 1 on, joined by commas, and ranges of them: "
                "1,3 or 2-5",
            )
        found.append((int(first), int(last or first)))
    return tuple(found)


def describe_page(path: str, page: int) -> str:
    """Return the name of a file, or of one of its pages or frames, for messages."""
    kind = "frame" if path.lower().endswith(tuple(VIDEO_SUFFIXES)) else "page"
    return f"{path}, {kind} {page}" if page else path
