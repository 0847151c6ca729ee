"""Maps found by optimisation: steps worked out by hand, laws, and what is refused."""

import math

import pytest
import torch
from by_hand import close, evidence, layer, red
from plain_signals import sloping

from camcli import RequestError
from camcli.methods.optimised import Adam, m2ib, opti_cam


def total(x):
    return x.sum((1, 2, 3))


# ---- Adam


def test_adam_by_hand():
    # Whatever the gradient, the first step has the length of the rate. After 3 and -1 the mean is (0.9 * 0.3 - 0.1) /
    # 0.19 and the mean square (0.999 * 0.009 + 0.001) / 0.001999.
    adam = Adam(0.5)
    torch.testing.assert_close(adam.step(torch.tensor([3.0, -7.0])), torch.tensor([0.5, -0.5]))
    wanted = 0.5 * ((0.9 * 0.3 - 0.1) / 0.19) / math.sqrt((0.999 * 0.009 + 0.001) / 0.001999)
    torch.testing.assert_close(adam.step(torch.tensor([-1.0, 0.0]))[0], torch.tensor(wanted))


def test_adam_is_torchs():
    draw = torch.Generator().manual_seed(0)
    gradients = torch.randn(20, 3, 5, generator=draw, dtype=torch.float64)
    ours, theirs = torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    adam, reference = Adam(0.1), torch.optim.Adam([theirs], lr=0.1, maximize=True)
    for gradient in gradients:
        ours += adam.step(gradient)
        theirs.grad = gradient
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)


# ---- Opti-CAM


def test_opti_cam_by_hand():
    # The score is the red of the left cell, which is what the mask says there: w_1 / (2 w_1 + 4 w_2), the more the
    # higher u_1 and the lower u_2. Adam's first step moves both by 0.1, but for the 1e-8 in its divisor.
    act = layer([[1.0, 0.0, 2.0]], [[0.0, 0.0, 4.0]])
    weights = torch.tensor([0.1, -0.1]).double().softmax(0)
    map = opti_cam(act, red([1.0, 1.0, 1.0]), sloping(lambda x: x[:, 0, 0, 0]), steps=1)
    combined = torch.stack([weights[0], torch.tensor(0.0).double(), 2 * weights[0] + 4 * weights[1]])
    torch.testing.assert_close(map[0, 0], combined / combined[2], rtol=1e-7, atol=0)


def test_opti_cam_finds_the_channel_that_shows_what_counts():
    act = layer([[1.0, 0], [0, 0]], [[0, 1.0], [0, 0]], [[0, 0], [0, 1.0]])
    image = red([1.0, 1.0], [1.0, 1.0])
    map = opti_cam(act, image, sloping(lambda x: x[:, 0, 0, 1] - x[:, 0, 0, 0] - x[:, 0, 1, 1]), steps=100)
    assert map[0, 0, 1] == 1
    assert map.flatten().sort().values[-2] < 0.01


def test_opti_cam_raises_the_score_of_the_masked_image():
    e = evidence()
    scores = [score for score, _ in e.score_and_grad([e.images])]

    def asked(variants):
        for pair in e.score_and_grad(variants):
            scores.append(pair[0])
            yield pair

    opti_cam(e.act, e.images, asked, steps=60)
    assert (scores[-1] > scores[1]).all()


def test_opti_cam_without_steps_is_the_mean_of_the_channels():
    e = evidence()
    mean = e.act.mean(1)
    low, high = mean.amin((1, 2), keepdim=True), mean.amax((1, 2), keepdim=True)
    close(opti_cam(e.act, e.images, e.score_and_grad, steps=0), (mean - low) / (high - low))


def test_opti_cam_of_one_channel_is_that_channel():
    e = evidence()
    one = e.act[:, :1]
    low, high = one.amin((2, 3), keepdim=True), one.amax((2, 3), keepdim=True)
    close(opti_cam(one, e.images, e.score_and_grad, steps=3), ((one - low) / (high - low))[:, 0])


def test_opti_cam_where_nothing_depends_on_the_image_is_zero_and_of_flat_channels_undefined():
    e = evidence()
    assert not opti_cam(e.act, e.images, sloping(lambda x: 0 * total(x)), steps=2).any()
    flat = torch.ones_like(e.act)
    flat[1] = e.act[1]
    map = opti_cam(flat, e.images, e.score_and_grad, steps=2)
    assert map.isnan().flatten(1).all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("options", [{"steps": -1}, {"lr": 0.0}])
def test_options_out_of_range_are_refused(options):
    e = evidence()
    with pytest.raises(RequestError, match="out of range"):
        opti_cam(e.act, e.images, e.score_and_grad, **options)


# ---- M2IB


def divergence(alpha, h):
    """KL in bits of a token whose channels have this alpha, written with the densities' variances."""
    kept = 1 / (1 + math.exp(-alpha))
    variance = (1 - kept) ** 2
    return (variance + (kept * h) ** 2 - 1 - math.log(variance)) / 2 / math.log(2)


def by_cosine(weights):
    """The signal of a cosine that is linear in the tokens (n, t, c)."""
    return lambda depth: sloping(lambda tokens: (weights * tokens).sum((1, 2)))


def test_m2ib_by_hand():
    # The cosine rises steeply with the second token, far from all noise, and does not see the first: one step of Adam,
    # whose length is the rate, takes the first from 5 to 4 and the second to 6.
    tokens = torch.tensor([[[1.0], [100.0]]], dtype=torch.float64)
    asked = []
    map = m2ib(
        lambda depth: asked.append(depth) or tokens,
        by_cosine(torch.tensor([[0.0], [100.0]])),
        lambda numbers: numbers[:, None],
        steps=1,
    )
    wanted = torch.tensor([[[divergence(4, 1), divergence(6, 100)]]], dtype=torch.float64)
    torch.testing.assert_close(map, wanted, rtol=1e-6, atol=0)
    assert asked == [2]


def test_m2ib_adds_the_bits_of_a_tokens_channels():
    tokens = torch.tensor([[[1.0, 3.0], [100.0, 50.0]]], dtype=torch.float64)
    map = m2ib(
        lambda depth: tokens,
        by_cosine(torch.tensor([[0.0, 0.0], [100.0, 100.0]])),
        lambda numbers: numbers[:, None],
        steps=1,
    )
    wanted = [divergence(4, 1) + divergence(4, 3), divergence(6, 100) + divergence(6, 50)]
    torch.testing.assert_close(map[0, 0], torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=0)


def test_m2ib_keeps_what_the_prompt_needs_and_nothing_without_a_price():
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, 6, 4, generator=draw, dtype=torch.float64)
    weights = torch.zeros(6, 4, dtype=torch.float64)
    weights[3] = 2 * tokens[0, 3].sign()
    parts = lambda depth: tokens, by_cosine(weights), lambda numbers: numbers[:, None]
    bits = m2ib(*parts)[0, 0]
    assert bits.argmax() == 3
    assert bits.sort().values[-2] < 0.1 * bits[3]
    # If bits are free nothing need be drowned; what is not needed stays at alpha = 5.
    free = m2ib(*parts, beta=0.0)[0, 0]
    assert free[0].item() == pytest.approx(sum(divergence(5, h) for h in tokens[0, 0].tolist()), rel=1e-6)


def test_m2ib_of_a_cosine_without_gradient_is_zero():
    tokens = torch.ones(2, 3, 2, dtype=torch.float64)
    weights = torch.zeros(2, 3, 2, dtype=torch.float64)
    weights[1] = 1
    map = m2ib(lambda depth: tokens, by_cosine(weights), lambda numbers: numbers[:, None])
    assert not map[0].any()
    assert (map[1] > 0).all()


@pytest.mark.parametrize("options", [{"steps": 0}, {"lr": 0.0}, {"samples": 0}, {"beta": -0.1}])
def test_m2ib_options_out_of_range_are_refused(options):
    tokens = torch.ones(1, 3, 2)
    with pytest.raises(RequestError, match="out of range"):
        m2ib(lambda depth: tokens, by_cosine(torch.ones(3, 2)), lambda numbers: numbers[:, None], **options)
