"""CAM: by hand, equal to the weighted sum of features, and refused where it is not defined."""

import pytest
import torch
from closed_forms import ACT, equal
from networks import Pooled, pictures, seeded
from torch import nn

from camcli import RequestError
from camcli.methods.gradient import (
    cam,
    gradcam,
    hirescam,
)


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
