"""Images of more than 8 bits: the values that become black and white, and those between, not rounded."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import cv2
import numpy as np
from jaxtyping import Float32
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images import AUTO_RANGE, parse_percentiles, parse_value_range

MAX_UINT16 = 65535
# An image that uses less than this share of the range has only a few grey levels left, and gets a note.
NARROW_SHARE = 0.1
# Prefixes of the notes.
NARROW_RANGE_NOTE, EIGHT_BITS_NOTE = "uses only", "has 8 bits"
RANGE_IGNORED_NOTE = f"{EIGHT_BITS_NOTE} per colour channel, so --range does not apply"
RANGE_HINT = "set the values of black and white: --range LOW,HIGH, or --range auto for the file's minimum and maximum"


@dataclass(frozen=True, slots=True)
class Depth:
    """Value depth of a file, from its header.

    Attributes:
        max_value: the greatest value of the type: 65535, 4095 for 12 bits, 1 for floating-point numbers.
        scaled_by_pillow: True if Pillow itself scales the values to 0..65535.
        deep_colours: True if pixels have several channels of more than 8 bits, of which Pillow keeps the upper 8.
    """

    max_value: int
    scaled_by_pillow: bool = False
    deep_colours: bool = False


def read_depth(image: Image.Image) -> Depth | None:
    """Return the depth of an opened image that is not loaded yet; None if it has 8 bits or fewer."""
    grey = image.mode == "I" or image.mode.startswith("I;")
    said = next((tile[3] for tile in getattr(image, "tile", ())), None)
    if image.mode == "F":
        return Depth(1)
    if image.format == "PPM" and isinstance(said, tuple) and len(said) == 2 and said[1] > 255:
        return Depth(int(said[1]), scaled_by_pillow=grey, deep_colours=not grey)
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = max(tags.get(258, (16,)))
    if grey:
        return Depth(2**bits - 1 if image.mode.startswith("I;") and bits < 16 else MAX_UINT16)
    raw = said[0] if isinstance(said, tuple) and said else said
    if isinstance(raw, str) and ";16" in raw:
        return Depth(MAX_UINT16, deep_colours=True)
    return None


def scale_values(
    image: Image.Image, depth: Depth | None, value_range: str, file: IO[bytes] | io.BufferedIOBase | None, page: int = 0
) -> tuple[Image.Image, Float32[np.ndarray, "h w d"] | None, tuple[str, ...]]:
    """Scale the values of a loaded image to 0..1, not rounded for the model, and to 8 bits to be seen.

    Args:
        image: the image that Pillow loaded.
        depth: its depth before loading.
        value_range: the values that become black and white: ``LOW,HIGH`` or ``CENTRE/WIDTH``; percentiles of this
            image: ``1%,99%``; ``auto`` for its least and greatest; empty for 0 and the greatest of the type. Values
            beyond are clipped. Ignored for 8 bits.
        file: the file, if there is one, to read the bits that Pillow cuts off.
        page: number of the page, from 1; 0 for the first.

    Returns:
        The image with 8 bits, perhaps with transparency; the values in 0..1 without it (one channel for grey), None
        for an image of 8 bits; and notes.

    Raises:
        PictureError: values are not finite, or their range is unknown.
    """
    if depth is None:
        return image, None, (RANGE_IGNORED_NOTE,) if value_range else ()
    if depth.deep_colours:
        return _scale_colours(image, depth, value_range, file, page)
    values = np.asarray(image)
    if depth.scaled_by_pillow:
        values = np.rint(values * (depth.max_value / MAX_UINT16)).astype(np.int32)
    _check_finite(values)
    clear = image.info.get("transparency")
    known = values if clear is None or not (values != clear).any() else values[values != clear]
    planes, levels, notes = _scale(values, known, depth, value_range)
    grey = Image.fromarray(levels)
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey, planes[..., np.newaxis], notes


def scale_array(
    values: np.ndarray, value_range: str, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Scale the values of an array to 0..1 (float32) without rounding, and to levels 0..255 (uint8).

    Args:
        values: whole or floating-point numbers.
        value_range: see :func:`scale_values`.
        known: the values that the range is taken from, if it is their own; default: all.

    Returns:
        Both arrays, and notes.

    Raises:
        PictureError: values are not finite numbers, or their range is unknown.
    """
    if values.dtype == np.uint8:
        return values.astype(np.float32) / 255, values, (RANGE_IGNORED_NOTE,) if value_range else ()
    if values.dtype.kind not in "iuf":
        raise PictureError(f"has values of type {values.dtype}, which images do not have")
    _check_finite(values)
    depth = Depth(1 if values.dtype.kind == "f" else MAX_UINT16)
    return _scale(values, values if known is None else known, depth, value_range)


def _check_finite(values: np.ndarray) -> None:
    if values.dtype.kind == "f" and (wrong := int(values.size - np.isfinite(values).sum())):
        raise PictureError(f"has floating-point values that are NaN or infinite, at {wrong} of {values.size} values")


def _scale(
    values: np.ndarray, known: np.ndarray, depth: Depth, value_range: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    extremes = float(known.min()), float(known.max())
    low, high = _find_limits(known, extremes, depth, value_range)
    notes = _note_narrow_range(extremes, low, high, value_range, whole=values.dtype.kind != "f")
    return to_shares(values, low, high), to_levels(values, low, high), notes


def _find_limits(
    values: np.ndarray, extremes: tuple[float, float], depth: Depth, value_range: str
) -> tuple[float, float]:
    """Return the values that become black and white.

    Raises:
        PictureError: no range is given, and values lie outside that of their type.
    """
    if (limits := find_window(values, value_range)) is not None:
        return limits
    least, most = extremes
    if least < 0 or most > depth.max_value:
        kind = "floating-point" if depth.max_value == 1 else "grey"
        raise PictureError(
            f"has {kind} values from {least:g} to {most:g}, and black and white are defined for 0 to "
            f"{depth.max_value} only",
            RANGE_HINT,
        )
    return 0.0, float(depth.max_value)


def find_window(values: np.ndarray, value_range: str) -> tuple[float, float] | None:
    """Return the values that a range makes black and white, percentiles being those of ``values``; None for none."""
    if (shares := parse_percentiles(value_range)) is None:
        return parse_value_range(value_range)
    if value_range == AUTO_RANGE:
        return float(values.min()), float(values.max())
    low, high = np.percentile(values, shares)
    return float(low), float(high)


def to_shares(values: np.ndarray, low: float, high: float) -> Float32[np.ndarray, "*d h w"]:
    """Map values linearly to 0..1: 0 at ``low`` and below, 1 at ``high`` and above."""
    return np.asarray(_by_table(values, lambda one: _share(one, low, high).astype(np.float32)))


def to_levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map values linearly to uint8 levels: 0 at ``low`` and below, 255 at ``high`` and above."""
    return _by_table(values, lambda one: np.rint(255 * _share(one, low, high)).astype(np.uint8))


def _by_table(values: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if values.dtype == np.uint16:  # a lookup table is many times as fast, and needs no memory
        return np.asarray(change(np.arange(MAX_UINT16 + 1, dtype=np.float64))[values])
    return change(values.astype(np.float64))


def _share(values: np.ndarray, low: float, high: float) -> np.ndarray:
    # The range of a constant image is empty: avoid dividing by zero.
    return np.asarray(np.clip((values - low) / ((high - low) or 1.0), 0, 1))


def _note_narrow_range(
    extremes: tuple[float, float], low: float, high: float, value_range: str, whole: bool
) -> tuple[str, ...]:
    """Return a note if an image uses so little of the range that only a few levels are left."""
    least, most = extremes
    used = min(max(most, low), high) - min(max(least, low), high)
    if parse_percentiles(value_range) or least == most or used >= NARROW_SHARE * (high - low):
        return ()
    # For whole numbers the next power of two is a better guess of the range than one image's extremes.
    better = (0, 2 ** max(1, math.ceil(math.log2(most + 1))) - 1) if whole and least >= 0 else extremes
    levels = round(255 * used / (high - low)) + 1
    return (
        f"{NARROW_RANGE_NOTE} {used / (high - low):.1%} of the values from {low:g} to {high:g} ({least:g} to "
        f"{most:g}), which leaves about {levels} of 256 levels: --range {better[0]:g},{better[1]:g}, or --range auto",
    )


# ---- colours of 16 bits


def _scale_colours(
    image: Image.Image,
    depth: Depth,
    value_range: str,
    file: IO[bytes] | io.BufferedIOBase | None,
    page: int,
) -> tuple[Image.Image, Float32[np.ndarray, "h w 3"] | None, tuple[str, ...]]:
    """Scale deep colours as :func:`scale_values` does; without a range the upper 8 bits are seen, as by Pillow."""
    wide = _read_deep_colours(image, depth, file, page) if file else None
    if wide is None:
        if value_range:
            raise PictureError(
                f"has colours of more than 8 bits, of which only 8 can be read from this {image.format or 'image'}",
                "leave --range out, or save it as an upright 16-bit PNG",
            )
        return image, None, _note_upper_bits(image)
    colours, alpha = wide[..., :3], wide[..., 3:]
    planes, levels, notes = _scale(colours, colours, depth, value_range)
    if not value_range:
        return image, planes, notes
    if alpha.size:
        levels = np.concatenate([levels, to_levels(alpha, 0.0, float(depth.max_value))], axis=2)
    return Image.fromarray(levels), planes, notes


def _note_upper_bits(image: Image.Image) -> tuple[str, ...]:
    """Return a note on colours whose lower bits cannot be read, if the upper ones are few levels."""
    upper = np.asarray(image.convert("RGB"))
    spread = int(upper.max()) - int(upper.min())
    if spread > NARROW_SHARE * 255 + 1 or not spread:
        return ()
    return (f"{NARROW_RANGE_NOTE} about {(spread + 1) / 256:.0%} of its values: --range LOW,HIGH, or --range auto",)


def _read_deep_colours(
    image: Image.Image, depth: Depth, file: IO[bytes] | io.BufferedIOBase, page: int
) -> np.ndarray | None:
    """Read the full values, ``(h, w, 3)`` or with alpha ``(h, w, 4)``, of which Pillow kept 8 bits; None on failure.

    They are read by OpenCV, which may treat orientation and channel order differently from Pillow; they are used only
    if they agree with Pillow's upper bits.
    """
    file.seek(0)
    content = np.frombuffer(file.read(), np.uint8)
    if page > 1:
        _, found = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, range=(page - 1, page))
        wide = found[0] if found else None
    else:
        wide = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if wide is None or wide.ndim != 3 or wide.dtype != np.uint16 or wide.shape[2] not in (3, 4):
        return None
    wide = cv2.cvtColor(wide, cv2.COLOR_BGR2RGB if wide.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    own = np.asarray(image.convert("RGB" if wide.shape[2] == 3 else "RGBA"))
    if own.shape != wide.shape:
        return None
    apart = np.abs(to_levels(wide, 0.0, float(depth.max_value)).astype(np.int16) - own)
    return wide if int(apart.max()) <= 1 else None
