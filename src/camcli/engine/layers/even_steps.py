"""Recognition of networks whose cells share the input evenly, by their operations instead of a measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

# Positions of the arguments kernel, stride, padding and dilation; a weight has its kernel in its shape.
CONVOLUTIONS = {"conv2d": (1, 3, 4, 5), "conv1d": (1, 3, 4, 5)}
POOLINGS = {"max_pool2d": (1, 2, 3, 4), "_max_pool2d": (1, 2, 3, 4), "avg_pool2d": (1, 2, 3, -1)}
WINDOW_ARGUMENTS = ("kernel_size", "stride", "padding", "dilation")
# Operations that may shift cells in ways that their arguments do not show simply.
UNEVEN = frozenset(
    [
        "conv_transpose2d",
        "conv_transpose1d",
        "conv3d",
        "unfold",
        "fold",
        "grid_sample",
        "affine_grid",
        "fractional_max_pool2d",
    ]
)
ADAPTIVE = ("adaptive_avg_pool2d", "adaptive_max_pool2d", "_adaptive_max_pool2d")


class EvenSteps(TorchFunctionMode):
    """Mode that checks that every operation leaves cells in the middle of their receptive fields.

    A window of extent e (kernel and dilation), stride s and padding p has its first centre at e / 2 - p; that is the
    middle of the first of n / s cells if e - 2p = s and s divides n. So are patches, poolings of 2 x 2, padded kernels
    of odd size without a stride, and a kernel as large as its input; kernels of 3 x 3 with a stride of 2 are not.

    Attributes:
        even: True while all operations so far were even; those in compiled or scripted code are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.even = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Check one operation, and run it."""
        self.even = self.even and _is_even(getattr(func, "__name__", ""), args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_even(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    if name in UNEVEN:
        return False
    if name == "pad":
        margins = args[1] if len(args) > 1 else kwargs.get("pad", ())
        return not any(margins)
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return not any(isinstance(one, slice) and one.step not in (None, 1) for one in index)
    if name == "interpolate":
        return not kwargs.get("align_corners")
    if name in ADAPTIVE:
        size = args[1] if len(args) > 1 else kwargs.get("output_size")
        return all(one in (1, None) for one in ([size] if isinstance(size, int) else size or ()))
    if name in CONVOLUTIONS or name in POOLINGS:
        return _window_is_even(name, args, kwargs)
    return True


def _window_is_even(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    places = CONVOLUTIONS.get(name) or POOLINGS[name]
    given = args[0] if args else kwargs["input"]
    kernel, stride, padding, dilation = (
        args[place] if 0 <= place < len(args) else kwargs.get(word)
        for place, word in zip(places, WINDOW_ARGUMENTS, strict=True)
    )
    if name in CONVOLUTIONS:
        weight = kernel if isinstance(kernel, Tensor) else kwargs["weight"]
        kernel, stride = tuple(weight.shape[2:]), stride or 1
    assert kernel is not None
    if isinstance(padding, str):
        return padding == "same" and all(one % 2 for one in kernel)
    axes = 1 if name == "conv1d" else 2
    each = (_to_tuple(one, axes) for one in (kernel, stride or kernel, padding or 0, dilation or 1))
    for side, k, s, p, d in zip(given.shape[-axes:], *each, strict=True):
        extent, covers_input = (k - 1) * d + 1, k == side and not p
        if not covers_input and (extent - 2 * p != s or side % s):
            return False
    return True


def _to_tuple(value: Any, count: int) -> tuple[int, ...]:
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * count if len(numbers) == 1 else numbers
