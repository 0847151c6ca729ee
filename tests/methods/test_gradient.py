"""Gradient methods in closed form: numbers worked out by hand, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from closed_forms import ACT, GRAD, drawn, equal
from networks import pictures

from camcli import RequestError
from camcli.methods.gradient import (
    finer_cam,
    gradcam,
    gradcam_elementwise,
    gradcam_plus_plus,
    hirescam,
    layercam,
    layercam_fusion,
    shapleycam,
    smooth_gradcam_plus_plus,
    xgradcam,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradcam_refuses_a_gradient_without_mean(dtype):
    """In front of an instance norm nothing that is added to all cells changes the score."""
    torch.manual_seed(0)
    act = torch.randn(2, 3, 5, 5, dtype=dtype, requires_grad=True)
    behind = torch.randn(2, 3, 5, 5, dtype=dtype)
    [grad] = torch.autograd.grad((F.instance_norm(act) * behind).sum(), act)
    with pytest.raises(RequestError, match="the gradient has no mean here"):
        gradcam(act, grad)
    assert gradcam(act, grad + 1e-3 * grad.abs().mean()).shape == (2, 5, 5)
    assert not gradcam(act, torch.zeros_like(grad)).any()


def test_gradcam_plus_plus_by_hand():
    # Channel sums 10 and 2. alpha = 1 / (2 + g sum): channel 0 where g = 1: 1/12 twice; channel 1 where g = 1: 1/4.
    # w = (2 * 1/12, 1/4) = (1/6, 1/4). Map: [[1/6, 1/3 + 1/4], [1/2 + 1/4, 2/3]].
    equal(gradcam_plus_plus(ACT, GRAD), [[[1 / 6, 7 / 12], [3 / 4, 2 / 3]]])
    # By equation 19 as it stands, with g = 3 in one cell of a channel that sums to 5: 9 / (18 + 27 * 5) = 9/153.
    act, grad = torch.tensor([[[[5.0, 0.0]]]]).double(), torch.tensor([[[[3.0, 0.0]]]]).double()
    # Times g = 3, times A = 5.
    equal(gradcam_plus_plus(act, grad), [[[5 * 3 * 9 / 153, 0.0]]])


def test_gradcam_plus_plus_normalized_by_hand():
    # alpha becomes (1/2, 1/2) in channel 0 and 1 in channel 1, so w = (1, 1): the map is the sum of the channels.
    equal(gradcam_plus_plus(ACT, GRAD, normalize=True), [[[1.0, 3.0], [4.0, 4.0]]])


def test_gradcam_plus_plus_does_not_drown_small_gradients():
    # With g this small, alpha is 1/2: the map is half of Grad-CAM's sum over cells, of the positive gradients.
    tiny = 1e-20
    equal(gradcam_plus_plus(ACT, tiny * GRAD) / tiny, [[[1.0, 2.5], [3.5, 4.0]]])
    assert gradcam_plus_plus(ACT.float(), 1e-25 * GRAD.float()).max() > 0


def test_gradcam_plus_plus_has_no_map_on_its_pole():
    # The channel sums to -2 and g is 1: 2 + g sum = 0.
    assert gradcam_plus_plus(torch.full((1, 1, 1, 2), -1.0), torch.ones(1, 1, 1, 2)).isnan().all()


def test_smooth_gradcam_plus_plus_by_hand():
    # One channel of two cells, A = (1, 3), sum 4. The copies' gradients: (1, 1) and (3, -1).
    # Means of g: (2, 0), of g^2: (5, 1), of g^3: (14, 0).
    # alpha of cell 0: 5 / (10 + 14 * 4) = 5/66; cell 1 has no positive mean gradient. w = 5/66 * 2 = 5/33.
    act = torch.tensor([[[[1.0, 3.0]]]]).double()
    grads = [torch.tensor([[[[1.0, 1.0]]]]).double(), torch.tensor([[[[3.0, -1.0]]]]).double()]
    images = pictures(1, 2)
    seen = []

    def responses(variants):
        for variant, grad in zip(variants, grads, strict=True):
            seen.append(variant)
            yield act + 100, grad  # the copies' activations are not used

    map = smooth_gradcam_plus_plus(act, images, responses, samples=2, sigma=0.5)
    equal(map, [[[5 / 33, 15 / 33]]])
    noise = torch.Generator().manual_seed(0)
    for variant in seen:
        torch.testing.assert_close(variant, images + 0.5 * torch.randn(1, 3, 2, 2, generator=noise).double())


def test_smooth_gradcam_plus_plus_without_noise_is_gradcam_plus_plus():
    act, grad = drawn(2, 2, 5, 3, 4)
    one = smooth_gradcam_plus_plus(
        act.abs(), pictures(2), lambda variants: ((act, grad) for _ in variants), samples=3, sigma=0.0
    )
    torch.testing.assert_close(one, gradcam_plus_plus(act.abs(), grad))


def test_smooth_gradcam_plus_plus_gives_every_picture_the_same_noise():
    images = pictures(3)
    seen = []

    def responses(variants):
        for variant in variants:
            seen.append(variant - images)
            yield drawn(3, 2, 2, 2), drawn(3, 2, 2, 2)

    smooth_gradcam_plus_plus(drawn(3, 2, 2, 2), images, responses)
    assert len(seen) == 5
    for noise in seen:
        torch.testing.assert_close(noise[0], noise[1])
        torch.testing.assert_close(noise[0], noise[2])
    assert (seen[0] - seen[1]).abs().max() > 0.1


def test_xgradcam_by_hand():
    # w_0 = (1*1 + 4*1) / 10 = 1/2, w_1 = (-1 - 1) / 2 = -1.
    equal(xgradcam(ACT, GRAD), [[[0.5, 0.0], [0.5, 2.0]]])


def test_xgradcam_of_channels_that_sum_to_nothing():
    dead = torch.cat([ACT, torch.zeros(1, 1, 2, 2).double()], 1)
    assert torch.equal(xgradcam(dead, torch.cat([GRAD, GRAD[:, :1]], 1)), xgradcam(ACT, GRAD))
    balanced = torch.tensor([[[[1.0, -1.0]]]])
    assert xgradcam(balanced, torch.ones(1, 1, 1, 2)).isnan().all()


def test_layercam_by_hand():
    # relu(g): [[1, 0], [0, 1]] and [[0, 0], [0, 1]].
    equal(layercam(ACT, GRAD), [[[1.0, 0.0], [0.0, 4.0]]])


def test_layercam_fusion_by_hand():
    shallow = torch.tensor([[[0.0, 1.0], [2.0, -5.0]]]).double()
    deep = torch.tensor([[[10.0]]]).double()
    # The shallow map over its maximum: 0, 1/2, 1, and 0 for the negative; tanh(2 x) of that. The deep one is 1.
    equal(layercam_fusion([shallow, deep / 10]), [[[1.0, 1.0], [1.0, 1.0]]])
    # The deepest is not raised: a half stays a half.
    halves = torch.tensor([[[4.0, 2.0], [0.0, 0.0]]]).double()
    one, two = math.tanh(1), math.tanh(2)
    equal(layercam_fusion([shallow, halves]), [[[1.0, one], [two, 0.0]]])
    equal(layercam_fusion([halves, shallow]), [[[two, one], [1.0, 0.0]]])
    equal(layercam_fusion([halves]), [[[1.0, 0.5], [0.0, 0.0]]])
    equal(layercam_fusion([shallow, halves], gamma=1.0), [[[1.0, 0.5], [one, 0.0]]])


def test_layercam_fusion_upsamples_to_the_finest_and_keeps_pictures_apart():
    maps = [drawn(3, 4, 6), drawn(3, 2, 3, seed=1)]
    fused = layercam_fusion(maps)
    assert fused.shape == (3, 4, 6)
    for row in range(3):
        torch.testing.assert_close(layercam_fusion([map[row : row + 1] for map in maps])[0], fused[row])
    # The first is shallow whatever its size.
    assert layercam_fusion(maps[::-1]).shape == (3, 4, 6)
    assert not layercam_fusion([torch.zeros(1, 2, 2)]).any()


def test_gradcam_elementwise_by_hand():
    # g A: [[1, 0], [0, 4]] and [[0, -1], [-1, 0]]; where they meet they are rectified first.
    equal(gradcam_elementwise(ACT, GRAD), [[[1.0, 0.0], [0.0, 4.0]]])
    equal(gradcam_elementwise(ACT, -GRAD), [[[0.0, 1.0], [1.0, 0.0]]])


def test_shapleycam_by_hand():
    # y = sum A_0^2 / 2: g = A_0, H A = A_0, so g - H A / 2 = A_0 / 2, whose mean is 10 / 8.
    act = ACT[:, :1]
    equal(shapleycam(act, act, act), [[[1.25, 2.5], [3.75, 5.0]]])
    # Cell by cell it is A_0^2 / 2, which sums to the score: for a quadratic score Taylor is exact.
    equal(shapleycam(act, act, act, cellwise=True), [[[0.5, 2.0], [4.5, 8.0]]])


def test_shapleycam_without_curvature_is_gradcam():
    assert torch.equal(shapleycam(ACT, GRAD, torch.zeros_like(ACT)), gradcam(ACT, GRAD))
    assert torch.equal(shapleycam(ACT, GRAD, torch.zeros_like(ACT), cellwise=True), hirescam(ACT, GRAD))


@pytest.fixture
def asked():
    """grad_of of a score whose gradient by channel k, in every cell, is the weight of class k; what it was asked."""
    weights = []

    def grad_of(combination):
        weights.append(combination)
        return combination[:, :, None, None].expand(-1, -1, 1, 2)

    return grad_of, weights


def test_finer_cam_by_hand(asked):
    grad_of, weights = asked
    act = drawn(1, 5, 1, 2)
    logits = torch.tensor([[2.0, 5.0, 3.0, 2.5, -9.0]]).double()
    index = torch.tensor([3])
    # Nearest to 2.5: classes 0 and 2 (0.5 away; the first of equals first), then 1, then 4.
    finer_cam(act, logits, index, grad_of, references=2, weights="mean", alpha=0.6)
    equal(weights[-1], [[-0.3, 0.0, -0.3, 1.0, 0.0]])
    # The softmax of 2 and 3 is 1 / (1 + e) and e / (1 + e).
    low, high = 1 / (1 + math.e), math.e / (1 + math.e)
    finer_cam(act, logits, index, grad_of, references=2)
    equal(weights[-1], [[-low, 0.0, -high, 1.0, 0.0]])
    # Through the weights: their leads are 0.5 and -0.5, the mean lead (low - high) / 2; each weight's own derivative
    # adds share * (lead - mean lead).
    mean = (low - high) / 2
    finer_cam(act, logits, index, grad_of, references=2, weights="softmax-gradient")
    equal(weights[-1], [[-low + low * (0.5 - mean), 0.0, -high + high * (-0.5 - mean), 1.0, 0.0]])
    # All the others, if there are no more.
    map = finer_cam(act, logits, index, grad_of, references=9, weights="mean")
    equal(weights[-1], [[-0.25, -0.25, -0.25, 1.0, -0.25]])
    torch.testing.assert_close(map, gradcam(act, grad_of(weights[-1])))


def test_finer_cam_of_the_authors_target(asked):
    # What autograd says of sum p_d (y_c - alpha y_d) / sum p_d, p the softmax over all classes.
    grad_of, weights = asked
    logits = drawn(1, 6).requires_grad_()
    distance = (logits[0] - logits[0, 2]).abs().detach()
    similar = [row for row in distance.argsort().tolist() if row != 2][:3]
    probability = logits[0].softmax(0)[similar]
    target = (probability * (logits[0, 2] - 0.7 * logits[0, similar])).sum() / probability.sum()
    (wanted,) = torch.autograd.grad(target, logits)
    finer_cam(drawn(1, 6, 1, 2), logits.detach(), torch.tensor([2]), grad_of, alpha=0.7, weights="softmax-gradient")
    torch.testing.assert_close(weights[-1], wanted)


def test_finer_cam_that_subtracts_nothing_is_gradcam(asked):
    grad_of, _ = asked
    act, logits, index = drawn(2, 5, 1, 2), drawn(2, 5), torch.tensor([4, 0])
    map = finer_cam(act, logits, index, grad_of, alpha=0.0)
    assert torch.equal(map, gradcam(act, grad_of(F.one_hot(index, 5).double())))
    # Rows do not mix: each has rivals of its own.
    both = finer_cam(act, logits, index, grad_of)
    torch.testing.assert_close(both[1:], finer_cam(act[1:], logits[1:], index[1:], grad_of))


def test_finer_cam_refuses():
    with pytest.raises(RequestError, match="one class"):
        finer_cam(ACT, torch.ones(1, 1), torch.tensor([0]), lambda weights: GRAD)
    with pytest.raises(RequestError, match="0 references"):
        finer_cam(ACT, torch.ones(1, 3), torch.tensor([0]), lambda weights: GRAD, references=0)
