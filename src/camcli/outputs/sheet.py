"""Contact sheets: rows of images with a text beside each row."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from camcli.images.view import View
from camcli.outputs import draw
from camcli.outputs.banner import draw_banner
from camcli.outputs.draw import apply_colormap, apply_diverging
from camcli.outputs.font import measure_text
from camcli.outputs.page import Page
from camcli.outputs.panel import BLACK, GREY, shorten_text
from camcli.outputs.style import Style, to_unit_range

THUMBNAIL_SIDE = 152  # longer side of an image
MARGIN, GAP, ROW_GAP = 28, 8, 18
TEXT_WIDTH = 236  # width of the text beside a row
TITLE, NAME, TEXT, SMALL = 28, 24, 15, 13
LINE_SPACING = 1.42
RULE_COLOUR, EMPTY_COLOUR = (222, 222, 222), (244, 244, 244)
# Bars of colours: of a row or column, and of the whole sheet.
BAR, SHEET_BAR = (96, 9), (240, 14)
# Most lines of a heading, and of the name of a row.
MAX_LINES = 3
# Share of a unit up to which a length is a whole number of units.
ROUNDING = 1e-6
# Signs after which a long word is broken.
BREAKS = "-_./:+"
# Suffix of a file, in which a name is not broken.
SUFFIX = re.compile(r"\.[A-Za-z]\w{0,4}")
# Room around the words in the place of a missing image.
PADDING = 8


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
        reason: words in the place of a missing image.
    """

    caption: str
    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    view: View | None = None
    map: Float32[np.ndarray, "rows columns"] | None = None
    full_scale: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ColourBar:
    """Bar of colours.

    Attributes:
        colormap: name of the colour map; empty for the diverging colours, whose white is marked.
        low, high: what stands at its ends.
        words: words beside it.
    """

    colormap: str
    low: str
    high: str
    words: str = ""

    def draw(self, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """Draw the colours, from those of the low end on the left."""
        ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
        return apply_colormap(ramp, self.colormap) if self.colormap else apply_diverging(2 * ramp - 1)


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One row: a name, lines below the name, and images drawn on one scale, or words in place of images.

    The bar is that of the scale; None for the bar of the maps that the row's tiles have without a scale of their own.
    """

    name: str
    lines: Sequence[str]
    tiles: Sequence[SheetTile] = ()
    words: Sequence[str] = ()
    bar: ColourBar | None = None


@dataclass(frozen=True, slots=True)
class SheetColumn:
    """Heading of a column, with the bar of its scale if it has one."""

    name: str
    bar: ColourBar | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """Content of a sheet.

    Attributes:
        title: title at the top; empty for none.
        heading: lines below the title.
        rows: rows from top to bottom.
        footing: lines at the end; long ones are wrapped.
        columns: headings of the rows' tiles, if these have any.
        bar: bar of a scale that holds for the sheet.
    """

    title: str
    heading: Sequence[str]
    rows: Sequence[SheetRow]
    footing: Sequence[str]
    columns: Sequence[SheetColumn] = ()
    bar: ColourBar | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes on a sheet, in units of the page.

    Attributes:
        side: room for an image in its row.
        text_width: room for the text beside a row.
        name: size of a row's name.
        scale: pixels for a unit.
    """

    side: int = THUMBNAIL_SIDE
    text_width: int = TEXT_WIDTH
    name: int = NAME
    scale: float = 1.0


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
    """Draw a contact sheet of the usual sizes; see :func:`lay_out_sheet`."""
    return lay_out_sheet(Sheet(title, heading, rows, footing), style, tiles_per_row).to_pixels()


def lay_out_sheet(sheet: Sheet, style: Style, tiles_per_row: int, layout: Layout = Layout()) -> Page:
    """Lay out a contact sheet on white.

    The maps of a row are drawn on one scale, from 0 to the greatest value of them all, unless a tile has its own;
    negative values are not drawn. A bar of colours beside the row gives the value at full strength.

    Args:
        sheet: its content.
        style: colour map and opacity; an untrained model gets a banner at the end.
        tiles_per_row: number of images that fit in a row.
        layout: its sizes.
    """
    width = 2 * MARGIN + layout.text_width + tiles_per_row * (layout.side + GAP) - GAP
    room = width - 2 * MARGIN
    above = [line for text in sheet.heading for line in wrap_text(text, TEXT, room)]
    below = [line for text in sheet.footing for line in wrap_text(text, SMALL, room)]
    drawn = [_DrawnRow(row, style, layout) for row in sheet.rows]
    title = _line_height(TITLE) if sheet.title else 0
    top = MARGIN + title + len(above) * _line_height(TEXT) + ROW_GAP
    headings = _column_height(sheet.columns, layout)
    banner = round(width / 24 * 1.7) if style.untrained else 0
    bar = SHEET_BAR[1] + 2 * GAP if sheet.bar else 0
    end = sum(row.height + ROW_GAP for row in drawn) + bar + len(below) * _line_height(SMALL) + MARGIN
    page = Page(width, top + headings + end + banner, layout.scale)
    page.write((MARGIN, MARGIN), shorten_text(sheet.title, TITLE, room), BLACK, TITLE)
    _write_lines(page, above, TEXT, (MARGIN, MARGIN + title), room)
    _place_columns(page, sheet.columns, top - ROW_GAP // 2, layout)
    top += headings
    for row in drawn:
        _place_rule(page, top - ROW_GAP // 2)
        row.place(page, top)
        top += row.height + ROW_GAP
    _place_rule(page, top - ROW_GAP // 2)
    if sheet.bar:
        _place_bar(page, sheet.bar, (MARGIN, top), room, SHEET_BAR)
    _write_lines(page, below, SMALL, (MARGIN, top + bar), room)
    if style.untrained:
        pixels = draw_banner(round(page.height * page.scale), round(page.width * page.scale))
        page.place_image(0, page.height - len(pixels) / page.scale, pixels)
    return page


def _line_height(size: int) -> int:
    return round(size * LINE_SPACING)


class _DrawnRow:
    """Row with its tiles drawn.

    Attributes:
        height: its height in units of the page.
    """

    def __init__(self, row: SheetRow, style: Style, layout: Layout) -> None:
        self._row, self._layout = row, layout
        self._name = _wrap_name(row.name, layout.name, layout.text_width - 16)
        scaled = [float(tile.map.max()) for tile in row.tiles if tile.map is not None and tile.full_scale is None]
        full = max(scaled, default=0.0)
        self._bar = row.bar or (ColourBar(style.colormap, "0", f"{full:.3g}") if full > 0 else None)
        self._pixels = [_draw_tile(tile, full, style) for tile in row.tiles]
        least = layout.side if any(tile.reason for tile in row.tiles) else 0
        heights = [math.ceil(len(pixels) / layout.scale - ROUNDING) for pixels in self._pixels if pixels is not None]
        self._deepest = max(least, max(heights, default=layout.side // 2))
        captions = max((len(tile.caption.split("\n")) for tile in row.tiles), default=1)
        words = len(self._name) * _line_height(layout.name) + (len(row.lines) + 1) * _line_height(TEXT)
        tiles = self._deepest + 3 + captions * _line_height(SMALL)
        self.height = max(words, len(row.words) * _line_height(TEXT), tiles)

    def place(self, page: Page, top: int) -> None:
        """Place it on a page."""
        row, layout = self._row, self._layout
        room, below = layout.text_width - 16, top + len(self._name) * _line_height(layout.name)
        for number, line in enumerate(self._name):
            place = (MARGIN, top - 5 + number * _line_height(layout.name))
            page.write(place, shorten_text(line, layout.name, room), BLACK, layout.name)
        _write_lines(page, row.lines, TEXT, (MARGIN, below), room)
        if self._bar:
            _place_bar(page, self._bar, (MARGIN, below + len(row.lines) * _line_height(TEXT) + 2), room)
        left = MARGIN + layout.text_width
        _write_lines(page, row.words, TEXT, (left, top), page.width - MARGIN - left)
        for tile, pixels in zip(row.tiles, self._pixels, strict=True):
            left += self._place_tile(page, tile, pixels, (left, top)) + GAP

    def _place_tile(
        self, page: Page, tile: SheetTile, pixels: UInt8[np.ndarray, "h w 3"] | None, place: tuple[int, int]
    ) -> int:
        """Place a tile, and return the width that it takes."""
        (left, top), side, room = place, self._layout.side, self._layout.side
        if pixels is None:
            page.fill((left, top, left + side - 1, top + self._deepest - 1), EMPTY_COLOUR)
            lines = wrap_text(tile.reason, SMALL, side - 2 * PADDING)
            fitting = max(1, (self._deepest - 2 * PADDING) // _line_height(SMALL))
            kept = [*lines[: fitting - 1], " ".join(lines[fitting - 1 :])]
            _write_lines(page, kept, SMALL, (left + PADDING, top + PADDING), side - 2 * PADDING)
        else:
            height, width = (length / page.scale for length in pixels.shape[:2])
            room = max(side, math.ceil(width - ROUNDING))
            page.place_image(left + int(room - width) // 2, top + int(self._deepest - height) // 2, pixels)
        _write_lines(page, tile.caption.split("\n"), SMALL, (left, top + self._deepest + 3), room)
        return room


def _draw_tile(tile: SheetTile, full_scale: float, style: Style) -> UInt8[np.ndarray, "h w 3"] | None:
    """Draw a tile's pixels, with its map over them if it has one."""
    if tile.pixels is None or tile.view is None or tile.map is None:
        return tile.pixels
    own = Style(
        style.colormap, style.alpha, "run", max(full_scale if tile.full_scale is None else tile.full_scale, 0.0)
    )
    return draw.blend(tile.pixels, tile.view.enlarge(to_unit_range(tile.map, own)), own)


def _wrap_columns(columns: Sequence[SheetColumn], layout: Layout) -> list[list[str]]:
    return [_wrap_name(one.name, TEXT, layout.side) for one in columns]


def _column_height(columns: Sequence[SheetColumn], layout: Layout) -> int:
    """Return the height of the headings of columns."""
    lines = max(map(len, _wrap_columns(columns, layout)), default=0) * _line_height(TEXT)
    return lines + (_line_height(SMALL) if any(one.bar for one in columns) else 0)


def _place_columns(page: Page, columns: Sequence[SheetColumn], top: int, layout: Layout) -> None:
    wrapped = _wrap_columns(columns, layout)
    deepest = max(map(len, wrapped), default=0) * _line_height(TEXT)
    for number, (column, lines) in enumerate(zip(columns, wrapped, strict=True)):
        left = MARGIN + layout.text_width + number * (layout.side + GAP)
        start = top + deepest - len(lines) * _line_height(TEXT)
        for at, line in enumerate(lines):
            page.write((left, start + at * _line_height(TEXT)), shorten_text(line, TEXT, layout.side), BLACK, TEXT)
        if column.bar:
            _place_bar(page, column.bar, (left, top + deepest), layout.side)


def _place_rule(page: Page, top: int) -> None:
    page.fill((MARGIN, top, page.width - MARGIN, top), RULE_COLOUR)


def _place_bar(page: Page, bar: ColourBar, place: tuple[int, int], room: int, size: tuple[int, int] = BAR) -> None:
    """Place a bar of colours in one line, between the values at its ends."""
    (left, top), (width, height) = place, size
    middle, end = top + SMALL // 2 + 2, left + room
    page.write((left, middle), bar.low, GREY, SMALL, "lm")
    left += round(measure_text(bar.low, SMALL)) + 6
    page.place_image(left, middle - height // 2, bar.draw(round(width * page.scale), round(height * page.scale)))
    if not bar.colormap:
        zero = left + width / 2 - 0.5
        page.fill((zero, middle - height // 2 - 2, zero, middle + height // 2 + 2), BLACK)
    left += width + 6
    page.write((left, middle), bar.high, GREY, SMALL, "lm")
    left += round(measure_text(bar.high, SMALL)) + 2 * GAP
    if bar.words:
        page.write((left, middle), shorten_text(bar.words, SMALL, end - left), GREY, SMALL, "lm")


def _write_lines(page: Page, lines: Sequence[str], size: int, place: tuple[int, int], room: int) -> None:
    left, top = place
    for line in lines:
        page.write((left, top), shorten_text(line, size, room), GREY, size)
        top += _line_height(size)


def _wrap_name(text: str, size: int, room: int) -> list[str]:
    """Wrap a name into at most ``MAX_LINES`` lines; the last has all that is left, to be shortened."""
    lines = wrap_text(text, size, room)
    if len(lines) <= MAX_LINES:
        return lines
    kept, rest = lines[: MAX_LINES - 1], " ".join(text.split())
    for line in kept:
        rest = rest.removeprefix(line).lstrip()
    return [*kept, rest]


def wrap_text(text: str, size: int, room: int) -> list[str]:
    """Wrap a text between words into lines of at most ``room`` pixels; a word that is longer is broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or measure_text(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
        while measure_text(lines[-1], size) > room and len(lines[-1]) > 1:
            kept = _find_break(lines[-1], size, room)
            lines[-1:] = [lines[-1][:kept], lines[-1][kept:]]
    return lines


def _find_break(word: str, size: int, room: int) -> int:
    """Return how many letters of a word are kept on a line: up to a sign of punctuation, if there is one that fits.

    A file's suffix stays whole.
    """
    fits = bisect.bisect_right(range(1, len(word)), float(room), key=lambda kept: measure_text(word[:kept], size))
    suffix = word.rfind(".")
    if suffix > 1 and SUFFIX.fullmatch(word, suffix):
        fits = min(fits, suffix)
    signs = [place for place in range(1, fits + 1) if word[place - 1] in BREAKS]
    return max(1, signs[-1] if signs else fits)
