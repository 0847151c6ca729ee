"""The closed forms and the maps without a gradient: numbers worked out by hand, laws, and what is refused.

They are called as functions here, on tensors; that a network's tensors arrive as they should is test_methods.py's.
"""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from networks import Pooled, Small, pictures, seeded
from planted import objects
from torch import nn

from camcli import RequestError
from camcli.engine.hooks.capture import capture_activations
from camcli.methods import METHODS
from camcli.methods.activation import eigencam, fem, kpca_cam, lafam, principal_component, random
from camcli.methods.concept import dff
from camcli.methods.gradient import (
    cam,
    eigen_gradcam,
    finer_cam,
    gradcam,
    gradcam_elementwise,
    gradcam_plus_plus,
    hirescam,
    layercam,
    layercam_fusion,
    seg_eigen_cam,
    shapleycam,
    smooth_gradcam_plus_plus,
    xgradcam,
)

# Two channels on a grid of 2 x 2.
ACT = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]]], dtype=torch.float64)
GRAD = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[-1.0, -1.0], [-1.0, 1.0]]]], dtype=torch.float64)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equal(map, wanted):
    torch.testing.assert_close(map, torch.tensor(wanted, dtype=map.dtype), rtol=1e-12, atol=1e-12)


# ---- by hand


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


def test_eigencam_by_hand():
    # Cells (3, 0), (0, 1), (3, 0), (0, 0): A^T A = diag(18, 1), so V_1 is the first channel: the map is it.
    act = torch.tensor([[[[3.0, 0.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]]).double()
    equal(eigencam(act), [[[3.0, 0.0], [3.0, 0.0]]])
    # Whatever the channel's own sign: what is active is positive.
    equal(eigencam(-act), [[[3.0, 0.0], [3.0, 0.0]]])
    # One more cell than channels or fewer, both sides of the decomposition: rows (2, 2), (1, 1) have V_1 along (1, 1).
    act = torch.tensor([[[[2.0, 1.0]], [[2.0, 1.0]], [[0.0, 0.0]]]]).double()
    equal(eigencam(act), [[[2 * math.sqrt(2), math.sqrt(2)]]])


def test_centred_eigencam_by_hand():
    # One channel (1, 2, 3, 4) less its mean 2.5; positive where it is strong.
    equal(eigencam(ACT[:, :1], center=True), [[[-1.5, -0.5], [0.5, 1.5]]])
    equal(eigencam(-ACT[:, :1], center=True), [[[-1.5, -0.5], [0.5, 1.5]]])


def test_eigen_gradcam_by_hand():
    # g A: rows (1, 0), (0, -1), (0, -1), (4, 0): the Gram matrix is diag(17, 2), so the first channel.
    equal(eigen_gradcam(ACT, GRAD), [[[1.0, 0.0], [0.0, 4.0]]])
    assert torch.equal(eigen_gradcam(ACT, GRAD), eigen_gradcam(ACT, -GRAD))


def test_seg_eigen_cam_by_hand():
    # |g| A of channel 0: (1, 0, 0, 4); channel 1: (0, 1, 1, 0). The first alone, less its mean 1.25.
    equal(seg_eigen_cam(ACT[:, :1], GRAD[:, :1]), [[[-0.25, -1.25], [-1.25, 2.75]]])
    # |min| > |max| turns it over: (-1, 0, 0, -4) less its mean is the opposite.
    equal(seg_eigen_cam(-ACT[:, :1], GRAD[:, :1]), [[[-0.25, -1.25], [-1.25, 2.75]]])
    equal(seg_eigen_cam(-ACT[:, :1], GRAD[:, :1], center=False), [[[1.0, 0.0], [0.0, 4.0]]])


def test_kpca_cam_by_hand():
    # The cells 0 and 2 of one channel, less their mean: -1 and 1. gamma is 1 over one channel, so K is tanh(2) on the
    # diagonal (1 * 1 + 1) and tanh(0) = 0 beside it. Centred: tanh(2)/2 [[1, -1], [-1, 1]], whose first eigenvalue is
    # tanh(2), of (-1, 1)/sqrt 2. The map: -sqrt(tanh(2)/2) and sqrt(tanh(2)/2).
    act = torch.tensor([[[[0.0, 2.0]]]]).double()
    size = math.sqrt(math.tanh(2) / 2)
    equal(kpca_cam(act), [[[-size, size]]])
    # rbf: 1 on the diagonal, exp(-4) beside it; centred (1 - exp(-4))/2 [[1, -1], [-1, 1]].
    size = math.sqrt((1 - math.exp(-4)) / 2)
    equal(kpca_cam(act, kernel="rbf"), [[[-size, size]]])
    # poly: 8 on the diagonal, 0 beside it.
    equal(kpca_cam(act, kernel="poly"), [[[-2.0, 2.0]]])
    # cosine: 1 and -1: the first eigenvalue is 2.
    equal(kpca_cam(act, kernel="cosine"), [[[-1.0, 1.0]]])
    # sigmoid with gamma = 1/2: tanh(1.5) and tanh(0.5).
    size = math.sqrt((math.tanh(1.5) - math.tanh(0.5)) / 2)
    equal(kpca_cam(act, gamma=0.5), [[[-size, size]]])


def test_kpca_cam_with_the_linear_kernel_is_centred_eigencam():
    act = drawn(3, 5, 4, 6)
    torch.testing.assert_close(kpca_cam(act, kernel="linear"), eigencam(act, center=True))


def test_kpca_cam_refuses_a_kernel_that_would_not_fit():
    with pytest.raises(RequestError, match="6400 cells"):
        kpca_cam(torch.zeros(1, 2, 80, 80))


def test_fem_by_hand():
    # Ten cells, one of them 10, the others 0: mean 1, std 3, so the threshold is 1 + 2 * 3 = 7: only that cell. Its
    # channel's weight is 1. A second channel, of nine 2 and one -18, is never above its mean 0 by twice its std 6.
    # A third, constant, stands out nowhere.
    act = torch.zeros(1, 3, 2, 5).double()
    act[0, 0, 0, 3] = 10
    act[0, 1] = 2
    act[0, 1, 0, 0] = -18
    act[0, 2] = 5
    wanted = torch.zeros(1, 2, 5).double()
    wanted[0, 0, 3] = 1
    assert torch.equal(fem(act), wanted)
    # With k = 0 a cell must reach the mean: in the second channel all but one, but its weight is 0.
    assert torch.equal(fem(act, k=0.0), wanted)


def test_lafam_by_hand():
    equal(lafam(ACT), [[[0.5, 1.5], [2.0, 2.0]]])


def test_random_is_noise_that_knows_nothing():
    act = drawn(3, 5, 4, 6)
    map = random(act)
    assert map.shape == (3, 4, 6)
    assert map.dtype == act.dtype
    assert map.min() >= 0
    assert map.max() < 1
    assert torch.equal(map[0], map[2])
    assert torch.equal(map, random(torch.zeros(3, 7, 4, 6).double()))
    assert not torch.equal(map, random(act, seed=1))
    assert map.std() > 0.2


# ---- CAM


def with_rest(model, features, images, index):
    """What the layer says, its gradient, the score, and the score when the layer says something else."""

    def head(act):
        return model(act)[torch.arange(len(act)), index]

    act = features(images).detach().requires_grad_()
    score = head(act)
    (grad,) = torch.autograd.grad(score.sum(), act)
    return act.detach(), grad, score.detach(), lambda variants: (head(one).detach() for one in variants)


class Head(nn.Module):
    """A part of a network from features (n, 4, h, w) to 3 scores."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.fc = nn.Linear(4, 3)
        self.wide = nn.Linear(4 * 8 * 8, 3)
        self.deep = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3))
        self.odd = nn.Sequential(nn.Linear(4, 9, bias=False), nn.Tanh(), nn.Linear(9, 3, bias=False))
        self.homogeneous = nn.Sequential(nn.Linear(4, 9, bias=False), nn.ReLU(), nn.Linear(9, 3, bias=False))
        seeded(self)

    def forward(self, x):
        if self.kind == "flat":
            return self.wide(x.flatten(1))
        if self.kind == "max":
            return self.fc(x.amax((2, 3)))
        if self.kind == "relu":
            return self.fc(x.relu().mean((2, 3)))
        mean = x.mean((2, 3))
        return {"linear": self.fc, "deep": self.deep, "odd": self.odd, "homogeneous": self.homogeneous}[self.kind](mean)


def test_cam_by_hand():
    # y = 3 mean(A_0) - 2 mean(A_1) + 7: g is 3/4 and -1/2 in each cell.
    grad = torch.tensor([0.75, -0.5]).double()[None, :, None, None].expand_as(ACT)

    def rest(variants):
        return (3 * one[:, 0].mean((1, 2)) - 2 * one[:, 1].mean((1, 2)) + 7 for one in variants)

    map = cam(ACT, grad, next(rest([ACT])), rest)
    equal(map, [[[3.0, 4.0], [7.0, 12.0]]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cam_is_the_weighted_sum_of_features(dtype):
    model, images, index = Pooled().to(dtype), pictures(2, 16, dtype=dtype), torch.tensor([2, 0])
    act, grad, score, rest = with_rest(
        lambda act: model.fc(act.mean((2, 3))), lambda x: model.last(model.features(x)), images, index
    )
    wanted = torch.einsum("nk,nkij->nij", model.fc.weight[index].detach(), act)
    map = cam(act, grad, score, rest)
    torch.testing.assert_close(map, wanted)
    # The same as Grad-CAM and HiResCAM but for the number of cells.
    torch.testing.assert_close(map, 64 * gradcam(act, grad))
    torch.testing.assert_close(map, 64 * hirescam(act, grad))
    # Its mean is the score less the head's bias.
    torch.testing.assert_close(map.mean((1, 2)), score - model.fc.bias[index].detach())


@pytest.mark.parametrize("kind", ["flat", "max", "relu", "deep", "odd", "homogeneous"])
def test_cam_is_refused_where_it_is_not_defined(kind):
    index = torch.tensor([2, 0])
    features = nn.Conv2d(3, 4, 3, padding=1)
    seeded(features)
    signals = with_rest(Head(kind), features, pictures(2), index)
    with pytest.raises(RequestError, match="CAM is not defined here"):
        cam(*signals)
    cam(*with_rest(Head("linear"), features, pictures(2), index))


def test_cam_is_refused_for_one_picture_of_a_batch():
    # A clamp that only one image reaches.
    index = torch.tensor([2, 0])
    act = torch.full((2, 4, 8, 8), 0.1).double()
    act[1] = 50
    head = Head("linear")
    with pytest.raises(RequestError, match="not what a linear layer"):
        cam(*with_rest(lambda one: head(one).clamp(-3, 3), lambda images: act, act, index))


# ---- laws


def noisy(grad):
    return lambda variants: ((None, grad) for _ in variants)


def in_classes(grad):
    """grad_of of a network where class j's gradient is g rolled by j columns; it is linear in the weights."""
    return lambda weights: sum(
        weights[:, column, None, None, None] * grad.roll(column, -1) for column in range(weights.shape[1])
    )


# Each as a function of A and g alone; what more it wants is made of them.
FORMS = {
    "gradcam": gradcam,
    "hirescam": hirescam,
    "gradcam++": gradcam_plus_plus,
    "gradcam++ normalized": lambda act, grad: gradcam_plus_plus(act, grad, normalize=True),
    "smooth-gradcam++": lambda act, grad: smooth_gradcam_plus_plus(act, pictures(len(act)), noisy(grad)),
    "xgradcam": xgradcam,
    "layercam": layercam,
    "gradcam-elementwise": gradcam_elementwise,
    "eigen-gradcam": eigen_gradcam,
    "eigen-gradcam centred": lambda act, grad: eigen_gradcam(act, grad, center=True),
    "seg-eigen-cam": seg_eigen_cam,
    "shapleycam": lambda act, grad: shapleycam(act, grad, grad * act),
    "eigencam": lambda act, grad: eigencam(act),
    "eigencam centred": lambda act, grad: eigencam(act, center=True),
    "kpca-cam": lambda act, grad: kpca_cam(act),
    "kpca-cam rbf": lambda act, grad: kpca_cam(act, kernel="rbf"),
    "fem": lambda act, grad: fem(act, k=1.0),
    "lafam": lambda act, grad: lafam(act),
    "dff": lambda act, grad: dff(act, None, None, concepts=3).maps,
    "random": lambda act, grad: random(act),
}
WITHOUT_GRADIENT = {"eigencam", "eigencam centred", "kpca-cam", "kpca-cam rbf", "fem", "lafam", "dff", "random"}
# alpha depends on the size of g.
NOT_PROPORTIONAL = {"gradcam++", "smooth-gradcam++"}
# Some features of a ReLU (positive, some channels dead), some with both signs.
FEATURES = {"relu": lambda act: (act - 0.2).clamp(min=0) * torch.tensor([1, 1, 0, 1, 1, 1, 1.0])[:, None, None]}
FEATURES["signed"] = lambda act: act + 0.4

forms = pytest.mark.parametrize("form", FORMS)
kinds = pytest.mark.parametrize("kind", FEATURES)


@pytest.fixture
def tensors(kind):
    act, grad = drawn(2, 4, 7, 3, 5, seed=11)
    return FEATURES[kind](act), grad


def close(map, wanted):
    scale = wanted.abs().max()
    assert scale > 0
    assert map.shape == wanted.shape
    assert (map - wanted).abs().max() <= 1e-7 * scale


@forms
@kinds
def test_a_batch_is_its_pictures(form, tensors):
    act, grad = tensors
    whole = FORMS[form](act, grad)
    assert whole.shape == (4, 3, 3, 5) if form == "dff" else (4, 3, 5)
    for row in range(4):
        close(FORMS[form](act[row : row + 1], grad[row : row + 1])[0], whole[row])


@forms
@kinds
def test_the_order_of_channels_is_irrelevant(form, tensors):
    act, grad = tensors
    order = [3, 0, 6, 1, 5, 2, 4]
    close(FORMS[form](act[:, order], grad[:, order]), FORMS[form](act, grad))


@forms
@kinds
@pytest.mark.parametrize("axis", [-1, -2])
def test_a_mirrored_layer_has_a_mirrored_map(form, axis, tensors):
    if form == "random":
        pytest.skip("noise does not look at the layer")
    act, grad = tensors
    close(FORMS[form](act.flip(axis), grad.flip(axis)), FORMS[form](act, grad).flip(axis))


@pytest.mark.parametrize("form", sorted(FORMS.keys() - WITHOUT_GRADIENT))
@kinds
def test_no_gradient_no_map(form, tensors):
    act, grad = tensors
    assert torch.equal(FORMS[form](act, 0 * grad), torch.zeros(4, 3, 5).double())


@pytest.mark.parametrize("form", sorted(FORMS.keys() - WITHOUT_GRADIENT - NOT_PROPORTIONAL))
@kinds
def test_the_map_is_as_great_as_the_gradient(form, tensors):
    act, grad = tensors
    factor = 1e-9
    if form == "gradcam++ normalized":
        # alpha is 1/2 for small gradients, and 1 over the positive cells when normalised: only then.
        grad = 1e-9 * grad
    if form == "shapleycam":
        close(shapleycam(act, factor * grad, factor * grad * act), factor * FORMS[form](act, grad))
    else:
        close(FORMS[form](act, factor * grad), factor * FORMS[form](act, grad))


@pytest.mark.parametrize("form", ["eigencam", "eigencam centred", "lafam", "fem", "dff"])
@kinds
def test_the_map_is_as_great_as_the_activations(form, tensors):
    act, grad = tensors
    close(FORMS[form](1e-9 * act, grad), 1e-9 * FORMS[form](act, grad))


@pytest.mark.parametrize("kind", ["relu"])
@pytest.mark.parametrize("form", ["layercam", "gradcam++", "smooth-gradcam++", "gradcam-elementwise", "eigencam"])
def test_not_negative_behind_a_relu(form, tensors):
    act, grad = tensors
    assert (FORMS[form](act, grad) >= -1e-12).all()


@pytest.mark.parametrize("kind", ["relu"])
def test_xgradcam_keeps_the_sum(tensors):
    # Fu 2020, sensitivity and conservation: over all cells the map sums to sum g A.
    act, grad = tensors
    torch.testing.assert_close(xgradcam(act, grad).sum((1, 2)), (act * grad).sum((1, 2, 3)))


@forms
def test_what_they_are_given_is_left_alone(form):
    act, grad = drawn(2, 2, 7, 3, 5)
    before = act.clone(), grad.clone()
    FORMS[form](act, grad)
    assert torch.equal(act, before[0])
    assert torch.equal(grad, before[1])


@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"random"}))
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_picture_that_cannot_be_computed_harms_no_other(form, bad):
    act, grad = drawn(2, 3, 7, 3, 5)
    act = act.abs()
    spoiled, spoiled_grad = act.clone(), grad.clone()
    spoiled[1, 2, 0, 0] = bad
    spoiled_grad[1, 2, 0, 0] = bad
    map, wanted = FORMS[form](spoiled, spoiled_grad), FORMS[form](act, grad)
    close(map[[0, 2]], wanted[[0, 2]])
    if form not in ("fem",):
        assert not map[1].isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_of_nothing_has_a_map_of_nothing(form):
    map = FORMS[form](torch.zeros(2, 7, 3, 5).double(), drawn(2, 7, 3, 5))
    assert map.any() == (form == "random")
    assert map.isfinite().all()


def test_shapley_of_a_network_is_the_difference_of_scores_to_second_order():
    # Small's score is quadratic in what conv2 says where its ReLU is open, and 0 elsewhere: cell by cell the map sums
    # to the score less the head's bias.
    model, images = Small(), pictures(2, 16)
    with capture_activations({"conv2": model.conv2}) as activations:
        score = model(images)[:, 1]
        (grad,) = torch.autograd.grad(score.sum(), activations["conv2"], create_graph=True)
        act = activations["conv2"]
        (curve,) = torch.autograd.grad(grad, act, act.detach())
    map = shapleycam(act.detach(), grad.detach(), curve, cellwise=True)
    torch.testing.assert_close(map.sum((1, 2)), (score - model.fc.bias[1]).detach())


# ---- the sign of components


def slopes(act):
    """A gradient behind pooling: the same in all cells, of both signs, and no channel's much greater than another's."""
    return (drawn(1, 16, 1, 1, seed=5).sign() * (0.5 + drawn(1, 16, 1, 1, seed=6).sigmoid())).expand_as(act)


COMPONENTS = {
    "eigencam": eigencam,
    "eigencam centred": lambda act: eigencam(act, center=True),
    "kpca-cam": kpca_cam,
    "kpca-cam rbf": lambda act: kpca_cam(act, kernel="rbf"),
    "eigen-gradcam": lambda act: eigen_gradcam(act, slopes(act)),
    "eigen-gradcam centred": lambda act: eigen_gradcam(act, slopes(act), center=True),
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [(6, 7), (10, 11)], ids=["small", "up to most of the image"])
@pytest.mark.parametrize("form", COMPONENTS)
def test_an_object_is_positive(form, size, signed):
    act, place = objects(200, size, signed, seed=7)
    map = COMPONENTS[form](act)
    inside = (map * place).sum((1, 2)) / place.sum((1, 2))
    outside = (map * ~place).sum((1, 2)) / (~place).sum((1, 2))
    assert (inside > 0).all()
    assert (inside > outside).all()


def test_equally_strong_cells_leave_the_sign_to_what_stands_out():
    # Tokens behind a LayerNorm: every cell has the length 1, so strength says nothing; three cells differ from the
    # rest.
    act = torch.zeros(2, 3, 4, 4).double()
    act[:, 0] = 1
    act[:, :, 0, :3] = torch.tensor([0.0, 0.6, 0.8]).double()[:, None]
    act[1] *= -1
    for map in principal_component(act, center=True):
        assert (map[0, :3] > 0.5).all()
        assert (map[1:] < 0).all()


# ---- the rows


@pytest.mark.parametrize(
    "row", [row for row in METHODS.rows if row.kind in ("gradient", "activation")], ids=lambda row: row.name
)
def test_rows_are_complete(row):
    function = METHODS.load(row.name)
    assert row.cost
    assert row.paper
    doc = function.__doc__
    assert "\n    Use: " in doc
    assert "\n    Not for: " in doc
    parameters = inspect.signature(function).parameters.values()
    options = [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    assert ("    Args:\n" in doc) == bool(options)
    for option in options:
        assert f"        {option.name}: " in doc
        assert option.default is not option.empty
