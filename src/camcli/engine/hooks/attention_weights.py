"""The weights of attention, computed from what it is called with; and the queries, keys and values that it makes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.engine.hooks.tensors import wide

MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def softmax_of(
    query: Tensor, key: Tensor, scale: float | None, mask: Tensor | None, is_causal: bool
) -> Float[Tensor, "*n q k"]:
    """softmax(q k^T scale + mask), the weights of scaled_dot_product_attention by its documentation."""
    query, key = wide(query), wide(key)
    if query.ndim > 3:
        key = for_heads(key, query.shape[-3])
    logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        logits = logits.masked_fill(
            logits.new_ones(logits.shape[-2:], dtype=torch.bool).tril().logical_not(), -torch.inf
        )
    if mask is not None:
        mask = mask.detach()
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)


def mask_of(given: dict[str, Any], images: int, heads: int) -> tuple[Tensor | None, bool]:
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


def projected(given: dict[str, Any], name: str) -> Float[Tensor, "n heads t d"]:
    """The queries, keys or values that F.multi_head_attention_forward makes of its arguments, at least float32."""
    place = ("query", "key", "value").index(name)
    separate = given.get("use_separate_proj_weight")
    weight = given[f"{name[0]}_proj_weight"] if separate else given["in_proj_weight"].chunk(3)[place]
    bias = None if given["in_proj_bias"] is None else wide(given["in_proj_bias"].chunk(3)[place])
    return heads_of(F.linear(wide(given[name].detach()), wide(weight), bias), given["num_heads"])


def heads_of(tokens: Float[Tensor, "t n c"], heads: int) -> Float[Tensor, "n heads t d"]:
    """Tokens as F.multi_head_attention_forward has them, cut into heads."""
    length, images, _ = tokens.shape
    return tokens.reshape(length, images, heads, -1).permute(1, 2, 0, 3)


def for_heads(tensor: Tensor, heads: int) -> Tensor:
    """Keys or values that several heads share, for each of them (grouped queries)."""
    own = tensor.shape[-3]
    if own in (1, heads):
        return tensor.expand(*tensor.shape[:-3], heads, *tensor.shape[-2:])
    return tensor.repeat_interleave(heads // own, -3)


def transposed(tensor: Tensor) -> Tensor:
    """A batch of matrices, each transposed."""
    return tensor.transpose(-2, -1)
