"""Output of a panel: one sheet with everything about one map."""

import bisect
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from camcli.engine.explanation import Concept, Explanation
from camcli.images.file_info import NO_INFO, FileInfo
from camcli.images.source import Picture
from camcli.images.view import View, is_fine
from camcli.outputs import draw, encode, style
from camcli.outputs.banner import stamp_untrained
from camcli.outputs.draw import apply_colormap
from camcli.outputs.explained_box import draw_explained_box
from camcli.outputs.font import load_font, measure_text
from camcli.outputs.page import Page
from camcli.outputs.style import (
    ROBUST_PERCENTILE,
    Style,
    concept_colour,
    draw_concepts,
    full_scale,
    peak_value,
    rectify,
    to_unit_range,
)
from camcli.targets import SIMILARITY_LABEL
from camcli.targets.target import Box

TILE_HEIGHT, MAX_TILE_WIDTH = 448, 896
# Of a strip with a greater aspect ratio only the part around the model's view is shown; a side of fewer pixels at the
# panel's size is stretched.
MAX_ASPECT, MIN_TILE_SIDE = 4, 72
MARGIN, GAP = 28, 16
MIN_WIDTH = 560
TITLE, TEXT, SMALL = 30, 19, 15
BLACK, GREY = (20, 20, 20), (96, 96, 96)
# Width and height of the bar of colours, and its ticks.
BAR, TICKS = (400, 12), (0.0, 0.25, 0.5, 0.75, 1.0)
# In a legend: height of an entry, side of its patch of colour, and offsets of its number, its share (right-aligned) and
# its classes. Concepts of a smaller share than the minimum are listed in grey, and not marked in the image.
ENTRY_HEIGHT, PATCH_SIDE, LEGEND_COLUMNS = 28, 18, (30, 98, 114)
MIN_SHARE = 0.05
# Colours are dark if red, green and blue sum to less than this.
DARK = 330
HELD = {
    "concepts": "they make up {:.0%} of the layer's activations",
    "components": "they hold {:.0%} of the variance of what is coloured",
    "segments": "they hold {:.0%} of the variance of the layer's activations",
}
PRIMARIES = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
COMPONENTS_LEGEND = "amount of each colour: sigmoid of twice the component in standard deviations"
LEGEND = "concept, its share of this image, and the classes whose scores it raises most"
IMPORTANCE_LEGEND = "concept, its share of this image and of the scores explained, and the classes it raises most"

OUTSIDE_WORDS = {
    "dim": "outside the frame: not seen by the model",
    "hatch": "hatched: not seen by the model",
    "hide": "plain grey: not seen by the model",
    "keep": "the model did not see all of the image",
}

# A line of text: size, colour and words.
_Line = tuple[int, tuple[int, int, int], str]


@dataclass(frozen=True, slots=True)
class _PanelTile:
    caption: str
    pixels: UInt8[np.ndarray, "h w 3"]
    info: FileInfo = NO_INFO


def panel(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw image, heatmap and overlay side by side as a PNG on white, at one moderate height or ``style.panel_size``.

    Class, index, score and probability stand above them, the scale of the colours and how the map was made below. A
    gradient at the model's input is shown with its signs too. Concepts have a legend of colour, number, share of the
    image and the classes whose scores they raise. Texts too long for the sheet end in ``…``; they grow with images that
    are larger than usual. The file keeps the colour profile and resolution of the image's.
    """
    return encode.png(_compose(picture, explanation, style).to_pixels(), picture.info)


def panel_svg(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw the panel as SVG, whose texts can be changed and enlarged."""
    return _compose(picture, explanation, style).to_svg()


def panel_pdf(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw the panel as PDF."""
    return _compose(picture, explanation, style).to_pdf()


def _compose(picture: Picture, explanation: Explanation, style: Style) -> Page:
    shown = crop_around_view(picture)
    explanation = _move_boxes(explanation, picture.view.box, shown.view.box)
    tiles = list(draw_tiles(shown, explanation, style))
    by = _find_page_scale(shown, style)
    width = max(MIN_WIDTH, math.ceil(sum(tile.pixels.shape[1] / by + GAP for tile in tiles)) - GAP) + 2 * MARGIN
    above = _shorten_lines(heading(explanation, style.noun), width - 2 * MARGIN)
    below = _shorten_lines(footing(picture, shown, explanation, style), width - 2 * MARGIN)
    row = math.ceil(tiles[0].pixels.shape[0] / by) + GAP + SMALL
    line = round(SMALL * 1.4)
    scale = ENTRY_HEIGHT * len(explanation.concepts) + 2 * line if explanation.concepts else BAR[1] + 2 * line + 4
    scale += GAP // 2
    page = Page(width, _text_height(above) + row + scale + _text_height(below) + 2 * MARGIN + 2 * GAP, by)
    _write_lines(page, above, MARGIN)
    _place_tiles(page, tiles, _text_height(above) + MARGIN + GAP)
    top = _text_height(above) + row + MARGIN + 2 * GAP
    if explanation.concepts:
        _place_legend(page, explanation, style, top)
    else:
        _place_scale(page, explanation.map, style, is_fine(explanation.map, shown.view), top)
    _write_lines(page, below, _text_height(above) + row + scale + MARGIN + 2 * GAP)
    return page


def crop_around_view(picture: Picture) -> Picture:
    """Crop a strip to ``MAX_ASPECT`` times its shorter side around the model's view, or to the view if longer."""
    height, width = picture.pixels.shape[:2]
    x0, y0, x1, y1 = picture.view.box
    longest = MAX_ASPECT * min(height, width)
    left, right = _fit_window(x0, x1, width, longest)
    top, bottom = _fit_window(y0, y1, height, longest)
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    view = replace(picture.view, picture=(bottom - top, right - left), box=box)
    return replace(picture, pixels=picture.pixels[top:bottom, left:right], view=view)


def _move_boxes(explanation: Explanation, whole: Box, shown: Box) -> Explanation:
    """Return the explanation with its boxes in pixels of what is shown of the image, by the model's view in both."""
    if explanation.box is None or whole == shown:
        return explanation
    across, down = whole[0] - shown[0], whole[1] - shown[1]

    def move(box: Box) -> Box:
        return box[0] - across, box[1] - down, box[2] - across, box[3] - down

    truth = explanation.true_box
    return replace(explanation, box=move(explanation.box), true_box=None if truth is None else move(truth))


def _fit_window(low: float, high: float, length: int, longest: int) -> tuple[int, int]:
    """Return start and end of the pixels to show, of ``length``, around those from ``low`` to ``high``."""
    first, last = max(0, math.floor(low)), min(length, math.ceil(high))
    shown = min(length, max(longest, last - first))
    start = min(max(0, (first + last - shown) // 2), length - shown)
    return start, start + shown


def draw_tiles(picture: Picture, explanation: Explanation, style: Style) -> Iterator[_PanelTile]:
    """Draw the images that stand side by side, with their captions."""
    height, width = _find_tile_size(picture.pixels.shape, style.panel_size)
    by = _find_page_scale(picture, style)
    pixels = np.asarray(Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.BICUBIC))
    view = picture.view.scale(height, width)
    outside = style.outside

    def finish(drawn: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        framed = draw.frame(drawn, view) if outside == "dim" else drawn
        return stamp_untrained(framed) if style.untrained else framed

    if explanation.concepts:
        heat, colours = draw_concepts(explanation, style, view.enlarge)
        yield _PanelTile("image", pixels, picture.info)
        if explanation.finds == "components":
            yield _PanelTile("components", finish(draw.shade(heat, colours, outside)))
        marked = draw.blend(pixels, heat, style, colours)
        if explanation.finds != "components":
            marked = _mark_concepts(marked, view, explanation, by)
        yield _PanelTile("overlay", finish(marked), picture.info)
        return
    fine = is_fine(explanation.map, view)
    heat = view.enlarge(to_unit_range(explanation.map, style, fine))
    over = view.enlarge(to_unit_range(explanation.map, style, fine, smooth=True)) if fine else heat
    size = picture.view.picture
    yield _PanelTile("image", draw_explained_box(pixels, explanation, size, round(by)), picture.info)
    yield _PanelTile("heatmap", finish(draw.apply_colormap(heat, style.colormap, outside)))
    drawn = draw_explained_box(draw.blend(pixels, over, style, fine=fine), explanation, size, round(by))
    yield _PanelTile("overlay, smoothed" if fine else "overlay", finish(drawn), picture.info)
    if explanation.map.ndim == 3:
        gradient = np.stack([view.enlarge(channel) for channel in explanation.map])
        yield _PanelTile("signed gradient, on its own scale", finish(draw.draw_gradient(gradient, outside)))


def _find_tile_size(shape: tuple[int, ...], size: int = 0) -> tuple[int, int]:
    """Return height and width of an image in the panel, in pixels.

    Args:
        shape: height and width of the image, and what else its shape has.
        size: the longer of both in the panel; 0 for the usual height.
    """
    down, across = (max(MIN_TILE_SIDE, side) for side in _fit_size(*shape[:2]))
    by = size / max(down, across) if size else 1.0
    return max(1, round(down * by)), max(1, round(across * by))


def _fit_size(height: int, width: int) -> tuple[int, int]:
    scale = min(TILE_HEIGHT / height, MAX_TILE_WIDTH / width)
    return round(height * scale), round(width * scale)


def _find_page_scale(picture: Picture, style: Style) -> float:
    """Return by how much texts are larger than usual: as the images are, but never smaller."""
    sides = picture.pixels.shape
    return max(1.0, max(_find_tile_size(sides, style.panel_size)) / max(_find_tile_size(sides)))


def describe_scale(map: np.ndarray, style: Style, fine: bool = False) -> str:
    """Describe the ends of the bar of colours, whose values are at its ticks."""
    full, own = full_scale(map, style, fine), float(rectify(map).max())
    if style.normalize == "none":
        return f"from 0 to 1, not normalised (maximum of this map: {format_value(own)})"
    if not full:
        return "nothing to show: no value is above zero"
    if style.normalize == "run":
        return f"from 0 to the maximum of the run (of this map: {format_value(peak_value(map, fine))})"
    start = "the minimum" if style.normalize == "range" else "0"
    if full < own:
        return f"from {start} to the {ROBUST_PERCENTILE}th percentile of this map (maximum: {format_value(own)})"
    return f"from {start} to the maximum of this map"


def format_value(value: float) -> str:
    """Return a value in three digits, or all of those before the point: ``0.0792``, ``3451``."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def heading(explanation: Explanation, noun: str = "class") -> list[_Line]:
    """Return the lines above the images: what is explained, and its numbers.

    Args:
        explanation: the map.
        noun: what the model calls its classes: class, channel or prompt.
    """
    if explanation.concepts:
        held = HELD[explanation.finds].format(explanation.score)
        return [(TITLE, BLACK, explanation.label), (TEXT, GREY, held)]
    if explanation.label.startswith(SIMILARITY_LABEL):
        numbers = f"similarity {explanation.score:.4g}"
    elif explanation.channel is not None and explanation.weight is None:
        numbers = f"value {explanation.score:.4g}"
    else:
        numbers = f"{noun} {explanation.index}, score {explanation.score:.4g}"
    if explanation.number:
        numbers = f"box {explanation.number}, {numbers}"
    elif explanation.probability is not None:
        numbers += f", probability {explanation.probability:.3g}"
    if explanation.weight is not None:
        numbers = f"channel {explanation.channel}, contribution {explanation.weight:.3g}; {numbers}"
    title = f"{explanation.label} over {explanation.versus}" if explanation.versus else explanation.label
    return [(TITLE, BLACK, title), (TEXT, GREY, numbers)]


def footing(picture: Picture, shown: Picture, explanation: Explanation, style: Style) -> list[_Line]:
    """Return the lines below the scale: how the map was made, its notes, and what is not shown as it is."""
    made = f"{f'{style.model}, ' if style.model else ''}{explanation.method} at {explanation.layer or 'the input'}"
    words = [f"{made}: {picture.source.name}", *explanation.notes]
    words += ["dashed: the true box"] if explanation.true_box else []
    words += _describe_proportions(picture.view.picture, shown.view.picture, style.panel_size)
    if not shown.view.sees_whole_picture:
        words.append(OUTSIDE_WORDS[style.outside])
    if style.untrained:
        words.append("the weights are random: the map means nothing")
    return [(SMALL, GREY, text) for text in words]


def _describe_proportions(whole: tuple[int, int], shown: tuple[int, int], size: int) -> Iterator[str]:
    """Describe the cropping and stretching of a strip to a panel's size; the others are height and width."""
    if shown != whole:
        yield f"shown: the {shown[1]} x {shown[0]} pixels around the model's view, of {whole[1]} x {whole[0]}"
    if _find_tile_size(shown) != _fit_size(*shown):
        drawn = _find_tile_size(shown, size)
        yield f"drawn stretched: {shown[1]} x {shown[0]} pixels as {drawn[1]} x {drawn[0]}"


def _shorten_lines(lines: Iterable[_Line], width: int) -> list[_Line]:
    return [(size, colour, shorten_text(text, size, width)) for size, colour, text in lines]


def shorten_text(text: str, size: int, width: int) -> str:
    """Shorten a text with ``…`` to fit one line of ``width`` pixels at a font size."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    if measure_text(shown, size) <= width:
        return shown
    fits = bisect.bisect_right(range(len(shown)), float(width), key=lambda kept: measure_text(shown[:kept] + "…", size))
    return shown[: max(0, fits - 1)].rstrip() + "…"


def _text_height(lines: list[_Line]) -> int:
    return sum(round(size * 1.4) for size, _, _ in lines)


def _write_lines(page: Page, lines: list[_Line], top: int) -> None:
    for size, colour, text in lines:
        page.write((MARGIN, top), text, colour, size)
        top += round(size * 1.4)


def _place_tiles(page: Page, tiles: list[_PanelTile], top: int) -> None:
    left: float = MARGIN
    for tile in tiles:
        height, width = (side / page.scale for side in tile.pixels.shape[:2])
        page.place_image(left, top, tile.pixels, tile.info)
        page.write((left, top + height + GAP // 2), shorten_text(tile.caption, SMALL, int(width)), GREY, SMALL)
        left += width + GAP


def _place_scale(page: Page, map: np.ndarray, style: Style, fine: bool, top: int) -> None:
    """Place the bar of colours with the map's values at its ticks, and what its ends are."""
    width, height = (round(side * page.scale) for side in BAR)
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    page.place_image(MARGIN, top, apply_colormap(ramp, style.colormap))
    low = float(rectify(map).min()) if style.normalize == "range" else 0.0
    high = full_scale(map, style, fine)
    # The first value begins at its tick and the next has its middle there: they must not touch.
    widest = max(measure_text(format_value(low + share * (high - low)), SMALL) for share in TICKS)
    ticks = TICKS if 1.5 * widest + GAP / 2 <= TICKS[1] * BAR[0] else TICKS[::2]
    for share in ticks if high else ():
        x, down = MARGIN + share * (BAR[0] - 1), top + BAR[1]
        page.fill((x, down, x, down + 3), GREY)
        anchor = {0.0: "l", 1.0: "r"}.get(share, "m") + "a"
        page.write((x, down + 5), format_value(low + share * (high - low)), GREY, SMALL, anchor)
    left = MARGIN + BAR[0] + GAP
    words = shorten_text(describe_scale(map, style, fine), SMALL, page.width - MARGIN - left)
    page.write((left, top + BAR[1] / 2), words, GREY, SMALL, "lm")


def _place_legend(page: Page, explanation: Explanation, style: Style, top: int) -> None:
    """Place a line for each concept, and what full colour stands for."""
    width, drawn = page.width - 2 * MARGIN, explanation.drawn
    number, share, classes = (MARGIN + column for column in LEGEND_COLUMNS)
    if explanation.finds == "components":
        _place_components(page, explanation, top)
        return
    for concept in explanation.concepts:
        edge, middle = top + (ENTRY_HEIGHT - PATCH_SIDE) // 2, top + ENTRY_HEIGHT // 2
        colour = BLACK if concept.share >= MIN_SHARE else GREY
        page.fill((MARGIN, edge, MARGIN + PATCH_SIDE, edge + PATCH_SIDE), concept_colour(concept.number))
        page.write((number, middle), str(concept.number), colour, TEXT, "lm")
        page.write((share, middle), f"{concept.share:.0%}", colour, TEXT, "rm")
        words = shorten_text(describe_classes(concept), TEXT, width - LEGEND_COLUMNS[2])
        page.write((classes, middle), words, colour, TEXT, "lm")
        top += ENTRY_HEIGHT
    strength = f"strength of colour: {describe_scale(drawn, style)}; full at {format_value(full_scale(drawn, style))}"
    legend = IMPORTANCE_LEGEND if any(one.importances for one in explanation.concepts) else LEGEND
    lines = (LEGEND.replace("concept", "segment"),) if explanation.finds == "segments" else (legend, strength)
    for line, text in enumerate(lines):
        below = top + GAP // 2 + line * round(SMALL * 1.4)
        page.write((MARGIN, below), shorten_text(text, SMALL, width), GREY, SMALL)


def _place_components(page: Page, explanation: Explanation, top: int) -> None:
    """Place a line for each component, and one for the foreground, if there is one."""
    *foreground, _, _, _ = explanation.concepts
    names = [(BLACK, f"{one.share:.0%} of the image is foreground") for one in foreground]
    shares = [one.share for one in explanation.concepts[-len(PRIMARIES) :]]
    names += [(colour, f"{share:.0%} of the variance") for colour, share in zip(PRIMARIES, shares, strict=True)]
    for colour, words in names:
        edge, middle = top + (ENTRY_HEIGHT - PATCH_SIDE) // 2, top + ENTRY_HEIGHT // 2
        page.fill((MARGIN, edge, MARGIN + PATCH_SIDE, edge + PATCH_SIDE), colour)
        page.write((MARGIN + LEGEND_COLUMNS[0], middle), words, BLACK, TEXT, "lm")
        top += ENTRY_HEIGHT
    page.write((MARGIN, top + GAP // 2), shorten_text(COMPONENTS_LEGEND, SMALL, page.width - 2 * MARGIN), GREY, SMALL)


def describe_classes(concept: Concept) -> str:
    """List the classes to which a concept matters, and those whose scores it raises, with the increases."""
    important = [f"{one.total:.0%} of {one.label}" for one in concept.importances if one.total is not None]
    raised = [f"{one.label} +{one.rise:.2g}" for one in concept.classes]
    return ": ".join(", ".join(some) for some in (important, raised) if some)


def _mark_concepts(
    pixels: UInt8[np.ndarray, "h w 3"], view: View, explanation: Explanation, scale: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw each concept's number where its colour is strongest, if it is visible anywhere."""
    image = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(image), load_font(round(SMALL * scale))
    strongest = explanation.map.argmax(0)
    for place, (concept, map) in enumerate(zip(explanation.concepts, explanation.map, strict=True)):
        if concept.share >= MIN_SHARE and ((strongest == place) & view.visible_cells(map.shape)).any():
            x, y = view.peak(np.where(strongest == place, map, -1))
            radius = SMALL * scale * 0.75
            x, y = (min(max(at, radius), size - 1 - radius) for at, size in ((x, image.width), (y, image.height)))
            colour = style.concept_colour(concept.number)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour, BLACK)
            ink = "white" if sum(colour) < DARK else "black"
            draw.text((x, y), str(concept.number), ink, font, anchor="mm")
    return np.array(image)
