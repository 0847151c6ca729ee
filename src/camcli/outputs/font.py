"""Text in any script: a bundled font for Latin, Greek and Cyrillic, and the system's for others."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

FONT = Path(__file__).parent / "DejaVuSans.ttf"
# What the bundled font has: Latin with all accents, Greek, Cyrillic, punctuation, arrows, mathematical signs.
RANGES = (
    (0x20, 0x7E),
    (0xA0, 0x24F),
    (0x2B0, 0x36F),
    (0x370, 0x52F),
    (0x1E00, 0x1FFF),
    (0x2010, 0x22FF),
    (0xFFFD, 0xFFFD),
)
# Fonts for Chinese, Japanese and Korean, by the names that Linux, macOS and Windows give their files.
SYSTEM_FONTS = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Arial Unicode.ttf"),
    *("msyh.ttc", "YuGothM.ttc", "msgothic.ttc", "malgun.ttf"),
)
Font = ImageFont.FreeTypeFont
Colour = tuple[int, int, int] | str
Number = int | float


@functools.cache
def load_font(size: int) -> Font:
    """Return the bundled font at a size in pixels."""
    return ImageFont.truetype(str(FONT), size)


def measure_text(text: str, size: int) -> float:
    """Return the width of a line of text in pixels."""
    return float(sum(font.getlength(part) for font, part in _split_by_font(text, size)))


def write_text(
    draw: ImageDraw.ImageDraw, place: tuple[Number, Number], text: str, colour: Colour, size: int, anchor: str = "la"
) -> None:
    """Write a line of text.

    Args:
        draw: what it is written on.
        place: x and y of the anchor.
        text: the line; a character that no font has is written as its number, such as ``U+732B``.
        colour: colour of the letters.
        size: size of the font in pixels.
        anchor: Pillow's: ``l``, ``m`` or ``r``, and ``a`` or ``m``.
    """
    x, y = place
    x -= measure_text(text, size) * {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
    # All parts stand on the line of the bundled font.
    ascent, descent = load_font(size).getmetrics()
    y += ascent if anchor[1] == "a" else (ascent - descent) / 2
    for font, part in _split_by_font(text, size):
        draw.text((x, y), part, colour, font, anchor="ls")
        x += font.getlength(part)


def _split_by_font(text: str, size: int) -> Iterator[tuple[Font, str]]:
    """Yield the parts of a text, each with a font that has its letters."""
    for system, letters in groupby(text, _is_for_system):
        part = "".join(letters)
        font = load_system_font(size) if system else None
        if font is None:
            yield load_font(size), part if not system else "".join(f"U+{ord(letter):04X}" for letter in part)
            continue
        for known, some in groupby(part, functools.partial(_has_letter, font)):
            words = "".join(some)
            yield (font, words) if known else (load_font(size), "".join(f"U+{ord(letter):04X}" for letter in words))


def _is_for_system(letter: str) -> bool:
    return not any(first <= ord(letter) <= last for first, last in RANGES)


@functools.cache
def load_system_font(size: int) -> Font | None:
    """Return a font of the system for what the bundled one lacks, if there is any."""
    name = _find_system_font()
    return ImageFont.truetype(name, size) if name else None


@functools.cache
def _find_system_font() -> str:
    for name in SYSTEM_FONTS:
        try:
            ImageFont.truetype(name, 10)
        except OSError:
            continue
        return name
    return ""


@functools.lru_cache(4096)
def _has_letter(font: Font, letter: str) -> bool:
    """Return whether a font has a letter: it is not drawn as what is drawn for no letter at all."""
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))
