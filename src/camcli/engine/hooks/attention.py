"""Attention weights, of fused attention too, and the score's gradient by them; the model's output is unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from camcli.engine.hooks.attention_weights import (
    MULTI_HEAD_SIGNATURE,
    combine_masks,
    compute_weights,
    expand_heads,
    project,
    split_heads,
    transpose_last,
)
from camcli.engine.hooks.tensors import at_least_float32, iter_tensors

_SOFTMAXES = frozenset({F.softmax, torch.softmax, Tensor.softmax})
_MATMULS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm})
# Functions that may transpose a product, which would swap its factors; __get__ is Tensor.mT among others.
_TRANSPOSES = frozenset({"transpose", "swapaxes", "swapdims", "permute", "movedim", "__get__"})
# Functions that mix neighbouring tokens outside attention, if their window is larger than one cell.
_CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv_transpose2d})


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """One attention: its weights A, and the tensors needed for the gradient of a score by them.

    Attributes:
        weights: A after the softmax, ``(n, heads, queries, keys)``, detached, at least float32.
        values: V, ``(n, heads, keys, d)`` or with fewer heads, detached; None if not captured.
        output: a point of the graph that depends on O = A V linearly; None where the graph starts later.
        to_heads: from the gradient at ``output`` to that at O, ``(n, heads, queries, d)``.
        queries: Q as multiplied with the keys, ``(n, heads, queries, d)``, detached; None if not captured or unknown.
        keys: K as multiplied with the queries, ``(n, heads, keys, d)`` or with fewer heads; None as ``queries``.
        module_stack: the modules that were running, the outermost first; empty if not captured.
    """

    weights: Float[Tensor, "n heads q k"]
    values: Tensor | None
    output: Tensor | None
    to_heads: Callable[[Tensor], Tensor]
    queries: Tensor | None = None
    keys: Tensor | None = None
    module_stack: tuple[nn.Module, ...] = ()

    def gradient(self, grad: Tensor) -> Float[Tensor, "n heads q k"]:
        """Compute dy/dA = dy/dO V^T, since O = A V; ``grad`` is the gradient at ``output``."""
        assert self.values is not None
        return at_least_float32(self.to_heads(grad)) @ self.expand_to_heads(self.values).transpose(-2, -1)

    def expand_to_heads(self, shared: Tensor) -> Float[Tensor, "n heads k d"]:
        """Expand keys or values that several heads share to all heads, in at least float32."""
        return at_least_float32(expand_heads(shared, self.weights.shape[1]))

    def find_used_rows(self, grad: Tensor) -> Bool[Tensor, "n q"]:
        """Find the rows of the output that the score depends on: those with a nonzero gradient."""
        return self.to_heads(grad).ne(0).any(dim=3).any(dim=1)

    @property
    def is_square(self) -> bool:
        """True if there are as many queries as keys, as in self-attention."""
        return self.weights.shape[2] == self.weights.shape[3]


class AttentionCapture(TorchFunctionMode):
    """Mode that captures the weights of every attention of a forward.

    Attention is recognised where it is computed, in any module: fused attention and ``nn.MultiheadAttention`` by their
    calls, whose weights are computed separately from the arguments; attention written out by its softmax, which is
    tracked (through masks, dropout, mixtures of heads) until a matrix product uses it. The model's own calls run
    unchanged, so its output is the same to the bit as without the mode. (For ``nn.MultiheadAttention`` in evaluation
    mode this is the output of the path that supports gradients.)

    The graph starts at the output of the attention ``graph_from``: nothing before it is kept.

    Args:
        images: the batch size.
        with_values: whether V is captured too, which :meth:`Attention.gradient` needs.
        graph_from: the first attention whose output is a point of the graph, from 0 on; -1 for none.
        with_queries: whether Q and K are captured too, where the output is a point of the graph.
        module_stack: the running modules, see :func:`camcli.engine.hooks.watch.module_stack`; empty if not needed.

    Attributes:
        attentions: the attentions in running order.
        unsupported: a description of each attention whose weights are not ``(n, heads, queries, keys)``, and the number
            of attentions before it.
        unused_softmaxes: the shape of each square softmax that no product has used yet, and the number of attentions
            before it.
        conv_positions: the number of attentions before each convolution.
    """

    def __init__(
        self,
        images: int,
        with_values: bool = True,
        graph_from: int = 0,
        with_queries: bool = False,
        module_stack: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.attentions: list[Attention] = []
        self.unsupported: list[tuple[str, int]] = []
        self._images, self._with_values, self._graph_from = images, with_values, graph_from
        self._with_queries, self._module_stack = with_queries, module_stack
        # The numbers of the softmaxes that a tensor was computed from, by the tensor.
        self._softmax_sources: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.unused_softmaxes: dict[int, tuple[str, int]] = {}
        self._softmax_count = 0
        # The factors of the products that a tensor was computed from; and Q and K by a softmax's number.
        self._factors: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._query_and_key: dict[int, tuple[Tensor, Tensor]] = {}
        self.conv_positions: list[int] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call unchanged, and capture the weights if it is attention."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _CONVOLUTIONS:
            weight = kwargs["weight"] if "weight" in kwargs else args[1]
            if weight.shape[2:].numel() > 1:
                self.conv_positions.append(len(self.attentions))
        if func is F.scaled_dot_product_attention:
            return self._handle_fused(result, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._handle_multi_head(result, MULTI_HEAD_SIGNATURE.bind(*args, **kwargs).arguments)
        operands = list(iter_tensors([*args, *kwargs.values()]))
        if func in _SOFTMAXES:
            self._track_softmax(operands[0], result)
            return result
        followed = [operand for operand in operands if operand in self._softmax_sources]
        if not followed:
            if self._with_queries:
                self._track_factors(func, operands, result)
            return result
        if func in _MATMULS:
            left, right = operands
            for operand in followed:
                self._mark_used(operand)
            query_and_key = self._find_query_and_key(followed)
            if left in self._softmax_sources:
                return self._handle_matmul(left, right, result, *query_and_key)
            # (A V)^T = V^T A^T, as in attention over maps (n, heads, d, h w).
            return transpose_last(
                self._handle_matmul(transpose_last(right), transpose_last(left), transpose_last(result), *query_and_key)
            )
        self._propagate(self._softmax_sources, followed, result)
        return result

    def _propagate(self, known: WeakIdKeyDictionary, sources: Sequence[Tensor], result: Any) -> None:
        """Carry what is known of some tensors over to a result computed from them, if it is shaped like them."""
        for tensor in iter_tensors([result]):
            likes = [one for one in sources if _could_be_weights(tensor, one)]
            if likes and tensor.is_floating_point():
                known[tensor] = frozenset().union(*(known[one] for one in likes))

    def _track_factors(self, func: Any, operands: Sequence[Tensor], result: Any) -> None:
        """Track the factors of a tensor that may become a softmax's input: in attention Q and K transposed."""
        if func in _MATMULS and result.ndim > 2:
            self._factors[result] = frozenset({_Factors(*(operand.detach() for operand in operands))})
        elif func.__name__ not in _TRANSPOSES:
            made = [operand for operand in operands if operand in self._factors]
            self._propagate(self._factors, made, result)

    def _track_softmax(self, source: Tensor, softmax: Tensor) -> None:
        if softmax.ndim < 3:
            return
        self._softmax_sources[softmax] = frozenset({self._softmax_count})
        if softmax.shape[-1] == softmax.shape[-2] > 1:
            self.unused_softmaxes[self._softmax_count] = format_shape(softmax), len(self.attentions)
        # A sum of several products, as with relative positions, has no single pair of factors.
        if source in self._factors and len(self._factors[source]) == 1:
            [factors] = self._factors[source]
            self._query_and_key[self._softmax_count] = factors.left, transpose_last(factors.right)
        self._softmax_count += 1

    def _find_query_and_key(self, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return Q and K of attention weights that come from one softmax alone; else an empty tuple."""
        numbers = {number for one in weights for number in self._softmax_sources[one]}
        return self._query_and_key.get(numbers.pop(), ()) if len(numbers) == 1 else ()

    def _mark_used(self, weights: Tensor) -> None:
        for number in self._softmax_sources[weights]:
            self.unused_softmaxes.pop(number, None)

    def _handle_fused(
        self,
        result: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,  # noqa: ARG002 - the model is in evaluation mode
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,  # noqa: ARG002 - read from the shapes
    ) -> Tensor:
        with torch.no_grad():
            weights = compute_weights(query.detach(), key.detach(), scale, attn_mask, is_causal)
        return self._capture(weights, value, result, query, key)

    def _handle_multi_head(self, result: tuple[Tensor, Any], given: dict[str, Any]) -> tuple[Tensor, Any]:
        """Capture ``F.multi_head_attention_forward`` by its arguments, since modes do not see the calls inside."""
        output, *others = result
        query = given["query"]
        extra = any(given.get(name) is not None for name in ("bias_k", "bias_v", "static_k", "static_v"))
        if query.ndim != 3 or extra or given.get("add_zero_attn"):
            self._add_unsupported("nn.MultiheadAttention on unbatched tokens, or with extra keys besides the tokens'")
            return result
        if query.shape[1] != self._images:
            self._add_unsupported(
                f"attention in windows ({query.shape[1]} of them for {format_count(self._images, 'image')})"
            )
            return result
        heads = given["num_heads"]
        with torch.no_grad():
            q, k, v = (project(given, name) for name in ("query", "key", "value"))
            weights = compute_weights(q, k, None, *combine_masks(given, len(q), heads))
        onward = given["out_proj_weight"].detach()

        def to_heads(grad: Tensor) -> Tensor:
            # The output is W O + b.
            return split_heads(at_least_float32(grad) @ at_least_float32(onward), heads)

        return (self._add_attention(weights, v, output, to_heads, q, k), *others)

    def _handle_matmul(self, weights: Tensor, values: Tensor, result: Tensor, *query_and_key: Tensor) -> Tensor:
        return self._capture(at_least_float32(weights.detach()), values, result, *query_and_key)

    def _capture(self, weights: Tensor, values: Tensor, output: Tensor, *query_and_key: Tensor) -> Tensor:
        """Capture weights (n, heads, q, k) or (n, q, k), and return the tensor that replaces ``output``."""
        if len(weights) != self._images or weights.ndim not in (3, 4):
            pieces = "over parts of the image"
            if len(weights) > self._images:
                pieces = "in windows" if weights.ndim > 3 else "with windows or heads in the batch dimension"
            self._add_unsupported(
                f"attention {pieces} (weights of shape {format_shape(weights)} "
                f"for {format_count(self._images, 'image')})"
            )
            return output
        if weights.ndim == 3:
            weights, values, *looks = (one.unsqueeze(1) for one in (weights, values, *query_and_key))
            return self._add_attention(weights, values, output, lambda grad: grad.unsqueeze(1), *looks)
        return self._add_attention(weights, values, output, lambda grad: grad, *query_and_key)

    def _add_unsupported(self, description: str) -> None:
        self.unsupported.append((description, len(self.attentions)))

    def _add_attention(
        self,
        weights: Tensor,
        values: Tensor,
        output: Tensor,
        to_heads: Callable[[Tensor], Tensor],
        *query_and_key: Tensor,
    ) -> Tensor:
        point = None
        if 0 <= self._graph_from <= len(self.attentions):
            point = output if output.requires_grad else output.detach().requires_grad_()
        kept = values.detach() if self._with_values and point is not None else None
        asked = [one.detach() for one in query_and_key] if self._with_queries and point is not None else []
        queries, keys = asked or (None, None)
        self.attentions.append(Attention(weights, kept, point, to_heads, queries, keys, tuple(self._module_stack)))
        # The forward continues with a clone, so that nothing later can change the point in place.
        return output if point is None else point.clone()

    @property
    def token_count(self) -> int:
        """The number of tokens that the last attention attends to."""
        return self.attentions[-1].weights.shape[3]


@dataclass(frozen=True, slots=True, eq=False)
class _Factors:
    """The two factors of a matrix product."""

    left: Tensor
    right: Tensor


def _could_be_weights(tensor: Tensor, weights: Tensor) -> bool:
    """Return whether a tensor computed from weights can be weights too: of the same size, or over the same tokens."""
    return tensor.ndim >= 3 and (tensor.numel() == weights.numel() or tensor.shape[-2:] == weights.shape[-2:])


def format_shape(tensor: Tensor) -> str:
    """Format the shape of a tensor, as ``2x3x4``."""
    return "x".join(map(str, tensor.shape))


def format_count(count: int, noun: str) -> str:
    """Format a count with its noun, as ``3 images``."""
    return f"{count} {noun if count == 1 else f'{noun}s'}"
