"""The preprocessing of a module in memory: read off a torchvision transform, or refused, and never guessed."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

import camcli
from camcli.base.errors import RequestError
from camcli.models.adapters.transforms import read_transform

HALF = (0.5, 0.5, 0.5)
NORMALIZE = v1.Normalize(HALF, HALF)
NEW_STEPS = [v2.Resize(40), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]


@pytest.mark.parametrize(
    ("transform", "size", "resize", "fit", "interpolation"),
    [
        (torchvision.models.ResNet18_Weights.DEFAULT.transforms(), 224, 256, "shorter", "bilinear"),
        (timm.data.create_transform(224, crop_pct=0.9, interpolation="bicubic"), 224, 248, "shorter", "bicubic"),
        (v1.Compose([v1.Resize((32, 32)), v1.ToTensor(), NORMALIZE]), 32, 32, "squash", "bilinear"),
        (v1.Compose([v1.Resize(40), v1.CenterCrop(32), v1.ToTensor()]), 32, 40, "shorter", "bilinear"),
        (v2.Compose([*NEW_STEPS, v2.Normalize(HALF, HALF)]), 32, 40, "shorter", "bilinear"),
    ],
    ids=["weights.transforms()", "timm", "squash", "not normalised", "v2"],
)
def test_a_transform_is_read(transform, size, resize, fit, interpolation):
    found = read_transform(transform)
    assert (found.size, found.resize) == ((size, size), (resize, resize))
    assert (found.fit, found.interpolation) == (fit, interpolation)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (v1.Compose([v1.Resize(40), v1.ToTensor()]), "does not bring every image to one size"),
        (v1.Compose([v1.RandomResizedCrop(32), v1.ToTensor()]), "its steps are RandomResizedCrop, ToTensor"),
        (v1.Compose([v1.CenterCrop(32), v1.Resize(40), v1.ToTensor()]), "its steps are CenterCrop, Resize"),
        (v1.Compose([v1.Resize((9, 9)), v1.PILToTensor()]), "its tensors differ"),  # these stay 0 to 255
        (lambda image: image, "its steps are unknown"),
    ],
    ids=["any size", "random", "other order", "not scaled", "function"],
)
def test_what_cannot_be_read_is_refused(transform, reason):
    with pytest.raises(RequestError, match=reason) as caught:
        read_transform(transform)
    assert "camcli.Preprocess(" in caught.value.hint


def test_a_module_without_preprocessing_is_refused(tiny: str):
    with pytest.raises(RequestError, match="nothing says how images are prepared for this Conv2d") as caught:
        camcli.load(nn.Conv2d(3, 3, 1))
    assert "preprocess=camcli.Preprocess(" in caught.value.hint
    network = camcli.load(tiny)
    for model, words in (
        (tiny, "says itself how images are prepared"),
        ("bundled:efficientnet-lite0", "has its own"),
        (network, "preprocess= is for a module"),
    ):
        with pytest.raises(RequestError, match=words):
            camcli.load(model, preprocess=network.preprocess)


def test_timms_module_says_it_itself_and_stays_as_it_is():
    module = timm.create_model("test_vit.r160_in1k", num_classes=5)
    network = camcli.load(module, labels=list("abcde"))
    assert (network.preprocess.size, network.labels.names) == ((160, 160), tuple("abcde"))
    assert module.training
    assert not network.module.training
    assert network.module.head.weight.data_ptr() == module.head.weight.data_ptr()
    other = camcli.load(module, preprocess=camcli.Preprocess((160, 160), HALF, HALF))
    assert (other.preprocess.resize, other.prefix, other.grid) == ((160, 160), network.prefix, network.grid)
    with pytest.raises(RequestError, match="labels= has 1 names, and VisionTransformer has 5 classes"):
        camcli.load(module, labels=["a"])


def test_reprs_are_short(tiny: str):
    network = camcli.load(tiny)
    assert repr(network).endswith(":make: Tiny, 3 classes, input 16x16, weights pretrained)")
    assert repr(network.labels) == "Labels(3 classes: 'red, crimson', 'green', 'blue, azure')"
    explainer = camcli.Explainer(network, layer="stem")
    assert repr(explainer) == f"Explainer({network.name}: gradcam at stem)"
