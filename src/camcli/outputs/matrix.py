"""A symmetric matrix of similarities as a drawing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from camcli.outputs.draw import colours
from camcli.outputs.panel import BLACK, GREY
from camcli.outputs.sheet import SIDE

# A cell's side, if not more is needed to be as wide as a picture; that of one whose value can be read in it, and whose
# number beside it; the room for these numbers.
CELL, READABLE, NUMBERED, NUMBERS = 34, 24, 15, 22
TEXT = 12
# What is not defined, and the diagonal, which says nothing.
UNDEFINED, ITSELF = (224, 224, 224), (250, 250, 250)
# Colours whose red, green and blue come to less than this are dark.
DARK = 330


def matrix(values: Float[np.ndarray, "k k"], widest: int, colormap: str) -> UInt8[np.ndarray, "h w 3"]:
    """A matrix of values from 0 to 1, in colours, with the values in the cells where there is room.

    Rows and columns are numbered from 1 on. What is below zero has zero's colour; what is not defined is grey.

    Args:
        values: NaN where not defined.
        widest: in pixels.
        colormap: a name from ``camcli.outputs.COLORMAPS``.
    """
    count = len(values)
    cell = max(1, min(max(CELL, (SIDE - NUMBERS) // count), (widest - NUMBERS) // count))
    side = NUMBERS + cell * count
    page = Image.new("RGB", (side, side), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT)
    coloured = colours(np.clip(np.nan_to_num(values), 0, 1).astype(np.float32), colormap)
    coloured[np.isnan(values)] = UNDEFINED
    coloured[np.eye(count, dtype=bool)] = ITSELF
    page.paste(Image.fromarray(coloured).resize((cell * count,) * 2, Image.Resampling.NEAREST), (NUMBERS, NUMBERS))
    for place in range(count) if cell >= NUMBERED else ():
        middle = NUMBERS + place * cell + cell / 2
        draw.text((middle, NUMBERS / 2), str(place + 1), GREY, font, anchor="mm")
        draw.text((NUMBERS / 2, middle), str(place + 1), GREY, font, anchor="mm")
        for other in range(count) if cell >= READABLE else ():
            if other != place:
                ink = "white" if int(coloured[place, other].sum()) < DARK else BLACK
                centre = (NUMBERS + other * cell + cell / 2, middle)
                draw.text(centre, _short(values[place, other]), ink, font, anchor="mm")
    return np.asarray(page)


def _short(value: float) -> str:
    """The value to two decimals, without the zero before them."""
    return "-" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1)
