"""Signals of attention: weights and gradients, and what the last one's query, keys and values are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from camcli.engine.hooks.tensors import wide
from camcli.engine.layers.layout import canonical
from camcli.engine.signals.scored import ScoredForward


def attn(scored: ScoredForward) -> list[Tensor]:
    """Of each attention its weights, ``(n, heads, queries, keys)``."""
    return [scored.select(one.weights) for one in scored.attentions]


def attn_grad(scored: ScoredForward) -> list[Tensor]:
    """The gradient of the score by the weights of each attention."""
    gradients = [scored.gradients[f"attention {number}"] for number in range(len(scored.attentions))]
    return [scored.select(one.gradient(gradient)) for one, gradient in zip(scored.attentions, gradients, strict=True)]


def cells(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """What puts a number for each token on the grid of the patches."""
    layout = scored.plan.tokens
    assert layout is not None

    def cells(numbers: Float[Tensor, "n t"]) -> Float[Tensor, "n h w"]:
        return canonical(numbers.unsqueeze(2), layout).squeeze(1)

    return cells


def spread(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """What puts the relevance of tokens on their grid."""
    on_grid, rows = cells(scored), read(scored)

    def spread(relevance: Tensor) -> Float[Tensor, "n h w"]:
        """Relevance ``(n, t)``, or ``(n, q, t)`` of which the rows that the score reads count, on the grid."""
        return on_grid(relevance if relevance.ndim == 2 else averaged(relevance, rows))

    return spread


def averaged(relevance: Float[Tensor, "n q t"], read: Bool[Tensor, "n q"]) -> Float[Tensor, "n t"]:
    """The mean of the rows that the score reads: the class token's, or those of all tokens that are pooled.

    Where it reads none, the relevance of all tokens is zero.
    """
    share = read.to(relevance) / read.sum(1, keepdim=True).clamp(min=1)
    return (share.unsqueeze(1) @ relevance).squeeze(1)


def read(scored: ScoredForward) -> Bool[Tensor, "n q"]:
    """Which rows of the last attention the score reads."""
    return scored.select(scored.attentions[-1].read(last_gradient(scored)))


def last_gradient(scored: ScoredForward) -> Tensor:
    """The gradient of the score by what the last attention gives."""
    return scored.gradients[f"attention {len(scored.attentions) - 1}"]


# ---- of the token that the score reads behind the last attention


def query(scored: ScoredForward) -> Float[Tensor, "n heads d"]:
    """The query of the token that the score reads."""
    queries = scored.attentions[-1].queries
    assert queries is not None
    return _row_read(scored, wide(scored.select(queries)))


def key(scored: ScoredForward) -> Float[Tensor, "n heads t d"]:
    """The keys that this query meets."""
    last = scored.attentions[-1]
    assert last.keys is not None
    return scored.select(last.of_heads(last.keys))


def value(scored: ScoredForward) -> Float[Tensor, "n heads t d"]:
    """The values of the tokens that the query looks at."""
    return scored.select(last_values(scored))


def told_grad(scored: ScoredForward) -> Float[Tensor, "n heads d"]:
    """The gradient of the score by what attention gives the token that the score reads."""
    told = wide(scored.attentions[-1].to_heads(last_gradient(scored)))
    return _row_read(scored, scored.select(told))


def _row_read(scored: ScoredForward, rows: Float[Tensor, "n heads q d"]) -> Float[Tensor, "n heads d"]:
    """The row of the token that the score reads, which is one; any where it reads none."""
    turn = read(scored).int().argmax(1)
    return rows[torch.arange(len(rows), device=rows.device), :, turn]


def last_values(scored: ScoredForward) -> Float[Tensor, "n heads t d"]:
    """The values of the last attention, for all images of the batch."""
    last = scored.attentions[-1]
    assert last.values is not None
    return last.of_heads(last.values)
