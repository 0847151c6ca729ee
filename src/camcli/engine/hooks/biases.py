"""Every bias of a network with the gradient that reaches it: what FullGrad (Srinivas 2019) is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = frozenset(
    getattr(home, name)
    for home in (torch, F)
    for name in ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
)
# Those that go through zero with straight lines only (ReLU and its kin) have no bias of their own.
_ACTIVATIONS = frozenset(
    getattr(home, name)
    for home in (torch, F, Tensor)
    for name in (
        "celu",
        "clamp",
        "clamp_",
        "clip",
        "elu",
        "gelu",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "hardtanh_",
        "logsigmoid",
        "mish",
        "relu6",
        "selu",
        "sigmoid",
        "sigmoid_",
        "silu",
        "softplus",
        "tanh",
        "tanh_",
    )
    if hasattr(home, name)
)


class Biases(TorchFunctionMode):
    """While it is entered, a forward leaves here what every operation adds to a linear map of its input.

    That is the bias of convolutions and linear layers, of a batch norm in evaluation mode ``beta - gamma mean / std``,
    and of an element-wise activation phi, which near x is ``phi'(x) x`` and the rest ``phi(x) - phi'(x) x``.

    Attributes:
        points: for each of them the output in the graph, and the bias in it, so that one is added to the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Keep the operation's output and its bias, if it has one."""
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS or func is F.linear:
            bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
            output = func(*args, **kwargs)
            last = func is F.linear
            return output if bias is None else self._kept(output, bias if last else _channels(bias, output))
        if func in (F.batch_norm, torch.batch_norm):
            output = func(*args, **kwargs)
            x = args[0] if args else kwargs["input"]
            return self._kept(output, _of_nothing(func, x, args[1:], kwargs))
        if func in _ACTIVATIONS:
            x = args[0] if args else kwargs["input"]
            if isinstance(x, Tensor) and x.is_floating_point() and x.requires_grad:
                bias = _offset(func, x, args[1:], kwargs)
                return self._kept(func(*args, **kwargs), bias)
        return func(*args, **kwargs)

    def _kept(self, output: Tensor, bias: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        # What follows may change it in place.
        self.points.append((output, bias.detach()))
        return output.clone()

    def terms(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Each bias times the gradient at it, the channels of what lies with them last brought to the front.

        Args:
            gradients: of the score by each of the outputs kept.
        """
        pairs = zip(self.points, gradients, strict=True)
        return [_in_front(bias * gradient, bias) for (_, bias), gradient in pairs]


def _channels(bias: Tensor, output: Tensor) -> Tensor:
    return bias.reshape(-1, *[1] * (output.ndim - 2))


def _in_front(term: Tensor, bias: Tensor) -> Tensor:
    """``(n, h, w, c)`` of a linear layer over cells as ``(n, c, h, w)``."""
    return term.movedim(-1, 1) if bias.ndim == 1 and term.ndim > 2 else term


def _of_nothing(func: Callable[..., Tensor], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What an affine operation makes of zeros: its bias."""
    kwargs = {name: value for name, value in kwargs.items() if name != "input"}
    with torch.no_grad():
        return func(torch.zeros_like(x[:1]), *args, **kwargs)[0]


def _offset(func: Callable[..., Tensor], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """phi(x) - phi'(x) x of an element-wise function phi."""
    kwargs = {name: value for name, value in kwargs.items() if name != "input"}
    # This small graph is nobody else's: what is kept for it is not told to those who listen to what the network keeps.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept):
        here = x.detach().requires_grad_()
        # An operation in place needs something it may change.
        value = func(here.clone(), *args, **kwargs)
        (slope,) = torch.autograd.grad(value.sum(), here)
    return (value - slope * here).detach()
