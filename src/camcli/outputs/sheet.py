"""Contact sheets: rows of images with a text beside each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from camcli.images.view import View
from camcli.outputs import draw
from camcli.outputs.banner import stamp_untrained
from camcli.outputs.draw import apply_colormap
from camcli.outputs.font import measure_text, write_text
from camcli.outputs.panel import BLACK, GREY, shorten_text
from camcli.outputs.style import Style, to_unit_range

THUMBNAIL_SIDE = 152  # longer side of an image
MARGIN, GAP, ROW_GAP = 28, 8, 18
TEXT_WIDTH = 236  # width of the text beside a row
TITLE, NAME, TEXT, SMALL = 28, 24, 15, 13
LINE_SPACING = 1.42
RULE_COLOUR, EMPTY_COLOUR = (222, 222, 222), (244, 244, 244)
BAR = (96, 9)


@dataclass(frozen=True, slots=True)
class SheetTile:
    """One image of a row.

    Attributes:
        caption: text below it, of one or several lines.
        pixels: thumbnail of the part that the model saw (see :func:`make_thumbnail`), or a drawing; None where the
            image is missing.
        view: view of these pixels.
        map: map to draw over them, at the layer's size; None for the pixels alone.
        full_scale: the map's value at full strength; None for the greatest of the row's maps.
    """

    caption: str
    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    view: View | None = None
    map: Float32[np.ndarray, "rows columns"] | None = None
    full_scale: float | None = None

    @property
    def width(self) -> int:
        """Width in pixels that the tile takes in its row."""
        return THUMBNAIL_SIDE if self.pixels is None else max(THUMBNAIL_SIDE, self.pixels.shape[1])


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One row: a name, lines below the name, and images drawn on one scale, or words in place of images."""

    name: str
    lines: Sequence[str]
    tiles: Sequence[SheetTile] = ()
    words: Sequence[str] = ()


def make_thumbnail(pixels: UInt8[np.ndarray, "h w 3"], view: View) -> tuple[UInt8[np.ndarray, "H W 3"], View]:
    """Return the part of an image that the model saw, resized to ``THUMBNAIL_SIDE``, and its view.

    Args:
        pixels: pixels of the image, perhaps at reduced size.
        view: view of the image.
    """
    rows, columns, seen = view.scale(*pixels.shape[:2]).crop()
    height, width = seen.picture
    scale = THUMBNAIL_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    drawn = np.asarray(Image.fromarray(pixels[rows, columns]).resize(size, Image.Resampling.LANCZOS))
    return drawn, seen.scale(size[1], size[0])


def compose_sheet(
    title: str,
    heading: Sequence[str],
    rows: Sequence[SheetRow],
    footing: Sequence[str],
    style: Style,
    tiles_per_row: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a contact sheet on white.

    The maps of a row are drawn on one scale, from 0 to the greatest value of them all, unless a tile has its own;
    negative values are not drawn. A bar of colours beside the row gives the value at full strength.

    Args:
        title: title at the top.
        heading: lines below the title.
        rows: rows from top to bottom.
        footing: lines at the end; long ones are wrapped.
        style: colour map and opacity; an untrained model gets a banner at the end.
        tiles_per_row: number of images that fit in a row.
    """
    width = 2 * MARGIN + TEXT_WIDTH + tiles_per_row * (THUMBNAIL_SIDE + GAP) - GAP
    room = width - 2 * MARGIN
    below = [line for text in footing for line in wrap_text(text, SMALL, room)]
    heights = [_row_height(row) for row in rows]
    top = MARGIN + _line_height(TITLE) + len(heading) * _line_height(TEXT) + ROW_GAP
    banner = round(width / 24 * 1.7) if style.untrained else 0
    end = sum(height + ROW_GAP for height in heights) + len(below) * _line_height(SMALL) + MARGIN
    page = Image.new("RGB", (width, top + end + banner), "white")
    draw = ImageDraw.Draw(page)
    write_text(draw, (MARGIN, MARGIN), shorten_text(title, TITLE, room), BLACK, TITLE)
    _write_lines(draw, heading, TEXT, (MARGIN, MARGIN + _line_height(TITLE)), room)
    for row, height in zip(rows, heights, strict=True):
        draw.line((MARGIN, top - ROW_GAP // 2, width - MARGIN, top - ROW_GAP // 2), RULE_COLOUR)
        _draw_row(page, row, top, style)
        top += height + ROW_GAP
    draw.line((MARGIN, top - ROW_GAP // 2, width - MARGIN, top - ROW_GAP // 2), RULE_COLOUR)
    _write_lines(draw, below, SMALL, (MARGIN, top), room)
    drawn = np.array(page)
    return stamp_untrained(drawn) if style.untrained else drawn


def _line_height(size: int) -> int:
    return round(size * LINE_SPACING)


def _row_height(row: SheetRow) -> int:
    words = _line_height(NAME) + (len(row.lines) + 1) * _line_height(TEXT)
    captions = max((len(tile.caption.split("\n")) for tile in row.tiles), default=1)
    return max(words, len(row.words) * _line_height(TEXT), _tile_height(row) + 3 + captions * _line_height(SMALL))


def _tile_height(row: SheetRow) -> int:
    """Return the height of a row's images."""
    return max((len(tile.pixels) for tile in row.tiles if tile.pixels is not None), default=THUMBNAIL_SIDE // 2)


def _draw_row(page: Image.Image, row: SheetRow, top: int, style: Style) -> None:
    draw = ImageDraw.Draw(page)
    write_text(draw, (MARGIN, top - 5), shorten_text(row.name, NAME, TEXT_WIDTH - 16), BLACK, NAME)
    _write_lines(draw, row.lines, TEXT, (MARGIN, top + _line_height(NAME)), TEXT_WIDTH - 16)
    scaled = [float(tile.map.max()) for tile in row.tiles if tile.map is not None and tile.full_scale is None]
    full = max(scaled, default=0.0)
    if full > 0:
        _draw_colour_bar(page, full, top + _line_height(NAME) + len(row.lines) * _line_height(TEXT) + 2, style.colormap)
    left, deepest = MARGIN + TEXT_WIDTH, _tile_height(row)
    _write_lines(draw, row.words, TEXT, (left, top), page.width - MARGIN - left)
    for tile in row.tiles:
        if tile.pixels is None:
            draw.rectangle((left, top, left + THUMBNAIL_SIDE - 1, top + deepest - 1), EMPTY_COLOUR)
        else:
            drawn = Image.fromarray(_draw_tile(tile, full, style))
            page.paste(drawn, (left + (tile.width - drawn.width) // 2, top + (deepest - drawn.height) // 2))
        _write_lines(draw, tile.caption.split("\n"), SMALL, (left, top + deepest + 3), tile.width)
        left += tile.width + GAP


def _draw_tile(tile: SheetTile, full_scale: float, style: Style) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a tile's pixels, with its map over them if it has one."""
    assert tile.pixels is not None
    if tile.view is None or tile.map is None:
        return tile.pixels
    own = Style(
        style.colormap, style.alpha, "run", max(full_scale if tile.full_scale is None else tile.full_scale, 0.0)
    )
    return draw.blend(tile.pixels, tile.view.enlarge(to_unit_range(tile.map, own)), own)


def _draw_colour_bar(page: Image.Image, full_scale: float, top: int, colormap: str) -> None:
    draw = ImageDraw.Draw(page)
    ramp = np.tile(np.linspace(0, 1, BAR[0], dtype=np.float32), (BAR[1], 1))
    middle, left = top + SMALL // 2 + 2, MARGIN + 14
    write_text(draw, (MARGIN, middle), "0", GREY, SMALL, "lm")
    page.paste(Image.fromarray(apply_colormap(ramp, colormap)), (left, middle - BAR[1] // 2))
    write_text(draw, (left + BAR[0] + 6, middle), f"{full_scale:.3g}", GREY, SMALL, "lm")


def _write_lines(draw: ImageDraw.ImageDraw, lines: Sequence[str], size: int, place: tuple[int, int], room: int) -> None:
    left, top = place
    for line in lines:
        write_text(draw, (left, top), shorten_text(line, size, room), GREY, size)
        top += _line_height(size)


def wrap_text(text: str, size: int, room: int) -> list[str]:
    """Wrap a text between words into lines of at most ``room`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or measure_text(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
