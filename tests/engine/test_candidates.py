"""Whether a layer can be used is found where it is used: at the tensor that is tapped; and hints name what works."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Small, Through, named, pictures, same, seeded, untouched
from torch import nn
from typer.testing import CliRunner

from camcli import Explainer, PictureError, RequestError
from camcli.cli import app
from camcli.engine.layers.default_layer import find_default_layer
from camcli.engine.layers.probe import NO_GRAPH, UNREACHED, probe_layers

IMAGES = pictures(2, 16)


class Body(nn.Module):
    """As a backbone of transformers: the map, and its pooled mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu())
        return x, x.square().mean((2, 3))


class Pooler(nn.Module):
    """A head that reads what is pooled; or of two maps one."""

    def __init__(self, read) -> None:
        super().__init__()
        self.body, self.fc, self.read = Body(), nn.Linear(5, 4), read
        self.two = Through(lambda x: {"coarse": x[:, :3, ::2, ::2], "fine": x})
        seeded(self)

    def forward(self, x):
        return self.fc(self.read(self, x))


def pooled_of(net, x):
    return net.body(x)[1]


def second_of(net, x):
    return net.two(net.body(x)[0])["fine"].square().mean((2, 3))


class Frozen(Pooler):
    """A backbone that learns nothing, and a neck that does."""

    def __init__(self) -> None:
        super().__init__(None)
        self.neck = nn.Conv2d(5, 5, 3, padding=1)
        seeded(self)

    def forward(self, x):
        with torch.no_grad():
            x, _ = self.body(x)
        return self.fc(self.neck(x).square().mean((2, 3)))


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


def surveyed(model):
    return {layer.name: layer for layer in probe_layers(model, IMAGES[:1])}


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


# ---- a gradient that is zero on noise


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


# ---- the default


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
