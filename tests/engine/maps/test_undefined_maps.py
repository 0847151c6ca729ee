"""Maps that cannot be computed fail alone, with the reason; maps that say nothing are noted."""

import numpy as np
import pytest
import torch
from networks import ByHand, Pooled, Small, Through, explainer, named, pictures, same, seeded, small, untouched
from torch import nn

from camcli import Explainer, PictureError
from camcli.methods import METHODS, works_at

every_method = pytest.mark.parametrize("method", METHODS.names())


# ---- what has no map


def nan_where(images, row):
    images = images.clone()
    images[row, 0, 3, 3] = torch.nan
    return images


@every_method
def test_an_image_with_nan_fails_alone(method):
    model, images = small(method), pictures(3, 16)
    asked = 1 if method == "activation" else None
    results = explainer(model, method).results(nan_where(images, 1), asked and (lambda row, scores: [asked]))
    assert isinstance(results[1][0], PictureError)
    assert "NaN" in results[1][0].message
    for row in (0, 2):
        same(results[row][0], explainer(model, method)(images[row : row + 1], asked)[0][0])
    with pytest.raises(PictureError, match=r"image 1 of the batch: .*NaN"):
        explainer(model, method)(nan_where(images, 1), asked)


def test_a_map_that_overflows_fails_alone():
    class Huge(Pooled):
        def forward(self, x):
            return super().forward(x).clamp(max=10)

    model = Huge().float()
    images = pictures(2, 16, dtype=torch.float32)
    images[0] *= 1e38
    bad, good = explainer(model, layers=("last",)).results(images, lambda row, scores: [int(scores.argmin())])
    assert isinstance(bad[0], PictureError)
    assert np.isfinite(good[0].map).all()


def blank_net():
    """Without biases: what is nothing has no score, no gradient, no map."""
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=False),
        nn.ReLU(),
        Through(torch.square),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3, bias=False),
    )
    return seeded(model)


# row: why it says nothing of a network without biases, or of nothing in it.
NOT_ASKED = {
    **dict.fromkeys([row.name for row in METHODS.rows if works_at(row) == "attention"], "the network has no attention"),
    **dict.fromkeys(["cam", "fullgrad"], "the network multiplies"),
    "random": "it is noise, of what is nothing too",
    "activation": "that a channel is silent is what it shows: see test_channel_targets.py",
}
# What divides by nothing where all channels are flat, or the score is 0.
UNDEFINED = {"scorecam", "gscorecam", "ss-cam", "is-cam", "ablation-cam", "opti-cam", "recipro-cam", "sobol"}


@every_method
def test_a_blank_image_fails_alone_wherever_it_stands(method):
    if method in NOT_ASKED:
        pytest.skip(NOT_ASKED[method])
    wanted = "contains NaN or infinite values" if method in UNDEFINED else "is zero everywhere"
    model, images = blank_net(), pictures(2, 16)
    for blank in (0, 1):
        batch = images.clone()
        batch[blank] = 0
        results = explainer(model, method, ["0"]).results(batch, lambda row, scores: [1])
        assert isinstance(results[blank][0], PictureError)
        of_concepts = METHODS.find(method).kind == "concept"
        said = "their maps are zero everywhere" if of_concepts else f"map of class 1 (1) {wanted}"
        assert said in results[blank][0].message
        assert "backward pass" not in results[blank][0].message
        same(results[1 - blank][0], explainer(model, method, ["0"])(images[[1 - blank]], 1)[0][0])


def test_a_class_without_gradient_is_a_picture_error_that_names_it():
    network = named(ByHand(), 3, size=2)
    image = torch.arange(12.0).reshape(1, 3, 2, 2)
    [[one, two]] = Explainer(network, layers=["layer"]).results(image, lambda row, scores: [2, 0])
    assert isinstance(one, PictureError)
    assert one.message == (
        "the map of class 2 (thing 2) is zero everywhere: the layer 'layer' does not contribute to its score here"
    )
    assert two.index == 0


def test_a_guided_gradcam_of_what_speaks_only_against_says_so():
    model = Pooled()
    with torch.no_grad():
        model.last.weight.abs_()
        model.last.bias.abs_()
        model.fc.weight[0] = -1
    explain = Explainer(model, layers=["last"], method="guided-gradcam")
    [[one]] = explain.results(pictures(1, 16), lambda row, scores: [0])
    assert isinstance(one, PictureError)
    assert "nothing at the layer 'last' raises its score here" in one.message
    [[plain]] = Explainer(model, layers=["last"])(pictures(1, 16), 0)
    assert plain.notes == (
        "nothing at the layer 'last' raises its score: the whole map is negative (--save array keeps its values)",
    )


def test_where_nan_comes_up_is_said():
    class Rooted(Small):
        def __init__(self):
            super().__init__()
            self.root = Through(torch.sqrt)

        def forward(self, x):
            return super().forward(x + self.root(x.mean((1, 2, 3), keepdim=True)))

    images = torch.stack([torch.full((3, 16, 16), value, dtype=torch.float64) for value in (1.0, -1.0)])
    model = Rooted()
    with untouched(model):
        [[fine], [bad]] = Explainer(model, layers=["conv2"]).results(images)
    assert not isinstance(fine, PictureError)
    assert bad.message.endswith("NaN or infinite values for this image; they first occur at 'root' (Through)")
    [[given]] = explainer(Small()).results(nan_where(pictures(1, 16), 0))
    assert given.message.endswith("the image itself contains some")


def test_a_map_that_is_the_same_everywhere_says_so():
    model = Pooled()
    flat = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode, module.padding = "zeros", (0, 0)
    [[one]] = Explainer(model, layers=["last"])(flat, 0)
    assert any("the map is constant" in note for note in one.notes)


def test_saturated_probabilities_are_told_of():
    class Sure(Small):
        def forward(self, x):
            return (super().forward(x) * 50).softmax(1)

    [[one]] = explainer(Sure())(pictures(1, 16))
    assert one.score > 0.999
    assert any("probabilities and one is nearly 1" in note for note in one.notes)
    [[plain]] = explainer(Small())(pictures(1, 16))
    assert plain.notes == ()


@every_method
def test_an_image_whose_target_gives_no_class_fails_alone(method):
    if METHODS.find(method).kind == "concept":
        pytest.skip("it explains no class: see test_concepts.py")
    model, images = small(method), pictures(3, 16)
    results = explainer(model, method).results(images, lambda row, scores: [] if row == 1 else [2])
    assert [type(one) for one in results[1]] == [PictureError]
    assert results[1][0].message == "its target gives no class"
    for row in (0, 2):
        [one] = results[row]
        same(one, explainer(model, method)(images[row : row + 1], 2)[0][0])


def test_an_error_says_which_of_an_images_maps_is_missing():
    class Colours(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 3, 1, bias=False)
            self.stem.weight.data = torch.eye(3).reshape(3, 3, 1, 1)

        def forward(self, x):
            return self.stem(x).mean((2, 3))

    images = torch.zeros(2, 3, 8, 8)
    images[:, 0, 2:5] = 1  # red, and no green
    images[1, 1] = 1
    made = Explainer(Colours().eval(), layers=("stem",), method=("gradcam", "layercam"))
    first, second = made.results(images, lambda row, scores: [0, 1])
    missing = [(one.target, one.method, one.layer) for one in first if isinstance(one, PictureError)]
    assert missing == [(1, "gradcam", "stem"), (1, "layercam", "stem")]
    assert not [one for one in second if isinstance(one, PictureError)]
