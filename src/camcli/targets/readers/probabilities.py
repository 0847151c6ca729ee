"""Outputs that are probabilities already: told by their values, and by the operation that they come from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camcli.base.errors import PictureError

# How far the sum of a softmax may be from 1, and a probability outside of [0, 1]: at least, and in units of rounding.
OFF, ROUNDED = 1e-2, 8
# How far, of itself, one output may be from what softmax or sigmoid makes of another: at least, and likewise.
UNLIKE = 1e-3
# The names of the graph's nodes: what gives numbers from 0 to 1 whatever it is given; ...
_SQUASHES = ("SigmoidBackward", "SoftmaxBackward", "HardsigmoidBackward")
# ... what gives any number, whatever it is given; ...
_OPEN = (
    "Addmm",
    "Addmv",
    "Mm",
    "Mv",
    "Bmm",
    "Baddbmm",
    "Dot",
    "Convolution",
    "Linear",
    "AccumulateGrad",
    "LogSoftmax",
    "NativeBatchNorm",
    "CudnnBatchNorm",
    "MiopenBatchNorm",
    "NativeLayerNorm",
    "NativeGroupNorm",
)
# ... and what does not tell, since it may be a sigmoid or a softmax written out, or hides what is inside.
_CLOSED = ("Exp", "Tanh", "Erf", "Compiled", "DifferentiableGraph")
INSTEAD = "say what makes probabilities of them: --activation softmax or sigmoid; or none, if nothing does"


def within(values: Tensor) -> bool:
    """Whether all numbers are from 0 to 1, but for rounding; of no numbers or of NaN not."""
    values = values.detach()
    off = ROUNDED * torch.finfo(values.dtype).eps
    return bool(values.numel()) and bool(((values >= -off) & (values <= 1 + off)).all())


def exclusive(values: Tensor, dim: int = 1) -> bool:
    """Whether probabilities of several classes, which lie along ``dim``, sum to 1: those of a softmax."""
    if values.shape[dim] < 2:
        return False
    values = values.detach()
    off = max(OFF, ROUNDED * torch.finfo(values.dtype).eps)
    return bool(((values.float().sum(dim) - 1).abs() <= off).all())


def check(values: Tensor) -> None:
    """See that an image's outputs, which are taken for probabilities, can be some.

    Raises:
        PictureError: they cannot.
    """
    if not within(values):
        least, most = (float(value) for value in values.detach().float().aminmax())
        raise PictureError(
            "the model's outputs are taken for probabilities, and those of this picture go from "
            f"{least:.4g} to {most:.4g}",
            INSTEAD,
        )


def squashed(values: Tensor) -> bool | None:
    """Whether the operations that made some numbers leave them no way out of a bounded range; None if nobody can tell.

    So it is if a sigmoid or a softmax lies on every way back, before anything that may give any number.
    """
    if values.grad_fn is None:
        return None
    todo, met, sure = [values.grad_fn], {values.grad_fn}, True
    while todo:
        node = todo.pop()
        name = node.name()
        if name.startswith(_OPEN):
            return False
        if name.startswith(_SQUASHES):
            continue
        before = [one for one, _ in node.next_functions if one is not None]
        # A function of somebody's own has no number behind its name.
        if name.startswith(_CLOSED) or not name[-1].isdecimal() or not before:
            sure = False
            continue
        todo += [one for one in before if one not in met]
        met.update(before)
    return True if sure else None


def of_another(tensors: Sequence[Tensor]) -> list[bool]:
    """Of each of several outputs, whether it is the softmax or the sigmoid of another of them."""
    found = [
        any(other is not one and other.shape == one.shape and _made_of(other, one) for other in tensors)
        for one in tensors
    ]
    # Each of the other: then they do not tell which is meant.
    return [False] * len(found) if all(found) else found


def _made_of(scores: Tensor, values: Tensor) -> bool:
    if scores.ndim < 2 and not within(values):
        return False
    scores, wide = scores.detach().float(), values.detach().float()
    # Of numbers in half precision, their rounding before the exponential counts.
    same = max(UNLIKE, ROUNDED * torch.finfo(values.dtype).eps)
    ways = [scores.sigmoid(), *([scores.softmax(1)] if scores.ndim > 1 else [])]
    return any(torch.allclose(wide, made, rtol=same, atol=1e-6, equal_nan=True) for made in ways)
