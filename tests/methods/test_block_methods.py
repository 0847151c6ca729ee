"""LeGrad, Grad-ECLIP, MaskCLIP and CLIP Surgery: worked out by hand."""

import math

import pytest
import torch

from camcli import RequestError
from camcli.methods.attention import clip_surgery, grad_eclip, legrad, maskclip


def cells(numbers):
    """Four patches behind a class token."""
    return numbers[:, 1:].reshape(len(numbers), 2, 2)


def test_legrad_by_hand():
    # The last block: two heads, two queries, five tokens; of the second the negative counts as nothing.
    last = torch.tensor([[[[9.0, 4, 0, 0, -4], [9, 0, 0, 0, 0]], [[9, 0, 8, 0, -4], [9, 0, 0, 12, 0]]]])
    first = torch.tensor([[[[0.0, 0, 0, 0, 2]], [[0, 0, 0, 0, 6]]]])
    asked = []

    def stopped(pool):
        asked.append(pool)
        yield last
        yield first

    # Over four rows of the last block 1, 2, 3, 0; over two of the first 0, 0, 0, 4; the mean of both.
    assert legrad(stopped, cells).tolist() == [[[0.5, 1.0], [1.5, 2.0]]]
    assert legrad(stopped, cells, layers=1, pool="mean").tolist() == [[[1.0, 2.0], [3.0, 0.0]]]
    assert asked == ["head", "mean"]
    with pytest.raises(RequestError, match="layers is -1"):
        legrad(stopped, cells, layers=-1)


def test_grad_eclip_by_hand():
    # Two heads of one channel. Terms w v of the patches: 2 - 1, 0 - 2, 4 - 0, 2 - 0.
    value = torch.tensor([[[[7.0], [1], [0], [2], [1]], [[7.0], [1], [2], [0], [0]]]])
    told = torch.tensor([[[2.0], [-1.0]]])
    assert grad_eclip(told, value, value, told, cells, similarity=False).tolist() == [[[1.0, 0.0], [4.0, 2.0]]]
    # Queries along the first head; keys at cosines 1, 0, 0.6, 0.8 to it, the class token's -1 not counted.
    key = torch.tensor([[[[-1.0], [2], [0], [3], [4]], [[0.0], [0], [5], [4], [3]]]])
    found = grad_eclip(torch.tensor([[[3.0], [0.0]]]), key, value, told, cells)
    torch.testing.assert_close(found, torch.tensor([[[1.0, 0.0], [4 * 0.6, 2 * 0.8]]]))


def test_maskclip_by_hand():
    own = torch.arange(10.0).reshape(1, 5, 2)
    assert maskclip(own, lambda tokens: tokens[..., 0] - 6, cells).tolist() == [[[-4.0, -2.0], [0.0, 2.0]]]


def surgery(likeness, blank=None, cosines=None, index=0, **options):
    tokens = torch.zeros(1, 5, 3)
    rules = []

    def path(rule, depth):
        rules.append((rule, depth))
        return tokens

    cosines = torch.zeros(1, likeness.shape[2]) if cosines is None else cosines
    map = clip_surgery(path, lambda _: likeness, lambda _: blank, cosines, torch.tensor([index]), cells, **options)
    return map, rules[0]


def test_clip_surgery_by_hand():
    # The prompts at softmax 3/4 and 1/4, so that their shares are 3/2 and 1/2.
    cosines = torch.tensor([[math.log(3) / 2, 0.0]])
    likeness = torch.tensor([[[9.0, 9], [2, 2], [4, 0], [0, 4], [2, -2]]])
    # Weighted 3, 1; 6, 0; 0, 2; 3, -1. Less the mean of both: half their difference.
    wanted = torch.tensor([[[1.0, 3.0], [-1.0, 2.0]]])
    map, (rule, depth) = surgery(likeness, cosines=cosines)
    torch.testing.assert_close(map, wanted)
    torch.testing.assert_close(surgery(likeness, cosines=cosines, index=1)[0], -wanted)
    # A = softmax(v v^T / sqrt(d)) with v = (ln 2, 0), d = 1: weights (2^(ln 2), 1) / (2^(ln 2) + 1) and (1, 1) / 2.
    assert depth == 6
    two, square = math.log(2), 2 ** math.log(2)
    said = rule(torch.tensor([[[[two], [0.0]]]]))
    torch.testing.assert_close(said, torch.tensor([[[[two * square / (square + 1)], [two / 2]]]]))


def test_clip_surgery_of_one_prompt_by_hand():
    likeness = torch.tensor([[[9.0], [2], [4], [0], [2]]])
    blank = torch.tensor([[9.0, 1, 1, 1, 3]])
    assert surgery(likeness, blank, depth=2)[0].tolist() == [[[1.0, 3.0], [-1.0, -1.0]]]
    assert surgery(likeness, blank, depth=2)[1][1] == 2
    with pytest.raises(RequestError, match="depth is 0"):
        surgery(likeness, blank, depth=0)


def test_clip_surgery_of_pictures_with_prompts_of_their_own_by_hand():
    likeness = torch.tensor([[[9.0, 9, 5], [2, 2, 5], [4, 0, 5], [0, 4, 5], [2, -2, 5]]])
    third = torch.tensor([[math.log(3) / 2, 0.0, -torch.inf]])
    # As without the third prompt; and of the first alone as of one prompt.
    torch.testing.assert_close(surgery(likeness, cosines=third)[0], torch.tensor([[[1.0, 3.0], [-1.0, 2.0]]]))
    first = torch.tensor([[0.3, -torch.inf, -torch.inf]])
    blank = torch.tensor([[9.0, 1, 1, 1, 3]])
    assert surgery(likeness, blank, first)[0].tolist() == [[[1.0, 3.0], [-1.0, -1.0]]]
