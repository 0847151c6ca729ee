"""Check that a network's attentions form a chain over the same tokens, along which relevance can be propagated."""

from __future__ import annotations

import torch

from camcli.base.errors import RequestError
from camcli.engine.hooks.attention import AttentionCapture, format_count

# Weights whose rows do not sum to 1 are no averages. A model in bfloat16 rounds them to three digits.
ROWS_SUM_TO_ONE = 0.05
OTHER_METHODS = "choose a method that works at a layer, such as gradcam, or at the input, such as guided-backprop"


def check_last_attention(capture: AttentionCapture) -> None:
    """Check that the last attention was captured, whatever precedes it; for a capture of one image.

    Raises:
        RequestError: it was not, with the reason.
    """
    _check_seen(capture, len(capture.attentions))


def check_attention_chain(capture: AttentionCapture) -> None:
    """Check that relevance can be propagated along all attentions; for a capture of one image with the whole graph.

    Raises:
        RequestError: it cannot, with the reason.
    """
    _check_seen(capture, 0)
    _check_shapes(capture)
    for number, (before, after) in enumerate(zip(capture.attentions, capture.attentions[1:], strict=False), start=1):
        assert before.output is not None
        assert after.output is not None
        # Of two parallel attentions the second does not depend on the first.
        [gradient] = torch.autograd.grad(after.output.sum(), [before.output], retain_graph=True, allow_unused=True)
        if gradient is None:
            raise _refusal(
                f"its attentions {number} and {number + 1} are parallel, and the methods support sequential "
                "attentions only"
            )
    for number, one in enumerate(capture.attentions, start=1):
        deviation = (one.weights.sum(-1) - 1).abs().max()
        if not deviation <= ROWS_SUM_TO_ONE or one.weights.min() < 0:
            raise _refusal(
                f"the weights of its attention {number} are changed after the softmax: they do not sum to 1, or are "
                "negative"
            )


def _check_seen(capture: AttentionCapture, start: int) -> None:
    """Check that there is attention, and that all of it was captured from number ``start`` on."""
    unused = [form for form, before in capture.unused_softmaxes.values() if before >= start]
    if unused:
        raise _refusal(f"it has a softmax of shape {unused[0]} whose use could not be traced")
    unsupported = [kind for kind, before in capture.unsupported if before >= start]
    if unsupported:
        more = len(unsupported) - 1
        raise _refusal(f"it has {unsupported[0]}" + (f", and {more} more that are not over all tokens" if more else ""))
    if not capture.attentions:
        raise _refusal(
            "no attention was found in it (fused attention, nn.MultiheadAttention, or a softmax followed by a matrix "
            "product)"
        )


def _check_shapes(capture: AttentionCapture) -> None:
    *body, last = capture.attentions
    body = capture.attentions if last.is_square else body
    for one in body:
        if not one.is_square:
            raise _refusal(
                f"it has {_describe_kind(*one.weights.shape[2:])}, where tokens do not attend to one another"
            )
    if not body:
        raise _refusal("its only attention is a pooling at the end, where tokens do not attend to one another")
    if not last.is_square and last.weights.shape[3] != body[0].weights.shape[3]:
        before = body[0].weights.shape[3]
        raise _refusal(
            f"it ends in {_describe_kind(*last.weights.shape[2:])}, and not over the {before} tokens of the blocks "
            "before"
        )
    counts = list(dict.fromkeys(one.weights.shape[3] for one in capture.attentions))
    if len(counts) > 1:
        raise _refusal(f"the number of tokens changes between its attentions ({', '.join(map(str, counts))})")


def list_notes(capture: AttentionCapture) -> tuple[str, ...]:
    """List remarks on relevance that is propagated along these attentions."""
    between = sum(0 < turn < len(capture.attentions) for turn in capture.conv_positions)
    if not between:
        return ()
    return (
        f"{format_count(between, 'convolution')} between the attentions also mix neighbouring tokens, which relevance "
        "along attention does not account for",
    )


def _refusal(reason: str) -> RequestError:
    return RequestError(f"attention cannot be followed through this network: {reason}", OTHER_METHODS)


def _describe_kind(queries: int, keys: int) -> str:
    """Describe in words attention whose numbers of queries and keys differ."""
    if queries == 1:
        return f"class attention or pooling (1 query, {format_count(keys, 'key')})"
    kind = (
        "attention that reduces the number of tokens" if queries < keys else "attention with a reduced number of keys"
    )
    return f"{kind} ({queries} queries, {format_count(keys, 'key')})"
