"""Reading of image files, and the parsing of its options."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from camcli.base.errors import RequestError

Decode = Literal["full", "reduced"]
Crop = Literal["model", "center", "none", "squash"]
# A group is a number of images, or the images of one folder.
BY_FOLDER = "folder"
GROUP_PATTERN = re.compile(rf"[1-9]\d{{0,5}}|{BY_FOLDER}", re.ASCII)

# The value range of an image of more than 8 bits that is taken from its own least and greatest value.
AUTO_RANGE = "auto"
PERCENTILES = re.compile(r"([0-9.]+)%\s*,\s*([0-9.]+)%", re.ASCII)
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
    """Return the values of black and white of ``0,4095``, or of a window ``40/400``: its centre and its width.

    None for an empty text, and where each image has its own: ``auto`` and percentiles (see :func:`parse_percentiles`).

    Raises:
        RequestError: the text is not a range.
    """
    if not words or parse_percentiles(words):
        return None
    try:
        if "/" in words:
            centre, width = (float(word) for word in words.split("/"))
            low, high = centre - width / 2, centre + width / 2
        else:
            low, high = (float(word) for word in words.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise RequestError(
            f"range cannot be {words!r}",
            "give the values that become black and white, the smaller first: 0,4095 (of 12 bits), -1000,400; or a "
            f"window's centre and width: 40/400; or percentiles of each file: 1%,99%; or {AUTO_RANGE} for its own "
            "least and greatest",
        )
    return low, high


def describe_range(words: str) -> str:
    """Return what becomes black and white by a range, in words."""
    if not words:
        return "0 and the greatest value of the data type; of DICOM images, their own window"
    if limits := parse_value_range(words):
        return f"{limits[0]:g} and {limits[1]:g}"
    return "the least and greatest value of each image" if words == AUTO_RANGE else f"{words} of each image's values"


def parse_percentiles(words: str) -> tuple[float, float] | None:
    """Return the percentiles of a range such as ``1%,99%``; 0 and 100 for ``auto``; None for another range."""
    if words == AUTO_RANGE:
        return 0.0, 100.0
    match = PERCENTILES.fullmatch(words.strip())
    try:
        low, high = (float(word) for word in match.groups()) if match else (0.0, 0.0)
    except ValueError:
        return None
    return (low, high) if 0 <= low < high <= 100 else None


BAND_NUMBER = re.compile(r"[1-9]\d{0,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bands:
    """Bands of an image, counted from 1.

    Attributes:
        chosen: those that the model gets, in its order; empty for all.
        shown: those that are drawn as red, green and blue, or a single one as grey; empty for the first three chosen,
            or the first where there are fewer.
    """

    chosen: tuple[int, ...] = ()
    shown: tuple[int, ...] = ()


def parse_bands(chosen: str, shown: str = "") -> Bands | None:
    """Return the bands of ``8,4,3`` and those to be drawn; None if neither is given.

    Raises:
        RequestError: a text is no list of numbers, or more or fewer than one or three are to be drawn.
    """
    if not (chosen or shown):
        return None
    bands = Bands(_parse_band_numbers("bands", chosen), _parse_band_numbers("rgb", shown))
    if len(bands.shown) not in (0, 1, 3):
        raise RequestError(
            f"rgb cannot be {shown!r}", "give the bands drawn as red, green and blue: 4,3,2; or one, drawn as grey"
        )
    return bands


def _parse_band_numbers(name: str, words: str) -> tuple[int, ...]:
    numbers = [word.strip() for word in words.split(",")] if words else []
    if not all(BAND_NUMBER.fullmatch(one) for one in numbers):
        raise RequestError(
            f"{name} cannot be {words!r}",
            "give numbers of an image's bands, counted from 1, in the model's order: 4,3,2,8",
        )
    return tuple(map(int, numbers))


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
