"""Boxes in pixels of the model's input and of the image, as corners x0, y0, x1, y1."""

from __future__ import annotations

from camcli.images.view import View

Corners = tuple[float, float, float, float]


def box_to_picture(view: View, box: Corners) -> Corners:
    """Convert a box from pixels of the input to pixels of the image, clipped to the image."""
    x0, y0, x1, y1 = view.box
    down, across = (y1 - y0) / view.input[0], (x1 - x0) / view.input[1]
    height, width = view.picture
    xs = (min(max(x0 + x * across, 0.0), float(width)) for x in box[::2])
    ys = (min(max(y0 + y * down, 0.0), float(height)) for y in box[1::2])
    (left, right), (top, bottom) = xs, ys
    return left, top, right, bottom


def box_to_input(view: View, box: Corners) -> Corners:
    """Convert a box from pixels of the image to pixels of the input; it may lie partly outside of it."""
    x0, y0, x1, y1 = view.box
    down, across = view.input[0] / (y1 - y0), view.input[1] / (x1 - x0)
    left, top, right, bottom = box
    return (left - x0) * across, (top - y0) * down, (right - x0) * across, (bottom - y0) * down
