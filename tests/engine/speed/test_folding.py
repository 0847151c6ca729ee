"""A convolution and its batch norm as one: the numbers by hand, what is left alone, and maps that stay as they were."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import camcli
from camcli import Explainer
from camcli.engine.layers.probe import probe_image
from camcli.engine.speed.folding import ConvNormPair, find_conv_bn_pairs, fold_batch_norms, fuse
from camcli.engine.speed.tune import optimize_weights
from camcli.images.decode import decode
from camcli.models import BUNDLED_MODEL

IMAGE = probe_image((12, 12), torch.float32, torch.device("cpu"))


def norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm as training leaves it, so that leaving it out is seen."""
    made = nn.BatchNorm2d(channels)
    made.running_mean.normal_()
    made.running_var.uniform_(0.5, 2)
    nn.init.uniform_(made.weight, 0.5, 2)
    nn.init.normal_(made.bias)
    return made


class Activated(nn.BatchNorm2d):
    """Goes on behind its norm, as timm's does."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.running_mean.fill_(0.3)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class Standardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Plain(nn.Module):
    def __init__(self, convolution=nn.Conv2d, behind=norm) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = convolution(3, 4, 3), behind(4), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


class Twice(Plain):
    """The convolution's output goes around the norm too."""

    def forward(self, x):
        x = self.conv(x)
        return self.fc((self.norm(x) + x).mean((2, 3)))


class Again(Plain):
    """The convolution runs twice."""

    def forward(self, x):
        self.conv(x.flip(3))
        return super().forward(x)


class Learning(Plain):
    """The norm takes the batch's own mean."""

    def forward(self, x):
        x = F.batch_norm(self.conv(x), self.norm.running_mean.clone(), self.norm.running_var, training=True)
        return self.fc(x.mean((2, 3)))


def found(model: nn.Module) -> list[ConvNormPair]:
    return find_conv_bn_pairs(model.eval(), lambda: model(IMAGE))


def test_the_formula_by_hand():
    convolution, behind = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0)
    nn.init.constant_(convolution.weight, 2)
    nn.init.constant_(convolution.bias, 1)
    behind.running_mean.fill_(3)
    behind.running_var.fill_(4)
    nn.init.constant_(behind.weight, 5)
    nn.init.constant_(behind.bias, 7)
    weight, bias = fuse(convolution, behind)
    # 5 ((2 x + 1) - 3) / 2 + 7 = 5 x + 2
    assert (weight.item(), bias.item()) == (5, 2)


def test_eps_is_part_of_the_formula():
    convolution, behind = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=3)
    nn.init.constant_(convolution.weight, 2)
    nn.init.constant_(convolution.bias, 1)
    behind.running_mean.fill_(3)
    behind.running_var.fill_(1)
    nn.init.constant_(behind.weight, 5)
    nn.init.constant_(behind.bias, 7)
    weight, bias = fuse(convolution, behind)
    # 5 ((2 x + 1) - 3) / sqrt(1 + 3) + 7 = 5 x + 2
    assert (weight.item(), bias.item()) == (5, 2)


@pytest.mark.parametrize("model", [Plain(), Plain(behind=Activated), Plain(lambda *a: nn.Conv2d(*a, bias=False))])
def test_a_pair_becomes_one_and_two_again(model):
    assert found(model) == [ConvNormPair("conv", "norm")]
    before, weights = model(IMAGE), {name: value.clone() for name, value in model.state_dict().items()}
    unfold = fold_batch_norms(model, found(model))
    assert not any(isinstance(one, nn.BatchNorm2d) for one in model.modules())
    assert torch.allclose(model(IMAGE), before, atol=1e-6)
    unfold()
    assert torch.equal(model(IMAGE), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "model", [Twice(), Again(), Learning(), Plain(Standardised)], ids=lambda one: type(one).__name__
)
def test_what_is_used_elsewhere_too_is_left_alone(model):
    assert found(model) == []


@pytest.mark.parametrize(
    ("layer", "touched"),
    [
        *[("a", False), ("a.b", True), ("a.b.conv", True), ("a.norm", True), ("a.norm.act", True), ("a.no", False)],
        *[("b", False), ("a:x", False), ("a.b:x", True)],
    ],
)
def test_a_pair_is_folded_inside_of_a_layer_or_outside(layer, touched):
    assert ConvNormPair("a.b.conv", "a.norm").touches(layer) == touched


class Both(nn.Module):
    """Its first tensor is what its norm was given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), norm(4)

    def forward(self, x):
        raw = self.conv(x)
        return raw, self.norm(raw)


class Second(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.both, self.fc = Plain(), Both(), nn.Linear(4, 5)
        self.stem.fc = nn.Identity()

    def forward(self, x):
        return self.fc((self.both(x)[1] * self.stem(x)[..., None, None]).mean((2, 3)))


def test_a_block_that_returns_what_its_norm_is_given_is_left_alone():
    model = Second().eval()
    [[before]] = Explainer(model, layers=["both"], method="hirescam")(IMAGE, 1)
    explainer = Explainer(model, layers=["both"], method="hirescam")
    assert optimize_weights(explainer, IMAGE) == 1
    assert isinstance(model.both.norm, nn.BatchNorm2d)
    [[after]] = explainer(IMAGE, 1)
    assert np.abs(before.map - after.map).max() <= 1e-6 * np.abs(before.map).max()


def test_norms_in_a_block_that_is_explained_are_folded():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU()), nn.Flatten(), nn.Linear(400, 5)).eval()
    [[before]] = Explainer(model, layers=["0"])(IMAGE, 1)
    explainer = Explainer(model, layers=["0"])
    assert optimize_weights(explainer, IMAGE) == 1
    assert not any(part.training for part in model.modules())
    [[after]] = explainer(IMAGE, 1)
    assert np.abs(before.map - after.map).max() <= 1e-6 * np.abs(before.map).max()


@pytest.mark.parametrize("layer", ["conv", "norm"])
def test_the_layer_says_what_it_said(layer):
    model = Plain().eval()
    [[before]] = Explainer(model, layers=[layer], method="hirescam")(IMAGE, 1)
    explainer = Explainer(model, layers=[layer], method="hirescam")
    assert optimize_weights(explainer, IMAGE) == 0
    [[after]] = explainer(IMAGE, 1)
    assert np.abs(before.map - after.map).max() <= 1e-6 * np.abs(before.map).max()


def test_fullgrad_has_every_bias():
    assert optimize_weights(Explainer(Plain().eval(), method="fullgrad"), IMAGE) == 0


def test_maps_of_the_bundled_model_stay_what_they_were(sample_images: Path):
    """Within 1e-4 of their range: the fast path against the network as its library built it."""
    network = camcli.load(BUNDLED_MODEL)
    espresso = network.labels.find("espresso")
    explainer = Explainer(network)
    for fast in camcli.explain(sample_images, target="espresso"):
        image, _ = network.preprocess(decode(Path(fast.source), "#ffffff"))
        [[plain]] = explainer(image[None], espresso)
        assert np.abs(plain.map - fast.map).max() <= 1e-4 * np.ptp(plain.map), fast.source
        assert plain.score == pytest.approx(fast.score, rel=1e-4)
