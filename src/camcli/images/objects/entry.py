"""Box of an object, as an annotation file has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from camcli.base.errors import PictureError, RequestError

BOX_HINT = "give x0 < x1 and y0 < y1, in pixels of the upright image"


@dataclass(frozen=True, slots=True)
class Box:
    """Box of an object.

    Attributes:
        edges: x0, y0, x1, y1 in pixels of the upright image, counted from its upper left corner.
        index: its class; None if it counts for every class.
        relative: True if the edges are shares of the image's width and height instead.
        size: width and height that the image has in the file; None if it says nothing of them.
    """

    edges: tuple[float, float, float, float]
    index: int | None = None
    relative: bool = False
    size: tuple[int, int] | None = None

    def contains(
        self, x: Float[np.ndarray, " w"], y: Float[np.ndarray, " h"], picture: tuple[int, int]
    ) -> Bool[np.ndarray, "h w"]:
        """Return the points of a grid that are inside, over an image of this height and width; see `place`."""
        x0, y0, x1, y1 = self.place(picture)
        return np.outer((y >= y0) & (y < y1), (x >= x0) & (x < x1))

    def place(self, picture: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the edges in pixels of an image of this height and width.

        Raises:
            PictureError: the file has boxes of an image of another size.
        """
        height, width = picture
        if self.size is not None and self.size != (width, height):
            there = "x".join(map(str, self.size))
            raise PictureError(
                f"it is {width}x{height} pixels, but its boxes are of an image of {there}",
                "give the images that were annotated, or boxes of these",
            )
        x0, y0, x1, y1 = self.edges
        if self.relative:
            x0, x1, y0, y1 = x0 * width, x1 * width, y0 * height, y1 * height
        return x0, y0, x1, y1


@dataclass(frozen=True, slots=True)
class Entry:
    """Box as a file has it.

    Attributes:
        where: place in the file, such as ``line 3``.
        picture: name of the image.
        box: the box, for every class.
        label: name of its class; empty for every class.
    """

    where: str
    picture: str
    box: Box
    label: str = ""

    def of_class(self, index: int | None) -> Box:
        """Return the box for this class."""
        return replace(self.box, index=index)


def parse_edges(cells: Sequence[object], hint: str = BOX_HINT) -> tuple[float, float, float, float]:
    """Return x0, y0, x1, y1.

    Raises:
        RequestError: these are not four numbers of a box that has an area.
    """
    try:
        x0, y0, x1, y1 = (float(cell) for cell in cells)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        x0 = y0 = x1 = y1 = math.nan
    if not (x0 < x1 and y0 < y1) or not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise RequestError(f"{', '.join(map(str, cells))} is no box", hint)
    return x0, y0, x1, y1
