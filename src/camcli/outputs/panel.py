"""Everything about one map on one sheet."""

import bisect
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from camcli.engine.explanation import Concept, Explanation
from camcli.images.source import Picture
from camcli.images.view import View
from camcli.outputs import draw, encode, style, warn
from camcli.outputs.draw import colours
from camcli.outputs.style import Style, by_concept, display, full_scale, hue, strongest, unit

HEIGHT, WIDEST = 448, 896
# Of a strip with longer proportions than this only what is around the model's view is shown; and what is thinner than
# so many pixels at the panel's size is stretched to it.
LONGEST, THINNEST = 4, 72
MARGIN, GAP = 28, 16
NARROWEST = 560
TITLE, TEXT, SMALL = 30, 19, 15
BLACK, GREY = (20, 20, 20), (96, 96, 96)
BAR = (112, 10)
# Of a legend the height of an entry, its patch of colour, and how far in its number, its part (that far right) and its
# classes stand. Concepts that have less than this of the picture are named in grey, and not marked in it.
ENTRY, PATCH, COLUMNS = 28, 18, (30, 98, 114)
LITTLE = 0.05
# Colours whose red, green and blue come to less than this are dark.
DARK = 330
LEGEND = "concept, its part in this picture, and the classes whose scores rise most by this part of the layer alone"

# A line of text: its size, its colour, what it says.
_Line = tuple[int, tuple[int, int, int], str]


@dataclass(frozen=True, slots=True)
class _Tile:
    caption: str
    pixels: UInt8[np.ndarray, "h w 3"]


def panel(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """A PNG with picture, heatmap and overlay side by side, at one moderate height on white.

    Above them the class, its index, score and probability, below them what the colours stand for and how the map was
    made. A map at the model's input has its signed gradient beside it. Concepts have a legend: the colour, the number,
    its part in the picture and the classes that it speaks for. Words too long for the sheet end in ``…``.
    """
    shown = _around_the_view(picture)
    tiles = list(_tiles(shown, explanation, style))
    width = max(NARROWEST, sum(tile.pixels.shape[1] + GAP for tile in tiles) - GAP) + 2 * MARGIN
    above = _fitted(_heading(explanation), width - 2 * MARGIN)
    below = _fitted(_footing(picture, shown, explanation, style), width - 2 * MARGIN)
    row = tiles[0].pixels.shape[0] + GAP + SMALL
    scale = round(SMALL * 1.4) + GAP // 2
    scale += ENTRY * len(explanation.concepts) + (round(SMALL * 1.4) if explanation.concepts else 0)
    sheet = Image.new("RGB", (width, _height(above) + row + scale + _height(below) + 2 * MARGIN + 2 * GAP), "white")
    _write(sheet, above, MARGIN)
    _place(sheet, tiles, _height(above) + MARGIN + GAP)
    top = _height(above) + row + MARGIN + 2 * GAP
    if explanation.concepts:
        _place_legend(sheet, explanation, style, top)
    else:
        _place_scale(sheet, _scale(explanation.map, style), top, style.colormap)
    _write(sheet, below, _height(above) + row + scale + MARGIN + 2 * GAP)
    return encode.png(np.asarray(sheet))


def _around_the_view(picture: Picture) -> Picture:
    """The picture; of a strip ``LONGEST`` times its thickness, or as much as the model saw, if that is more."""
    height, width = picture.pixels.shape[:2]
    x0, y0, x1, y1 = picture.view.box
    longest = LONGEST * min(height, width)
    left, right = _window(x0, x1, width, longest)
    top, bottom = _window(y0, y1, height, longest)
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    view = replace(picture.view, picture=(bottom - top, right - left), box=box)
    return Picture(picture.source, picture.pixels[top:bottom, left:right], view)


def _window(low: float, high: float, length: int, longest: int) -> tuple[int, int]:
    """First and last of ``length`` pixels to show, around those from ``low`` to ``high``."""
    first, last = max(0, math.floor(low)), min(length, math.ceil(high))
    shown = min(length, max(longest, last - first))
    start = min(max(0, (first + last - shown) // 2), length - shown)
    return start, start + shown


def _tiles(picture: Picture, explanation: Explanation, style: Style) -> Iterator[_Tile]:
    height, width = _moderate(*picture.pixels.shape[:2])
    pixels = np.asarray(Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.BICUBIC))
    view = picture.view.scaled(height, width)
    stamped = warn.stamp_untrained if style.untrained else lambda drawn: drawn
    if explanation.concepts:
        heat, colours = by_concept(explanation.map, style, view.onto_picture)
        yield _Tile("picture", pixels)
        yield _Tile("overlay", stamped(_marked(draw.blend(pixels, heat, style, colours), view, explanation)))
        return
    heat = view.onto_picture(unit(explanation.map, style))
    at_input = explanation.map.ndim == 3
    over = view.onto_picture(unit(explanation.map, style, spread=True)) if at_input else heat
    yield _Tile("picture", _boxed(pixels, picture, explanation))
    yield _Tile("heatmap", stamped(draw.colours(heat, style.colormap)))
    drawn = _boxed(draw.blend(pixels, over, style), picture, explanation)
    yield _Tile("overlay, smoothed" if at_input else "overlay", stamped(drawn))
    if at_input:
        gradient = np.stack([view.onto_picture(channel) for channel in explanation.map])
        yield _Tile("signed gradient, on its own scale", stamped(draw.gradient_picture(gradient)))


def _boxed(
    pixels: UInt8[np.ndarray, "h w 3"], picture: Picture, explanation: Explanation
) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels with the box that is explained, if one is: white between black, to be seen on everything."""
    if explanation.box is None:
        return pixels
    down, across = (drawn / own for drawn, own in zip(pixels.shape[:2], picture.pixels.shape[:2], strict=True))
    x0, y0, x1, y1 = (round(edge * by) for edge, by in zip(explanation.box, (across, down) * 2, strict=True))
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for inset, colour in ((0, "black"), (1, "white"), (2, "white"), (3, "black")):
        if x0 + inset <= x1 - 1 - inset and y0 + inset <= y1 - 1 - inset:
            draw.rectangle((x0 + inset, y0 + inset, x1 - 1 - inset, y1 - 1 - inset), outline=colour)
    return np.array(image)


def _moderate(height: int, width: int) -> tuple[int, int]:
    down, across = _fitting(height, width)
    return max(THINNEST, down), max(THINNEST, across)


def _fitting(height: int, width: int) -> tuple[int, int]:
    scale = min(HEIGHT / height, WIDEST / width)
    return round(height * scale), round(width * scale)


def _scale(map: np.ndarray, style: Style) -> str:
    """What the colour of 1 stands for; two panels can be compared where it is the same value."""
    full, own = full_scale(map, style), strongest(map)
    if style.normalize == "none":
        return f"1 = 1, not normalised (this map's strongest is {own:.3g})"
    if not full:
        return "nothing to show: no value is above zero"
    if style.normalize == "run":
        return f"1 = {full:.3g}, the run's strongest (this map's is {own:.3g})"
    if style.normalize == "range":
        return f"0 = {display(map).min():.3g}, 1 = {full:.3g}, this map's least and strongest"
    return f"1 = {full:.3g}, this map's strongest"


def _heading(explanation: Explanation) -> list[_Line]:
    if explanation.concepts:
        held = f"they hold {explanation.score:.0%} of what the layer says here"
        return [(TITLE, BLACK, explanation.label), (TEXT, GREY, held)]
    shown = explanation.channel is not None and explanation.weight is None
    numbers = f"value {explanation.score:.4g}" if shown else f"class {explanation.index}, score {explanation.score:.4g}"
    if explanation.number:
        numbers = f"box {explanation.number}, {numbers}"
    elif explanation.probability is not None:
        numbers += f", probability {explanation.probability:.3g}"
    if explanation.weight is not None:
        numbers = f"channel {explanation.channel}, with {explanation.weight:.3g} of it; {numbers}"
    title = f"{explanation.label} over {explanation.versus}" if explanation.versus else explanation.label
    return [(TITLE, BLACK, title), (TEXT, GREY, numbers)]


def _footing(picture: Picture, shown: Picture, explanation: Explanation, style: Style) -> list[_Line]:
    made = f"{explanation.method} at {explanation.layer or 'the input'}"
    words = [f"{made}: {picture.source.name}", *explanation.notes]
    words += _proportions(picture.view.picture, shown.view.picture)
    if not shown.view.whole:
        words.append("hatched: not seen by the model")
    if style.untrained:
        words.append("the weights are random: the map means nothing")
    return [(SMALL, GREY, text) for text in words]


def _proportions(whole: tuple[int, int], shown: tuple[int, int]) -> Iterator[str]:
    """What was done to a strip; both as height and width."""
    if shown != whole:
        yield f"shown: the {shown[1]} x {shown[0]} pixels around the model's view, of {whole[1]} x {whole[0]}"
    if (drawn := _moderate(*shown)) != _fitting(*shown):
        yield f"drawn stretched: {shown[1]} x {shown[0]} pixels as {drawn[1]} x {drawn[0]}"


def _fitted(lines: Iterable[_Line], width: int) -> list[_Line]:
    return [(size, colour, shortened(text, size, width)) for size, colour, text in lines]


def shortened(text: str, size: int, width: int) -> str:
    """The text on one line; ended by ``…`` where at this size it is wider than so many pixels."""
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


def _place(sheet: Image.Image, tiles: list[_Tile], top: int) -> None:
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(SMALL), MARGIN
    for tile in tiles:
        height, width = tile.pixels.shape[:2]
        sheet.paste(Image.fromarray(tile.pixels), (left, top))
        draw.text((left, top + height + GAP // 2), shortened(tile.caption, SMALL, width), GREY, font)
        left += width + GAP


def _place_scale(sheet: Image.Image, text: str, top: int, colormap: str) -> None:
    """The colours from 0 to 1, and what 1 is."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(SMALL)
    ramp = np.tile(np.linspace(0, 1, BAR[0], dtype=np.float32), (BAR[1], 1))
    left, middle = MARGIN + 14, top + SMALL // 2 + 3
    draw.text((MARGIN, middle), "0", GREY, font, anchor="lm")
    sheet.paste(Image.fromarray(colours(ramp, colormap)), (left, middle - BAR[1] // 2))
    left += BAR[0] + 6
    draw.text((left, middle), shortened(text, SMALL, sheet.width - MARGIN - left), GREY, font, anchor="lm")


def _place_legend(sheet: Image.Image, explanation: Explanation, style: Style, top: int) -> None:
    """A line for each concept, and what a colour at full strength is."""
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT), ImageFont.load_default(SMALL)
    width = sheet.width - 2 * MARGIN
    number, share, classes = (MARGIN + column for column in COLUMNS)
    for concept in explanation.concepts:
        edge, middle = top + (ENTRY - PATCH) // 2, top + ENTRY // 2
        colour = BLACK if concept.share >= LITTLE else GREY
        draw.rectangle((MARGIN, edge, MARGIN + PATCH, edge + PATCH), hue(concept.number))
        draw.text((number, middle), str(concept.number), colour, font, anchor="lm")
        draw.text((share, middle), f"{concept.share:.0%}", colour, font, anchor="rm")
        words = shortened(_spoken(concept), TEXT, width - COLUMNS[2])
        draw.text((classes, middle), words, colour, font, anchor="lm")
        top += ENTRY
    for line, text in enumerate((LEGEND, f"strength of colour: {_scale(explanation.drawn, style)}")):
        below = top + GAP // 2 + line * round(SMALL * 1.4)
        draw.text((MARGIN, below), shortened(text, SMALL, width), GREY, small)


def _spoken(concept: Concept) -> str:
    """The classes that a concept speaks for, with what it adds to their scores."""
    return ", ".join(f"{one.label} +{one.rise:.2g}" for one in concept.classes)


def _marked(pixels: UInt8[np.ndarray, "h w 3"], view: View, explanation: Explanation) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels with each concept's number where its colour is strongest, if it is anywhere."""
    image = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(SMALL)
    strongest = explanation.map.argmax(0)
    for place, (concept, map) in enumerate(zip(explanation.concepts, explanation.map, strict=True)):
        if concept.share >= LITTLE and ((strongest == place) & view.shown(map.shape)).any():
            x, y = view.peak(np.where(strongest == place, map, -1))
            radius = SMALL * 0.75
            x, y = (min(max(at, radius), size - 1 - radius) for at, size in ((x, image.width), (y, image.height)))
            colour = style.hue(concept.number)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour, BLACK)
            ink = "white" if sum(colour) < DARK else "black"
            draw.text((x, y), str(concept.number), ink, font, anchor="mm")
    return np.array(image)
