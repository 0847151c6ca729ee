"""What the explainer refuses before anything is explained, and what it says."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from networks import Small, Through, explainer, named, pictures, same, seeded, untouched
from torch import nn

from camcli import Explainer, RequestError
from camcli.engine.checks.images import check_batch


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
    with pytest.raises(RequestError, match="the layout nchw was given without a layer"):
        Explainer(Small(), layout="nchw")
    with pytest.raises(RequestError, match="call 2 was given without a layer"):
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
        said = f"call {call}" if call else "the last"
        assert explain.notes == (f"the layer 'act' is called 2 times per forward pass; {said} is explained (--call N)",)
    same(by_call[0], by_call[2])
    assert np.abs(by_call[1].map - by_call[2].map).max() > 0.01 * np.abs(by_call[2].map).max()
    with pytest.raises(RequestError, match="'act' has no call 3: it is called 2 times"):
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
        ("unused", "the layer 'unused' is not called"),
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
    with untouched(model), pytest.raises(RequestError, match=r"guided-.* for ReLUs, .* has none.* GELU") as caught:
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
    with pytest.raises(RequestError, match=r"'guided-backprop' works at the input, and takes no layer \(conv2\)"):
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
    with pytest.raises(RequestError, match=f"the model returns {message}"):
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
    with pytest.raises(RequestError, match="returns 4 scores, but 5 classes are named"):
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


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 0, 16, 16), (16, 16, 3)])
def test_what_is_no_batch_of_images_is_refused(shape):
    # Called directly: while tests run, the shapes in the explainer's own signature speak first.
    with pytest.raises(RequestError, match="images of shape"):
        check_batch(torch.zeros(shape), None)
