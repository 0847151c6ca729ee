"""Biases of a network, implicit ones included, and their gradients, for FullGrad (Srinivas 2019)."""

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
# Piecewise linear activations through zero (ReLU, leaky ReLU) have no bias of their own.
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


class BiasCapture(TorchFunctionMode):
    """Mode that captures the bias of every operation: the part of its output that is not linear in its input.

    This is the bias of convolutions and linear layers, ``beta - gamma mean / std`` of a batch norm in evaluation mode,
    and ``phi(x) - phi'(x) x`` of an element-wise activation phi, whose linear part at x is ``phi'(x) x``.

    Attributes:
        points: for each bias the output in the graph that contains it, and the bias.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and keep its output and its bias, if it has one."""
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS or func is F.linear:
            bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
            output = func(*args, **kwargs)
            last = func is F.linear
            return output if bias is None else self._add_point(output, bias if last else _align_bias(bias, output))
        if func in (F.batch_norm, torch.batch_norm):
            output = func(*args, **kwargs)
            x = args[0] if args else kwargs["input"]
            return self._add_point(output, _affine_bias(func, x, args[1:], kwargs))
        if func in _ACTIVATIONS:
            x = args[0] if args else kwargs["input"]
            if isinstance(x, Tensor) and x.is_floating_point() and x.requires_grad:
                bias = _activation_bias(func, x, args[1:], kwargs)
                return self._add_point(func(*args, **kwargs), bias)
        return func(*args, **kwargs)

    def _add_point(self, output: Tensor, bias: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        # A clone goes on, since later operations may change it in place.
        self.points.append((output, bias.detach()))
        return output.clone()

    def compute_terms(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return each bias times its gradient, channels first.

        Args:
            gradients: the score's gradient by each captured output.
        """
        pairs = zip(self.points, gradients, strict=True)
        return [_move_channels_first(bias * gradient, bias) for (_, bias), gradient in pairs]


def _align_bias(bias: Tensor, output: Tensor) -> Tensor:
    return bias.reshape(-1, *[1] * (output.ndim - 2))


def _move_channels_first(term: Tensor, bias: Tensor) -> Tensor:
    """Move the channels of a linear layer's term first: ``(n, h, w, c)`` to ``(n, c, h, w)``."""
    return term.movedim(-1, 1) if bias.ndim == 1 and term.ndim > 2 else term


def _affine_bias(func: Callable[..., Tensor], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Compute the bias of an affine operation: its output for zeros."""
    kwargs = {name: value for name, value in kwargs.items() if name != "input"}
    with torch.no_grad():
        return func(torch.zeros_like(x[:1]), *args, **kwargs)[0]


def _activation_bias(func: Callable[..., Tensor], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Compute phi(x) - phi'(x) x of an element-wise function phi."""
    kwargs = {name: value for name, value in kwargs.items() if name != "input"}
    # This small graph has hooks of its own, so that saved-tensor hooks around the forward do not see its tensors.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept):
        here = x.detach().requires_grad_()
        # An operation in place cannot be applied to a leaf.
        value = func(here.clone(), *args, **kwargs)
        (slope,) = torch.autograd.grad(value.sum(), here)
    return (value - slope * here).detach()
