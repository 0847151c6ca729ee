"""Attention by a method's own rule, queries and keys seen where they are made, and biases of attention lent."""

import pytest
import torch
import torch.nn.functional as F
from networks import (
    Small,
    pictures,
    seeded,
    untouched,
)
from torch import nn

from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.attention_override import AttentionOverride
from camcli.engine.hooks.state import swap_buffer


@pytest.mark.parametrize("written_out", [False, True])
def test_a_rule_stands_in_the_place_of_attention(written_out):
    q, k, v = (pictures(2, 6, seed) for seed in range(3))
    given = pictures(2, 6, seed=3)

    def look(q, k, v):
        if written_out:
            return (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return F.scaled_dot_product_attention(q, k, v)

    for rule, wanted in ((lambda values: 2 * values, 2 * v), (given, given)):
        with AttentionOverride(rule) as ruled:
            assert torch.equal(look(q, k, v), wanted)
        assert ruled.count == 1
    with AttentionOverride(lambda values: 2 * values):
        assert torch.equal(look(q[:, 0], k[:, 0], v[:, 0]), 2 * v[:, 0])
    # Shared values for each head, and of half precision what the network goes on in.
    with AttentionOverride(lambda values: values.float()):
        found = F.scaled_dot_product_attention(q.bfloat16(), k[:, :1].bfloat16(), v[:, :1].bfloat16(), enable_gqa=True)
    assert torch.equal(found, v[:, :1].bfloat16().expand(-1, 3, -1, -1))


@pytest.mark.parametrize("options", [{}, {"kdim": 24, "vdim": 24}, {"bias": False}])
def test_a_rule_in_multi_head_attention(options):
    module = seeded(nn.MultiheadAttention(24, 4, batch_first=True, **options))
    tokens = pictures(2, 24)[:, 0, :5]
    with AttentionCapture(2) as met:
        _, weights = module(tokens, tokens, tokens, average_attn_weights=False)
    with AttentionOverride(lambda values: weights @ values):
        said, others = module(tokens, tokens, tokens)
    torch.testing.assert_close(said, module(tokens, tokens, tokens)[0])
    torch.testing.assert_close(others, weights.mean(1))
    with AttentionOverride(lambda values: values):
        said, others = module(tokens, tokens, tokens, need_weights=False)
    assert others is None
    torch.testing.assert_close(said, module.out_proj(met.attentions[0].values.transpose(1, 2).flatten(2)))


def test_queries_and_keys_are_seen_where_attention_is_written_out():
    q, k, v = (pictures(2, 6, seed) for seed in range(3))
    bias = pictures(1, 6, seed=3)
    forms = {
        "plain": lambda: (q @ k.transpose(-2, -1)).softmax(-1) @ v,
        "scaled and masked": lambda: torch.matmul(0.3 * q, k.mT).add(bias).softmax(-1).clone() @ v,
        "one head": lambda: torch.bmm(torch.bmm(q[:, 0], k[:, 0].mT).softmax(-1), v[:, 0]),
        "in place": lambda: (q @ k.mT).mul_(0.5).softmax(-1) @ v,
    }
    for form, forward in forms.items():
        with AttentionCapture(2, with_queries=True) as capture:
            forward()
        [one] = capture.attentions
        heads = 1 if form == "one head" else 3
        cosine = F.cosine_similarity(one.queries, q[:, :heads], dim=-1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))
        assert torch.equal(one.keys, k[:, :heads])


def test_queries_and_keys_of_two_products_or_turned_ones_are_none():
    q, k, v = (pictures(2, 6, seed) for seed in range(3))
    forms = (
        lambda: (q @ k.mT + q @ v.mT).softmax(-1) @ v,
        lambda: (k @ q.mT).mT.softmax(-1) @ v,
        lambda: (q @ k.mT).softmax(-1).add((k @ q.mT).softmax(-1)) @ v,
    )
    for forward in forms:
        with AttentionCapture(2, with_queries=True) as capture:
            forward()
        assert capture.attentions[0].queries is None


def test_a_buffer_is_lent_and_comes_back():
    model = Small()
    own = model.norm1.running_mean
    with untouched(model), pytest.raises(ZeroDivisionError), swap_buffer(model.norm1, "running_mean", torch.ones(5)):
        assert model.norm1.running_mean.sum() == 5
        raise ZeroDivisionError
    assert model.norm1.running_mean is own
