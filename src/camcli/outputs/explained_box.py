"""Drawing of a detector's box: the one that is explained, and the true box that it stands for."""

import numpy as np
from jaxtyping import Bool, UInt8

from camcli.engine.explanation import Explanation

# Width of the lines of an overlay, as a share of the image's longer side; and length of dashes, in lines.
LINE_SHARE, DASH = 1 / 600, 6
BLACK, WHITE = 0, 255


def draw_explained_box(
    pixels: UInt8[np.ndarray, "h w 3"], explanation: Explanation, size: tuple[int, int], line: int = 0
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the explained box in white between black lines, and the true box, if given, in dashes of white and black.

    Both can be seen on any image. Without a box the pixels are returned as they are, else a copy.

    Args:
        pixels: the drawing.
        explanation: the map, with its box in pixels of the image.
        size: height and width of the image, of which the drawing may be of another size.
        line: width of a line; 0 for one that suits the drawing.
    """
    if explanation.box is None:
        return pixels
    line = line or max(1, round(max(pixels.shape[:2]) * LINE_SHARE))
    scale = (pixels.shape[1] / size[1], pixels.shape[0] / size[0]) * 2
    drawn = pixels.copy()
    left, top, right, bottom = (max(0, round(edge * by)) for edge, by in zip(explanation.box, scale, strict=True))
    inside = drawn[top:bottom, left:right]
    inside[_select_edge(inside.shape, 4 * line)] = BLACK
    between = inside[line : inside.shape[0] - line, line : inside.shape[1] - line]
    between[_select_edge(between.shape, 2 * line)] = WHITE
    if explanation.true_box is not None:
        left, top, right, bottom = (
            max(0, round(edge * by)) for edge, by in zip(explanation.true_box, scale, strict=True)
        )
        inside = drawn[top:bottom, left:right]
        down, across = (np.arange(length) // (DASH * line) for length in inside.shape[:2])
        dashes = np.where((down[:, np.newaxis] + across) % 2, BLACK, WHITE).astype(np.uint8)
        edge = _select_edge(inside.shape, 2 * line)
        inside[edge] = dashes[edge][:, np.newaxis]
    return drawn


def _select_edge(shape: tuple[int, ...], width: int) -> Bool[np.ndarray, "h w"]:
    """Return a mask of the pixels that are at most so far from an edge."""
    edge = np.ones(shape[:2], bool)
    edge[width : shape[0] - width, width : shape[1] - width] = False
    return edge
