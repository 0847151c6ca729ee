"""A gradient that is zero on noise is no reason to refuse a layer; one that is cut is."""

import pytest
from backbones import IMAGES, surveyed
from networks import Small, seeded, untouched
from torch import nn

from camcli import Explainer, PictureError, RequestError


class Sure(Small):
    """A softmax so sure that it leaves no gradient, but where an image is faint."""

    def forward(self, x):
        return (super().forward(x) * 1e4 * x.abs().amax()).softmax(1)


class Shut(Small):
    """Logits that a ReLU holds at zero, but where an image is strong."""

    def forward(self, x):
        return (super().forward(x) - 5).relu()


class Untrained(Small):
    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.fc.weight)


@pytest.mark.parametrize("layers", [(), ("conv2",), ("relu2",)])
@pytest.mark.parametrize("kind", [Sure, Shut, Untrained])
def test_a_gradient_that_is_zero_on_noise_is_said_and_pictures_decide(kind, layers):
    model = kind()
    explain = Explainer(model, layers=layers)
    with untouched(model):
        explain.check(IMAGES[:1])
    assert explain.layers == (layers or ("relu2",))
    assert any("on noise, the gradient of the score at the layer" in note for note in explain.notes)
    weak_or_strong = IMAGES * (1e-4 if kind is Sure else 10)
    for [result] in explain.results(weak_or_strong, lambda row, scores: [0]):
        if kind is Untrained:
            assert isinstance(result, PictureError)
            assert "does not contribute to its score here, nor on noise" in result.message
        else:
            assert result.map.any()


def test_a_picture_of_which_the_network_is_wholly_sure_says_that():
    [[result], _] = Explainer(Sure(), layers=["conv2"]).results(IMAGES)
    assert isinstance(result, PictureError)
    assert "its probability is 1, where the gradient of a sigmoid or softmax vanishes" in result.message
    assert "without its last sigmoid or softmax" in result.hint


def test_beside_a_gradient_that_vanishes_one_that_is_cut_is_still_refused():
    class Cut(Sure):
        def __init__(self):
            super().__init__()
            self.aside = seeded(nn.Conv2d(3, 5, 1))

        def forward(self, x):
            self.aside(x)
            return super().forward(x)

    with pytest.raises(RequestError, match=r"no gradient .* at the layer 'aside'"):
        Explainer(Cut(), layers=["aside"]).check(IMAGES[:1])


def test_branches_that_begin_at_nothing_are_no_reason_to_refuse_a_layer():
    # As timm starts residual networks: the last batch norm of each branch is zero.
    class Residual(Small):
        def __init__(self):
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
            seeded(self)
            nn.init.zeros_(self.branch[1].weight)

        def forward(self, x):
            return super().forward(x + self.branch(x))

    found = surveyed(Residual())
    assert found["branch.0"].reason == ""
    assert found["branch.0"].vanished
    explain = Explainer(Residual(), layers=["branch.0"])
    explain.check(IMAGES[:1])
    assert "weights of zero" in explain.notes[0]
