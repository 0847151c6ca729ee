"""Networks that end in a sigmoid or a softmax: what they give is shown as it is, and never squashed twice."""

import math
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import named, pictures, untouched
from torch import nn
from typer.testing import CliRunner

from camcli import Explainer, Labels, Network, OutputSpec, PictureError, Preprocess, RequestError, targets
from camcli.cli import app
from camcli.targets.readers import probabilities
from camcli.targets.readers.find import find_scores

# What a softmax gives of the logarithms of these is these.
P = (0.45, 0.25, 0.2, 0.1)
WHITE = torch.ones(1, 3, 8, 8, dtype=torch.float64)
Both = namedtuple("Both", ["probs", "raw"])


class Scored(nn.Module):
    """Of a white image the logits are those given; of any other these times the mean of its red squared."""

    def __init__(self, logits, end):
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 1, bias=False).double()
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(5, 3)[:, :, None, None])
        self.logits, self.end = torch.tensor(logits, dtype=torch.float64), end
        self.eval()

    def forward(self, x):
        return self.end(self.layer(x)[:, :1].square().mean((2, 3)) * self.logits)


LOGS = [math.log(p) for p in P]
ODDS = [math.log(p / (1 - p)) for p in P]
ENDS = {
    "softmax": (LOGS, lambda s: s.softmax(1)),
    "F.softmax": (LOGS, lambda s: F.softmax(s, dim=1)),
    "a softmax cut and viewed": (LOGS, lambda s: torch.cat([s, s - 1e9], 1).softmax(1)[:, :4].reshape(-1, 4)),
    "a softmax written out": (LOGS, lambda s: s.exp() / s.exp().sum(1, keepdim=True)),
    "exp of log_softmax": (LOGS, lambda s: s.log_softmax(1).exp()),
    "sigmoid": (ODDS, lambda s: s.sigmoid()),
    "a mean of sigmoids": (ODDS, lambda s: (s.sigmoid() + s.sigmoid()) / 2),
    "a sigmoid written out": (ODDS, lambda s: 1 / (1 + (-s).exp())),
    "a sigmoid in a dict": (ODDS, lambda s: {"out": s.sigmoid()}),
}


@pytest.mark.parametrize("end", ENDS)
def test_probabilities_are_shown_as_given_and_are_what_is_explained(end):
    model = Scored(*ENDS[end])
    explain = Explainer(named(model, 4), layers=["layer"])
    with untouched(model):
        ones = explain(WHITE, [[0, 1, 2, 3]])[0]
    for one, p in zip(ones, P, strict=True):
        assert one.probability == pytest.approx(p)
        assert one.score == pytest.approx(p)
    assert explain.activation == explain.network.activation == "probabilities"
    assert explain.describe_target() == "class probability, as returned by the model"
    [note] = explain.notes
    assert note.startswith("the model's outputs are probabilities already (from 0 to 1 on noise")
    assert ("summing to 1" in note) == ("sigmoid" not in end)


def test_the_probability_of_a_binary_network_is_its_output_and_no_sigmoid_of_it():
    # 1/40 is 0.025, of which the sigmoid would be 0.506.
    for shape in [(-1, 1), (-1,)]:
        model = Scored([-math.log(39)], lambda s, shape=shape: s.sigmoid().reshape(shape))
        explain = Explainer(model, layers=["layer"])
        [[one]] = explain(WHITE)
        assert (one.probability, one.score) == (pytest.approx(0.025), pytest.approx(0.025))
        assert "before" not in explain.describe_target()


@pytest.mark.parametrize(
    "end",
    [
        lambda s: s,
        # From 0 to 1 on noise, and not because anything holds them there.
        lambda s: s * 1e-3,
        lambda s: s.abs() / 50,
        lambda s: (0 * s).relu(),
        lambda s: F.layer_norm(s, (4,)) * 0.01 + 0.5,
        lambda s: s.softmax(1) * s,
        lambda s: s.log_softmax(1),
        lambda s: -s.sigmoid(),
        lambda s: 5 * s.sigmoid(),
    ],
)
def test_what_only_happens_to_lie_between_0_and_1_is_no_probability(end):
    explain = Explainer(Scored(LOGS, end), layers=["layer"])
    explain.results(WHITE)
    assert explain.activation == "softmax"
    assert not any("probabilities" in note for note in explain.notes)


def test_what_made_numbers_is_read_off_their_graph():
    x = torch.randn(2, 4, requires_grad=True)
    squashed = probabilities.is_bounded
    assert squashed(F.linear(x, torch.ones(3, 4)).sigmoid()) is True
    assert squashed(1 - F.interpolate(x[:, :, None, None].softmax(1), scale_factor=2)) is True
    assert squashed(F.linear(x.sigmoid(), torch.ones(3, 4))) is False
    assert squashed(x.sigmoid() * F.linear(x, torch.ones(4, 4))) is False
    assert squashed(x) is None
    assert squashed(1 / (1 + (-x).exp())) is None


def test_a_map_of_a_probability_is_that_of_its_gradient():
    # The gradient of p = sigmoid(a mean(red^2)) by a red cell is p (1 - p) a 2 red / 64; Grad-CAM's weight is its mean.
    a = -math.log(39)
    [[one]] = Explainer(Scored([a], torch.sigmoid), layers=["layer"])(WHITE)
    np.testing.assert_allclose(one.map, np.full((8, 8), 0.025 * 0.975 * a * 2 / 64), rtol=1e-5)


def test_the_scores_are_numbers_of_probabilities():
    model = named(Scored(LOGS, lambda s: s.softmax(1)), 4)
    for score, wanted, said in [
        ("logit", 0.25, "class probability, as returned by the model"),
        ("probability", 0.25, "class probability, as returned by the model"),
        ("logprob", math.log(0.25), "logarithm of the class probability"),
        (
            "margin",
            0.25 - 0.45,
            "class probability, as returned by the model, minus that of the strongest other class",
        ),
    ]:
        explain = Explainer(model, layers=["layer"], score=score)
        [[one]] = explain(WHITE, 1)
        assert one.score == pytest.approx(wanted)
        assert one.probability == pytest.approx(0.25)
        assert explain.describe_target() == said


def test_all_above_a_probability_counts_what_the_model_gives():
    network = named(Scored(ODDS, torch.sigmoid), 4, activation="probabilities")
    scores = network.module(WHITE)[0].detach()
    # A sigmoid more would put all of them above a half.
    assert targets.resolve(["all>0.15"], network)(None, scores) == [0, 1, 2]
    with pytest.raises(PictureError, match=r"no class has a probability above 0.5 here: .* has 0.45"):
        targets.resolve(["all>0.5"], network)(None, scores)


# ---- what a person says


@pytest.mark.parametrize(("activation", "shown"), [("sigmoid", 1 / (1 + math.exp(-0.45))), ("none", None)])
def test_what_is_asked_for_is_done_and_noted(activation, shown):
    network = named(Scored(ODDS, torch.sigmoid), 4, activation=activation, activation_asked=True)
    explain = Explainer(network, layers=["layer"])
    [[one]] = explain(WHITE)
    assert one.probability == (None if shown is None else pytest.approx(shown))
    assert any("is applied to them again" in note for note in explain.notes) == (activation == "sigmoid")


def test_said_to_be_probabilities_and_none_on_noise_is_refused_before_the_first_picture():
    network = named(Scored(LOGS, lambda s: s), 4, activation="probabilities", activation_asked=True)
    with pytest.raises(
        RequestError, match="declared as probabilities, and on noise some lie outside of 0 to 1"
    ) as caught:
        Explainer(network, layers=["layer"]).check(pictures(1))
    assert "--activation softmax or sigmoid" in caught.value.hint


def test_a_picture_whose_outputs_leave_the_range_fails_alone_and_says_how():
    # Nothing in the graph holds these within [0, 1]; on noise they are, however strong.
    class Kept(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.where(x == 1, 3.5, 0.25)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    explain = Explainer(Scored([1.0, 1.0], Kept.apply), layers=["layer"])
    [[good], [bad]] = explain.results(torch.cat([pictures(1), WHITE]))
    assert good.probability == 0.25
    assert isinstance(bad, PictureError)
    assert "those of this image range from 3.5 to 3.5" in bad.message
    assert "--activation" in bad.hint


# ---- two outputs


@pytest.mark.parametrize("end", [lambda s: s.softmax(1), torch.sigmoid])
def test_of_two_outputs_of_which_one_is_made_of_the_other_the_logits_are_meant(end):
    scores = torch.tensor([LOGS, ODDS])
    assert find_scores((end(scores), scores), 2) is scores
    assert find_scores((scores, end(scores)), 2) is scores
    assert find_scores({"scores": end(scores), "raw": scores}, 2) is scores
    half = scores.bfloat16()
    assert find_scores((end(half), half), 2) is half
    with pytest.raises(RequestError, match="returns 2 tensors"):
        find_scores((end(scores), scores + torch.arange(4)), 2)


def test_a_classifier_that_gives_both_is_explained_by_its_logits():
    explain = Explainer(Scored(LOGS, lambda s: Both(s.softmax(1), s)), layers=["layer"])
    [[one]] = explain(WHITE)
    assert one.score == pytest.approx(math.log(0.45))
    assert one.probability == pytest.approx(0.45)
    assert explain.notes == ()
    [[one]] = (first := Explainer(Scored(LOGS, lambda s: Both(s.softmax(1), s)), layers=["layer"], output="probs"))(
        WHITE
    )
    assert one.score == pytest.approx(0.45)
    assert first.activation == "probabilities"


# ---- segmentation


class Painted(nn.Module):
    """Red and green are the probabilities' logits, pixel by pixel."""

    def __init__(self, end):
        super().__init__()
        self.layer, self.end = nn.Conv2d(3, 5, 1, bias=False), end
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(5, 3)[:, :, None, None])
        self.eval()

    def forward(self, x):
        return self.end(self.layer(x)[:, :2])


@pytest.mark.parametrize("end", [torch.sigmoid, lambda s: s.softmax(1)])
def test_pixels_of_a_segmentation_that_gives_probabilities_are_those_above_a_half_or_of_the_greatest(end):
    picture = torch.zeros(1, 3, 2, 2)
    picture[0, 0] = torch.tensor([[2.0, -1.0], [1.0, -3.0]])
    picture[0, 1] = torch.tensor([[3.0, -2.0], [-1.0, 4.0]])
    preprocess = Preprocess((2, 2), (0.0,) * 3, (1.0,) * 3, (2, 2))
    network = Network(
        "painted", Painted(end), preprocess, Labels(("red", "green")), "file", "", output_spec=OutputSpec("segment")
    )
    explain = Explainer(network, layers=["layer"])
    [[red, green]] = explain(picture, [[0, 1]])
    given = end(picture[:, :2])[0]
    inside = (given > 0.5) if end is torch.sigmoid else torch.stack([given[0] > given[1], given[1] > given[0]])
    for one, table, pixels in zip((red, green), given, inside, strict=True):
        assert one.score == pytest.approx(float(table[pixels].sum()))
        assert one.probability == pytest.approx(float(table[pixels].mean()))
    assert explain.describe_target() == (
        "class probabilities, as returned by the model, summed over the pixels where the model predicts it"
    )


# ---- from the shell


def test_the_command_shows_what_a_network_with_a_sigmoid_gives(tmp_path):
    (tmp_path / "net.py").write_text(
        "import math, torch, camcli\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 5, 1)\n"
        "    def forward(self, x):\n"
        "        red = self.conv(x).mean((2, 3))[:, :1] * 0 + x.mean((1, 2, 3))[:, None]\n"
        "        return torch.cat([-math.log(39) * red, math.log(4) * red], 1).sigmoid()\n"
        "def make():\n"
        "    return Net(), camcli.Preprocess((32, 32), (0.0,) * 3, (1.0,) * 3, (32, 32)), ['dog', 'cat']\n"
    )
    from PIL import Image

    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    out = tmp_path / "out"
    words = ["explain", str(tmp_path / "white.png"), "-m", f"{tmp_path / 'net.py'}:make", "-O", str(out), "--json"]
    done = CliRunner().invoke(app, [*words, "--method", "saliency", "--target", "all>0.5"])
    assert done.exit_code == 0, done.output
    # sigmoid(log 4) is 4/5; sigmoid(-log 39) is 1/40, which a second sigmoid would put above a half.
    assert '"label": "cat"' in done.stdout
    assert '"label": "dog"' not in done.stdout
    assert '"probability": 0.8' in done.stdout
