"""Signals by name: each one worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from networks import ByHand, Small, pictures, untouched
from signals import GREEN, IMAGE, RED
from torch import nn

from camcli import Explainer, RequestError
from camcli.engine.signals.lookup import SIGNAL_FUNCTIONS
from camcli.methods import SIGNALS


def heard(bring, model, images, targets, *names, **options):
    """What a method that asks for these pieces is handed, by name."""
    got = {}

    def listen(*pieces):
        got.update(zip(names, pieces, strict=True))
        some = pieces[0]
        rows = len(some) if isinstance(some, torch.Tensor) else len(images)
        return torch.ones(rows, 2, 2)

    parameters = ", ".join(names)
    scope = {"listen": listen}
    exec(f"def method({parameters}): return listen({parameters})", scope)
    Explainer(model, method=bring(scope["method"], "listener"), **options)(images, targets)
    return got


class Cubic(nn.Module):
    """The layer hands red and green on; class 0 scores sum(W A^3), class 1 hardly ever wins."""

    W = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[2.0, -1.0], [0.0, 1.0]]])

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(2, 3)[:, :, None, None])
        self.eval()

    def forward(self, x):
        score = (self.W * self.layer(x) ** 3).sum((1, 2, 3))
        return torch.stack([score, score / 2 - 1000], 1)


def test_whatever_a_method_may_ask_for_is_made_of_the_network_but_what_it_was_fitted_to():
    # No method asks which rows the score reads: the house does.
    assert set(SIGNAL_FUNCTIONS) - {"read"} == set(SIGNALS) - {"basis"}


def test_act_and_grad_and_score_by_hand(bring):
    got = heard(bring, ByHand(), IMAGE, 0, "act", "grad", "score", "logits", "index", "images", layers=["layer"])
    assert got["act"][0, :2].tolist() == [RED, GREEN]
    assert got["grad"][0, :2].reshape(2, 4).tolist() == [[1, 0, 0, 1], [-1, -1, -1, 1]]
    assert got["score"].tolist() == [3]
    assert got["logits"].tolist() == [[3, -3, 0]]
    assert got["index"].tolist() == [0]
    assert torch.equal(got["images"], IMAGE)


def test_curve_by_hand(bring):
    # g = 3 W A^2 and H is diagonal, 6 W A; so H A = 6 W A^2.
    got = heard(bring, Cubic(), IMAGE, 0, "grad", "hvp", layers=["layer"], layout="nchw")
    act = IMAGE[:, :2]
    assert torch.equal(got["grad"], 3 * Cubic.W * act**2)
    assert torch.equal(got["hvp"], 6 * Cubic.W * act**2)


def test_curve_of_a_linear_head_is_zero(bring):
    got = heard(bring, ByHand(), IMAGE, 0, "hvp", "grad", layers=["layer"])
    assert not got["hvp"].any()
    assert got["grad"].any()


def test_grad_of_a_sum_of_scores_is_the_sum_of_gradients(bring):
    got = heard(bring, Small(), pictures(2, 16), [0, 3], "grad_of", "grad", layers=["conv2"])
    own = got["grad_of"](torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]]))
    assert torch.equal(own, got["grad"])
    twice = got["grad_of"](torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 2]]))
    torch.testing.assert_close(twice, 2 * own)


def test_input_grad_by_hand_and_without_a_layer(bring):
    model = Cubic()
    got = heard(bring, model, IMAGE, 0, "input_grad", "images")
    assert torch.equal(got["input_grad"][:, :2], 3 * Cubic.W * IMAGE[:, :2] ** 2)
    assert not got["input_grad"][:, 2].any()


def test_slopes_by_hand(bring):
    def sloping(images, score_and_grad):
        for factor, (score, slope) in zip((1, 2, 3), score_and_grad(images * k for k in (1, 2, 3)), strict=True):
            act = factor * images[:, :2]
            assert torch.equal(score, (Cubic.W * act**3).sum((1, 2, 3)))
            assert torch.equal(slope[:, :2], 3 * Cubic.W * act**2)
        return torch.ones(2, 2, 2)

    Explainer(Cubic(), method=bring(sloping), batch_size=4)(torch.cat([IMAGE, -IMAGE]), 0)


def test_responses_by_hand(bring):
    def responding(act_and_grad, images):
        for factor, (act, grad) in zip((1, 2, 3), act_and_grad(images * k for k in (1, 2, 3)), strict=True):
            assert torch.equal(act, factor * images[:, :2])
            assert torch.equal(grad, 3 * Cubic.W * act**2)
        return torch.ones(2, 2, 2)

    explain = Explainer(Cubic(), layers=["layer"], method=bring(responding), layout="nchw", batch_size=4)
    explain(torch.cat([IMAGE, -IMAGE]), 0)


def test_rest_by_hand(bring):
    def resting(act, score_from_layer):
        scores = torch.stack(list(score_from_layer(act * factor for factor in (1, 0, 2))))
        assert scores.tolist() == [[3, 3], [0, 0], [6, 6]]
        return torch.ones(2, 2, 2)

    Explainer(ByHand(), layers=["layer"], method=bring(resting))(torch.cat([IMAGE, -IMAGE]), [0, 1])


def test_biases_and_input_add_up_to_the_score(bring):
    # Conv, batch norm with statistics, pooling, ReLU6 (which has a bias above 6), and a linear head.
    class Affine(Small):
        def __init__(self):
            super().__init__()
            self.norm1.running_mean.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))

        def forward(self, x):
            x = self.pool(F.relu6(self.norm1(self.conv1(4 * x))))
            return self.fc(self.relu2(self.conv2(x)).mean((2, 3)))

    got = heard(bring, Affine(), pictures(2, 16), [1, 2], "images", "input_grad", "biases", "score")
    assert [tuple(one.shape[1:]) for one in got["biases"]] == [(5, 16, 16)] * 3 + [(6, 8, 8), (4,)]
    whole = (got["images"] * got["input_grad"]).flatten(1).sum(1)
    whole = whole + sum(one.flatten(1).sum(1) for one in got["biases"])
    torch.testing.assert_close(whole, got["score"], rtol=1e-9, atol=1e-9)
    # By hand: the head's bias has gradient 1 at its class alone.
    assert got["biases"][-1].tolist()[0] == [0, pytest.approx(Affine().fc.bias[1].item()), 0, 0]


@pytest.mark.parametrize("function", [F.gelu, F.silu, F.hardswish, torch.tanh, torch.sigmoid, F.softplus, F.elu])
def test_element_wise_activations_have_a_bias_of_their_own(bring, function):
    class Bent(Small):
        def forward(self, x):
            return self.fc(function(self.conv2(function(self.norm1(self.conv1(x))))).mean((2, 3)))

    got = heard(bring, Bent(), pictures(2, 16), [1, 2], "images", "input_grad", "biases", "score")
    whole = (got["images"] * got["input_grad"]).flatten(1).sum(1)
    whole = whole + sum(one.flatten(1).sum(1) for one in got["biases"])
    torch.testing.assert_close(whole, got["score"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", [nn.GroupNorm(1, 6), nn.LayerNorm([6, 8, 8]), "gate"])
def test_biases_of_what_multiplies_values_are_refused_with_the_share_that_is_missing(bring, part):
    class Multiplied(Small):
        def __init__(self):
            super().__init__()
            self.part = part if isinstance(part, nn.Module) else nn.Identity()
            self.double()

        def forward(self, x):
            x = self.conv2(self.pool(self.conv1(x)))
            x = x * x.mean((2, 3), keepdim=True).sigmoid() if part == "gate" else self.part(x)
            return self.fc(x.square().mean((2, 3)))

    model = Multiplied()
    with untouched(model), pytest.raises(RequestError, match=r"cannot be computed for this network: .* \d+% of it is"):
        heard(bring, model, pictures(1, 16), 0, "biases")
