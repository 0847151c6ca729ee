"""Relevance of tokens, passed from attention to attention.

``attn`` holds A of each block, ``(n, heads, t, t)``, in running order; behind them may stand the pooling of an
attention head, ``(n, heads, queries, t)``. ``spread`` reads the rows of a relevance that the score reads, and puts the
patches among its columns on their grid.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from camcli.errors import RequestError

# How many heads and queries there are may differ from attention to attention.
Weights = Float[Tensor, "n _ _ t"]
Spread = Callable[[Float[Tensor, "n q t"]], Float[Tensor, "n h w"]]


def rollout(
    attn: Sequence[Weights],
    spread: Spread,
    *,
    head_fusion: Literal["mean", "max", "min"] = "mean",
    discard: float = 0.0,
) -> Float[Tensor, "n h w"]:
    """Product over the blocks of (A + I) / 2, A the mean over heads, each row with sum 1 (Abnar 2020, eq. 1).

    The half of I is the way around the attention. Behind the blocks a pooling by attention has no such way, so there it
    is A alone. With another fusion than the paper's, or with something discarded, rows are brought back to sum 1.

    Use: how far each patch can reach the token that the score reads, through all attentions.
    Not for: telling classes apart: no class is asked.

    Args:
        head_fusion: how heads become one; the paper's is mean.
        discard: the share of each block's fused weights, the smallest, that count as zero, from 0 to below 1; an
            addition of Gildenblat 2020, not the paper's.
    """
    if not 0 <= discard < 1:
        raise RequestError(f"discard is {discard}", "give the share of the weights to leave out: 0 or more, below 1")
    relevance = _identity(attn[0])
    for weights in attn:
        fused = _without_smallest(_fused(weights, head_fusion), discard)
        if _is_square(fused):
            fused = fused + _identity(weights)
        relevance = fused / fused.sum(-1, keepdim=True) @ relevance
    return spread(relevance)


def gae(
    attn: Sequence[Weights],
    attn_grad: Sequence[Weights],
    spread: Spread,
) -> Float[Tensor, "n h w"]:
    """R = R + mean_h relu(dy/dA * A) R, block by block from R = I (Chefer 2021, eq. 5 and 6).

    The map is R without the I from which it started: to the class token's row that makes no difference, and to a mean
    over the patches only that of a constant. A pooling by attention behind the blocks passes mean_h relu(dy/dA * A) R.

    Use: what in a vision transformer speaks for a class.
    Not for: evidence against a class: only positive products count.
    """
    relevance = _identity(attn[0])
    pooled = False
    for weights, grad in zip(attn, attn_grad, strict=True):
        passed = (grad * weights).relu().mean(1)
        pooled = not _is_square(passed)
        relevance = passed @ relevance if pooled else relevance + passed @ relevance
    return spread(relevance if pooled else relevance - _identity(attn[0]))


def attention(
    attn: Sequence[Weights],
    spread: Spread,
    *,
    head_fusion: Literal["mean", "max", "min"] = "mean",
) -> Float[Tensor, "n h w"]:
    """A of the last attention, the mean over heads, in the rows of the tokens that the score reads (Dosovitskiy 2021).

    Use: a baseline for the others.
    Not for: explaining a class, or more of the network than its last attention.

    Args:
        head_fusion: how heads become one.
    """
    return spread(_fused(attn[-1], head_fusion))


def _fused(weights: Weights, fusion: str) -> Float[Tensor, "n q t"]:
    if fusion == "mean":
        return weights.mean(1)
    return weights.amax(1) if fusion == "max" else weights.amin(1)


def _without_smallest(weights: Float[Tensor, "n q t"], share: float) -> Float[Tensor, "n q t"]:
    count = int(share * weights[0].numel())
    if not count:
        return weights
    smallest = weights.flatten(1).topk(count, largest=False).indices
    return weights.flatten(1).scatter(1, smallest, 0.0).view_as(weights)


def _is_square(weights: Float[Tensor, "n q t"]) -> bool:
    return weights.shape[1] == weights.shape[2]


def _identity(weights: Tensor) -> Float[Tensor, "t t"]:
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
