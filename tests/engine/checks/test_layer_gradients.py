"""Whether a layer can be used is found at the tensor that is tapped; hints name layers and methods that work."""

import numpy as np
import pytest
import torch
from backbones import IMAGES, Frozen, Pooler, surveyed
from networks import Small, Through, seeded, untouched
from torch import nn

from camcli import Explainer, RequestError
from camcli.engine.layers.probe import NO_GRAPH, UNREACHED


def pooled_of(net, x):
    return net.body(x)[1]


def second_of(net, x):
    return net.two(net.body(x)[0])["fine"].square().mean((2, 3))


class NoGrad(Small):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Inference(Small):
    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)


class Detached(Small):
    def forward(self, x):
        return super().forward(x).detach()


class Within(nn.Module):
    """The network that has no graph is part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NoGrad()

    def forward(self, x):
        return 2 * self.net(x)


GRAPHLESS = [NoGrad, Inference, Detached, Within]


def gradient_by(model, name, place=None):
    """The gradient of class 1's score by what a layer hands on, by PyTorch alone."""
    found = []

    def hook(_module, _inputs, output):
        leaf = (
            output if place is None else list(output.values() if isinstance(output, dict) else output)[place]
        ).detach()
        found.append(leaf.requires_grad_())
        if place is None:
            return leaf
        return {**output, list(output)[place]: leaf} if isinstance(output, dict) else leaf

    handle = model.get_submodule(name).register_forward_hook(hook)
    score = model(IMAGES)[:, 1].sum()
    handle.remove()
    [leaf] = found
    [gradient] = torch.autograd.grad(score, [leaf])
    return (gradient.mean((2, 3), keepdim=True) * leaf).sum(1).detach().numpy()


# ---- outputs of several tensors


def test_a_backbone_that_gives_its_pooled_mean_too_is_explained_inside():
    model = Pooler(pooled_of)
    found = surveyed(model)
    assert found["body"].reason == UNREACHED
    assert found["body.conv2"].reason == ""
    explain = Explainer(model)
    with untouched(model):
        ones = explain(IMAGES, 1)
    assert explain.layers == ("body.conv2",)
    wanted = gradient_by(model, "body.conv2")
    for [one], map in zip(ones, wanted, strict=True):
        np.testing.assert_allclose(one.map, map, rtol=1e-5, atol=1e-9)


def test_the_layer_that_only_looks_as_if_it_worked_is_refused_and_the_hint_names_one_that_does():
    model = Pooler(pooled_of)
    with pytest.raises(RequestError, match=r"no gradient .* at the layer 'body'") as caught:
        Explainer(model, layers=["body"]).check(IMAGES[:1])
    assert "the score depends on another of the tensors that it returns, which has no grid" in caught.value.message
    assert "'body.conv2' works" in caught.value.hint
    with pytest.raises(RequestError, match="does not depend on the map's cells at the layer 'body'") as caught:
        Explainer(model, layers=["body"], method="ablation-cam").check(IMAGES[:1])
    assert "'body.conv2' works" in caught.value.hint
    Explainer(model, layers=["body.conv2"], method="gradcam,ablation-cam").check(IMAGES[:1])
    # What the layer says can be shown all the same.
    Explainer(model, layers=["body"], method="eigencam")(IMAGES, 1)


@pytest.mark.parametrize(
    "method", ["gradcam", "ablation-cam", "eigencam", "shapleycam", "guided-gradcam", "smooth-gradcam++"]
)
def test_of_several_tensors_the_one_is_tapped_that_the_score_depends_on(method):
    model = Pooler(second_of)
    assert surveyed(model)["two"].tensor_index == 1
    plain = Explainer(model, layers=["body.conv2"], method=method)(IMAGES, 1)
    explain = Explainer(model, layers=["two"], method=method)
    with untouched(model):
        ones = explain(IMAGES, 1)
    assert any("returns 2 tensors; number 2, on which the score depends, is" in note for note in explain.notes)
    if method == "gradcam":
        for [one], map in zip(ones, gradient_by(model, "two", 1), strict=True):
            np.testing.assert_allclose(one.map, map, rtol=1e-5, atol=1e-9)
    for [one], [other] in zip(ones, plain, strict=True):
        scale = np.abs(other.map).max()
        assert np.abs(one.map - other.map).max() <= (0.5 if method == "smooth-gradcam++" else 1e-5) * scale


def test_a_layer_whose_output_has_a_way_around_says_the_same_with_a_graph_and_without():
    # Beside guided backprop the graph starts at the input, where the gradient by the map includes that by its mean.
    model = Pooler(pooled_of)
    model.act = nn.ReLU()
    model.read = lambda net, x: net.body(net.act(x))[1]
    for method in ("gradcam", "gradcam,saliency"):
        with pytest.raises(RequestError, match=r"no gradient .* at the layer 'body'"):
            Explainer(model, layers=["body"], method=method).check(IMAGES[:1])


# ---- parts without a graph


def test_behind_a_frozen_backbone_the_neck_can_be_used_and_the_list_says_so():
    model = Frozen()
    found = surveyed(model)
    assert found["neck"].reason == ""
    assert found["body"].reason == found["body.conv2"].reason == UNREACHED
    explain = Explainer(model)
    ones = explain(IMAGES, 1)
    assert explain.layers == ("neck",)
    for [one], map in zip(ones, gradient_by(model, "neck"), strict=True):
        np.testing.assert_allclose(one.map, map, rtol=1e-5, atol=1e-9)
    with pytest.raises(RequestError, match=r"at the layer 'body.conv2'") as caught:
        Explainer(model, layers=["body.conv2"]).check(IMAGES[:1])
    assert "'neck' works" in caught.value.hint


def test_a_layer_that_is_the_same_for_every_picture_is_no_candidate():
    class Positioned(Small):
        def __init__(self):
            super().__init__()
            self.places = Through(
                lambda x: torch.linspace(0, 1, 256, dtype=x.dtype).reshape(1, 1, 16, 16).expand(1, 3, -1, -1)
            )

        def forward(self, x):
            return super().forward(x + self.places(x))

    assert surveyed(Positioned())["places"].reason == "the same for every image"


@pytest.mark.parametrize("kind", GRAPHLESS)
@pytest.mark.parametrize(
    "method", ["gradcam", "saliency", "guided-backprop", "guided-gradcam", "integrated-gradients", "gradcam,eigencam"]
)
def test_without_a_graph_the_reason_is_said_and_the_methods_of_the_hint_work(kind, method):
    model = kind()
    with untouched(model), pytest.raises(RequestError, match="the model's output has no grad_fn") as caught:
        Explainer(model, method=method).check(IMAGES[:1])
    assert "such as eigencam, ablation-cam, scorecam or rise" in caught.value.hint


@pytest.mark.parametrize("kind", GRAPHLESS)
@pytest.mark.parametrize("method", ["eigencam", "ablation-cam", "scorecam", "rise", "occlusion", "lafam", "dff"])
def test_without_a_graph_methods_that_need_none_give_the_maps_of_the_network_with_one(kind, method):
    model, plain = kind(), Small()
    options = {"rise": {"samples": 50}, "dff": {"over": "picture", "concepts": 2}}.get(method, {})
    explain = Explainer(model, method=method, options=options)
    with untouched(model):
        ones = explain(IMAGES, None if method == "dff" else 1)
    at_layer = explain.layers != ()
    assert not at_layer or explain.layers[0].endswith("relu2")
    assert kind is Within or not at_layer or surveyed(model)["relu2"].reason == NO_GRAPH
    layers = ["relu2"] if at_layer else []
    if kind is Within:
        plain = nn.Sequential(plain, Through(lambda scores: 2 * scores))
        layers = ["0.relu2"] if at_layer else []
    others = Explainer(plain, layers=layers, method=method, options=options)(IMAGES, None if method == "dff" else 1)
    for [one], [other] in zip(ones, others, strict=True):
        assert np.abs(one.map - other.map).max() <= 1e-6 * np.abs(other.map).max()


def test_without_a_graph_the_default_layer_is_one_that_the_score_depends_on():
    class Aside(NoGrad):
        def __init__(self):
            super().__init__()
            self.aside = seeded(nn.Conv2d(4, 5, 1))

        def forward(self, x):
            scores = super().forward(x)
            self.aside(scores[:, :, None, None].expand(-1, -1, 16, 16))
            return scores

    explain = Explainer(Aside(), method="eigencam")
    explain.check(IMAGES[:1])
    assert explain.layers == ("relu2",)


def test_where_no_layer_has_a_grid_and_there_is_no_graph_the_way_on_needs_neither():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3 * 16 * 16, 4)
            seeded(self)

        @torch.no_grad()
        def forward(self, x):
            return self.fc(x.flatten(1))

    with pytest.raises(RequestError, match="no layer of this network") as caught:
        Explainer(Flat(), method="eigencam").check(IMAGES[:1])
    assert "--method rise" in caught.value.hint
    Explainer(Flat(), method="rise", options={"samples": 20})(IMAGES, 1)


def test_without_a_grid_and_without_relus_the_hints_do_not_go_in_a_circle():
    model = seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5), nn.Tanh(), nn.Linear(5, 4)))
    with pytest.raises(RequestError, match="no layer of this network") as caught:
        Explainer(model).check(IMAGES[:1])
    assert "--method integrated-gradients" in caught.value.hint
    with pytest.raises(RequestError, match="has none") as caught:
        Explainer(model, method="guided-backprop").check(IMAGES[:1])
    assert "such as integrated-gradients" in caught.value.hint
    Explainer(model, method="integrated-gradients")(IMAGES, 1)
