"""Backward rules for ReLUs and other activations, applied where they are computed; no module is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from camcli.engine.hooks.opaque import count_nodes
from camcli.methods.backprop import mask_gradient

# Backward of a ReLU: (gradient by the output, mask of where the ReLU is open) -> gradient by the input. For other
# activations phi a rule takes a third argument, the derivative phi'(x); there the mask is where x is positive.
BackwardRule = Callable[..., Tensor]


class _ReLUWithRule(torch.autograd.Function):
    """A ReLU, perhaps with a ceiling, whose backward rule is chosen at the time of the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float, inplace: bool, rules: BackwardRules) -> Tensor:
        y = (x.clamp_ if inplace else x.clamp)(0.0, ceiling)
        if inplace:
            ctx.mark_dirty(x)
        # The mask is saved and not the output, which may be changed in place later, as in relu6(x + 3).div_(6).
        # Without a ceiling y > 0 is y != 0, which is faster; NaN passes, as through PyTorch's ReLU.
        ctx.save_for_backward(y.bool() if ceiling == torch.inf else (y > 0) & (y < ceiling))
        ctx.rules = rules
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (passes,) = ctx.saved_tensors
        rule = ctx.rules.rule
        return (mask_gradient(grad, passes) if rule is None else rule(grad, passes)), None, None, None


_CLAMPS = frozenset(getattr(home, name) for home in (torch, Tensor) for name in ("clamp", "clip", "clamp_min"))
_CLAMPS_IN_PLACE = frozenset(
    getattr(home, name) for home in (torch, Tensor) for name in ("clamp_", "clip_", "clamp_min_")
)


def _clamp_bounds(low: Any = None, high: Any = None, **names: Any) -> tuple[Any, Any]:
    return names.get("min", low), names.get("max", high)


def _parse_relu(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, bool] | None:
    """Return the ceiling and in-placeness of a call that computes min(max(x, 0), ceiling); None for other calls."""
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


class _ActivationWithRule(torch.autograd.Function):
    """The identity on an activation's output y = phi(x), with a second edge to x for the rule's backward.

    Without a rule the gradient goes through phi by PyTorch's own backward, so second derivatives are right too.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, phi: Callable[[Tensor], Tensor], rules: BackwardRules) -> Tensor:
        ctx.phi, ctx.rules = phi, rules
        ctx.save_for_backward(x)
        # The same memory, but no view, so that later operations may change it in place as they may change phi's output.
        return y.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rules = ctx.rules
        if rules.rule is None or not rules.everywhere:
            return grad, None, None, None
        (x,) = ctx.saved_tensors
        return None, rules.rule(grad, x > 0, _derivative(ctx.phi, x)), None, None


def _derivative(phi: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute phi'(x) of an element-wise function phi."""
    with torch.enable_grad():
        here = x.detach().requires_grad_()
        # An operation in place cannot be applied to a leaf.
        (slope,) = torch.autograd.grad(phi(here.clone()).sum(), here)
    return slope


# Element-wise activations other than ReLUs. Sigmoids are left out: in convolutional networks they are gates.
_OTHER_ACTIVATIONS: dict[Any, str] = {
    getattr(home, spelling): name
    for name, spellings in {
        "CELU": ("celu", "celu_"),
        "ELU": ("elu", "elu_"),
        "GELU": ("gelu",),
        "Hardswish": ("hardswish",),
        "LeakyReLU": ("leaky_relu", "leaky_relu_"),
        "Mish": ("mish",),
        "PReLU": ("prelu",),
        "RReLU": ("rrelu", "rrelu_"),
        "SELU": ("selu", "selu_"),
        "SiLU": ("silu",),
        "Softplus": ("softplus",),
        "Tanh": ("tanh", "tanh_"),
    }.items()
    for spelling in spellings
    for home in (F, torch, Tensor)
    if hasattr(home, spelling)
}
# Names of autograd nodes: of a ReLU, and of a whole scripted or compiled function.
_HIDDEN_RELUS = ("ReluBackward", "torch::jit", "CompiledFunction")
_SIGMOIDS = frozenset({torch.sigmoid, Tensor.sigmoid, F.sigmoid})
_MULTIPLY_IN_PLACE = frozenset({Tensor.mul_, Tensor.__imul__})
_MULTIPLY = _MULTIPLY_IN_PLACE | {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}


class BackwardRules(TorchFunctionMode):
    """Mode in which the backward of every ReLU of a forward follows :attr:`rule`.

    ReLUs are replaced where they are computed, so modules, functional calls, in-place ones and ReLU6 all count, and no
    module is changed. With the rule None the gradient is the ordinary one, so one forward can serve an ordinary
    backward and a guided one. With ``extended`` the same holds for other activations: PyTorch's own functions, and
    ``x * sigmoid(k * x)`` written out (SiLU, QuickGELU).

    Args:
        extended: whether other activations can follow a rule too.

    Attributes:
        rule: the rule of the next backward.
        everywhere: whether the rule applies to other activations too.
        count: the number of ReLUs so far.
        other_activations: how often each of the other activations has been computed so far, by name.
    """

    def __init__(self, extended: bool = False) -> None:
        super().__init__()
        self.rule: BackwardRule | None = None
        self.everywhere = False
        self.count = 0
        self.other_activations: Counter[str] = Counter()
        self._extended = extended
        # (x, k) by the tensor k x, and by the tensor sigmoid(k x).
        self._multiples: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._gates: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace the call if it is an activation in the graph."""
        kwargs = kwargs or {}
        if relu := _parse_relu(func, args, kwargs):
            x = args[0] if args else kwargs["input"]
            if _in_graph(x):
                self.count += 1
                ceiling, inplace = relu
                return _ReLUWithRule.apply(x, ceiling, inplace, self)
        if func in _OTHER_ACTIVATIONS:
            return self._handle_activation(func, args, kwargs)
        if func in _MULTIPLY and len(args) == 2 and not kwargs:
            return self._handle_product(func, *args)
        result = func(*args, **kwargs)
        if func in _SIGMOIDS and _in_graph(result):
            x = args[0] if args else kwargs["input"]
            self._gates[result] = self._multiples[x] if x in self._multiples else (x, 1.0)  # noqa: SIM401 - untyped get
        return result

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Enter the mode for the recomputation of code that has run in it before, without counting again."""
        counted = self.count, self.other_activations.copy()
        try:
            with self:
                yield
        finally:
            self.count, self.other_activations = counted

    def _handle_activation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, *more = args or (kwargs["input"],)
        named = {name: value for name, value in kwargs.items() if name != "input"}
        if not _in_graph(x):
            return func(*args, **kwargs)
        inplace = named.get("inplace", False) or any(one is True for one in more) or func.__name__.endswith("_")

        def phi(x: Tensor) -> Any:
            return func(x, *more, **named)

        return self._apply_with_rule(_OTHER_ACTIVATIONS[func], phi, phi, x, inplace)

    def _handle_product(self, func: Any, one: Any, other: Any) -> Any:
        """Run a product, which may be ``k x``, or an activation ``x * sigmoid(k x)``."""
        for x, factor in ((one, other), (other, one)):
            if not isinstance(x, Tensor) or not _in_graph(x):
                continue
            if isinstance(factor, int | float) and func not in _MULTIPLY_IN_PLACE:
                result = func(one, other)
                self._multiples[result] = x, float(factor)
                return result
            gated = isinstance(factor, Tensor) and factor in self._gates and self._gates[factor][0] is x
            # In place it must be x that becomes the product.
            if gated and (func not in _MULTIPLY_IN_PLACE or x is one):
                return self._handle_gate(func, x, factor)
        return func(one, other)

    def _handle_gate(self, func: Any, x: Tensor, gate: Tensor) -> Tensor:
        """Run the product of x and sigmoid(k x) with the rule."""
        k = self._gates[gate][1]
        name = "SiLU" if k == 1 else f"x*sigmoid({k:g}x)"
        return self._apply_with_rule(name, partial(_swish, k), lambda x: func(x, gate), x, func in _MULTIPLY_IN_PLACE)

    def _apply_with_rule(
        self, name: str, phi: Callable[[Tensor], Tensor], run: Callable[[Tensor], Tensor], x: Tensor, inplace: bool
    ) -> Tensor:
        """Run an activation, ``run(x) = phi(x)`` and perhaps in place, so that its backward can follow a rule."""
        self.other_activations[name] += 1
        if not self._extended:
            return run(x)
        if not inplace:
            return self._attach_rule(run(x), x, phi)
        # Autograd may save the output of an in-place operation, which must then not be wrapped: it runs on a copy.
        before = x.clone()
        return x.copy_(self._attach_rule(run(before.clone()), before, phi))

    def _attach_rule(self, y: Tensor, x: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
        result: Tensor = _ActivationWithRule.apply(y, x, phi, self)
        return result

    @contextmanager
    def using(self, rule: BackwardRule, everywhere: bool = False) -> Iterator[None]:
        """Let backwards in the block follow ``rule`` at every ReLU, and with ``everywhere`` at other activations."""
        self.rule, self.everywhere = rule, everywhere
        try:
            yield
        finally:
            self.rule, self.everywhere = None, False


def _swish(k: float, x: Tensor) -> Tensor:
    return x * (k * x).sigmoid()


def _in_graph(x: Tensor) -> bool:
    """Return whether a gradient passes this tensor in the backward."""
    return x.requires_grad and torch.is_grad_enabled()


def count_hidden_relus(score: Tensor) -> int:
    """Count the graph's nodes that are, or may contain, ReLUs without a rule: those of compiled or scripted code."""
    return count_nodes(score, _HIDDEN_RELUS)
