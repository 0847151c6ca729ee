"""Maps from scores of the layer's cells, a few at a time."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from camcli.base.passes import Counted

ScoreOf = Callable[[Iterable[Tensor]], Iterator[Tensor]]
# Gaussian mask of Recipro-CAM, around a cell.
GAUSSIAN = ((1 / 16, 1 / 8, 1 / 16), (1 / 8, 1 / 4, 1 / 8), (1 / 16, 1 / 8, 1 / 16))


def recipro_cam(
    act: Float[Tensor, "n c h w"],
    score_from_layer: ScoreOf,
    *,
    mask: Literal["gaussian", "cell"] = "gaussian",
) -> Float[Tensor, "n h w"]:
    """At each cell y_ij, min-maxed to 0..1; y_ij is the score of A times a mask around the cell (Byun 2022, sec. 3.2).

    All channels share the mask, so there are as many passes as cells, and none of them needs a gradient. Tokens before
    the first patch, such as the class token, stay as they are (Byun 2023, which masks tokens of a vision transformer in
    the same way). The authors take the class's probability for y (``--score probability``). Where all cells have the
    same score there is no map.

    Use: where there are no gradients, and few cells: a late layer.
    Not for: evidence against the class, or its size: the map of the weakest cell is 0, of the strongest 1.

    Args:
        mask: gaussian, 3 x 3 cells with 1/4 in their middle, or cell, the cell alone.
    """
    n, _, h, w = act.shape
    masks = _iter_cell_masks(act, mask == "gaussian")
    scores = torch.stack(list(score_from_layer(Counted((act * one for one in masks), h * w))), 1).view(n, h, w)
    low, high = scores.amin((1, 2), keepdim=True), scores.amax((1, 2), keepdim=True)
    return (scores - low) / (high - low)


def _iter_cell_masks(act: Float[Tensor, "n c h w"], gaussian: bool) -> Iterator[Float[Tensor, "h w"]]:
    """Iterate over a mask around each cell, row by row; what is beyond the edges is cut off."""
    kernel = act.new_tensor(GAUSSIAN if gaussian else ((1.0,),))
    reach, (h, w) = len(kernel) // 2, act.shape[2:]
    for row, column in itertools.product(range(h), range(w)):
        mask = act.new_zeros(h + 2 * reach, w + 2 * reach)
        mask[row : row + len(kernel), column : column + len(kernel)] = kernel
        yield mask[reach : reach + h, reach : reach + w]
