"""Everything about one map on one sheet."""

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from camcli import render
from camcli.job import Explanation
from camcli.pictures import Picture
from camcli.render import Style

HEIGHT, WIDEST = 448, 896
MARGIN, GAP = 28, 16
NARROWEST = 560
TITLE, TEXT, SMALL = 30, 19, 15
BLACK, GREY = (20, 20, 20), (96, 96, 96)
BAR = (112, 10)

# A line of text: its size, its colour, what it says.
_Line = tuple[int, tuple[int, int, int], str]


@dataclass(frozen=True, slots=True)
class _Tile:
    caption: str
    pixels: UInt8[np.ndarray, "h w 3"]


def panel(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """A PNG with picture, heatmap and overlay side by side, at one moderate height on white.

    Above them the class, its index, score and probability, below them how the map was made. A map at the model's
    input has its signed gradient beside it. Words too long for the sheet end in ``…``.
    """
    tiles = list(_tiles(picture, explanation, style))
    width = max(NARROWEST, sum(tile.pixels.shape[1] + GAP for tile in tiles) - GAP) + 2 * MARGIN
    above = _fitted(_heading(explanation), width - 2 * MARGIN)
    below = _fitted(_footing(picture, explanation, style), width - 2 * MARGIN)
    row = tiles[0].pixels.shape[0] + GAP + SMALL
    sheet = Image.new("RGB", (width, _height(above) + row + _height(below) + 2 * MARGIN + 2 * GAP), "white")
    _write(sheet, above, MARGIN)
    _place(sheet, tiles, _height(above) + MARGIN + GAP, style.colormap)
    _write(sheet, below, _height(above) + row + MARGIN + 2 * GAP)
    return render.png(np.asarray(sheet))


def _tiles(picture: Picture, explanation: Explanation, style: Style) -> Iterator[_Tile]:
    height, width = _moderate(*picture.pixels.shape[:2])
    pixels = np.asarray(Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.BICUBIC))
    view = picture.view.scaled(height, width)
    heat = view.onto_picture(render.unit(explanation.map, style))
    stamped = render.stamp_untrained if style.untrained else lambda drawn: drawn
    yield _Tile("picture", pixels)
    yield _Tile("heatmap", stamped(render.colours(heat, style.colormap)))
    yield _Tile("overlay", stamped(render.blend(pixels, heat, style)))
    if explanation.map.ndim == 3:
        gradient = np.stack([view.onto_picture(channel) for channel in explanation.map])
        yield _Tile("signed gradient", stamped(render.gradient_picture(gradient)))


def _moderate(height: int, width: int) -> tuple[int, int]:
    scale = min(HEIGHT / height, WIDEST / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _heading(explanation: Explanation) -> list[_Line]:
    numbers = f"class {explanation.index}, score {explanation.score:.4g}, probability {explanation.probability:.3g}"
    return [(TITLE, BLACK, explanation.label), (TEXT, GREY, numbers)]


def _footing(picture: Picture, explanation: Explanation, style: Style) -> list[_Line]:
    made = f"{explanation.method} at {explanation.layer or 'the input'}"
    words = [f"{made}: {picture.source.name}", *explanation.notes]
    if not picture.view.whole:
        words.append("hatched: not seen by the model")
    if style.untrained:
        words.append("the weights are random: the map means nothing")
    return [(SMALL, GREY, text) for text in words]


def _fitted(lines: Iterable[_Line], width: int) -> list[_Line]:
    return [(size, colour, _shortened(text, size, width)) for size, colour, text in lines]


def _shortened(text: str, size: int, width: int) -> str:
    font = ImageFont.load_default(size)
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    if font.getlength(shown) <= width:
        return shown
    fits = bisect.bisect_right(range(len(shown)), float(width), key=lambda kept: font.getlength(shown[:kept] + "…"))
    return shown[: max(0, fits - 1)].rstrip() + "…"


def _height(lines: list[_Line]) -> int:
    return sum(round(size * 1.4) for size, _, _ in lines)


def _write(sheet: Image.Image, lines: list[_Line], top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    for size, colour, text in lines:
        draw.text((MARGIN, top), text, colour, ImageFont.load_default(size))
        top += round(size * 1.4)


def _place(sheet: Image.Image, tiles: list[_Tile], top: int, colormap: str) -> None:
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(SMALL), MARGIN
    for tile in tiles:
        height, width = tile.pixels.shape[:2]
        sheet.paste(Image.fromarray(tile.pixels), (left, top))
        draw.text((left, top + height + GAP // 2), _shortened(tile.caption, SMALL, width), GREY, font)
        if tile.caption == "heatmap" and width > 2.4 * BAR[0]:
            _place_bar(sheet, left + width, top + height + GAP // 2, colormap)
        left += width + GAP


def _place_bar(sheet: Image.Image, right: int, top: int, colormap: str) -> None:
    """The colours from no heat to the strongest, their right end at ``right``."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(SMALL)
    ramp = np.tile(np.linspace(0, 1, BAR[0], dtype=np.float32), (BAR[1], 1))
    left, middle = right - BAR[0] - 14, top + SMALL // 2 + 3
    sheet.paste(Image.fromarray(render.colours(ramp, colormap)), (left, middle - BAR[1] // 2))
    draw.text((left - 6, middle), "0", GREY, font, anchor="rm")
    draw.text((right, middle), "1", GREY, font, anchor="rm")
