"""Output of a panel: one sheet with everything about one map."""

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
from camcli.outputs import draw, encode, style
from camcli.outputs.banner import stamp_untrained
from camcli.outputs.draw import apply_colormap
from camcli.outputs.style import Style, concept_colour, draw_concepts, full_scale, peak_value, rectify, to_unit_range

TILE_HEIGHT, MAX_TILE_WIDTH = 448, 896
# Of a strip with a greater aspect ratio only the part around the model's view is shown; a side of fewer pixels at the
# panel's size is stretched.
MAX_ASPECT, MIN_TILE_SIDE = 4, 72
MARGIN, GAP = 28, 16
MIN_WIDTH = 560
TITLE, TEXT, SMALL = 30, 19, 15
BLACK, GREY = (20, 20, 20), (96, 96, 96)
BAR = (112, 10)
# In a legend: height of an entry, side of its patch of colour, and offsets of its number, its share (right-aligned) and
# its classes. Concepts of a smaller share than the minimum are listed in grey, and not marked in the picture.
ENTRY_HEIGHT, PATCH_SIDE, LEGEND_COLUMNS = 28, 18, (30, 98, 114)
MIN_SHARE = 0.05
# Colours are dark if red, green and blue sum to less than this.
DARK = 330
LEGEND = "concept, its part in this picture, and the classes whose scores rise most by this part of the layer alone"

# A line of text: size, colour and words.
_Line = tuple[int, tuple[int, int, int], str]


@dataclass(frozen=True, slots=True)
class _PanelTile:
    caption: str
    pixels: UInt8[np.ndarray, "h w 3"]


def panel(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw picture, heatmap and overlay side by side as a PNG, at one moderate height on white.

    Class, index, score and probability stand above them, the scale of the colours and how the map was made below. A map
    at the model's input has its signed gradient beside it. Concepts have a legend of colour, number, share of the
    picture and the classes whose scores they raise. Texts too long for the sheet end in ``…``.
    """
    shown = _crop_around_view(picture)
    tiles = list(_draw_tiles(shown, explanation, style))
    width = max(MIN_WIDTH, sum(tile.pixels.shape[1] + GAP for tile in tiles) - GAP) + 2 * MARGIN
    above = _shorten_lines(_heading(explanation), width - 2 * MARGIN)
    below = _shorten_lines(_footing(picture, shown, explanation, style), width - 2 * MARGIN)
    row = tiles[0].pixels.shape[0] + GAP + SMALL
    scale = round(SMALL * 1.4) + GAP // 2
    scale += ENTRY_HEIGHT * len(explanation.concepts) + (round(SMALL * 1.4) if explanation.concepts else 0)
    sheet = Image.new(
        "RGB", (width, _text_height(above) + row + scale + _text_height(below) + 2 * MARGIN + 2 * GAP), "white"
    )
    _write_lines(sheet, above, MARGIN)
    _place_tiles(sheet, tiles, _text_height(above) + MARGIN + GAP)
    top = _text_height(above) + row + MARGIN + 2 * GAP
    if explanation.concepts:
        _place_legend(sheet, explanation, style, top)
    else:
        _place_scale(sheet, _describe_scale(explanation.map, style), top, style.colormap)
    _write_lines(sheet, below, _text_height(above) + row + scale + MARGIN + 2 * GAP)
    return encode.png(np.asarray(sheet))


def _crop_around_view(picture: Picture) -> Picture:
    """Crop a strip to ``MAX_ASPECT`` times its shorter side around the model's view, or to the view if longer."""
    height, width = picture.pixels.shape[:2]
    x0, y0, x1, y1 = picture.view.box
    longest = MAX_ASPECT * min(height, width)
    left, right = _fit_window(x0, x1, width, longest)
    top, bottom = _fit_window(y0, y1, height, longest)
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    view = replace(picture.view, picture=(bottom - top, right - left), box=box)
    return Picture(picture.source, picture.pixels[top:bottom, left:right], view)


def _fit_window(low: float, high: float, length: int, longest: int) -> tuple[int, int]:
    """Return start and end of the pixels to show, of ``length``, around those from ``low`` to ``high``."""
    first, last = max(0, math.floor(low)), min(length, math.ceil(high))
    shown = min(length, max(longest, last - first))
    start = min(max(0, (first + last - shown) // 2), length - shown)
    return start, start + shown


def _draw_tiles(picture: Picture, explanation: Explanation, style: Style) -> Iterator[_PanelTile]:
    height, width = _find_tile_size(*picture.pixels.shape[:2])
    pixels = np.asarray(Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.BICUBIC))
    view = picture.view.scale(height, width)
    stamped = stamp_untrained if style.untrained else lambda drawn: drawn
    if explanation.concepts:
        heat, colours = draw_concepts(explanation.map, style, view.enlarge)
        yield _PanelTile("picture", pixels)
        yield _PanelTile(
            "overlay", stamped(_mark_concepts(draw.blend(pixels, heat, style, colours), view, explanation))
        )
        return
    heat = view.enlarge(to_unit_range(explanation.map, style))
    at_input = explanation.map.ndim == 3
    over = view.enlarge(to_unit_range(explanation.map, style, smooth=True)) if at_input else heat
    yield _PanelTile("picture", _draw_box(pixels, picture, explanation))
    yield _PanelTile("heatmap", stamped(draw.apply_colormap(heat, style.colormap)))
    drawn = _draw_box(draw.blend(pixels, over, style), picture, explanation)
    yield _PanelTile("overlay, smoothed" if at_input else "overlay", stamped(drawn))
    if at_input:
        gradient = np.stack([view.enlarge(channel) for channel in explanation.map])
        yield _PanelTile("signed gradient, on its own scale", stamped(draw.draw_gradient(gradient)))


def _draw_box(
    pixels: UInt8[np.ndarray, "h w 3"], picture: Picture, explanation: Explanation
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the explained box, if there is one, in white between black lines to be visible on any picture."""
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


def _find_tile_size(height: int, width: int) -> tuple[int, int]:
    down, across = _fit_size(height, width)
    return max(MIN_TILE_SIDE, down), max(MIN_TILE_SIDE, across)


def _fit_size(height: int, width: int) -> tuple[int, int]:
    scale = min(TILE_HEIGHT / height, MAX_TILE_WIDTH / width)
    return round(height * scale), round(width * scale)


def _describe_scale(map: np.ndarray, style: Style) -> str:
    """Describe the value of full colour; two panels are comparable where it is the same."""
    full, own = full_scale(map, style), peak_value(map)
    if style.normalize == "none":
        return f"1 = 1, not normalised (this map's strongest is {own:.3g})"
    if not full:
        return "nothing to show: no value is above zero"
    if style.normalize == "run":
        return f"1 = {full:.3g}, the run's strongest (this map's is {own:.3g})"
    if style.normalize == "range":
        return f"0 = {rectify(map).min():.3g}, 1 = {full:.3g}, this map's least and strongest"
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
    words += _describe_proportions(picture.view.picture, shown.view.picture)
    if not shown.view.sees_whole_picture:
        words.append("hatched: not seen by the model")
    if style.untrained:
        words.append("the weights are random: the map means nothing")
    return [(SMALL, GREY, text) for text in words]


def _describe_proportions(whole: tuple[int, int], shown: tuple[int, int]) -> Iterator[str]:
    """Describe the cropping and stretching of a strip; both sizes are height and width."""
    if shown != whole:
        yield f"shown: the {shown[1]} x {shown[0]} pixels around the model's view, of {whole[1]} x {whole[0]}"
    if (drawn := _find_tile_size(*shown)) != _fit_size(*shown):
        yield f"drawn stretched: {shown[1]} x {shown[0]} pixels as {drawn[1]} x {drawn[0]}"


def _shorten_lines(lines: Iterable[_Line], width: int) -> list[_Line]:
    return [(size, colour, shorten_text(text, size, width)) for size, colour, text in lines]


def shorten_text(text: str, size: int, width: int) -> str:
    """Shorten a text with ``…`` to fit one line of ``width`` pixels at a font size."""
    font = ImageFont.load_default(size)
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    if font.getlength(shown) <= width:
        return shown
    fits = bisect.bisect_right(range(len(shown)), float(width), key=lambda kept: font.getlength(shown[:kept] + "…"))
    return shown[: max(0, fits - 1)].rstrip() + "…"


def _text_height(lines: list[_Line]) -> int:
    return sum(round(size * 1.4) for size, _, _ in lines)


def _write_lines(sheet: Image.Image, lines: list[_Line], top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    for size, colour, text in lines:
        draw.text((MARGIN, top), text, colour, ImageFont.load_default(size))
        top += round(size * 1.4)


def _place_tiles(sheet: Image.Image, tiles: list[_PanelTile], top: int) -> None:
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(SMALL), MARGIN
    for tile in tiles:
        height, width = tile.pixels.shape[:2]
        sheet.paste(Image.fromarray(tile.pixels), (left, top))
        draw.text((left, top + height + GAP // 2), shorten_text(tile.caption, SMALL, width), GREY, font)
        left += width + GAP


def _place_scale(sheet: Image.Image, text: str, top: int, colormap: str) -> None:
    """Draw the bar of colours from 0 to 1 and the text that explains it."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(SMALL)
    ramp = np.tile(np.linspace(0, 1, BAR[0], dtype=np.float32), (BAR[1], 1))
    left, middle = MARGIN + 14, top + SMALL // 2 + 3
    draw.text((MARGIN, middle), "0", GREY, font, anchor="lm")
    sheet.paste(Image.fromarray(apply_colormap(ramp, colormap)), (left, middle - BAR[1] // 2))
    left += BAR[0] + 6
    draw.text((left, middle), shorten_text(text, SMALL, sheet.width - MARGIN - left), GREY, font, anchor="lm")


def _place_legend(sheet: Image.Image, explanation: Explanation, style: Style, top: int) -> None:
    """Draw a line for each concept, and what full colour stands for."""
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT), ImageFont.load_default(SMALL)
    width = sheet.width - 2 * MARGIN
    number, share, classes = (MARGIN + column for column in LEGEND_COLUMNS)
    for concept in explanation.concepts:
        edge, middle = top + (ENTRY_HEIGHT - PATCH_SIDE) // 2, top + ENTRY_HEIGHT // 2
        colour = BLACK if concept.share >= MIN_SHARE else GREY
        draw.rectangle((MARGIN, edge, MARGIN + PATCH_SIDE, edge + PATCH_SIDE), concept_colour(concept.number))
        draw.text((number, middle), str(concept.number), colour, font, anchor="lm")
        draw.text((share, middle), f"{concept.share:.0%}", colour, font, anchor="rm")
        words = shorten_text(_describe_classes(concept), TEXT, width - LEGEND_COLUMNS[2])
        draw.text((classes, middle), words, colour, font, anchor="lm")
        top += ENTRY_HEIGHT
    for line, text in enumerate((LEGEND, f"strength of colour: {_describe_scale(explanation.drawn, style)}")):
        below = top + GAP // 2 + line * round(SMALL * 1.4)
        draw.text((MARGIN, below), shorten_text(text, SMALL, width), GREY, small)


def _describe_classes(concept: Concept) -> str:
    """List the classes whose scores a concept raises, with the increases."""
    return ", ".join(f"{one.label} +{one.rise:.2g}" for one in concept.classes)


def _mark_concepts(
    pixels: UInt8[np.ndarray, "h w 3"], view: View, explanation: Explanation
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw each concept's number where its colour is strongest, if it is visible anywhere."""
    image = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(SMALL)
    strongest = explanation.map.argmax(0)
    for place, (concept, map) in enumerate(zip(explanation.concepts, explanation.map, strict=True)):
        if concept.share >= MIN_SHARE and ((strongest == place) & view.visible_cells(map.shape)).any():
            x, y = view.peak(np.where(strongest == place, map, -1))
            radius = SMALL * 0.75
            x, y = (min(max(at, radius), size - 1 - radius) for at, size in ((x, image.width), (y, image.height)))
            colour = style.concept_colour(concept.number)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour, BLACK)
            ink = "white" if sum(colour) < DARK else "black"
            draw.text((x, y), str(concept.number), ink, font, anchor="mm")
    return np.array(image)
