"""Detection of outputs that are probabilities already, by their values and their autograd graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camcli.base.errors import PictureError

# Tolerances for the sum of a softmax and the range of probabilities: absolute for the sum, and in units of eps.
SUM_TOLERANCE, TOLERANCE_EPS = 1e-2, 8
# Relative tolerance between an output and the softmax or sigmoid of another; in units of eps it is TOLERANCE_EPS.
MATCH_TOLERANCE = 1e-3
# Names of graph nodes: operations whose results are always from 0 to 1; ...
_BOUNDED_OPS = ("SigmoidBackward", "SoftmaxBackward", "HardsigmoidBackward")
# ... operations whose results can be any number; ...
_UNBOUNDED_OPS = (
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
# ... and undecided ones, which may be a part of a sigmoid or a softmax, or hide their operations.
_OPAQUE_OPS = ("Exp", "Tanh", "Erf", "Compiled", "DifferentiableGraph")
ACTIVATION_HINT = "set --activation softmax or sigmoid; or none, if the outputs are not probabilities"


def are_in_unit_range(values: Tensor) -> bool:
    """Return whether all values are from 0 to 1 up to rounding; False for NaN and for no values."""
    values = values.detach()
    off = TOLERANCE_EPS * torch.finfo(values.dtype).eps
    return bool(values.numel()) and bool(((values >= -off) & (values <= 1 + off)).all())


def sum_to_one(values: Tensor, dim: int = 1) -> bool:
    """Return whether values of several classes along ``dim`` sum to 1, as those of a softmax do."""
    if values.shape[dim] < 2:
        return False
    values = values.detach()
    off = max(SUM_TOLERANCE, TOLERANCE_EPS * torch.finfo(values.dtype).eps)
    return bool(((values.float().sum(dim) - 1).abs() <= off).all())


def check(values: Tensor) -> None:
    """Check that an image's outputs can be the probabilities that they are taken for.

    Raises:
        PictureError: they cannot be.
    """
    if not are_in_unit_range(values):
        least, most = (float(value) for value in values.detach().float().aminmax())
        raise PictureError(
            f"the model's outputs are assumed to be probabilities, and those of this image range from {least:.4g} to "
            f"{most:.4g}",
            ACTIVATION_HINT,
        )


def is_bounded(values: Tensor) -> bool | None:
    """Return whether the operations that made a tensor bound its values; None if that is unknown.

    They do if every path back through the graph meets a sigmoid or a softmax before an unbounded operation.
    """
    if values.grad_fn is None:
        return None
    todo, seen, sure = [values.grad_fn], {values.grad_fn}, True
    while todo:
        node = todo.pop()
        name = node.name()
        if name.startswith(_UNBOUNDED_OPS):
            return False
        if name.startswith(_BOUNDED_OPS):
            continue
        before = [one for one, _ in node.next_functions if one is not None]
        # The name of a custom autograd function does not end in a digit.
        if name.startswith(_OPAQUE_OPS) or not name[-1].isdecimal() or not before:
            sure = False
            continue
        todo += [one for one in before if one not in seen]
        seen.update(before)
    return True if sure else None


def are_derived(tensors: Sequence[Tensor]) -> list[bool]:
    """Return for each of several outputs whether it is the softmax or the sigmoid of another."""
    found = [
        any(other is not one and other.shape == one.shape and _is_source_of(other, one) for other in tensors)
        for one in tensors
    ]
    # If all are derived from each other, there is no original among them.
    return [False] * len(found) if all(found) else found


def _is_source_of(source: Tensor, values: Tensor) -> bool:
    if source.ndim < 2 and not are_in_unit_range(values):
        return False
    source, wide = source.detach().float(), values.detach().float()
    # In half precision the scores are rounded before the exponential.
    same = max(MATCH_TOLERANCE, TOLERANCE_EPS * torch.finfo(values.dtype).eps)
    activated = [source.sigmoid(), *([source.softmax(1)] if source.ndim > 1 else [])]
    return any(torch.allclose(wide, made, rtol=same, atol=1e-6, equal_nan=True) for made in activated)
