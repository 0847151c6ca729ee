"""Attention weights, and queries, keys and values, computed from the arguments of PyTorch's attention functions."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.engine.hooks.tensors import at_least_float32

MULTI_HEAD_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def compute_weights(
    query: Tensor, key: Tensor, scale: float | None, mask: Tensor | None, is_causal: bool
) -> Float[Tensor, "*n q k"]:
    """Compute softmax(q k^T scale + mask), the attention weights of ``F.scaled_dot_product_attention``."""
    query, key = at_least_float32(query), at_least_float32(key)
    if query.ndim > 3:
        key = expand_heads(key, query.shape[-3])
    logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        logits = logits.masked_fill(
            logits.new_ones(logits.shape[-2:], dtype=torch.bool).tril().logical_not(), -torch.inf
        )
    if mask is not None:
        mask = mask.detach()
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)


def combine_masks(given: dict[str, Any], images: int, heads: int) -> tuple[Tensor | None, bool]:
    """Combine the masks of ``F.multi_head_attention_forward`` to an additive one, and return whether it is causal."""

    def to_additive(mask: Tensor) -> Tensor:
        # In a boolean mask True means that the key is left out.
        if mask.dtype != torch.bool:
            return mask.detach()
        return torch.zeros(mask.shape, device=mask.device).masked_fill(mask, -torch.inf)

    mask = given.get("attn_mask")
    if mask is not None:
        mask = to_additive(mask)
        if mask.ndim == 3:
            mask = mask.unsqueeze(0) if len(mask) == 1 else mask.reshape(images, heads, *mask.shape[1:])
    padding = given.get("key_padding_mask")
    if padding is not None:
        padding = to_additive(padding)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    return mask, mask is None and bool(given.get("is_causal"))


def project(given: dict[str, Any], name: str) -> Float[Tensor, "n heads t d"]:
    """Compute the queries, keys or values of ``F.multi_head_attention_forward`` in at least float32."""
    place = ("query", "key", "value").index(name)
    separate = given.get("use_separate_proj_weight")
    weight = given[f"{name[0]}_proj_weight"] if separate else given["in_proj_weight"].chunk(3)[place]
    bias = None if given["in_proj_bias"] is None else at_least_float32(given["in_proj_bias"].chunk(3)[place])
    return split_heads(F.linear(at_least_float32(given[name]), at_least_float32(weight), bias), given["num_heads"])


def split_heads(tokens: Float[Tensor, "t n c"], heads: int) -> Float[Tensor, "n heads t d"]:
    """Split the tokens of ``F.multi_head_attention_forward`` into heads."""
    length, images, _ = tokens.shape
    return tokens.reshape(length, images, heads, -1).permute(1, 2, 0, 3)


def expand_heads(tensor: Tensor, heads: int) -> Tensor:
    """Expand keys or values that several heads share (grouped-query attention) to all heads."""
    groups = tensor.shape[-3]
    if groups in (1, heads):
        return tensor.expand(*tensor.shape[:-3], heads, *tensor.shape[-2:])
    return tensor.repeat_interleave(heads // groups, -3)


def transpose_last(tensor: Tensor) -> Tensor:
    """Transpose each matrix of a batch."""
    return tensor.transpose(-2, -1)
