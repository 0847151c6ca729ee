"""Attention weights and the score's gradient by them, fused attention included; the model and its result untouched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from camcli.base.errors import RequestError
from camcli.engine.hooks.tensors import tensors

# Weights whose rows sum to something else than 1 are no averages. A model in bfloat16 rounds them to three digits.
ROWS_SUM_TO_ONE = 0.05

_SOFTMAXES = frozenset({F.softmax, torch.softmax, Tensor.softmax})
_PRODUCTS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm})
# What turns a product over, so that its factors change places; __get__ is Tensor.mT among others.
_TURNS = frozenset({"transpose", "swapaxes", "swapdims", "permute", "movedim", "__get__"})
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
# What mixes neighbouring tokens outside attention, if its window is more than one cell.
_CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv_transpose2d})
_OTHER_METHODS = "choose a method that works at a layer, such as gradcam, or at the input, such as guided-backprop"

# From V ``(n, heads, keys, d)`` to what stands in the place of O = A V, ``(n, heads, queries, d)``.
Rule = Callable[[Tensor], Tensor]


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
        return _wide(self.to_heads(grad)) @ self.of_heads(self.values).transpose(-2, -1)

    def of_heads(self, shared: Tensor) -> Float[Tensor, "n heads k d"]:
        """Keys or values, perhaps shared by several heads, for each of them; at least float32."""
        return _wide(_repeated(shared, self.weights.shape[1]))

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
        # The shapes of those, as wide as high, that no product has used yet, and how many attentions were seen before.
        self._unused: dict[int, tuple[str, int]] = {}
        self._softmaxes = 0
        # Products and what was made of them on the way to a softmax: of which factors; and those of each softmax.
        self._factors: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._looked: dict[int, tuple[Tensor, Tensor]] = {}
        # How many attentions had been when each convolution came.
        self._convolved: list[int] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call as it is; note the weights if it is attention."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _CONVOLUTIONS:
            weight = kwargs["weight"] if "weight" in kwargs else args[1]
            if weight.shape[2:].numel() > 1:
                self._convolved.append(len(self.seen))
        if func is F.scaled_dot_product_attention:
            return self._fused(result, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(result, _MULTI_HEAD.bind(*args, **kwargs).arguments)
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
            return _turned(self._written_out(_turned(right), _turned(left), _turned(result), *looked))
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
            self._unused[self._softmaxes] = _form(softmax), len(self.seen)
        # A sum of several products, as with relative positions, has no one pair of factors.
        if source in self._factors and len(self._factors[source]) == 1:
            [factors] = self._factors[source]
            self._looked[self._softmaxes] = factors.left, _turned(factors.right)
        self._softmaxes += 1

    def _looks(self, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Q and K of weights, if they are of one softmax alone."""
        numbers = {number for one in weights for number in self._made_of[one]}
        return self._looked.get(numbers.pop(), ()) if len(numbers) == 1 else ()

    def _close(self, weights: Tensor) -> None:
        for number in self._made_of[weights]:
            self._unused.pop(number, None)

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
            weights = _softmax_of(query.detach(), key.detach(), scale, attn_mask, is_causal)
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
            self._unread(f"attention in windows ({query.shape[1]} of them for {_count(self._images, 'image')})")
            return result
        heads = given["num_heads"]
        with torch.no_grad():
            q, k, v = (_projected(given, name) for name in ("query", "key", "value"))
            weights = _softmax_of(q, k, None, *_mask_of(given, len(q), heads))
        onward = given["out_proj_weight"].detach()

        def to_heads(grad: Tensor) -> Tensor:
            # The output is W O + b.
            return _heads_of(_wide(grad) @ _wide(onward), heads)

        return (self._note(weights, v, output, to_heads, q, k), *others)

    def _written_out(self, weights: Tensor, values: Tensor, result: Tensor, *looked: Tensor) -> Tensor:
        return self._used(_wide(weights.detach()), values, result, *looked)

    def _used(self, weights: Tensor, values: Tensor, output: Tensor, *looked: Tensor) -> Tensor:
        """Note weights (n, heads, q, k) or (n, q, k); what is returned goes onward in the place of ``output``."""
        if len(weights) != self._images or weights.ndim not in (3, 4):
            pieces = "over parts of the image"
            if len(weights) > self._images:
                pieces = "in windows" if weights.ndim > 3 else "with windows or heads among the samples"
            self._unread(f"attention {pieces} (weights of shape {_form(weights)} for {_count(self._images, 'image')})")
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

    # ---- whether the attentions are one chain over the same tokens

    def check_last(self) -> None:
        """See that the last attention is seen, whatever was before; made for one image.

        Raises:
            RequestError: it is not, with the reason.
        """
        self._check_seen(len(self.seen))

    def check(self) -> None:
        """See that relevance can be passed from attention to attention; made for one image, with the graph from 0 on.

        Raises:
            RequestError: it cannot, with the reason.
        """
        self._check_seen(0)
        self._check_shapes()
        for number, (before, after) in enumerate(zip(self.seen, self.seen[1:], strict=False), start=1):
            assert before.output is not None
            assert after.output is not None
            # Two attentions side by side both follow from what was before, but the second not from the first.
            [found] = torch.autograd.grad(after.output.sum(), [before.output], retain_graph=True, allow_unused=True)
            if found is None:
                raise _refused(
                    f"its attentions {number} and {number + 1} stand side by side, and the methods know only one after "
                    "the other"
                )
        for number, one in enumerate(self.seen, start=1):
            off = (one.weights.sum(-1) - 1).abs().max()
            if not off <= ROWS_SUM_TO_ONE or one.weights.min() < 0:
                raise _refused(
                    f"the weights of its attention {number} are no averages: they are mixed behind the softmax"
                )

    def _check_seen(self, start: int) -> None:
        """See that there is attention, and none that was not read from the one on that has this number."""
        unused = [form for form, before in self._unused.values() if before >= start]
        if unused:
            raise _refused(f"it has a softmax of shape {unused[0]} whose use cannot be seen")
        unread = [what for what, before in self.unread if before >= start]
        if unread:
            more = len(unread) - 1
            raise _refused(f"it has {unread[0]}" + (f", and {more} more that are not over all tokens" if more else ""))
        if not self.seen:
            raise _refused(
                "it has no attention that can be seen (fused attention, nn.MultiheadAttention, or a softmax and then a "
                "matrix product)"
            )

    def _check_shapes(self) -> None:
        *body, last = self.seen
        body = self.seen if last.square else body
        for one in body:
            if not one.square:
                raise _refused(f"it has {_kind(*one.weights.shape[2:])}, where tokens do not look at one another")
        if not body:
            raise _refused("its only attention is a pooling at the end, where tokens do not look at one another")
        if not last.square and last.weights.shape[3] != body[0].weights.shape[3]:
            before = body[0].weights.shape[3]
            raise _refused(f"it ends in {_kind(*last.weights.shape[2:])}, and not over the {before} tokens before")
        counts = list(dict.fromkeys(one.weights.shape[3] for one in self.seen))
        if len(counts) > 1:
            raise _refused(f"the number of tokens changes from attention to attention ({', '.join(map(str, counts))})")

    def remarks(self) -> tuple[str, ...]:
        """What a reader of relevance along these attentions must know."""
        between = sum(0 < turn < len(self.seen) for turn in self._convolved)
        if not between:
            return ()
        return (
            f"neighbouring tokens are also mixed by {_count(between, 'convolution')} between the attentions, "
            "which relevance passed along attention does not see",
        )

    @property
    def tokens(self) -> int:
        """How many tokens the attentions are over, or the last of them, if that alone counts."""
        return self.seen[-1].weights.shape[3]


class Ruled(Attending):
    """While it is entered, every attention is told by a rule what to say in the place of its own O = A V.

    Args:
        rule: makes it of V; or what is said, as it is.

    Attributes:
        met: how many attentions there were.
    """

    def __init__(self, rule: Rule | Tensor) -> None:
        super().__init__(0, values=False, graph_from=-1)
        self.met = 0
        self._rule = rule

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call, unless it is attention."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused_by_rule(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            given = _MULTI_HEAD.bind(*args, **kwargs).arguments
            weights = func(*args, **kwargs)[1] if given.get("need_weights", True) else None
            told = self._told(_projected(given, "value")).to(given["query"].dtype)
            bias = given["out_proj_bias"]
            return F.linear(told.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], bias), weights
        return super().__torch_function__(func, types, args, kwargs)

    def _fused_by_rule(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ARG002
        if query.ndim == 3:
            return self._told(value.unsqueeze(1)).squeeze(1).to(query.dtype)
        return self._told(_repeated(value, query.shape[1])).to(query.dtype)

    def _written_out(self, weights: Tensor, values: Tensor, result: Tensor, *looked: Tensor) -> Tensor:  # noqa: ARG002
        if weights.ndim == 3:
            return self._told(values.unsqueeze(1)).squeeze(1).to(result.dtype)
        return self._told(_repeated(values, weights.shape[1])).to(result.dtype)

    def _told(self, values: Float[Tensor, "n heads k d"]) -> Float[Tensor, "n heads q d"]:
        self.met += 1
        return self._rule if isinstance(self._rule, Tensor) else self._rule(values.detach())


@dataclass(frozen=True, slots=True, eq=False)
class _Factors:
    """The two tensors that a product was made of."""

    left: Tensor
    right: Tensor


def averaged(relevance: Float[Tensor, "n q t"], read: Bool[Tensor, "n q"]) -> Float[Tensor, "n t"]:
    """The mean of the rows that the score reads: the class token's, or those of all tokens that are pooled.

    Where it reads none, the relevance of all tokens is zero.
    """
    share = read.to(relevance) / read.sum(1, keepdim=True).clamp(min=1)
    return (share.unsqueeze(1) @ relevance).squeeze(1)


def _softmax_of(
    query: Tensor, key: Tensor, scale: float | None, mask: Tensor | None, is_causal: bool
) -> Float[Tensor, "*n q k"]:
    """softmax(q k^T scale + mask), the weights of scaled_dot_product_attention by its documentation."""
    query, key = _wide(query), _wide(key)
    if query.ndim > 3:
        key = _repeated(key, query.shape[-3])
    logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        logits = logits.masked_fill(
            logits.new_ones(logits.shape[-2:], dtype=torch.bool).tril().logical_not(), -torch.inf
        )
    if mask is not None:
        mask = mask.detach()
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)


def _mask_of(given: dict[str, Any], images: int, heads: int) -> tuple[Tensor | None, bool]:
    """The mask of F.multi_head_attention_forward as fused attention has it (True: takes part), and whether causal."""

    def as_numbers(mask: Tensor) -> Tensor:
        # Here True means: is left out.
        if mask.dtype != torch.bool:
            return mask.detach()
        return torch.zeros(mask.shape, device=mask.device).masked_fill(mask, -torch.inf)

    mask = given.get("attn_mask")
    if mask is not None:
        mask = as_numbers(mask)
        if mask.ndim == 3:
            mask = mask.unsqueeze(0) if len(mask) == 1 else mask.reshape(images, heads, *mask.shape[1:])
    padding = given.get("key_padding_mask")
    if padding is not None:
        padding = as_numbers(padding)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    return mask, mask is None and bool(given.get("is_causal"))


def _projected(given: dict[str, Any], name: str) -> Float[Tensor, "n heads t d"]:
    """The queries, keys or values that F.multi_head_attention_forward makes of its arguments, at least float32."""
    place = ("query", "key", "value").index(name)
    separate = given.get("use_separate_proj_weight")
    weight = given[f"{name[0]}_proj_weight"] if separate else given["in_proj_weight"].chunk(3)[place]
    bias = None if given["in_proj_bias"] is None else _wide(given["in_proj_bias"].chunk(3)[place])
    return _heads_of(F.linear(_wide(given[name].detach()), _wide(weight), bias), given["num_heads"])


def _heads_of(tokens: Float[Tensor, "t n c"], heads: int) -> Float[Tensor, "n heads t d"]:
    length, images, _ = tokens.shape
    return tokens.reshape(length, images, heads, -1).permute(1, 2, 0, 3)


def _repeated(tensor: Tensor, heads: int) -> Tensor:
    """Keys or values that several heads share, for each of them (grouped queries)."""
    own = tensor.shape[-3]
    if own in (1, heads):
        return tensor.expand(*tensor.shape[:-3], heads, *tensor.shape[-2:])
    return tensor.repeat_interleave(heads // own, -3)


def _is_like(tensor: Tensor, weights: Tensor) -> bool:
    """Whether what was made of weights can still be weights: as many numbers, or a part over the same tokens."""
    return tensor.ndim >= 3 and (tensor.numel() == weights.numel() or tensor.shape[-2:] == weights.shape[-2:])


def _turned(tensor: Tensor) -> Tensor:
    return tensor.transpose(-2, -1)


def _wide(tensor: Tensor) -> Tensor:
    """At least float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _form(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _kind(queries: int, keys: int) -> str:
    """Words for attention with another number of queries than of keys."""
    if queries == 1:
        return f"class attention or pooling (1 query, {_count(keys, 'key')})"
    kind = "attention that thins its tokens out" if queries < keys else "attention whose keys are thinned out"
    return f"{kind} ({queries} queries, {_count(keys, 'key')})"


def _count(count: int, one: str) -> str:
    return f"{count} {one if count == 1 else f'{one}s'}"


def _refused(reason: str) -> RequestError:
    return RequestError(f"attention cannot be followed through this network: {reason}", _OTHER_METHODS)


class _ForAll:
    """Turns a switch of the whole process that several threads may need at once: the last to leave turns it back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._switched = Lock(), 0, ExitStack()

    @contextmanager
    def math(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._switched.enter_context(sdpa_kernel(SDPBackend.MATH))
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._switched.close()


# While it lasts, in any thread, fused attention is computed so that its gradient has a gradient too.
twice_differentiable = _ForAll().math
