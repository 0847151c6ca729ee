"""Activations whose gradient follows a rule on the way back; seen where they are computed, no module touched."""

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

from camcli.methods.backprop import where_open

# How the gradient passes a ReLU: (gradient from above, mask of where the ReLU is open) -> gradient below. A rule for
# other activations phi too takes a third, the slope phi'(x) at the input x; there the mask is where x is positive.
Rule = Callable[..., Tensor]


class _RuledReLU(torch.autograd.Function):
    """A ReLU, perhaps with a ceiling, whose way back is decided at the time of the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float, inplace: bool, rules: RuledActivations) -> Tensor:
        y = (x.clamp_ if inplace else x.clamp)(0.0, ceiling)
        if inplace:
            ctx.mark_dirty(x)
        # The mask and not the output, which what follows may change in place, as in relu6(x + 3).div_(6). Without a
        # ceiling y > 0 is y != 0, which is quicker to say; what is no number passes, as through torch's own ReLU.
        ctx.save_for_backward(y.bool() if ceiling == torch.inf else (y > 0) & (y < ceiling))
        ctx.rules = rules
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (passes,) = ctx.saved_tensors
        rule = ctx.rules.rule
        return (where_open(grad, passes) if rule is None else rule(grad, passes)), None, None, None


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


class _RuledActivation(torch.autograd.Function):
    """What an activation phi gave, and a second way back to its input beside phi's own: that of the rule.

    Without a rule the gradient goes through phi as torch has it, so second derivatives are right too.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, phi: Callable[[Tensor], Tensor], rules: RuledActivations) -> Tensor:
        ctx.phi, ctx.rules = phi, rules
        ctx.save_for_backward(x)
        # The same memory, but no view: what follows may change it in place, as it may what phi gave.
        return y.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rules = ctx.rules
        if rules.rule is None or not rules.everywhere:
            return grad, None, None, None
        (x,) = ctx.saved_tensors
        return None, rules.rule(grad, x > 0, _slope(ctx.phi, x)), None, None


def _slope(phi: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """phi'(x) of an element-wise function."""
    with torch.enable_grad():
        here = x.detach().requires_grad_()
        # An operation in place needs something it may change.
        (slope,) = torch.autograd.grad(phi(here.clone()).sum(), here)
    return slope


# Element-wise activations that are no ReLUs. Sigmoids are not among them: in convolutional networks they are gates.
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
# What autograd calls a ReLU, and a whole piece of scripted or compiled code.
_UNSEEN = ("ReluBackward", "torch::jit", "CompiledFunction")
_SIGMOIDS = frozenset({torch.sigmoid, Tensor.sigmoid, F.sigmoid})
_TIMES_IN_PLACE = frozenset({Tensor.mul_, Tensor.__imul__})
_TIMES = _TIMES_IN_PLACE | {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}


class RuledActivations(TorchFunctionMode):
    """While it is entered, every ReLU of a forward is one whose backward follows :attr:`rule`.

    ReLUs are seen where they are computed, so modules, functional calls, in-place ones and ReLU6 all count, and no
    module is touched. With the rule ``None`` the gradient is the ordinary one. One forward can therefore serve an
    ordinary backward and a guided one. The same holds of other activations where that is asked for: those with a
    function of torch's own, and ``x * sigmoid(k * x)`` written out (SiLU, QuickGELU).

    Args:
        extended: whether other activations can follow a rule too.

    Attributes:
        rule: what the next backward does at each ReLU.
        everywhere: whether it does so at other activations too.
        count: ReLUs met so far.
        others: the other activations met, by name how often.
    """

    def __init__(self, extended: bool = False) -> None:
        super().__init__()
        self.rule: Rule | None = None
        self.everywhere = False
        self.count = 0
        self.others: Counter[str] = Counter()
        self._extended = extended
        # Of k x, and of sigmoid(k x), what x and k are.
        self._multiples: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._gates: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace the call if it is an activation that a gradient passes on its way back."""
        kwargs = kwargs or {}
        if relu := _is_relu(func, args, kwargs):
            x = args[0] if args else kwargs["input"]
            if _in_graph(x):
                self.count += 1
                ceiling, inplace = relu
                return _RuledReLU.apply(x, ceiling, inplace, self)
        if func in _OTHER_ACTIVATIONS:
            return self._other(func, args, kwargs)
        if func in _TIMES and len(args) == 2 and not kwargs:
            return self._product(func, *args)
        result = func(*args, **kwargs)
        if func in _SIGMOIDS and _in_graph(result):
            x = args[0] if args else kwargs["input"]
            self._gates[result] = self._multiples[x] if x in self._multiples else (x, 1.0)  # noqa: SIM401 - untyped get
        return result

    @contextmanager
    def again(self) -> Iterator[None]:
        """In this block what has run while this was entered runs again as it did then, and nothing is counted."""
        counted = self.count, self.others.copy()
        try:
            with self:
                yield
        finally:
            self.count, self.others = counted

    def _other(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, *more = args or (kwargs["input"],)
        named = {name: value for name, value in kwargs.items() if name != "input"}
        if not _in_graph(x):
            return func(*args, **kwargs)
        inplace = named.get("inplace", False) or any(one is True for one in more) or func.__name__.endswith("_")

        def phi(x: Tensor) -> Any:
            return func(x, *more, **named)

        return self._ruled(_OTHER_ACTIVATIONS[func], phi, phi, x, inplace)

    def _product(self, func: Any, one: Any, other: Any) -> Any:
        """A product, which may be ``k x``, or an activation ``x * sigmoid(k x)``."""
        for x, factor in ((one, other), (other, one)):
            if not isinstance(x, Tensor) or not _in_graph(x):
                continue
            if isinstance(factor, int | float) and func not in _TIMES_IN_PLACE:
                result = func(one, other)
                self._multiples[result] = x, float(factor)
                return result
            gated = isinstance(factor, Tensor) and factor in self._gates and self._gates[factor][0] is x
            # In place it must be x that becomes the product.
            if gated and (func not in _TIMES_IN_PLACE or x is one):
                return self._gated(func, x, factor)
        return func(one, other)

    def _gated(self, func: Any, x: Tensor, gate: Tensor) -> Tensor:
        """The product of x and sigmoid(k x)."""
        k = self._gates[gate][1]
        name = "SiLU" if k == 1 else f"x*sigmoid({k:g}x)"
        return self._ruled(name, partial(_swish, k), lambda x: func(x, gate), x, func in _TIMES_IN_PLACE)

    def _ruled(
        self, name: str, phi: Callable[[Tensor], Tensor], run: Callable[[Tensor], Tensor], x: Tensor, inplace: bool
    ) -> Tensor:
        """What ``run`` makes of x, which is phi(x) and perhaps in place, so that the way back may follow a rule."""
        self.others[name] += 1
        if not self._extended:
            return run(x)
        if not inplace:
            return self._both(run(x), x, phi)
        # Autograd may keep what an operation in place gave, so that nothing may be put around it: it is done to a copy.
        before = x.clone()
        return x.copy_(self._both(run(before.clone()), before, phi))

    def _both(self, y: Tensor, x: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
        result: Tensor = _RuledActivation.apply(y, x, phi, self)
        return result

    @contextmanager
    def following(self, rule: Rule, everywhere: bool = False) -> Iterator[None]:
        """Backwards in this block follow ``rule`` at every ReLU, and perhaps at other activations too."""
        self.rule, self.everywhere = rule, everywhere
        try:
            yield
        finally:
            self.rule, self.everywhere = None, False


def _swish(k: float, x: Tensor) -> Tensor:
    return x * (k * x).sigmoid()


def _in_graph(x: Tensor) -> bool:
    """Whether a gradient passes this tensor on its way back."""
    return x.requires_grad and torch.is_grad_enabled()


def unseen_relus(score: Tensor) -> int:
    """How many ReLUs lie on the way back that no mode has replaced, since compiled or scripted code computed them."""
    todo = [score.grad_fn]
    met: set[torch.autograd.graph.Node] = set()
    while todo:
        node = todo.pop()
        if node is not None and node not in met:
            met.add(node)
            todo += [onward for onward, _ in node.next_functions]
    return sum(node.name().startswith(_UNSEEN) for node in met)
