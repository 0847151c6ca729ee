"""Every method: its numbers by hand, and the laws that hold for the whole table.

The laws go through the explainer and are parametrised by the table's rows, so a new row is tested when it arrives. A
row that a law is not true of says so, with the reason, in the sets below.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from networks import ByHand, Pooled, Small, explainer, pictures, seeded, small
from torch import nn

from camcli import Explainer, PictureError
from camcli.base.signature import positional_names
from camcli.methods import METHODS
from camcli.methods.backprop import guided_backprop
from camcli.methods.gradient import gradcam, hirescam, odam

NO_CLASS = "it does not depend on the class"
SOFTMAX = "its weights are a softmax over channels"
# row: why twice the gradient is not twice the map.
NOT_PROPORTIONAL: dict[str, str] = {
    **dict.fromkeys([row.name for row in METHODS.rows if row.kind in ("activation", "concept")], NO_CLASS),
    **dict.fromkeys(["rollout", "attention"], NO_CLASS),
    **dict.fromkeys(["scorecam", "gscorecam", "ss-cam", "is-cam"], SOFTMAX),
    "ablation-cam": "its weights are shares of the score",
    "sobol": "it is a share of a variance",
    "hsic": "it is measured in the scores' own spread",
    **dict.fromkeys(["recipro-cam", "opti-cam"], "its map is drawn from 0 to 1"),
    "finer-cam": "the rivals' weights are a softmax of their scores",
    **dict.fromkeys(["clip-surgery", "m2ib"], "a cosine is the same of twice a vector"),
    "fullgrad": "each of its terms is drawn from 0 to 1",
    "gae": "it multiplies one block's gradients by another's",
    "gradcam++": "its weights are not linear in the gradient",
    **dict.fromkeys(["rise", "maskclip"], "it sees the score, whose bias is not doubled"),
    "smooth-gradcam++": "its weights are not linear in the gradient",
}
# row: why a map need not be zero where the score has no gradient.
WITHOUT_GRADIENT: dict[str, str] = {
    **dict.fromkeys([row.name for row in METHODS.rows if row.kind in ("activation", "concept")], NO_CLASS),
    **dict.fromkeys(["scorecam", "gscorecam", "ss-cam", "is-cam"], SOFTMAX + ", alike where all gain nothing"),
    **dict.fromkeys(["recipro-cam", "sobol"], "of scores that are all alike it has no map"),
    "finer-cam": "the rivals have a gradient",
    "clip-surgery": "what the other prompts share is taken away",
    **dict.fromkeys(["rise", "maskclip"], "it sees the score, which is not zero"),
}
NOISE = "its noise is not mirrored"
# row: why a mirrored image has no mirrored map.
NOT_MIRRORED: dict[str, str] = {
    **dict.fromkeys(["random", "rise", "sobol", "hsic", "m2ib", "smoothgrad", "smooth-gradcam++", "ss-cam"], NOISE),
    "deconvnet": "of a pooling's window that is zero everywhere the first cell counts, and closed ReLUs let pass",
}


def wants(row):
    """The evidence that a row's function asks for."""
    return set(positional_names(METHODS.load(row.name)))


every_method = pytest.mark.parametrize("method", METHODS.names())
closed_forms = pytest.mark.parametrize(
    "method", [row.name for row in METHODS.rows if row.kind == "gradient" and wants(row) == {"act", "grad"}]
)


def explained(model, images, targets, method, layer="conv2"):
    """The maps of a batch as one float64 tensor; the layer is named where the method works at one."""
    explain = explainer(model, method, [layer])
    return torch.stack([torch.from_numpy(one.map).double() for (one,) in explain(images, targets)])


def close(map, wanted):
    """Equal up to float32's rounding, relative to the greatest value; and not all zero."""
    assert map.shape == wanted.shape
    scale = wanted.abs().max()
    assert scale > 0
    assert (map - wanted).abs().max() <= 1e-6 * scale


# ---- by hand

ACT = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]]])
GRAD = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[-1.0, -1.0], [-1.0, 1.0]]]])
# alpha = (0.5, -0.5)
GRADCAM = [[0.5, 0.5], [1.0, 2.0]]
HIRESCAM = [[1.0, -1.0], [-1.0, 4.0]]


def test_gradcam_by_hand():
    assert gradcam(ACT, GRAD).tolist() == [GRADCAM]
    assert gradcam(ACT, -GRAD).tolist() == [[[-0.5, -0.5], [-1.0, -2.0]]]


def test_hirescam_by_hand():
    assert hirescam(ACT, GRAD).tolist() == [HIRESCAM]


def test_odam_by_hand():
    assert odam(ACT, GRAD).tolist() == [[[1.0, 0.0], [0.0, 4.0]]]


@pytest.mark.parametrize(("method", "wanted"), [("gradcam", GRADCAM), ("hirescam", HIRESCAM)])
def test_by_hand_through_a_network(method, wanted):
    # ByHand hands red and green on as they are, and its head's weights are GRAD: the image is ACT and any blue.
    image = torch.cat([ACT, torch.full((1, 1, 2, 2), 7.0)], 1)
    [[one]] = Explainer(ByHand(), layers=["layer"], method=method)(image, 0)
    assert one.map.tolist() == wanted
    # 1*1 + 4*1 - 0 - 1 - 1 + 0
    assert one.score == 3
    [[other]] = Explainer(ByHand(), layers=["layer"], method=method)(image, 1)
    assert (-other.map).tolist() == wanted


def test_guided_backprop_by_hand():
    grad = torch.tensor([2.0, -3.0, 4.0, 0.0, -1.0])
    passes = torch.tensor([True, True, False, True, False])
    assert guided_backprop(grad, passes).tolist() == [2, 0, 0, 0, 0]


class TwoStages(nn.Module):
    """hidden = relu(2 red - green), score 0 = sum(weights * relu6(hidden - blue))."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([[1.0, -1.0], [2.0, 3.0]]))

    def forward(self, x):
        hidden = F.relu(2 * x[:, 0] - x[:, 1])
        score = (self.weights * F.relu6(hidden - x[:, 2])).sum((1, 2))
        return torch.stack([score, -score], 1)


def test_guided_backprop_by_hand_through_functional_relu_and_relu6():
    red = [[1.0, 1.0], [4.0, 0.0]]
    green = [[0.0, 0.0], [0.0, 1.0]]
    blue = [[1.0, 1.0], [1.0, -2.0]]
    # 2 red - green is [[2, 2], [8, -1]]; hidden [[2, 2], [8, 0]]; less blue [[1, 1], [7, 2]].
    # At relu6 the weights [[1, -1], [2, 3]] arrive: -1 is negative and 7 is above 6, so [[1, 0], [0, 3]] passes.
    # Blue takes its opposite. At relu, [[1, 0], [0, 3]] arrives, but 2 red - green is -1 in the last cell: [[1, 0],
    # [0, 0]]. Red takes twice that, green its opposite.
    image = torch.tensor([[red, green, blue]])
    [[one]] = Explainer(TwoStages(), method="guided-backprop")(image, 0)
    assert one.map.tolist() == [[[2, 0], [0, 0]], [[-1, 0], [0, 0]], [[-1, 0], [0, -3]]]
    # Of the opposite score [[-1, 1], [-2, -3]] arrives: only the second passes, through both.
    [[one]] = Explainer(TwoStages(), method="guided-backprop")(image, 1)
    assert one.map.tolist() == [[[0, 2], [0, 0]], [[0, -1], [0, 0]], [[0, -1], [0, 0]]]


# ---- laws over the table


@every_method
def test_samples_do_not_mix(method):
    model, images, targets = small(method), pictures(4, 16), [0, 3, 1, 0]
    together = explained(model, images, targets, method)
    for row in range(4):
        close(together[row], explained(model, images[row : row + 1], targets[row : row + 1], method)[0])
    order = [2, 0, 3, 1]
    close(explained(model, images[order], [targets[row] for row in order], method), together[order])


@every_method
def test_the_order_of_channels_is_irrelevant(method):
    if method == "m2ib":
        pytest.skip("its noise is not in another order")
    model = small(method)
    shuffled = copy.deepcopy(model)
    order = [4, 2, 0, 5, 1, 3]
    with torch.no_grad():
        shuffled.conv2.weight.copy_(model.conv2.weight[order])
        shuffled.conv2.bias.copy_(model.conv2.bias[order])
        shuffled.fc.weight.copy_(model.fc.weight[:, order])
    images = pictures(2, 16)
    # What shows a channel shows it under its new number.
    renamed = [order.index(1), order.index(2)] if method == "activation" else [1, 2]
    close(explained(shuffled, images, renamed, method), explained(model, images, [1, 2], method))


@every_method
def test_a_mirrored_picture_has_the_mirrored_map(method):
    if method in NOT_MIRRORED:
        pytest.skip(NOT_MIRRORED[method])
    model, images = small(method, symmetric=True), pictures(2, 16)
    map = explained(model, images, [1, 2], method)
    close(explained(model, images.flip(-1), [1, 2], method), map.flip(-1))
    # And the map is not its own mirror, or this would show nothing.
    assert (map - map.flip(-1)).abs().max() > 0.1 * map.abs().max()


@every_method
def test_zero_gradient_zero_map(method):
    if method in WITHOUT_GRADIENT:
        pytest.skip(WITHOUT_GRADIENT[method])
    model = small(method)
    with torch.no_grad():
        model.fc.weight[2] = 0
        # It must not be the predicted class, by which the layer is tried first.
        model.fc.bias[2] = -100
    with pytest.raises(PictureError, match=r"map of class 2 \((class )?2\) is zero everywhere"):
        explained(model, pictures(1, 16), 2, method)


@every_method
def test_twice_the_gradient_twice_the_map(method):
    if method in NOT_PROPORTIONAL:
        pytest.skip(NOT_PROPORTIONAL[method])
    model = small(method)
    twice = copy.deepcopy(model)
    with torch.no_grad():
        twice.fc.weight.mul_(2)
    images = pictures(2, 16)
    # A product doubles with each of its parts.
    factor = 2 ** max(1, len(METHODS.find(method).parts))
    close(explained(twice, images, [0, 1], method), factor * explained(model, images, [0, 1], method))


@closed_forms
def test_closed_forms_know_no_neighbours_and_no_gradient_means_zero(method):
    formula = METHODS.load(method)
    draw = torch.Generator().manual_seed(0)
    act, grad = torch.randn(2, 3, 5, 4, 6, generator=draw, dtype=torch.float64)
    map = formula(act, grad)
    assert map.shape == (3, 4, 6)
    assert map.dtype == torch.float64
    for row in range(3):
        close(formula(act[row : row + 1], grad[row : row + 1])[0], map[row])
    if method not in WITHOUT_GRADIENT:
        assert not formula(act, torch.zeros_like(grad)).any()


@closed_forms
def test_closed_forms_do_not_change_what_they_are_given(method):
    act, grad = pictures(2), pictures(2, seed=1)
    before = act.clone(), grad.clone()
    METHODS.load(method)(act, grad)
    assert torch.equal(act, before[0])
    assert torch.equal(grad, before[1])


def test_hirescam_is_gradcam_is_cam_under_pooling_and_a_linear_head():
    model, images = Pooled(), pictures(2, 16)
    features = model.last(model.features(images)).detach()
    weights = model.fc.weight[[2, 0]].detach()
    cam = torch.einsum("nk,nkij->nij", weights, features)
    # The pooling divides by the number of cells, 8 x 8.
    close(explained(model, images, [2, 0], "gradcam", "last"), cam / 64)
    close(explained(model, images, [2, 0], "hirescam", "last"), cam / 64)


def test_they_part_where_the_head_is_not_linear():
    images = pictures(1, 16)
    one, other = (explained(Small(), images, 0, method) for method in ("gradcam", "hirescam"))
    assert (one - other).abs().max() > 0.01 * one.abs().max()


def test_hirescam_sums_to_the_score_less_its_bias_under_a_linear_head():
    # Draelos 2020: by y = sum g A + b every cell's part of the score is in the map.
    model = seeded(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 3)))
    images = pictures(2)
    maps = explained(model, images, [0, 2], "hirescam", "1")
    scores = model(images).detach()[[0, 1], [0, 2]] - model[3].bias.detach()[[0, 2]]
    torch.testing.assert_close(maps.sum((1, 2)), scores, rtol=1e-5, atol=1e-5)


def test_without_a_closed_relu_or_a_negative_signal_guided_is_the_gradient():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    seeded(model)
    with torch.no_grad():
        for part in (model[0], model[4]):
            part.weight.abs_()
            part.bias.abs_()
    images = pictures(2).abs().requires_grad_()
    (gradient,) = torch.autograd.grad(model(images)[:, 1].sum(), images)
    close(explained(model, images.detach(), 1, "guided-backprop"), gradient)


# ---- the table itself


@pytest.mark.parametrize("row", METHODS.rows, ids=lambda row: row.name)
def test_rows_say_what_they_are(row):
    assert row.summary
    assert row.paper
    for part in row.parts:
        assert METHODS.find(part).kind != "product"
    assert bool(row.parts) == (row.kind == "product")
    if not row.parts:
        assert METHODS.load(row.name).__doc__
