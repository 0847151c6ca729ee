"""Drawing of a symmetric matrix of similarities."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from camcli.outputs.draw import apply_diverging
from camcli.outputs.font import load_font
from camcli.outputs.panel import BLACK, GREY
from camcli.outputs.sheet import THUMBNAIL_SIDE

# Side of a cell, unless more is needed to be as wide as an image; least side for a value in the cell, and for a number
# beside it; room for these numbers.
CELL_SIDE, MIN_SIDE_FOR_VALUES, MIN_SIDE_FOR_NUMBERS, NUMBERS_ROOM = 34, 24, 15, 22
TEXT = 12
# Colours of undefined values, and of the diagonal, which is trivial.
UNDEFINED_COLOUR, DIAGONAL_COLOUR = (224, 224, 224), (250, 250, 250)
# Share of the colours' strength at 1 and -1: black can be read on all of them.
STRENGTH = 0.6


def draw_matrix(values: Float[np.ndarray, "k k"], max_width: int, scale: float = 1.0) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a matrix of values from -1, light blue, to 1, light red, with the values in the cells where there is room.

    Rows and columns are numbered from 1. Undefined values are grey.

    Args:
        values: the matrix; NaN where undefined.
        max_width: greatest width, in units of the page.
        scale: pixels for a unit.
    """
    count = len(values)
    cell = max(1, min(max(CELL_SIDE, (THUMBNAIL_SIDE - NUMBERS_ROOM) // count), (max_width - NUMBERS_ROOM) // count))
    show_numbers, show_values = cell >= MIN_SIDE_FOR_NUMBERS, cell >= MIN_SIDE_FOR_VALUES
    cell, edge = max(1, round(cell * scale)), round(NUMBERS_ROOM * scale)
    side = edge + cell * count
    page = Image.new("RGB", (side, side), "white")
    draw, font = ImageDraw.Draw(page), load_font(round(TEXT * scale))
    coloured = apply_diverging(STRENGTH * np.nan_to_num(values).astype(np.float32))
    coloured[np.isnan(values)] = UNDEFINED_COLOUR
    coloured[np.eye(count, dtype=bool)] = DIAGONAL_COLOUR
    page.paste(Image.fromarray(coloured).resize((cell * count,) * 2, Image.Resampling.NEAREST), (edge, edge))
    for place in range(count) if show_numbers else ():
        middle = edge + place * cell + cell / 2
        draw.text((middle, edge / 2), str(place + 1), GREY, font, anchor="mm")
        draw.text((edge / 2, middle), str(place + 1), GREY, font, anchor="mm")
        for other in range(count) if show_values else ():
            if other != place:
                centre = (edge + other * cell + cell / 2, middle)
                draw.text(centre, _format_value(values[place, other]), BLACK, font, anchor="mm")
    return np.asarray(page)


def _format_value(value: float) -> str:
    """Return the value to two decimals, without a leading zero."""
    if np.isnan(value):
        return "-"
    words = f"{round(value, 2) + 0.0:.2f}"
    return words.removesuffix("0") if words.endswith("1.00") else words.replace("0.", ".", 1)
