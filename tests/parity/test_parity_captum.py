"""Numbers against Captum, in float64, on torchvision's architectures.

Captum hooks modules, so it gets a copy in which every ReLU is a module of its own that works out of place; camcli gets
the network as torchvision builds it.
"""

import copy

import captum.attr
import pytest
import torch
import torchvision
from networks import Through, pictures
from parity_networks import SIZE, fresh, replace
from torch import nn

from camcli import Explainer
from camcli.engine.hooks.watch import watch_outputs
from camcli.engine.maps.method import BoundMethod

pytestmark = [
    pytest.mark.parity,
    # Captum's own: it says that it sets hooks on ReLUs and takes them off again.
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations"),
]

TARGETS = [3, 8]


def for_captum(model):
    """A copy in which every ReLU stands for itself: a module, out of place, and ReLU6 as a ReLU under a ceiling."""
    model = copy.deepcopy(model)
    replace(model, nn.ReLU, nn.ReLU)
    replace(model, nn.ReLU6, lambda: nn.Sequential(nn.ReLU(), Through(lambda x: x.clamp(max=6))))
    if isinstance(model, torchvision.models.DenseNet):
        # Its last ReLU is a call in its forward.
        return nn.Sequential(model.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.classifier)
    return model


def layer_in(model, copied, path):
    """The layer of this path in the copy."""
    if isinstance(model, torchvision.models.DenseNet):
        return copied[0] if path == "features" else copied[0].get_submodule(path.removeprefix("features."))
    return copied.get_submodule(path)


@pytest.fixture
def explained(monkeypatch):
    """The maps of an explainer, as they are in float64 before they are handed out in float32."""
    kept = []
    map_of = BoundMethod.__call__

    def keep(self, signals, layer):
        kept.append(map_of(self, signals, layer))
        return kept[-1]

    monkeypatch.setattr(BoundMethod, "__call__", keep)

    def maps(model, images, **options):
        # Captum stretches a layer's map as if its cells shared the input evenly.
        explainer = Explainer(model, **options, placement="even")
        explainer.check(images[:1])
        kept.clear()  # of the check, on noise
        given = explainer(images, TARGETS)
        # All targets are of the first rank, so there was one way back for the batch.
        whole = kept.pop()
        assert not kept
        assert whole.dtype == torch.float64
        assert [one.map.tolist() for [one] in given] == whole.float().tolist()
        return whole

    return maps


def agree(ours, theirs):
    """Within 1e-6 and within 1e-9 of each map's own scale, whatever that is; and it is not nothing."""
    theirs = theirs.detach().reshape(ours.shape)
    for one, other in zip(ours, theirs, strict=True):
        scale = other.abs().max()
        assert scale > 1e-6
        assert (one - other).abs().max() <= min(1e-6, 1e-9 * scale)


# Some are followed by an operation in place: bn1, features.18, conv2 (concatenated), norm2, features.18.1.
LAYERS = [
    ("resnet18", "layer4"),
    ("resnet18", "layer3.1.bn1"),
    ("vgg11", "features.18"),
    ("vgg11", "features.19"),
    ("densenet121", "features"),
    ("densenet121", "features.denseblock4.denselayer16.conv2"),
    ("densenet121", "features.denseblock3.denselayer2.norm2"),
    ("mobilenet_v2", "features"),
    ("mobilenet_v2", "features.18.1"),
]


@pytest.fixture(scope="module")
def networks():
    """Each network and its copy, built once and only if asked for."""
    built = {}

    def get(name):
        if name not in built:
            model = fresh(name)
            built.clear()
            built[name] = model, for_captum(model)
        return built[name]

    return get


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_gradcam_is_captums_layer_gradcam(networks, explained, name, layer):
    model, copied = networks(name)
    images = pictures(2, SIZE)
    maps = explained(model, images, layers=[layer])
    # Captum on the very network too, where it keeps a copy of the activations.
    for theirs, place in ((copied, layer_in(model, copied, layer)), (model, model.get_submodule(layer))):
        captums = captum.attr.LayerGradCam(theirs, place)
        agree(maps, captums.attribute(images, torch.tensor(TARGETS), relu_attributions=False))


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "densenet121", "mobilenet_v2"])
def test_guided_backprop_is_captums(networks, explained, name):
    model, copied = networks(name)
    images = pictures(2, SIZE)
    torch.testing.assert_close(copied(images), model(images))
    maps = explained(model, images, method="guided-backprop")
    captums = captum.attr.GuidedBackprop(copied).attribute(images.clone().requires_grad_(), torch.tensor(TARGETS))
    agree(maps, captums)
    # And it is not the plain gradient.
    leaf = images.clone().requires_grad_()
    (plain,) = torch.autograd.grad(model(leaf)[[0, 1], TARGETS].sum(), leaf)
    assert (plain - captums).abs().max() > 0.1 * captums.abs().max()


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer3"),
        ("vgg11", "features.18"),
        ("densenet121", "features.denseblock3"),
        ("mobilenet_v2", "features.13"),
    ],
)
def test_guided_gradcam_is_captums(networks, explained, name, layer):
    model, copied = networks(name)
    images = pictures(2, SIZE)
    maps = explained(model, images, layers=[layer], method="guided-gradcam")
    captums = captum.attr.GuidedGradCam(copied, layer_in(model, copied, layer))
    agree(
        maps,
        captums.attribute(images.clone().requires_grad_(), torch.tensor(TARGETS), interpolate_mode="bilinear"),
    )


def test_captum_leaves_relu6_as_it_is_and_camcli_does_not(networks):
    """Why captum needs another copy of MobileNetV2: on the network itself it gives the plain gradient."""
    model, _ = networks("mobilenet_v2")
    images = pictures(1, SIZE).requires_grad_()
    captums = captum.attr.GuidedBackprop(model).attribute(images, 3)
    (plain,) = torch.autograd.grad(model(images)[0, 3], images)
    assert torch.allclose(captums, plain, rtol=1e-12)
    met = []
    with watch_outputs(model, lambda name, output: met.append(bool((output == 6).any()))):
        model(images)
    assert any(met)
    [[one]] = Explainer(model, method="guided-backprop")(images.detach(), 3)
    ours = torch.from_numpy(one.map).double()
    assert (ours - captums[0]).abs().max() > 0.1 * ours.abs().max()


def test_mobilenet_with_plain_relus_is_captums_without_another_copy(explained):
    model = fresh("mobilenet_v2", plain=True)
    images = pictures(2, SIZE)
    maps = explained(model, images, method="guided-backprop")
    captums = captum.attr.GuidedBackprop(model).attribute(images.clone().requires_grad_(), torch.tensor(TARGETS))
    agree(maps, captums)
