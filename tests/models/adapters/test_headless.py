"""Models without a head: files of weights with and without one, a user's own, channels by name, refusals."""

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from headless import load
from networks import Pooled, Through, pictures
from torch import nn

from camcli import Explainer, Labels, Network, OutputSpec, Preprocess
from camcli.base.errors import RequestError
from camcli.models import spec
from camcli.models.load import load as load_model
from camcli.models.sources import timm as timm_source


def test_an_architecture_that_has_no_head():
    name = "timm:vit_small_patch14_dinov2"
    network = load(name, size="56")
    assert len(network.labels) == 384
    assert not network.notes
    assert load(name, size="56", pool="none").output_spec == OutputSpec("features", prefix=1)
    with_one = load_model(name, weights="random", size="56")
    assert len(with_one.labels) == 10
    headless = timm.create_model("test_vit", num_classes=0)
    with pytest.raises(RequestError, match="returns features, not class scores") as caught:
        timm_source.build_network(headless, "timm:test_vit", spec.ModelSpec("test_vit"), "")
    assert "--head none" in caught.value.hint


def saved(tmp_path, module, without=(), **more):
    """The module's weights in a file, without those whose names begin so."""
    state = {name: value.clone() for name, value in module.state_dict().items() if not name.startswith(tuple(without))}
    safetensors.torch.save_file(state | more, tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors")


HEADS = {
    "timm:test_resnet": ["fc."],
    "timm:test_convnext": ["head.fc."],
    "timm:efficientvit_m0": ["head.bn.", "head.linear."],
    "torchvision:squeezenet1_1": ["classifier.1."],
    "torchvision:resnet18": ["fc."],
    "bundled:efficientnet-lite0": ["classifier."],
    "open_clip:ViT-S-32-alt": ["prompts", "blank", "scale", "bias"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_a_file_without_a_head_loads_without_complaint(name, tmp_path):
    made = load_model(name, weights="random", seed=5).module
    network = load(name, weights=saved(tmp_path, made, HEADS[name]))
    assert network.weights == "file"
    assert not [note for note in network.notes if "preprocessing" not in note]
    mine = network.module.state_dict()
    assert mine
    assert all(torch.equal(value, made.state_dict()[part]) for part, value in mine.items())
    if not name.startswith("open_clip"):  # of which the text side would be missing too
        with pytest.raises(RequestError, match="do not fit"):
            load_model(name, weights=saved(tmp_path, made, HEADS[name]))


@pytest.mark.parametrize("classes", [1000, 7])
def test_a_file_with_a_head_loads_and_the_head_goes(classes, tmp_path):
    made = timm.create_model("test_resnet", num_classes=classes)
    network = load("timm:test_resnet", weights=saved(tmp_path, made))
    assert not network.notes
    assert "fc.weight" not in network.module.state_dict()
    assert torch.equal(network.module.conv1[0].weight, made.conv1[0].weight)


def test_a_headless_architecture_takes_files_with_and_without_a_head(tmp_path):
    for classes in (0, 7):
        made = timm.create_model("vit_small_patch14_dinov2", num_classes=classes)
        network = load("timm:vit_small_patch14_dinov2", weights=saved(tmp_path, made), size="56")
        assert not network.notes
        assert torch.equal(network.module.norm.weight, made.norm.weight)
        assert len(network.labels) == 384


@pytest.mark.parametrize("without", [["fc.bias"], ["fc.", "layer4."]])
def test_a_file_without_more_than_the_head_or_less_is_refused(without, tmp_path):
    made = timm.create_model("test_resnet")
    with pytest.raises(RequestError, match="do not fit"):
        load("timm:test_resnet", weights=saved(tmp_path, made, without))


# ---- a model of one's own

OWN = """
import timm, torch
from torch import nn
from camcli import Labels, Network, OutputSpec, Preprocess

prepare = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, (32, 32), "squash", "bilinear")

def body(*more):
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), *more)

def carrying():
    return timm.create_model("test_resnet", num_classes=0)

def whole():
    return timm.create_model("test_resnet", num_classes=3)

def mine():
    return body(nn.AdaptiveAvgPool2d(1), nn.Flatten()), prepare, ["a"] * 5

def beheaded():
    return Network("mine", body(nn.AdaptiveAvgPool2d(1), nn.Flatten()), prepare, Labels(()), "random", "mine",
                   activation="none", headless=True)

def raw():
    return Network("mine", body(), prepare, Labels(()), "random", "mine", activation="none", headless=True,
                   output_spec=OutputSpec("features"))

def bare():
    return nn.Identity()
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return lambda name: f"{tmp_path / 'own.py'}:{name}"


def test_ones_own_model_of_timm(own, tmp_path):
    for name in ("carrying", "whole"):
        network = load_model(own(name), head="none")
        assert (len(network.labels), network.headless, network.weights) == (96, True, "pretrained")
        assert network.name == own(name)
        assert tuple(network.module(pictures(1, 160, dtype=torch.float32)).shape) == (1, 96)
        assert len(load(own(name), pool="none", size="64").labels) == 96
    made = timm.create_model("test_resnet", num_classes=0)
    network = load_model(own("whole"), head="none", weights=saved(tmp_path, made))
    assert (network.weights, network.notes) == ("file", ())
    assert torch.equal(network.module.conv1[0].weight, made.conv1[0].weight)
    assert load(own("whole")).weights == "random"


def test_ones_own_headless_network_says_so_itself(own):
    for head in ("keep", "none"):
        network = load_model(own("beheaded"), head=head)
        assert network.labels == Labels.numbered(5, "channel")
    raw = load_model(own("raw"), head="none", pool="none")
    assert raw.labels == Labels.numbered(5, "channel")
    [[one]] = Explainer(raw)(pictures(1, 32, dtype=torch.float32), 4)
    assert one.map.shape == (32, 32)


@pytest.mark.parametrize(
    ("name", "pool", "message"),
    [
        ("mine", "keep", "the head of"),
        ("beheaded", "none", "the pooling of"),
        ("bare", "keep", "returned a model without its preprocessing"),
    ],
)
def test_ones_own_model_of_another_kind_is_refused(own, name, pool, message):
    with pytest.raises(RequestError, match=message) as caught:
        load_model(own(name), head="none", pool=pool)
    assert "camcli.Network" in caught.value.hint


# ---- channels and their names


def test_channels_are_found_by_their_numbers():
    network = load("timm:test_resnet")
    assert network.labels.find("7") == network.labels.find("channel 7") == network.labels.find("Channel 7") == 7
    with pytest.raises(RequestError, match="there is no channel 96") as caught:
        network.labels.find("96")
    assert caught.value.hint == "the model has 96 channels, counted from 0 to 95"
    with pytest.raises(RequestError, match="there is no channel 'tabby'") as caught:
        network.labels.find("tabby")
    assert "a channel is given by its index (0 to 95)" in caught.value.hint
    with pytest.raises(RequestError, match="there is no channel 96") as caught:
        Explainer(network)(pictures(1, 160, dtype=torch.float32), 96)
    assert "96 channels" in caught.value.hint


def test_channels_can_have_names(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("\n".join(f"stripes {index}" for index in range(96)))
    network = load("timm:test_resnet", labels=str(file))
    assert (network.labels.names[4], network.labels.noun) == ("stripes 4", "channel")
    file.write_text("stripes\nspots")
    with pytest.raises(RequestError, match=r"has 2 names, and timm:test_resnet\.r160_in1k has 96 channels") as caught:
        load("timm:test_resnet", labels=str(file))
    assert "one name for each channel" in caught.value.hint


# ---- requests that cannot be


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"pool": "none"}, "only together with the head", "--head none"),
        (
            {"head": "none", "activation": "softmax"},
            "features, which have no probabilities",
            "leave --activation out",
        ),
        (
            {"head": "none", "activation": "sigmoid"},
            "features, which have no probabilities",
            "leave --activation out",
        ),
    ],
)
def test_what_contradicts_itself(options, message, hint):
    with pytest.raises(RequestError, match=message) as caught:
        load_model("timm:test_resnet", weights="random", **options)
    assert hint in caught.value.hint


@pytest.mark.parametrize(("name", "what"), [("fcn_resnet50", "scores every pixel"), ("ssd300_vgg16", "finds boxes")])
def test_models_of_other_tasks_keep_their_heads(name, what):
    with pytest.raises(RequestError, match=what) as caught:
        load(f"torchvision:{name}")
    assert "name the classifier of the same backbone" in caught.value.hint


def test_a_model_that_timm_cannot_change():
    from camcli.models.sources.timm import remove_head

    with pytest.raises(RequestError, match="has no reset_classifier") as caught:
        remove_head(nn.Identity(), "timm:other")
    assert "--method activation" in caught.value.hint


def test_features_that_are_not_pooled_are_no_row():
    from camcli.models.adapters.headless import probe_channels

    for module in (nn.Conv2d(3, 4, 2, 2), Through(lambda images: (images, images[:, :2]))):
        with pytest.raises(RequestError, match="its features are not pooled") as caught:
            probe_channels(module, (8, 8), "a model", "keep")
        assert caught.value.hint == "read them as a map: --pool none"
    with pytest.raises(RequestError, match=r"can be read in 2 ways: nchw 6x6, or nhwc 6x6"):
        probe_channels(Through(lambda images: images.new_zeros(1, 6, 6, 6)), (6, 6), "a model", "none")


# ---- what makes probabilities


def test_what_makes_probabilities_can_be_said():
    image = pictures(1, 160, dtype=torch.float32)
    found = {}
    for activation in ("model", "softmax", "sigmoid", "none"):
        network = load_model("timm:test_resnet", weights="random", activation=activation)
        assert network.activation == ("softmax" if activation == "model" else activation)
        [[found[activation]]] = Explainer(network)(image, 3)
        score = found[activation].score
        scores = network.module(image)[0].detach()
        wanted = {"sigmoid": torch.tensor(score).sigmoid(), "none": None}.get(activation, scores.softmax(0)[3])
        assert found[activation].probability == (None if wanted is None else pytest.approx(float(wanted), rel=1e-4))
        # What is explained is the score, whatever is made of it.
        np.testing.assert_array_equal(found[activation].map, found["model"].map)
    with pytest.raises(RequestError, match="a probability for each box already"):
        load_model("torchvision:ssdlite320_mobilenet_v3_large", weights="random", activation="sigmoid")


def test_a_network_that_says_it_is_headless():
    preprocess = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3, (8, 8), "squash", "bilinear")
    labels = Labels.numbered(4, "channel")
    module = Pooled()
    network = Network(
        "n", module.last, preprocess, labels, "random", "", "none", output_spec=OutputSpec("features"), headless=True
    )
    assert "before pooling" in Explainer(network).describe_target()
