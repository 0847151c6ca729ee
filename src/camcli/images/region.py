"""Regions of images given by the user: a rectangle or a mask."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from camcli.base.errors import PictureError, RequestError

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_RECTANGLE = re.compile(",".join([_NUMBER] * 4))


@dataclass(frozen=True, slots=True)
class Region:
    """A region that is the same in every image, in pixels of the upright image.

    Attributes:
        corners: x0, y0, x1, y1 of a rectangle, at the edges of pixels.
        mask: the pixels inside, for images of the mask's size; None for a rectangle.
    """

    corners: tuple[float, float, float, float] | None = None
    mask: Bool[np.ndarray, "H W"] | None = None

    def contains(
        self, xs: Float[np.ndarray, " w"], ys: Float[np.ndarray, " h"], picture: tuple[int, int]
    ) -> Bool[np.ndarray, "h w"]:
        """Return the points of a grid that are inside, over an image of this height and width; none beyond it.

        Raises:
            PictureError: the image's size is not that of the mask.
        """
        height, width = picture
        across, down = (xs >= 0) & (xs < width), (ys >= 0) & (ys < height)
        if self.corners is not None:
            x0, y0, x1, y1 = self.corners
            across &= (xs >= x0) & (xs < x1)
            down &= (ys >= y0) & (ys < y1)
        inside = down[:, np.newaxis] & across
        if self.mask is not None:
            if self.mask.shape != picture:
                there = "x".join(map(str, self.mask.shape[::-1]))
                raise PictureError(
                    f"it is {width}x{height} pixels, but the mask of the region is {there}",
                    "give a mask of the image's own size",
                )
            columns, rows = (
                np.clip(np.floor(one), 0, most - 1).astype(int) for one, most in ((xs, width), (ys, height))
            )
            inside &= self.mask[rows][:, columns]
        return inside


def parse_rectangle(text: str) -> Region | None:
    """Parse a rectangle ``x0,y0,x1,y1``; None if the text is not one.

    Raises:
        RequestError: the rectangle is empty.
    """
    found = _RECTANGLE.fullmatch(text)
    if not found:
        return None
    x0, y0, x1, y1 = map(float, found.groups())
    if x0 >= x1 or y0 >= y1:
        raise RequestError(f"the region {text!r} is empty", "write x0,y0,x1,y1 with x0 < x1 and y0 < y1, in pixels")
    return Region((x0, y0, x1, y1))
