"""Pictures of more than 8 bits: how their values become 0 to 255."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images import ALL_THERE_IS, value_range

WIDEST = 65535
# Of the range that becomes 0 to 255, a picture that uses less than this part is drawn in a few levels alone.
LITTLE = 0.1
# How the notes begin.
NARROW, EIGHT = "uses only", "has 8 bits"
EIGHT_BITS = f"{EIGHT} a colour, so --range means nothing to it"
GIVE_RANGE = "say which values are black and white: --range LOW,HIGH, or --range auto for the file's least and greatest"


@dataclass(frozen=True, slots=True)
class Depth:
    """What a file's header says of its values.

    Attributes:
        full: the greatest value of their type: 65535, of 12 bits 4095; 1 of floating-point numbers.
        scaled: Pillow brings them to 0..65535 by itself.
        colours: there are several a pixel, each of more than 8 bits, of which Pillow keeps the upper 8.
    """

    full: int
    scaled: bool = False
    colours: bool = False


def depth_of(image: Image.Image) -> Depth | None:
    """The depth of an opened picture that is not loaded yet; None if it has 8 bits or fewer."""
    grey = image.mode == "I" or image.mode.startswith("I;")
    said = next((tile[3] for tile in getattr(image, "tile", ())), None)
    if image.mode == "F":
        return Depth(1)
    if image.format == "PPM" and isinstance(said, tuple) and len(said) == 2 and said[1] > 255:
        return Depth(int(said[1]), scaled=grey, colours=not grey)
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = max(tags.get(258, (16,)))
    if grey:
        return Depth(2**bits - 1 if image.mode.startswith("I;") and bits < 16 else WIDEST)
    raw = said[0] if isinstance(said, tuple) and said else said
    if isinstance(raw, str) and ";16" in raw:
        return Depth(WIDEST, colours=True)
    return None


def eight_bits(
    image: Image.Image, depth: Depth | None, words: str, path: Path | None = None, page: int = 0
) -> tuple[Image.Image, tuple[str, ...]]:
    """A loaded picture with its values brought to 0 to 255, and what is to be said of that.

    Args:
        image: as Pillow has it.
        depth: what it was opened as.
        words: which values become 0 and 255: ``LOW,HIGH``; ``auto``, the least and the greatest of this picture;
            empty for 0 and the greatest of their type. What lies beyond is clipped. Of a picture of 8 bits it is not
            asked.
        path: of the file, where it has one, to read what Pillow cuts off.
        page: which of the file's, from 1 on; 0 for the first.

    Raises:
        PictureError: its values are no finite numbers, or nothing says what they mean.
    """
    if depth is None:
        return image, (EIGHT_BITS,) if words else ()
    if depth.colours:
        return _colours(image, depth, words, path, page)
    values = np.asarray(image)
    if depth.scaled:
        values = np.rint(values * (depth.full / WIDEST)).astype(np.int32)
    if values.dtype.kind == "f" and (wrong := int(values.size - np.isfinite(values).sum())):
        raise PictureError(f"has floating-point values that are NaN or infinite, at {wrong} of {values.size} pixels")
    clear = image.info.get("transparency")
    known = values if clear is None or not (values != clear).any() else values[values != clear]
    extremes = float(known.min()), float(known.max())
    low, high = _limits(extremes, depth, words)
    grey = Image.fromarray(_levels(values, low, high))
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey, _narrow(extremes, low, high, words, whole=values.dtype.kind != "f")


def unit_values(values: np.ndarray, words: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values of an array brought to 0..1 (float32), by the same rules and without rounding to levels, and its notes.

    Raises:
        PictureError: they are no finite numbers, or nothing says what they mean.
    """
    if values.dtype == np.uint8:
        return values.astype(np.float32) / 255, (EIGHT_BITS,) if words else ()
    whole = values.dtype.kind in "iu"
    if not whole and values.dtype.kind != "f":
        raise PictureError(f"has values of type {values.dtype}, which are no numbers of a picture")
    if not np.isfinite(values).all():
        raise PictureError("has floating-point values that are NaN or infinite")
    extremes = float(values.min()), float(values.max())
    low, high = _limits(extremes, Depth(WIDEST if whole else 1), words)
    share = np.clip((values.astype(np.float64) - low) / ((high - low) or 1.0), 0, 1)
    return share.astype(np.float32), _narrow(extremes, low, high, words, whole=whole)


def _limits(extremes: tuple[float, float], depth: Depth, words: str) -> tuple[float, float]:
    """Which values become 0 and 255.

    Raises:
        PictureError: nothing says so, and some are beyond those that their type is known to have.
    """
    if words == ALL_THERE_IS:
        return extremes
    if given := value_range(words):
        return given
    least, most = extremes
    if least < 0 or most > depth.full:
        kind = "floating-point" if depth.full == 1 else "grey"
        raise PictureError(
            f"has {kind} values from {least:g} to {most:g}, and only 0 to {depth.full} say what is black and white",
            GIVE_RANGE,
        )
    return 0.0, float(depth.full)


def _levels(values: np.ndarray, low: int | float, high: int | float) -> np.ndarray:
    """Each value's level: ``low`` and what is below it 0, ``high`` and what is above it 255; uint8."""
    if values.dtype == np.uint16:  # a table is many times as fast, and needs no memory
        return np.asarray(_levels(np.arange(WIDEST + 1, dtype=np.float64), low, high)[values])
    # A picture that is all one value has nothing above its least.
    share = (values.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _narrow(extremes: tuple[float, float], low: float, high: float, words: str, whole: bool) -> tuple[str, ...]:
    """That a picture uses little of the range, if it does: it is then seen in a few levels."""
    least, most = extremes
    used = min(max(most, low), high) - min(max(least, low), high)
    if words == ALL_THERE_IS or least == most or used >= LITTLE * (high - low):
        return ()
    # The bits that whole numbers fill are a better guess than one picture's own values.
    better = (0, 2 ** max(1, math.ceil(math.log2(most + 1))) - 1) if whole and least >= 0 else extremes
    levels = round(255 * used / (high - low)) + 1
    return (
        f"{NARROW} {used / (high - low):.1%} of the values from {low:g} to {high:g} ({least:g} to {most:g}), "
        f"which leaves about {levels} of 256 levels: --range {better[0]:g},{better[1]:g}, or --range auto",
    )


# ---- several colours of 16 bits


def _colours(
    image: Image.Image, depth: Depth, words: str, path: Path | None, page: int
) -> tuple[Image.Image, tuple[str, ...]]:
    """Likewise; without a range the upper 8 bits, as Pillow has them and so every other program that uses it."""
    upper = np.asarray(image.convert("RGB"))
    spread = int(upper.max()) - int(upper.min())
    if not words and (spread > LITTLE * 255 + 1 or not spread):
        return image, ()
    wide = _wide(image, depth, path, page) if path else None
    if wide is None:
        if not words:
            return image, (f"{NARROW} about {(spread + 1) / 256:.0%} of its values: --range LOW,HIGH, or --range auto",)
        raise PictureError(
            f"has colours of more than 8 bits, of which no more can be read of this {image.format or 'picture'}",
            "leave --range out, or save it as an upright PNG of 16 bits",
        )
    colours, alpha = wide[..., :3], wide[..., 3:]
    extremes = float(colours.min()), float(colours.max())
    low, high = _limits(extremes, depth, words)
    notes = _narrow(extremes, low, high, words, whole=True)
    if not words:
        return image, notes
    levels = _levels(colours, low, high)
    if alpha.size:
        levels = np.concatenate([levels, _levels(alpha, 0, depth.full)], axis=2)
    return Image.fromarray(levels), notes


def _wide(image: Image.Image, depth: Depth, path: Path, page: int) -> np.ndarray | None:
    """The values ``(h, w, 3)``, or with alpha ``(h, w, 4)``, that Pillow has cut to 8 bits; None if nothing has them.

    Read by OpenCV, which may know a format otherwise than Pillow (its turns, its order of colours); only what agrees
    with Pillow's own upper bits is taken.
    """
    content = np.fromfile(path, np.uint8)
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
    apart = np.abs(_levels(wide, 0, depth.full).astype(np.int16) - own)
    return wide if int(apart.max()) <= 1 else None
