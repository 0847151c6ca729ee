"""Attention rollout and GAE (generic attention explainability): two tokens by hand, and rows that sum to one."""

import pytest
import torch
from networks import pictures
from vision_transformers import MODELS, SIZE, attended, every_model

from camcli import RequestError
from camcli.engine.signals.attention import average_rows
from camcli.methods.attention import attention, gae, rollout

A1 = torch.tensor([[[[0.5, 0.5], [0.25, 0.75]]]])
A2 = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])
G1 = torch.tensor([[[[2.0, -1.0], [4.0, 0.0]]]])
G2 = torch.tensor([[[[1.0, 5.0], [2.0, 2.0]]]])


def as_it_is(relevance):
    return relevance


def test_rollout_of_two_tokens_by_hand():
    # (A1 + I)/2 = [[3/4, 1/4], [1/8, 7/8]]; (A2 + I)/2 = [[1, 0], [1/4, 3/4]]; the later one times the earlier.
    assert rollout([A1, A2], as_it_is).tolist() == [[[0.75, 0.25], [0.28125, 0.71875]]]
    assert rollout([A2, A1], as_it_is).tolist() == [[[0.8125, 0.1875], [0.34375, 0.65625]]]


def test_rollout_fuses_heads():
    both = torch.cat([A1, A2], 1)
    for fusion, fused in (
        ("mean", [[0.75, 0.25], [0.375, 0.625]]),
        ("max", [[1.0, 0.5], [0.5, 0.75]]),
        ("min", [[0.5, 0.0], [0.25, 0.5]]),
    ):
        mixed = torch.tensor(fused) + torch.eye(2)
        assert torch.equal(rollout([both], as_it_is, head_fusion=fusion)[0], mixed / mixed.sum(1, keepdim=True))
        assert attention([A1, both], as_it_is, head_fusion=fusion).tolist() == [fused]


def test_rollout_discards_the_smallest():
    # Of A1 half of four weights go: 1/4, and one of the two halves.
    wanted = rollout([torch.tensor([[[[0.5, 0.0], [0.0, 0.75]]]])], as_it_is)
    assert rollout([A1 + torch.tensor([[0.0, -0.01], [0.0, 0.0]])], as_it_is, discard=0.5).tolist() == wanted.tolist()
    with pytest.raises(RequestError, match="discard is 1"):
        rollout([A1], as_it_is, discard=1.0)


def test_gae_of_two_tokens_by_hand():
    # relu(G1 A1) = [[1, 0], [1, 0]], so R = [[2, 0], [1, 1]]; relu(G2 A2) = [[1, 0], [1, 1]], times R [[2, 0], [3, 1]];
    # R = [[4, 0], [4, 2]]; less I.
    assert gae([A1, A2], [G1, G2], as_it_is).tolist() == [[[3.0, 0.0], [4.0, 1.0]]]
    # A second head without a positive product halves each step: [[1.5, 0], [0.5, 1]], then + [[0.75, 0], [1, 0.5]].
    halves = gae(
        [A1.repeat(1, 2, 1, 1), A2.repeat(1, 2, 1, 1)], [torch.cat([g, -9 * g.abs()], 1) for g in (G1, G2)], as_it_is
    )
    assert halves.tolist() == [[[1.25, 0.0], [1.5, 0.5]]]
    assert not gae([A1, A2], [0 * G1, 0 * G2], as_it_is).any()


def test_a_pooling_by_attention_behind_the_blocks_by_hand():
    pool = torch.tensor([[[[0.25, 0.75]]]])
    # [1/4, 3/4] times [[3/4, 1/4], [1/8, 7/8]].
    assert rollout([A1, pool], as_it_is).tolist() == [[[0.28125, 0.71875]]]
    # [1/4 * 4, 3/4 * 0] times [[2, 0], [1, 1]].
    assert gae([A1, pool], [G1, torch.tensor([[[[4.0, 0.0]]]])], as_it_is).tolist() == [[[2.0, 0.0]]]


@every_model
def test_rows_of_a_rollout_sum_to_one(name):
    met, *_ = attended(MODELS[name][0](), pictures(2, SIZE))
    for options in ({}, {"head_fusion": "max"}, {"head_fusion": "min"}, {"discard": 0.9}):
        rows = rollout([one.weights for one in met.attentions], as_it_is, **options).sum(-1)
        torch.testing.assert_close(rows, torch.ones_like(rows), rtol=1e-12, atol=1e-12)


def test_rows_that_are_read_are_averaged():
    relevance = torch.arange(12.0).reshape(2, 2, 3)
    read = torch.tensor([[True, False], [True, True]])
    assert average_rows(relevance, read).tolist() == [[0.0, 1.0, 2.0], [7.5, 8.5, 9.5]]
    assert not average_rows(relevance, read & False).any()
