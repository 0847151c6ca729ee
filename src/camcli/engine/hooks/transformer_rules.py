"""Backward rules for transformers: what a gradient keeps constant, and what it shares; no module is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from camcli.base.errors import RequestError, did_you_mean
from camcli.engine.hooks.attention_weights import MULTI_HEAD_SIGNATURE, combine_masks, project
from camcli.engine.hooks.opaque import count_nodes
from camcli.engine.hooks.tensors import at_least_float32, iter_tensors, tree_map

_SOFTMAXES = frozenset({F.softmax, torch.softmax, Tensor.softmax})
# The bounded factor of gates and of activations that are written out: x sigmoid(1.7 x), x (1 + erf(x)) / 2.
_BOUNDED = frozenset(
    getattr(home, name)
    for name in ("sigmoid", "tanh", "erf", "hardsigmoid")
    for home in (torch, Tensor, F, torch.special)
    if hasattr(home, name)
)
# Activations x G(x), and G(0).
_GATED = {
    F.gelu: 0.5,
    F.silu: 0.5,
    F.hardswish: 0.5,
    F.mish: 0.6,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of the backward, besides holding every normalisation's deviation constant.

    Attributes:
        constant_gates: functions whose results are constant where they are factors of a product.
        gated_activations: whether G is constant in activations x G(x).
        shares_products: whether each factor of a product gets half of the gradient.
    """

    constant_gates: frozenset[Any]
    gated_activations: bool
    shares_products: bool


RULES: dict[str, Rules] = {
    "cp": Rules(_SOFTMAXES, gated_activations=False, shares_products=False),
    "libra": Rules(_SOFTMAXES | _BOUNDED, gated_activations=True, shares_products=True),
    "attnlrp": Rules(_BOUNDED, gated_activations=True, shares_products=True),
}


class _WithGradientOf(torch.autograd.Function):
    """A value, to the bit, whose gradient goes to an expression of the same value."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor, _expression: Tensor) -> Tensor:
        # The same memory, but no view, so that later operations may change it in place.
        return value.detach()

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * grad, None


class TransformerRules(TorchFunctionMode):
    """Mode in which the backward follows a paper's rules where a network is not linear; the forward is unchanged.

    Operations are found where they are computed: PyTorch's functions (fused attention and ``nn.MultiheadAttention``
    among them), and the same written out. What is no part of the graph stays as it is.

    - Normalisation (layer, group and RMS norm, ``F.normalize``, whatever divides by what it computes): the divisor is
      constant, the mean is not: (x - mean(x)) / [std(x)] (all three papers).
    - Attention A V: cp and libra hold A constant. attnlrp shares the gradient of A V, and of Q K^T, equally among both
      factors, and lets it pass the softmax (Achtibat et al. 2024).
    - GELU, SiLU, Hardswish and Mish, x G(x): libra and attnlrp hold G(x) constant (there it is the identity rule).
    - A product of two tensors: libra and attnlrp share its gradient equally, unless a factor is a gate made by a
      sigmoid or tanh, which is constant.

    Args:
        name: of the rules.

    Raises:
        RequestError: there are no rules of this name.

    Attributes:
        counts: how often each kind of operation has followed a rule so far.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.counts: Counter[str] = Counter()
        if name not in RULES:
            known = ("plain", *RULES)
            raise RequestError(
                f"backward cannot be {name!r}", f"{did_you_mean(name, known)}\nthere are: {', '.join(known)}".lstrip()
            )
        self._rules = RULES[name]
        # Tensors that depend on the input by gates alone.
        self._gates: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call, so that its backward follows the rules if it is in the graph."""
        kwargs = kwargs or {}
        in_graph = _find_in_graph(args, kwargs)
        if not in_graph:
            return func(*args, **kwargs)
        if func in _HANDLERS:
            return _HANDLERS[func](self, func, args, kwargs)
        if func in _GATED and self._rules.gated_activations:
            return self._gate_itself(func, args, kwargs)
        result = func(*args, **kwargs)
        if func in self._rules.constant_gates or all(one in self._gates for one in in_graph):
            self._mark_gates(result)
        return result

    def _mark_gates(self, result: Any) -> None:
        for one in iter_tensors([result]):
            self._gates[one] = True

    def normalise(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Normalise, with the deviation constant."""
        self.counts["normalisations"] += 1
        with torch.no_grad():
            value = func(*args, **kwargs)
        x, *more = args or (kwargs["input"],)
        named = {name: option for name, option in kwargs.items() if name != "input"}
        return _follow(value, _NORMALISATIONS[func](at_least_float32(x), *more, **named))

    def divide(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Divide by a constant."""
        place = 0 if func is Tensor.__rtruediv__ else 1
        divisor = kwargs.get("other", args[place] if len(args) > place else None)
        if not isinstance(divisor, Tensor) or not divisor.requires_grad:
            return self._run_and_track(func, args, kwargs)
        self.counts["normalisations"] += 1
        return _run_with(func, args, kwargs, {id(divisor): divisor.detach()})

    def invert(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Compute 1 / sqrt(x) or 1 / x, which normalises something, as a constant."""
        self.counts["normalisations"] += 1
        result: Tensor = func(*args, **kwargs)
        return result.detach()

    def multiply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Multiply, matrices too, with gates constant or the gradient shared."""
        factors = _find_in_graph(args, kwargs)
        gates = [one for one in factors if one in self._gates]
        if len(factors) < 2 or len(gates) == len(factors) or not (gates or self._rules.shares_products):
            return self._run_and_track(func, args, kwargs)
        self.counts["gates" if gates else "products"] += 1
        if gates:
            return _run_with(func, args, kwargs, {id(one): one.detach() for one in gates})
        share = 1 / len(factors)
        return _run_with(func, args, kwargs, {id(one): _ScaledGradient.apply(one, share) for one in factors})

    def multiply_in_place(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:  # noqa: ARG002
        """Multiply a copy, since what the backward needs must not be overwritten."""
        x, other = args
        before = x.clone()
        if x in self._gates:
            self._mark_gates(before)
        result: Tensor = self.multiply(torch.mul, (before, before if other is x else other), kwargs)
        if x in self._gates:
            del self._gates[x]
        if result in self._gates:
            self._mark_gates(x)
        written: Tensor = x.copy_(result)
        return written

    def attend(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Compute fused attention, with its weights constant or the gradient shared."""
        return self._attend(func, *args, **kwargs)

    def _attend(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *more: Any,
        **named: Any,
    ) -> Tensor:
        self.counts["attentions"] += 1
        if self._rules.constant_gates >= _SOFTMAXES:
            mask = None if attn_mask is None else attn_mask.detach()
            result: Tensor = func(query.detach(), key.detach(), value, mask, *more, **named)
            return result
        both = query.requires_grad and key.requires_grad
        share = 0.5 if value.requires_grad and (query.requires_grad or key.requires_grad) else 1.0
        query, key = (_scale_gradient(one, share * (0.5 if both else 1.0)) for one in (query, key))
        shared: Tensor = func(query, key, _scale_gradient(value, share), attn_mask, *more, **named)
        return shared

    def attend_by_heads(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Any]:
        """Compute ``F.multi_head_attention_forward``, which hides its attention."""
        given = MULTI_HEAD_SIGNATURE.bind(*args, **kwargs).arguments
        extra = any(given.get(name) is not None for name in ("bias_k", "bias_v", "static_k", "static_v"))
        if given["query"].ndim != 3 or extra or given.get("add_zero_attn"):
            raise RequestError(
                f"--backward {self.name} has no rule for nn.MultiheadAttention on unbatched tokens, or with extra keys",
                "leave --backward out",
            )
        with torch.no_grad():
            output, weights = func(*args, **kwargs)
        query, key, value = (project(given, name) for name in ("query", "key", "value"))
        mask, is_causal = combine_masks(given, len(query), given["num_heads"])
        mixed = self._attend(F.scaled_dot_product_attention, query, key, value, mask, is_causal=is_causal)
        joined = mixed.permute(2, 0, 1, 3).flatten(2).to(output.dtype)
        return _follow(output, F.linear(joined, given["out_proj_weight"], given["out_proj_bias"])), weights

    def _gate_itself(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Compute x G(x) with G constant."""
        x = args[0] if args else kwargs["input"]
        self.counts["activations"] += 1
        inplace = kwargs.get("inplace", False) or args[1:2] == (True,)
        options = {name: value for name, value in kwargs.items() if name not in ("input", "inplace")}
        before = x.clone() if inplace else x
        with torch.no_grad():
            value = func(before, **options)
            gate = torch.where(before == 0, _GATED[func], value / before)
        result = _follow(value, before * gate)
        return x.copy_(result) if inplace else result

    def _run_and_track(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call that no rule changes; what comes of gates alone is one."""
        is_gate = all(one in self._gates for one in _find_in_graph(args, kwargs))
        result = func(*args, **kwargs)
        if is_gate:
            self._mark_gates(result)
        return result


def _find_in_graph(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors among the arguments that a gradient passes in the backward."""
    if not torch.is_grad_enabled():
        return []
    return [one for one in iter_tensors([*args, *kwargs.values()]) if one.requires_grad]


def _run_with(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: dict[int, Tensor]) -> Any:
    """Run a call with other tensors in the places of those with these ids."""
    args, kwargs = tree_map((args, kwargs), lambda one: new.get(id(one), one))
    return func(*args, **kwargs)


def _scale_gradient(x: Tensor, factor: float) -> Tensor:
    scaled: Tensor = _ScaledGradient.apply(x, factor) if x.requires_grad else x
    return scaled


def _follow(value: Tensor, expression: Tensor) -> Tensor:
    """Return the value with the gradient of the expression."""
    result: Tensor = _WithGradientOf.apply(value, expression.to(value.dtype))
    return result


# ---- normalisations, written so that their deviation is constant


def _standardise(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Compute (x - mean(x)) / [sqrt(var(x) + eps)]."""
    variance = x.detach().var(dims, correction=0, keepdim=True)
    standardised: Tensor = (x - x.mean(dims, keepdim=True)) / (variance + eps).sqrt()
    return standardised


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    y = _standardise(x, tuple(range(-len(normalized_shape), 0)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    groups = x.reshape(len(x), num_groups, -1, *x.shape[2:])
    y = _standardise(groups, tuple(range(2, groups.ndim)), eps).flatten(1, 2)
    channels = (-1, *[1] * (y.ndim - 2))
    y = y if weight is None else y * weight.view(channels)
    return y if bias is None else y + bias.view(channels)


def _rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    mean = x.detach().square().mean(tuple(range(-len(normalized_shape), 0)), keepdim=True)
    y = x * (mean + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return y if weight is None else y * weight


def _normalise_vectors(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Tensor:  # noqa: ARG001
    norm: Tensor = torch.linalg.vector_norm(x.detach(), p, dim, keepdim=True)
    return x / norm.clamp(min=eps)


_NORMALISATIONS: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.rms_norm: _rms_norm,
    F.normalize: _normalise_vectors,
}
_MULTIPLY_IN_PLACE = (Tensor.mul_, Tensor.__imul__, Tensor.multiply_)
_MULTIPLY = (
    *(torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__),
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.bmm, Tensor.bmm, torch.einsum),
)
_DIVIDE = (
    *(torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.divide, Tensor.true_divide, Tensor.div_),
    *(Tensor.__truediv__, Tensor.__rtruediv__, Tensor.__itruediv__),
)
_INVERT = (torch.rsqrt, Tensor.rsqrt, torch.reciprocal, Tensor.reciprocal)
_HANDLERS: dict[Any, Callable[[TransformerRules, Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    **dict.fromkeys(_NORMALISATIONS, TransformerRules.normalise),
    **dict.fromkeys(_DIVIDE, TransformerRules.divide),
    **dict.fromkeys(_INVERT, TransformerRules.invert),
    **dict.fromkeys(_MULTIPLY, TransformerRules.multiply),
    **dict.fromkeys(_MULTIPLY_IN_PLACE, TransformerRules.multiply_in_place),
    F.scaled_dot_product_attention: TransformerRules.attend,
    F.multi_head_attention_forward: TransformerRules.attend_by_heads,
}
# Names of autograd nodes that are no operation of their own, or that have a rule: they are in code that hides them.
_HIDING_NODES = ("torch::jit", "CompiledFunction", "NativeLayerNorm", "NativeGroupNorm", "FusedRmsNorm")
_HIDDEN_ACTIVATIONS = ("Gelu", "Silu", "Hardswish", "Mish")


def count_hidden_operations(score: Tensor, rules: TransformerRules) -> int:
    """Count the graph's nodes that need a rule, or may contain what does, and have none: compiled or scripted code."""
    gated = _HIDDEN_ACTIVATIONS if RULES[rules.name].gated_activations else ()
    return count_nodes(score, (*_HIDING_NODES, *gated))
