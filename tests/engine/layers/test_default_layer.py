"""The default layer: one that the score depends on, also where every pixel is scored; the list of layers agrees."""

import numpy as np
import pytest
import torch.nn.functional as F
from backbones import IMAGES, Frozen
from networks import Small, named, same, seeded
from torch import nn
from typer.testing import CliRunner

from camcli import Explainer, PictureError, RequestError
from camcli.cli import app
from camcli.engine.layers.default_layer import find_default_layer
from camcli.engine.layers.probe import probe_layers


def test_a_default_that_the_source_knows_and_that_will_not_do_gives_way():
    model = Frozen()
    explain = Explainer(named(model, 4, 16, layer="body.conv2"))
    ones = explain(IMAGES, 1)
    assert explain.layers == ("neck",)
    for [one], [other] in zip(ones, Explainer(model, layers=["neck"])(IMAGES, 1), strict=True):
        assert np.array_equal(one.map, other.map)


def test_a_default_is_found_by_the_numbers_of_the_layers_own_survey():
    model = Small()
    assert find_default_layer(model, probe_layers(model, IMAGES[:1]), IMAGES[:1]) == "relu2"
    assert find_default_layer(model, probe_layers(model, IMAGES[:1]), IMAGES[:1], excluded=["relu2"]) == "conv2"


# ---- from the shell

NET = """
import camcli, torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.neck, self.fc = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3), nn.Linear(6, 2)
    {decorated}
    def forward(self, x):
        with torch.no_grad():
            x = self.body(x).relu()
        return self.fc(self.neck(x).square().mean((2, 3)))
def make():
    return Net(), camcli.Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3, (16, 16)), ["cat", "dog"]
"""


def rows_of(tmp_path, decorated=""):
    (tmp_path / "net.py").write_text(NET.format(decorated=decorated))
    done = CliRunner().invoke(app, ["layers", f"{tmp_path / 'net.py'}:make"])
    assert done.exit_code == 0, done.output
    return {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}


def test_the_list_of_layers_and_the_check_agree(tmp_path):
    rows = rows_of(tmp_path)
    assert rows["neck"].rstrip().endswith("default")
    assert "no gradient reaches it" in rows["body"]
    rows = rows_of(tmp_path, "@torch.no_grad()")
    assert "default; without gradient: the model's output has no grad_fn" in " ".join(rows["neck"].split())
    assert "without gradient: the model's output has no grad_fn" in " ".join(rows["body"].split())


# ---- networks that score every pixel


class Decoder(nn.Module):
    """A segmentation network of one's own: features, and behind them the scores, at the input's size or coarser."""

    def __init__(self, ends) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 4, 1)
        self.ends = nn.ModuleList(ends)
        seeded(self)

    def forward(self, x):
        x = self.head(self.features(x))
        for end in self.ends:
            x = end(x)
        return F.interpolate(x, scale_factor=16 // x.shape[-1], mode="bilinear")


@pytest.mark.parametrize(
    "ends",
    [
        [],
        [nn.Upsample(scale_factor=2)],
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1)],
        [nn.Upsample(scale_factor=2), nn.Softmax(1)],
        [nn.Sigmoid()],
    ],
)
def test_the_default_of_a_segmentation_is_never_the_layer_that_gives_the_scores(ends):
    from camcli import OutputSpec

    network = named(Decoder(ends), 4, 16, output_spec=OutputSpec("segment"))
    explain = Explainer(network)
    explain.check(IMAGES[:1])
    assert explain.layers == ("features",)


def test_a_segmentation_that_is_nothing_but_its_scores_says_so_and_the_hint_works():
    from camcli import OutputSpec

    network = named(seeded(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))), 4, 16, output_spec=OutputSpec("segment"))
    with pytest.raises(RequestError, match="with a grid compute the scores themselves") as caught:
        Explainer(network).check(IMAGES[:1])
    assert "--layer 0" in caught.value.hint
    [[one], _] = Explainer(network, layers=["0"]).results(IMAGES)
    assert not isinstance(one, PictureError)


def test_a_fully_convolutional_classifier_keeps_its_default():
    # As SqueezeNet ends: a convolution to the classes, and their mean.
    model = seeded(
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
    )
    explain = Explainer(model)
    explain.check(IMAGES[:1])
    assert explain.layers == ("3",)
    same(explain(IMAGES[:1], 1)[0][0], Explainer(model, layers=["3"])(IMAGES[:1], 1)[0][0])
