"""A contact sheet: rows of pictures, each row with what it is about beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from camcli.images.view import View
from camcli.outputs import draw, warn
from camcli.outputs.draw import colours
from camcli.outputs.panel import BLACK, GREY, shortened
from camcli.outputs.style import Style, unit

SIDE = 152  # of a picture's longer side
MARGIN, GAP, BETWEEN = 28, 8, 18
COLUMN = 236  # of the words beside a row
TITLE, NAME, TEXT, SMALL = 28, 24, 15, 13
LEADING = 1.42
RULE, EMPTY = (222, 222, 222), (244, 244, 244)
BAR = (96, 9)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a row.

    Attributes:
        caption: below it, in one or several lines.
        pixels: what the model saw of it, small (see :func:`small`), or a drawing; None where the picture is gone.
        view: of these pixels.
        map: what is drawn over it, at the layer's size; None for the pixels alone.
        full: the map's value at full strength; None for the greatest of the row's maps.
    """

    caption: str
    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    view: View | None = None
    map: Float32[np.ndarray, "rows columns"] | None = None
    full: float | None = None

    @property
    def width(self) -> int:
        """How many pixels wide it stands in its row."""
        return SIDE if self.pixels is None else max(SIDE, self.pixels.shape[1])


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its name, lines below it, and its pictures, all drawn on one scale; or words in their place."""

    name: str
    lines: Sequence[str]
    tiles: Sequence[Tile] = ()
    words: Sequence[str] = ()


def small(pixels: UInt8[np.ndarray, "h w 3"], view: View) -> tuple[UInt8[np.ndarray, "H W 3"], View]:
    """The part of a picture that the model saw, its longer side ``SIDE``, and the view of that.

    Args:
        pixels: of the picture, perhaps at reduced size.
        view: of the picture.
    """
    rows, columns, seen = view.scaled(*pixels.shape[:2]).cut()
    height, width = seen.picture
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    drawn = np.asarray(Image.fromarray(pixels[rows, columns]).resize(size, Image.Resampling.LANCZOS))
    return drawn, seen.scaled(size[1], size[0])


def sheet(
    title: str, heading: Sequence[str], rows: Sequence[Row], footing: Sequence[str], style: Style, across: int
) -> UInt8[np.ndarray, "h w 3"]:
    """A contact sheet on white.

    A row's maps are drawn on one scale, from 0 to the greatest value of them all, unless a tile has its own; what is
    below zero is not drawn. The bar of colours beside the row says what full strength is.

    Args:
        title: above all.
        heading: lines below it.
        rows: from top to bottom.
        footing: lines at the end; a long one goes on in the next line.
        style: colour map and opacity; and whether the weights are random, which a banner at the end then says.
        across: how many pictures a row has room for.
    """
    width = 2 * MARGIN + COLUMN + across * (SIDE + GAP) - GAP
    room = width - 2 * MARGIN
    below = [line for text in footing for line in folded(text, SMALL, room)]
    heights = [_height(row) for row in rows]
    top = MARGIN + _pitch(TITLE) + len(heading) * _pitch(TEXT) + BETWEEN
    banner = round(width / 24 * 1.7) if style.untrained else 0
    end = sum(height + BETWEEN for height in heights) + len(below) * _pitch(SMALL) + MARGIN
    page = Image.new("RGB", (width, top + end + banner), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), shortened(title, TITLE, room), BLACK, ImageFont.load_default(TITLE))
    _write(draw, heading, TEXT, (MARGIN, MARGIN + _pitch(TITLE)), room)
    for row, height in zip(rows, heights, strict=True):
        draw.line((MARGIN, top - BETWEEN // 2, width - MARGIN, top - BETWEEN // 2), RULE)
        _place(page, row, top, style)
        top += height + BETWEEN
    draw.line((MARGIN, top - BETWEEN // 2, width - MARGIN, top - BETWEEN // 2), RULE)
    _write(draw, below, SMALL, (MARGIN, top), room)
    drawn = np.array(page)
    return warn.stamp_untrained(drawn) if style.untrained else drawn


def _pitch(size: int) -> int:
    return round(size * LEADING)


def _height(row: Row) -> int:
    words = _pitch(NAME) + (len(row.lines) + 1) * _pitch(TEXT)
    captions = max((len(tile.caption.split("\n")) for tile in row.tiles), default=1)
    return max(words, len(row.words) * _pitch(TEXT), _deepest(row) + 3 + captions * _pitch(SMALL))


def _deepest(row: Row) -> int:
    """The height of a row's pictures."""
    return max((len(tile.pixels) for tile in row.tiles if tile.pixels is not None), default=SIDE // 2)


def _place(page: Image.Image, row: Row, top: int, style: Style) -> None:
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, top - 5), shortened(row.name, NAME, COLUMN - 16), BLACK, ImageFont.load_default(NAME))
    _write(draw, row.lines, TEXT, (MARGIN, top + _pitch(NAME)), COLUMN - 16)
    scaled = [float(tile.map.max()) for tile in row.tiles if tile.map is not None and tile.full is None]
    full = max(scaled, default=0.0)
    if full > 0:
        _bar(page, full, top + _pitch(NAME) + len(row.lines) * _pitch(TEXT) + 2, style.colormap)
    left, deepest = MARGIN + COLUMN, _deepest(row)
    _write(draw, row.words, TEXT, (left, top), page.width - MARGIN - left)
    for tile in row.tiles:
        if tile.pixels is None:
            draw.rectangle((left, top, left + SIDE - 1, top + deepest - 1), EMPTY)
        else:
            drawn = Image.fromarray(_drawn(tile, full, style))
            page.paste(drawn, (left + (tile.width - drawn.width) // 2, top + (deepest - drawn.height) // 2))
        _write(draw, tile.caption.split("\n"), SMALL, (left, top + deepest + 3), tile.width)
        left += tile.width + GAP


def _drawn(tile: Tile, full: float, style: Style) -> UInt8[np.ndarray, "h w 3"]:
    """A tile's pixels, with its map over them if it has one."""
    assert tile.pixels is not None
    if tile.view is None or tile.map is None:
        return tile.pixels
    own = Style(style.colormap, style.alpha, "run", max(full if tile.full is None else tile.full, 0.0))
    return draw.blend(tile.pixels, tile.view.onto_picture(unit(tile.map, own)), own)


def _bar(page: Image.Image, full: float, top: int, colormap: str) -> None:
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(SMALL)
    ramp = np.tile(np.linspace(0, 1, BAR[0], dtype=np.float32), (BAR[1], 1))
    middle, left = top + SMALL // 2 + 2, MARGIN + 14
    draw.text((MARGIN, middle), "0", GREY, font, anchor="lm")
    page.paste(Image.fromarray(colours(ramp, colormap)), (left, middle - BAR[1] // 2))
    draw.text((left + BAR[0] + 6, middle), f"{full:.3g}", GREY, font, anchor="lm")


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], size: int, place: tuple[int, int], room: int) -> None:
    left, top = place
    for line in lines:
        draw.text((left, top), shortened(line, size, room), GREY, ImageFont.load_default(size))
        top += _pitch(size)


def folded(text: str, size: int, room: int) -> list[str]:
    """The text in lines of at most so many pixels, broken between words."""
    font = ImageFont.load_default(size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
