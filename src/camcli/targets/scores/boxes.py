"""Scores of a detector's boxes: where an edge is, as ODAM explains it too (Zhao and Chan 2023, arXiv:2304.06354)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from camcli.targets.target import Activation


def box_left(
    corners: Float[Tensor, "4"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, ""]:
    """Return x of a box's left edge, in pixels of the model's input."""
    del index, rivals, activation
    return corners[0]


def box_top(
    corners: Float[Tensor, "4"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, ""]:
    """Return y of a box's top edge, in pixels of the model's input."""
    del index, rivals, activation
    return corners[1]


def box_right(
    corners: Float[Tensor, "4"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, ""]:
    """Return x of a box's right edge, in pixels of the model's input."""
    del index, rivals, activation
    return corners[2]


def box_bottom(
    corners: Float[Tensor, "4"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, ""]:
    """Return y of a box's bottom edge, in pixels of the model's input."""
    del index, rivals, activation
    return corners[3]
