"""Signals of attention: weights and gradients, and the query, keys and values of the last attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from camcli.engine.hooks.tensors import at_least_float32
from camcli.engine.layers.layout import to_nchw
from camcli.engine.signals.scored import ScoredForward


def attn(scored: ScoredForward) -> list[Tensor]:
    """Return the weights of each attention, ``(n, heads, queries, keys)``."""
    return [scored.select(one.weights) for one in scored.attentions]


def attn_grad(scored: ScoredForward) -> list[Tensor]:
    """Return the gradient of the score by the weights of each attention."""
    gradients = [scored.gradients[f"attention {number}"] for number in range(len(scored.attentions))]
    return [scored.select(one.gradient(gradient)) for one, gradient in zip(scored.attentions, gradients, strict=True)]


def to_grid(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """Return a function that puts a number per token on the grid of the patches."""
    layout = scored.plan.token_layout
    assert layout is not None

    def to_grid(numbers: Float[Tensor, "n t"]) -> Float[Tensor, "n h w"]:
        return to_nchw(numbers.unsqueeze(2), layout).squeeze(1)

    return to_grid


def rows_to_grid(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """Return a function that puts the relevance of tokens on the grid of the patches."""
    on_grid, rows = to_grid(scored), find_used_rows(scored)

    def rows_to_grid(relevance: Tensor) -> Float[Tensor, "n h w"]:
        """Put relevance ``(n, t)`` on the grid, or of ``(n, q, t)`` the mean of the rows that the score depends on."""
        return on_grid(relevance if relevance.ndim == 2 else average_rows(relevance, rows))

    return rows_to_grid


def average_rows(relevance: Float[Tensor, "n q t"], used_rows: Bool[Tensor, "n q"]) -> Float[Tensor, "n t"]:
    """Average the rows that the score depends on: that of the class token, or those of all tokens that are pooled.

    The result is zero where the score depends on none.
    """
    share = used_rows.to(relevance) / used_rows.sum(1, keepdim=True).clamp(min=1)
    return (share.unsqueeze(1) @ relevance).squeeze(1)


def find_used_rows(scored: ScoredForward) -> Bool[Tensor, "n q"]:
    """Find the rows of the last attention that the score depends on."""
    return scored.select(scored.attentions[-1].find_used_rows(get_last_gradient(scored)))


def get_last_gradient(scored: ScoredForward) -> Tensor:
    """Return the gradient of the score by the output of the last attention."""
    return scored.gradients[f"attention {len(scored.attentions) - 1}"]


# ---- the token that the score is read from after the last attention


def query(scored: ScoredForward) -> Float[Tensor, "n heads d"]:
    """Return the query of the token that the score is read from."""
    queries = scored.attentions[-1].queries
    assert queries is not None
    return _take_used_row(scored, at_least_float32(scored.select(queries)))


def key(scored: ScoredForward) -> Float[Tensor, "n heads t d"]:
    """Return the keys that this query is compared with."""
    last = scored.attentions[-1]
    assert last.keys is not None
    return scored.select(last.expand_to_heads(last.keys))


def value(scored: ScoredForward) -> Float[Tensor, "n heads t d"]:
    """Return the values of the tokens that the query attends to."""
    return scored.select(get_last_values(scored))


def attn_out_grad(scored: ScoredForward) -> Float[Tensor, "n heads d"]:
    """Return the gradient of the score by attention's output for the token that the score is read from."""
    gradient = at_least_float32(scored.attentions[-1].to_heads(get_last_gradient(scored)))
    return _take_used_row(scored, scored.select(gradient))


def _take_used_row(scored: ScoredForward, rows: Float[Tensor, "n heads q d"]) -> Float[Tensor, "n heads d"]:
    """Take the row of the only token that the score depends on; any row if it depends on none."""
    used = find_used_rows(scored).int().argmax(1)
    return rows[torch.arange(len(rows), device=rows.device), :, used]


def get_last_values(scored: ScoredForward) -> Float[Tensor, "n heads t d"]:
    """Return the values of the last attention, for all images of the batch."""
    last = scored.attentions[-1]
    assert last.values is not None
    return last.expand_to_heads(last.values)
