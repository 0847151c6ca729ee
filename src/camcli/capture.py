"""Hooks: what a layer said, and the ReLUs on the way back; the model is left exactly as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camcli.errors import RequestError

# How the gradient passes a ReLU: (gradient from above, mask of where the ReLU is open) -> gradient below.
ReluRule = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, its parameters outside the graph; flags as they were afterwards."""
    training = [module for module in model.modules() if module.training]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module in training:
            module.training = False
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in learning:
            parameter.requires_grad_(True)


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a module's output is, or the first one in it (a tuple, list or dict)."""
    if isinstance(output, Tensor):
        return output
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(parts, list | tuple):
        return next((tensor for part in parts if (tensor := first_tensor(part)) is not None), None)
    return None


def count_tensors(output: object) -> int:
    """How many tensors a module's output holds."""
    if isinstance(output, Tensor):
        return 1
    parts = list(output.values()) if isinstance(output, Mapping) else output
    return sum(map(count_tensors, parts)) if isinstance(parts, list | tuple) else 0


class Taps(dict[str, Tensor]):
    """The outputs of layers, by their names.

    Attributes:
        calls: how often each layer has run.
        parts: how many tensors each one's output holds; the first is the one that is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.parts: dict[str, int] = {}


def replaced(output: object, old: Tensor, new: Tensor) -> object:
    """``output`` with ``new`` where ``old`` stood."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        return type(output)({key: replaced(part, old, new) for key, part in output.items()})  # type: ignore[call-arg]
    if isinstance(output, list | tuple):
        parts: list[Any] = [replaced(part, old, new) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


@contextmanager
def tapped(layers: Mapping[str, nn.Module], call: int = 0) -> Iterator[Taps]:
    """While it lasts, each forward leaves every layer's output in the dictionary, as a point of the graph.

    The graph starts at the earliest layer: nothing before it is kept for the backward. What the layer hands on is a
    clone, so that an in-place operation behind it cannot change what it said.

    Args:
        layers: by name.
        call: which of its runs counts where a layer runs several times in one forward, from 1 on; 0 for the last.

    Yields:
        The outputs by layer name, filled by the forward. With ``torch.autograd.grad(score, outputs)`` their
        gradients follow.
    """
    taps = Taps()

    def tap(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
            taps.calls[name] += 1
            if call not in (0, taps.calls[name]):
                return output
            tensor = first_tensor(output)
            taps.parts[name] = count_tensors(output)
            if tensor is None or not tensor.is_floating_point():
                raise RequestError(
                    f"the layer {name!r} ({type(module).__name__}) gives {type(output).__name__}, "
                    "not a tensor of numbers",
                    "choose another layer; `camcli layers MODEL` lists them",
                )
            taps[name] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
            return replaced(output, tensor, taps[name].clone())

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(tap(name)).remove)
        yield taps


@contextmanager
def listened(model: nn.Module, hear: Callable[[str, Any], None]) -> Iterator[None]:
    """While it lasts, every module's output is told to ``hear(name, output)``, in the order of their ends."""
    with ExitStack() as hooks:
        for name, module in model.named_modules():

            def hook(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                hear(name, output)

            hooks.callback(module.register_forward_hook(hook).remove)
        yield


class _RuledReLU(torch.autograd.Function):
    """A ReLU, perhaps with a ceiling, whose way back is decided at the time of the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float, inplace: bool, rules: RuledReLUs) -> Tensor:
        y = (x.clamp_ if inplace else x.clamp)(0.0, ceiling)
        if inplace:
            ctx.mark_dirty(x)
        # The mask and not the output, which what follows may change in place, as in relu6(x + 3).div_(6).
        ctx.save_for_backward((y > 0) & (y < ceiling))
        ctx.rules = rules
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (passes,) = ctx.saved_tensors
        rule = ctx.rules.rule
        return (grad.where(passes, 0) if rule is None else rule(grad, passes)), None, None, None


_CLAMPS = frozenset(getattr(home, name) for home in (torch, Tensor) for name in ("clamp", "clip", "clamp_min"))
_CLAMPS_IN_PLACE = frozenset(
    getattr(home, name) for home in (torch, Tensor) for name in ("clamp_", "clip_", "clamp_min_")
)


def _clamp_bounds(low: Any = None, high: Any = None, **names: Any) -> tuple[Any, Any]:
    return names.get("min", low), names.get("max", high)


def _is_relu(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, bool] | None:
    """The ceiling and in-placeness of a call that computes min(max(x, 0), ceiling); None for any other call."""
    inplace = bool(kwargs.get("inplace", False))
    if func is F.relu:
        return torch.inf, inplace or args[1:2] == (True,)
    if func in (torch.relu, Tensor.relu):
        return torch.inf, False
    if func in (torch.relu_, Tensor.relu_):
        return torch.inf, True
    if func is F.relu6:
        return 6.0, inplace or args[1:2] == (True,)
    if func in (F.hardtanh, F.hardtanh_):
        low = kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
        high = kwargs.get("max_val", args[2] if len(args) > 2 else 1.0)
        if low == 0 and high > 0:
            return float(high), inplace or args[3:4] == (True,) or func is F.hardtanh_
    if func in _CLAMPS or func in _CLAMPS_IN_PLACE:
        low, high = _clamp_bounds(*args[1:3], **kwargs)
        if isinstance(low, int | float) and low == 0 and (high is None or isinstance(high, int | float)):
            return (torch.inf if high is None else float(high)), func in _CLAMPS_IN_PLACE
    return None


# Activations that are no ReLUs. Sigmoids are not among them: in convolutional networks they are gates.
_OTHER_ACTIVATIONS: dict[Any, str] = {
    F.celu: "CELU",
    F.elu: "ELU",
    F.elu_: "ELU",
    F.gelu: "GELU",
    F.hardswish: "Hardswish",
    F.leaky_relu: "LeakyReLU",
    F.leaky_relu_: "LeakyReLU",
    F.mish: "Mish",
    F.prelu: "PReLU",
    F.selu: "SELU",
    F.silu: "SiLU",
    F.softplus: "Softplus",
    Tensor.tanh: "Tanh",
    torch.tanh: "Tanh",
}


class RuledReLUs(TorchFunctionMode):
    """While it is entered, every ReLU of a forward is one whose backward follows :attr:`rule`.

    ReLUs are seen where they are computed, so modules, functional calls, in-place ones and ReLU6 all count, and no
    module is touched. With the rule ``None`` the gradient is the ordinary one. One forward can therefore serve an
    ordinary backward and a guided one.

    Attributes:
        rule: what the next backward does at each ReLU.
        count: ReLUs met so far.
        others: the other activations met, which pass the plain gradient whatever the rule.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rule: ReluRule | None = None
        self.count = 0
        self.others: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace the call if it is a ReLU that a gradient passes on its way back."""
        kwargs = kwargs or {}
        if relu := _is_relu(func, args, kwargs):
            x = args[0] if args else kwargs["input"]
            if x.requires_grad and torch.is_grad_enabled():
                self.count += 1
                ceiling, inplace = relu
                return _RuledReLU.apply(x, ceiling, inplace, self)
        if func in _OTHER_ACTIVATIONS:
            self.others.add(_OTHER_ACTIVATIONS[func])
        return func(*args, **kwargs)

    @contextmanager
    def following(self, rule: ReluRule) -> Iterator[None]:
        """Backwards in this block follow ``rule`` at every ReLU."""
        self.rule = rule
        try:
            yield
        finally:
            self.rule = None
