"""Whether the attentions of a network are one chain over the same tokens, along which relevance can be passed."""

from __future__ import annotations

import torch

from camcli.base.errors import RequestError
from camcli.engine.hooks.attention import Attending, number_of

# Weights whose rows sum to something else than 1 are no averages. A model in bfloat16 rounds them to three digits.
ROWS_SUM_TO_ONE = 0.05
OTHER_METHODS = "choose a method that works at a layer, such as gradcam, or at the input, such as guided-backprop"


def check_last(attending: Attending) -> None:
    """See that the last attention is seen, whatever was before; made for one image.

    Raises:
        RequestError: it is not, with the reason.
    """
    _check_seen(attending, len(attending.seen))


def check_chain(attending: Attending) -> None:
    """See that relevance can be passed from attention to attention; made for one image, with the graph from 0 on.

    Raises:
        RequestError: it cannot, with the reason.
    """
    _check_seen(attending, 0)
    _check_shapes(attending)
    for number, (before, after) in enumerate(zip(attending.seen, attending.seen[1:], strict=False), start=1):
        assert before.output is not None
        assert after.output is not None
        # Two attentions side by side both follow from what was before, but the second not from the first.
        [found] = torch.autograd.grad(after.output.sum(), [before.output], retain_graph=True, allow_unused=True)
        if found is None:
            raise _refused(
                f"its attentions {number} and {number + 1} stand side by side, and the methods know only one after "
                "the other"
            )
    for number, one in enumerate(attending.seen, start=1):
        off = (one.weights.sum(-1) - 1).abs().max()
        if not off <= ROWS_SUM_TO_ONE or one.weights.min() < 0:
            raise _refused(f"the weights of its attention {number} are no averages: they are mixed behind the softmax")


def _check_seen(attending: Attending, start: int) -> None:
    """See that there is attention, and none that was not read from the one on that has this number."""
    unused = [form for form, before in attending.unused.values() if before >= start]
    if unused:
        raise _refused(f"it has a softmax of shape {unused[0]} whose use cannot be seen")
    unread = [what for what, before in attending.unread if before >= start]
    if unread:
        more = len(unread) - 1
        raise _refused(f"it has {unread[0]}" + (f", and {more} more that are not over all tokens" if more else ""))
    if not attending.seen:
        raise _refused(
            "it has no attention that can be seen (fused attention, nn.MultiheadAttention, or a softmax and then a "
            "matrix product)"
        )


def _check_shapes(attending: Attending) -> None:
    *body, last = attending.seen
    body = attending.seen if last.square else body
    for one in body:
        if not one.square:
            raise _refused(f"it has {_kind(*one.weights.shape[2:])}, where tokens do not look at one another")
    if not body:
        raise _refused("its only attention is a pooling at the end, where tokens do not look at one another")
    if not last.square and last.weights.shape[3] != body[0].weights.shape[3]:
        before = body[0].weights.shape[3]
        raise _refused(f"it ends in {_kind(*last.weights.shape[2:])}, and not over the {before} tokens before")
    counts = list(dict.fromkeys(one.weights.shape[3] for one in attending.seen))
    if len(counts) > 1:
        raise _refused(f"the number of tokens changes from attention to attention ({', '.join(map(str, counts))})")


def remarks(attending: Attending) -> tuple[str, ...]:
    """What a reader of relevance along these attentions must know."""
    between = sum(0 < turn < len(attending.seen) for turn in attending.convolved)
    if not between:
        return ()
    return (
        f"neighbouring tokens are also mixed by {number_of(between, 'convolution')} between the attentions, "
        "which relevance passed along attention does not see",
    )


def _refused(reason: str) -> RequestError:
    return RequestError(f"attention cannot be followed through this network: {reason}", OTHER_METHODS)


def _kind(queries: int, keys: int) -> str:
    """Words for attention with another number of queries than of keys."""
    if queries == 1:
        return f"class attention or pooling (1 query, {number_of(keys, 'key')})"
    kind = "attention that thins its tokens out" if queries < keys else "attention whose keys are thinned out"
    return f"{kind} ({queries} queries, {number_of(keys, 'key')})"
