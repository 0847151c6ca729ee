"""What the explainer refuses, what fails alone, and what it says."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from networks import ByHand, Pooled, Small, Through, explainer, named, pictures, same, seeded, small, untouched
from torch import nn

from camcli import Explainer, PictureError, RequestError
from camcli.engine.checks.images import check_batch
from camcli.methods import METHODS

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
    **dict.fromkeys([row.name for row in METHODS.rows if row.kind == "attention"], "the network has no attention"),
    **dict.fromkeys(["cam", "fullgrad"], "the network multiplies"),
    "random": "it is noise, of what is nothing too",
    "activation": "that a channel is silent is what it shows: see test_scores.py",
}
# What divides by nothing where all channels are flat, or the score is 0.
UNDEFINED = {"scorecam", "gscorecam", "ss-cam", "is-cam", "ablation-cam"}


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
        assert "way back" not in results[blank][0].message
        same(results[1 - blank][0], explainer(model, method, ["0"])(images[[1 - blank]], 1)[0][0])


def test_a_class_without_gradient_is_a_picture_error_that_names_it():
    network = named(ByHand(), 3, size=2)
    image = torch.arange(12.0).reshape(1, 3, 2, 2)
    [[one, two]] = Explainer(network, layers=["layer"]).results(image, lambda row, scores: [2, 0])
    assert isinstance(one, PictureError)
    assert one.message == (
        "the map of class 2 (thing 2) is zero everywhere: the layer 'layer' has no part in its score here"
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
    assert "nothing at the layer 'last' speaks for it here" in one.message
    [[plain]] = Explainer(model, layers=["last"])(pictures(1, 16), 0)
    assert plain.notes == (
        "nothing at the layer 'last' speaks for it: the whole map is negative (--save array keeps its values)",
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
    assert bad.message.endswith("NaN or infinite values for this image; they come up at 'root' (Through)")
    [[given]] = explainer(Small()).results(nan_where(pictures(1, 16), 0))
    assert given.message.endswith("the image itself contains some")


def test_a_map_that_is_the_same_everywhere_says_so():
    model = Pooled()
    flat = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode, module.padding = "zeros", (0, 0)
    [[one]] = Explainer(model, layers=["last"])(flat, 0)
    assert any("the same everywhere" in note for note in one.notes)


def test_saturated_probabilities_are_told_of():
    class Sure(Small):
        def forward(self, x):
            return (super().forward(x) * 50).softmax(1)

    [[one]] = explainer(Sure())(pictures(1, 16))
    assert one.score > 0.999
    assert any("probabilities and one is nearly 1" in note for note in one.notes)
    [[plain]] = explainer(Small())(pictures(1, 16))
    assert plain.notes == ()


# ---- how a layer is read, where it is said


class Behind(nn.Module):
    """Patches with two tokens behind them, the mean of the patches, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 5, 4, 4)
        self.tokens = Through(lambda x: torch.cat([x, x.new_zeros(len(x), 2, 5)], 1))
        self.fc = nn.Linear(5, 3)
        seeded(self)

    def forward(self, x):
        patches = self.embed(x)
        if not self.training:
            patches = self.tokens(patches.flatten(2).transpose(1, 2))[:, :-2].transpose(1, 2)
        return self.fc(patches.flatten(2).square().mean(2))


def test_tokens_behind_the_patches_are_read_when_said():
    model, image = Behind(), pictures(1, (16, 24))
    [[wanted]] = Explainer(model, layers=["embed"])(image, 1)
    # By its shape alone they would stand in front, and that is said.
    explain = Explainer(model, layers=["tokens"])
    explain(image, 1)
    [note] = [note for note in explain.notes if "'tokens' is read as tokens 4x6 after 2 prefix" in note]
    assert "--layout tokens:0:4x6" in note
    explain = Explainer(model, layers=["tokens"], layout="tokens:0:4x6")
    [[one]] = explain(image, 1)
    assert not any("is read as" in note for note in explain.notes)
    np.testing.assert_allclose(one.map * 24, wanted.map * 24, atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("nchw", "1x26x5 cannot be read as nchw"),
        ("tokens:3:4x6", r"of 26 tokens, 3 \+ 4 x 6 are 1 too many"),
        ("tokens:0:4x4", r"of 26 tokens, 0 \+ 4 x 4 leave 10"),
        ("ncl:0:4x6", r"of 5 tokens, 0 \+ 4 x 6 are 19 too many"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(layout, message):
    model = Behind()
    with untouched(model), pytest.raises(RequestError, match=message):
        Explainer(model, layers=["tokens"], layout=layout)(pictures(1, (16, 24)), 1)


def test_a_layout_or_call_needs_its_layer():
    with pytest.raises(RequestError, match="the layout nchw was given without the layer"):
        Explainer(Small(), layout="nchw")
    with pytest.raises(RequestError, match="call 2 was given without the layer"):
        Explainer(Small(), call=2)


def test_which_run_of_a_layer_is_explained_is_said_and_can_be_chosen():
    class Twice(Small):
        def __init__(self):
            super().__init__()
            self.act = nn.Tanh()

        def forward(self, x):
            return super().forward(self.act(2 * self.act(x)))

    model, image = Twice(), pictures(1, 16)
    by_call = {}
    for call in (0, 1, 2):
        explain = Explainer(model, layers=["act"], call=call)
        [[by_call[call]]] = explain(image, 1)
        said = f"run {call}" if call else "the last"
        assert explain.notes == (f"the layer 'act' runs 2 times in one forward; {said} is explained (--call N)",)
    same(by_call[0], by_call[2])
    assert np.abs(by_call[1].map - by_call[2].map).max() > 0.01 * np.abs(by_call[2].map).max()
    with pytest.raises(RequestError, match="'act' has no run 3: it runs 2 times"):
        Explainer(model, layers=["act"], call=3)(image, 1)


# ---- what is refused before anything is explained


def test_a_dead_layer_is_refused_and_a_better_one_named():
    model = timm.create_model("test_vit")
    with pytest.raises(RequestError, match=r"no gradient .* at the layer 'blocks.5'") as caught:
        Explainer(model, layers=["blocks.-1"])(torch.zeros(1, 3, 160, 160))
    assert "'blocks.5.norm1' works" in caught.value.hint
    Explainer(model, layers=["blocks.5.norm1"]).check(pictures(1, 160))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("fc", "the layer 'fc': its output of shape 1x4 has no spatial grid"),
        ("unused", "the layer 'unused' does not run"),
        ("conv3", "the layer 'conv3' does not exist"),
    ],
)
def test_layers_without_a_map_are_refused(layer, message):
    class More(Small):
        def __init__(self):
            super().__init__()
            self.unused, self.shared = nn.Identity(), nn.Identity()

        def forward(self, x):
            return super().forward(self.shared(self.shared(x)))

    model = More()
    with untouched(model), pytest.raises(RequestError, match=message):
        Explainer(model, layers=[layer])(pictures(1, 16))


def test_a_grid_that_can_be_read_in_two_ways_is_settled_by_the_other_layers():
    # conv2 gives 6 channels over 8x8: with a cell lost at the border that could be 6x8 cells of 8 channels.
    [[one]] = Explainer(Small(), layers=["conv2"])(pictures(1, 16))
    assert one.map.shape == (8, 8)
    alone = seeded(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(512, 2)))
    with pytest.raises(RequestError, match=r"the layer '0': .* can be read in 2 ways: nchw 8x8, or nhwc 8x8"):
        Explainer(alone, layers=["0"])(pictures(1))


@pytest.mark.parametrize("method", ["guided-backprop", "guided-gradcam"])
def test_guided_backprop_needs_relus(method):
    model = timm.create_model("test_vit")
    with untouched(model), pytest.raises(RequestError, match=r"guided-.* at ReLUs, .* meets none.* GELU") as caught:
        Explainer(model, method=method)(torch.zeros(1, 3, 160, 160))
    assert "gradcam" in caught.value.hint


def test_where_only_some_activations_are_relus_that_is_noted():
    model = seeded(
        nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.SiLU(),
            nn.Conv2d(4, 4, 3),
            nn.ReLU6(),
            Through(F.relu),
            nn.Flatten(),
            nn.Linear(576, 2),
        )
    )
    explain = Explainer(model, method="guided-backprop")
    explain(pictures(1, 16))
    explain(pictures(1, 16))
    assert explain.notes[1:] == ("2 ReLUs follow the rule of guided-backprop; SiLU pass the plain gradient",)


def test_activations_are_named_where_they_are_called_and_not_where_they_only_stand():
    class Called(Small):
        def __init__(self):
            super().__init__()
            self.idle = nn.ELU()

        def forward(self, x):
            return F.silu(super().forward(F.gelu(x)))

    explain = Explainer(Called(), method="guided-backprop")
    explain(pictures(1, 16))
    assert explain.notes[1:] == ("2 ReLUs follow the rule of guided-backprop; GELU, SiLU pass the plain gradient",)


def test_a_layer_means_nothing_to_a_method_at_the_input():
    with pytest.raises(RequestError, match=r"'guided-backprop' works at the input, so a layer \(conv2\)"):
        Explainer(Small(), layers=["conv2"], method="guided-backprop")


def test_unknown_methods_are_answered_with_the_nearest():
    with pytest.raises(RequestError, match="there is no method 'gradcm'") as caught:
        Explainer(Small(), method="gradcm")
    assert "did you mean 'gradcam'" in caught.value.hint


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda scores: scores[:, :, None], "1x4x1 for 1 image"),
        (lambda scores: scores[:, :, None, None].expand(-1, -1, 8, 8), "1x4x8x8 for 1 image"),
        (lambda scores: (scores[:, :, None],), "tuple for 1 image"),
        (lambda scores: {"scores": scores.long()}, "dict for 1 image"),
        # Not to be seen with a single image.
        (lambda scores: scores.reshape(1, -1), "1x8 for 2 image"),
    ],
)
def test_a_model_that_is_no_classifier_is_refused(function, message):
    model = nn.Sequential(Small(), Through(function))
    with pytest.raises(RequestError, match=f"the model gives {message}"):
        Explainer(model, layers=["0.conv2"])(pictures(2, 16))


def test_a_layer_beside_the_score_is_refused_and_a_better_one_named():
    class Aside(Small):
        def __init__(self):
            super().__init__()
            self.aside = seeded(nn.Conv2d(3, 5, 1))

        def forward(self, x):
            self.aside(x)
            return super().forward(x)

    model = Aside()
    for layers in (["aside"], ["conv2", "aside"]):
        with untouched(model), pytest.raises(RequestError, match=r"no gradient .* at the layer 'aside'") as caught:
            Explainer(model, layers=layers)(pictures(1, 16))
        assert "'relu2' works" in caught.value.hint


def test_labels_must_be_as_many_as_scores():
    with pytest.raises(RequestError, match="gives 4 scores, but 5 classes are named"):
        Explainer(named(Small(), 5))(pictures(1, 16))


# ---- targets


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1], "2 targets were given for 3 images"),
        ([0, 1, 2, 3], "4 targets were given for 3 images"),
        ([], "0 targets were given for 3 images"),
        ([[0], [1]], "2 targets were given for 3 images"),
        (4, "there is no class 4"),
        (-1, "there is no class -1"),
        ([0, 1, 99], "there is no class 99"),
        ([[0], [1, 4], [2]], "there is no class 4"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, message):
    model = Small()
    with untouched(model), pytest.raises(RequestError, match=message) as caught:
        explainer(model)(pictures(3, 16), targets)
    if "no class" in message:
        assert "4 classes, counted from 0 to 3" in caught.value.hint


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


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 0, 16, 16), (16, 16, 3)])
def test_what_is_no_batch_of_images_is_refused(shape):
    # Called directly: while tests run, the shapes in the explainer's own signature speak first.
    with pytest.raises(RequestError, match="images of shape"):
        check_batch(torch.zeros(shape), None)
