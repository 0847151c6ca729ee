"""Attention weights and the score's gradient by them, fused attention included; the model and its result untouched."""

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
    MULTI_HEAD,
    for_heads,
    heads_of,
    mask_of,
    projected,
    softmax_of,
    transposed,
)
from camcli.engine.hooks.tensors import tensors, wide

_SOFTMAXES = frozenset({F.softmax, torch.softmax, Tensor.softmax})
_PRODUCTS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm})
# What turns a product over, so that its factors change places; __get__ is Tensor.mT among others.
_TURNS = frozenset({"transpose", "swapaxes", "swapdims", "permute", "movedim", "__get__"})
# What mixes neighbouring tokens outside attention, if its window is more than one cell.
_CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv_transpose2d})


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """One attention: its weights A, and what is needed for the gradient of a score by them.

    Attributes:
        weights: A after the softmax, ``(n, heads, queries, keys)``, detached, at least float32.
        values: V, ``(n, heads, keys, d)`` or with fewer heads, detached; None where only A was asked.
        output: a point of the graph that depends on O = A V linearly; None where the graph starts later.
        to_heads: from the gradient at ``output`` to that at O, ``(n, heads, queries, d)``.
        queries: Q as it meets the keys, ``(n, heads, queries, d)``, detached; None where it was not asked or not seen.
        keys: K likewise, ``(n, heads, keys, d)`` or with fewer heads.
        inside: the modules that were running, the outermost first, if that is known.
    """

    weights: Float[Tensor, "n heads q k"]
    values: Tensor | None
    output: Tensor | None
    to_heads: Callable[[Tensor], Tensor]
    queries: Tensor | None = None
    keys: Tensor | None = None
    inside: tuple[nn.Module, ...] = ()

    def gradient(self, grad: Tensor) -> Float[Tensor, "n heads q k"]:
        """dy/dA = dy/dO V^T, since O = A V; ``grad`` is the gradient at ``output``."""
        assert self.values is not None
        return wide(self.to_heads(grad)) @ self.of_heads(self.values).transpose(-2, -1)

    def of_heads(self, shared: Tensor) -> Float[Tensor, "n heads k d"]:
        """Keys or values, perhaps shared by several heads, for each of them; at least float32."""
        return wide(for_heads(shared, self.weights.shape[1]))

    def read(self, grad: Tensor) -> Bool[Tensor, "n q"]:
        """Which rows of the output the score reads: those with a gradient that is not zero."""
        return self.to_heads(grad).ne(0).any(dim=3).any(dim=1)

    @property
    def square(self) -> bool:
        """Whether the tokens look at themselves: as many queries as keys."""
        return self.weights.shape[2] == self.weights.shape[3]


class Attending(TorchFunctionMode):
    """While it is entered, every attention of a forward leaves its weights here.

    Attention is seen where it is computed, so no module is touched and none needs to be known: fused attention by its
    call, of which the weights are computed once more on the side; ``nn.MultiheadAttention`` likewise; attention written
    out by its softmax, which is followed (through masks, dropout, mixtures of heads) until a matrix product puts it to
    use. The model's own calls run as they are, so its result is the same to the bit as without this. (Of a
    ``nn.MultiheadAttention`` in evaluation mode that is the result of the path which takes gradients.)

    The graph starts at the output of the first attention that it is asked for: nothing before is kept.

    Args:
        images: how many are in the batch.
        values: whether V is kept too, which :meth:`Attention.gradient` needs.
        graph_from: the first attention whose output is a point of the graph, from 0 on; -1 for none.
        queries: whether Q and K are kept too, where the output is a point of the graph.
        running: the modules at work, see :func:`camcli.engine.hooks.watch.at_work`; empty if nobody asks where an
            attention is.

    Attributes:
        seen: the attentions in running order.
        unread: of those that are no ``(n, heads, queries, keys)``, what they are, and how many were seen before.
        unused: of softmaxes, as wide as high, that no product has used yet, the shapes, and how many attentions were
            seen before.
        convolved: how many attentions had been when each convolution came.
    """

    def __init__(
        self,
        images: int,
        values: bool = True,
        graph_from: int = 0,
        queries: bool = False,
        running: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.seen: list[Attention] = []
        self.unread: list[tuple[str, int]] = []
        self._images, self._values, self._graph_from = images, values, graph_from
        self._queries, self._running = queries, running
        # Softmaxes and what was made of them: of which softmaxes, by their numbers.
        self._made_of: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.unused: dict[int, tuple[str, int]] = {}
        self._softmaxes = 0
        # Products and what was made of them on the way to a softmax: of which factors; and those of each softmax.
        self._factors: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._looked: dict[int, tuple[Tensor, Tensor]] = {}
        self.convolved: list[int] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call as it is; note the weights if it is attention."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _CONVOLUTIONS:
            weight = kwargs["weight"] if "weight" in kwargs else args[1]
            if weight.shape[2:].numel() > 1:
                self.convolved.append(len(self.seen))
        if func is F.scaled_dot_product_attention:
            return self._fused(result, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(result, MULTI_HEAD.bind(*args, **kwargs).arguments)
        operands = list(tensors([*args, *kwargs.values()]))
        if func in _SOFTMAXES:
            self._follow(operands[0], result)
            return result
        followed = [operand for operand in operands if operand in self._made_of]
        if not followed:
            if self._queries:
                self._trace(func, operands, result)
            return result
        if func in _PRODUCTS:
            left, right = operands
            for operand in followed:
                self._close(operand)
            looked = self._looks(followed)
            if left in self._made_of:
                return self._written_out(left, right, result, *looked)
            # (A V)^T = V^T A^T, as attention over maps (n, heads, d, h w) has it.
            return transposed(self._written_out(transposed(right), transposed(left), transposed(result), *looked))
        self._pass_on(self._made_of, followed, result)
        return result

    def _pass_on(self, known: WeakIdKeyDictionary, sources: Sequence[Tensor], result: Any) -> None:
        """What is known of some tensors holds of what was made of them, if that is like them."""
        for tensor in tensors([result]):
            likes = [one for one in sources if _is_like(tensor, one)]
            if likes and tensor.is_floating_point():
                known[tensor] = frozenset().union(*(known[one] for one in likes))

    def _trace(self, func: Any, operands: Sequence[Tensor], result: Any) -> None:
        """Keep of which factors a tensor was made that may become a softmax: Q and K transposed, if it is attention."""
        if func in _PRODUCTS and result.ndim > 2:
            self._factors[result] = frozenset({_Factors(*(operand.detach() for operand in operands))})
        elif func.__name__ not in _TURNS:
            made = [operand for operand in operands if operand in self._factors]
            self._pass_on(self._factors, made, result)

    def _follow(self, source: Tensor, softmax: Tensor) -> None:
        if softmax.ndim < 3:
            return
        self._made_of[softmax] = frozenset({self._softmaxes})
        if softmax.shape[-1] == softmax.shape[-2] > 1:
            self.unused[self._softmaxes] = form(softmax), len(self.seen)
        # A sum of several products, as with relative positions, has no one pair of factors.
        if source in self._factors and len(self._factors[source]) == 1:
            [factors] = self._factors[source]
            self._looked[self._softmaxes] = factors.left, transposed(factors.right)
        self._softmaxes += 1

    def _looks(self, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Q and K of weights, if they are of one softmax alone."""
        numbers = {number for one in weights for number in self._made_of[one]}
        return self._looked.get(numbers.pop(), ()) if len(numbers) == 1 else ()

    def _close(self, weights: Tensor) -> None:
        for number in self._made_of[weights]:
            self.unused.pop(number, None)

    def _fused(
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
            weights = softmax_of(query.detach(), key.detach(), scale, attn_mask, is_causal)
        return self._used(weights, value, result, query, key)

    def _multi_head(self, result: tuple[Tensor, Any], given: dict[str, Any]) -> tuple[Tensor, Any]:
        """From the arguments of ``F.multi_head_attention_forward``, whose own calls inside no mode sees."""
        output, *others = result
        query = given["query"]
        extra = any(given.get(name) is not None for name in ("bias_k", "bias_v", "static_k", "static_v"))
        if query.ndim != 3 or extra or given.get("add_zero_attn"):
            self._unread("nn.MultiheadAttention without a batch, or with keys of its own beside the tokens'")
            return result
        if query.shape[1] != self._images:
            self._unread(f"attention in windows ({query.shape[1]} of them for {number_of(self._images, 'image')})")
            return result
        heads = given["num_heads"]
        with torch.no_grad():
            q, k, v = (projected(given, name) for name in ("query", "key", "value"))
            weights = softmax_of(q, k, None, *mask_of(given, len(q), heads))
        onward = given["out_proj_weight"].detach()

        def to_heads(grad: Tensor) -> Tensor:
            # The output is W O + b.
            return heads_of(wide(grad) @ wide(onward), heads)

        return (self._note(weights, v, output, to_heads, q, k), *others)

    def _written_out(self, weights: Tensor, values: Tensor, result: Tensor, *looked: Tensor) -> Tensor:
        return self._used(wide(weights.detach()), values, result, *looked)

    def _used(self, weights: Tensor, values: Tensor, output: Tensor, *looked: Tensor) -> Tensor:
        """Note weights (n, heads, q, k) or (n, q, k); what is returned goes onward in the place of ``output``."""
        if len(weights) != self._images or weights.ndim not in (3, 4):
            pieces = "over parts of the image"
            if len(weights) > self._images:
                pieces = "in windows" if weights.ndim > 3 else "with windows or heads among the samples"
            self._unread(
                f"attention {pieces} (weights of shape {form(weights)} for {number_of(self._images, 'image')})"
            )
            return output
        if weights.ndim == 3:
            weights, values, *looks = (one.unsqueeze(1) for one in (weights, values, *looked))
            return self._note(weights, values, output, lambda grad: grad.unsqueeze(1), *looks)
        return self._note(weights, values, output, lambda grad: grad, *looked)

    def _unread(self, what: str) -> None:
        self.unread.append((what, len(self.seen)))

    def _note(
        self, weights: Tensor, values: Tensor, output: Tensor, to_heads: Callable[[Tensor], Tensor], *looked: Tensor
    ) -> Tensor:
        point = None
        if 0 <= self._graph_from <= len(self.seen):
            point = output if output.requires_grad else output.detach().requires_grad_()
        kept = values.detach() if self._values and point is not None else None
        asked = [one.detach() for one in looked] if self._queries and point is not None else []
        queries, keys = asked or (None, None)
        self.seen.append(Attention(weights, kept, point, to_heads, queries, keys, tuple(self._running)))
        # What goes onward is a clone, so that nothing behind can change the point in place.
        return output if point is None else point.clone()

    @property
    def tokens(self) -> int:
        """How many tokens the attentions are over, or the last of them, if that alone counts."""
        return self.seen[-1].weights.shape[3]


@dataclass(frozen=True, slots=True, eq=False)
class _Factors:
    """The two tensors that a product was made of."""

    left: Tensor
    right: Tensor


def _is_like(tensor: Tensor, weights: Tensor) -> bool:
    """Whether what was made of weights can still be weights: as many numbers, or a part over the same tokens."""
    return tensor.ndim >= 3 and (tensor.numel() == weights.numel() or tensor.shape[-2:] == weights.shape[-2:])


def form(tensor: Tensor) -> str:
    """The shape of a tensor in words."""
    return "x".join(map(str, tensor.shape))


def number_of(count: int, one: str) -> str:
    """So many of something, in words."""
    return f"{count} {one if count == 1 else f'{one}s'}"
