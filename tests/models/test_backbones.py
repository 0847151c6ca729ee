"""Networks without their head: their channels stand where classes stood, whatever library they come from."""

import copy
from types import SimpleNamespace

import captum.attr
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from networks import Pooled, Through, calibrated, named, pictures, untouched
from torch import nn

from camcli import Explainer, Labels, Network, OutputSpec, Preprocess
from camcli.base.errors import RequestError
from camcli.engine.layers.layout import possible_layouts, to_nchw
from camcli.models import spec
from camcli.models.load import load as load_model
from camcli.models.sources import timm as timm_source

SIZE = 64
IMAGES = pictures(2, SIZE)
CHANNELS = [7, 300]


def load(name, **options):
    return load_model(name, weights=options.pop("weights", "random"), head="none", **options)


def exact(name, **options):
    """A headless network in float64 whose features are alive: its batch norms know these images."""
    network = load(name, **options)
    calibrated(network.module.double(), IMAGES)
    return network


# ---- three ways to see a channel


def by_class_index(features, last, images, channels):
    """Method 1: the channel's number is the class's, on a network that ends at the pooled features."""
    network = named(nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4, headless=True)
    return [one.map for [one] in Explainer(network, layers=[f"0.{last}"])(images, [[one] for one in channels])]


def by_autograd(features, images, channels):
    """Method 2: the score is the pooled feature; Grad-CAM of it written out, equations 1 and 2 of its paper."""
    found = []
    for row, channel in enumerate(channels):
        act = features(images[row : row + 1]).detach().requires_grad_()
        score = act.mean((2, 3))[0, channel]
        (gradient,) = torch.autograd.grad(score, act)
        found.append((gradient.mean((2, 3), keepdim=True) * act).sum(1)[0].detach().numpy())
    return found


def by_raw_map(features, images, channels):
    """Method 3: the pooling is gone, and the channel's own map is looked at."""
    with torch.no_grad():
        raw = features(images)
    return [raw[row, channel].numpy() for row, channel in enumerate(channels)]


def test_the_three_ways_agree_on_a_network_that_ends_in_average_pooling():
    made = Pooled()
    features = nn.Sequential(made.features, made.last)
    images, channels = pictures(3), [2, 0, 2]
    first = by_class_index(features, 1, images, channels)
    second = by_autograd(features, images, channels)
    third = by_raw_map(features, images, channels)
    assert any(one.min() < 0 < one.max() for one in third)  # or the rectifying would prove nothing
    for one, two, three in zip(first, second, third, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
        # 1/N is each cell's part of the mean; the weight is its mean.
        np.testing.assert_allclose(one.clip(0) * three.size, three.clip(0), rtol=1e-6)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_the_three_ways_agree_on_resnets(name):
    pooled, raw = exact(name), exact(name, pool="none")
    body = Through(lambda images: raw.module(images))
    first = [one for [one] in Explainer(pooled)(IMAGES, [[one] for one in CHANNELS])]
    same_layer = [one for [one] in Explainer(raw)(IMAGES, [[one] for one in CHANNELS])]
    second, third = by_autograd(body, IMAGES, CHANNELS), by_raw_map(body, IMAGES, CHANNELS)
    for one, other, two, three in zip(first, same_layer, second, third, strict=True):
        assert (one.layer, other.layer) == ("layer4", "layer4")
        assert three.std() > 0
        np.testing.assert_allclose(one.map, two, rtol=1e-5)
        np.testing.assert_allclose(other.map, two, rtol=1e-5)
        np.testing.assert_allclose(one.map.clip(0) * three.size, three.clip(0), rtol=1e-5)
        assert one.score == pytest.approx(three.mean(), rel=1e-6)
        assert other.score == pytest.approx(three.mean(), rel=1e-6)
        assert one.probability is None
        assert other.probability is None


@pytest.mark.parity
@pytest.mark.parametrize("layer", ["layer4", "layer3"])
@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_captum_says_the_same(name, layer):
    network = exact(name)
    theirs = copy.deepcopy(network.module)
    maps = captum.attr.LayerGradCam(theirs, theirs.get_submodule(layer)).attribute(
        IMAGES, target=torch.tensor(CHANNELS)
    )
    ours = Explainer(network, layers=[layer])(IMAGES, CHANNELS)
    for [one], map in zip(ours, maps[:, 0].detach().numpy(), strict=True):
        assert map.std() > 0
        np.testing.assert_allclose(one.map, map, rtol=1e-5, atol=1e-6 * np.abs(map).max())
        assert (one.label, one.channel) == (f"channel {one.index}", one.index)


@pytest.mark.parametrize("method", ["ablation-cam", "scorecam", "occlusion", "integrated-gradients", "cam"])
def test_methods_that_ask_again_say_the_same_of_a_map_and_of_what_is_pooled(method):
    options = {"occlusion": {"window": 32, "stride": 32}, "integrated-gradients": {"steps": 8}}.get(method, {})
    layers = {"layers": ["layer4"]} if method in ("ablation-cam", "scorecam", "cam") else {}
    found = []
    for pool in ("keep", "none"):
        network = exact("timm:test_resnet", pool=pool)
        with untouched(network.module):
            found.append(
                Explainer(network, method=method, options=options, **layers)(IMAGES)
            )  # the most active channel
    for [pooled], [raw] in zip(*found, strict=True):
        assert pooled.map.any()
        np.testing.assert_allclose(pooled.map, raw.map, rtol=1e-4, atol=1e-6 * np.abs(pooled.map).max())
        assert pooled.score == pytest.approx(raw.score, rel=1e-6)


def test_a_map_is_explained_at_other_sizes_and_mirrored():
    for name in ("timm:test_resnet", "torchvision:resnet18"):
        explain = Explainer(exact(name, pool="none"), scales=(1.0, 1.5), flips=["flip"])
        with untouched(explain.module):
            [[one], _] = explain(IMAGES, 3)
        assert one.map.shape == (2, 2)


# ---- every library


FAMILIES = [
    "crossvit_tiny_240",
    "mobilenetv3_small_050",
    "starnet_s050",
    "test_byobnet",
    "test_coatnet",
    "test_convnext",
    "test_efficientnet",
    "test_mambaout",
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "test_vit_relpos",
]
SLOW_FAMILIES = [
    "beit_base_patch16_224",
    "caformer_s18",
    "cait_xxs24_224",
    "convit_tiny",
    "davit_tiny",
    "deit_tiny_distilled_patch16_224",
    "densenet121",
    "efficientformerv2_s0",
    "efficientvit_m0",
    "ghostnet_050",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "inception_next_atto",
    "inception_v3",
    "levit_128s",
    "pit_ti_224",
    "pvt_v2_b0",
    "regnetx_002",
    "repghostnet_050",
    "samvit_base_patch16_224",
    "sequencer2d_s",
    "swin_tiny_patch4_window7_224",
    "tiny_vit_5m_224",
    "vgg11",
    "volo_d1_224",
    "xcit_nano_12_p8_224",
]
# What has no map to give before it is pooled.
NO_MAP = {"crossvit_tiny_240", "deit_tiny_distilled_patch16_224", "vgg11", "inception_next_atto", "pit_ti_224"}


def holds(name, pool_too=True, text=(), **options):
    """The laws of a headless network: what is left of it is the model's own, and every channel has a name and a map."""
    whole, pooled = load_model(name, weights="random", text=text, **options), load(name, **options)
    kept, full = pooled.module.state_dict(), whole.module.state_dict()
    assert kept.keys() < full.keys()
    assert all(torch.equal(kept[part], full[part]) for part in kept)
    image = pictures(1, pooled.preprocess.size, dtype=torch.float32)
    with torch.inference_mode():
        features = pooled.read(pooled.module(image), 1).scores(0)
    assert features.isfinite().all()
    assert pooled.labels == Labels.numbered(len(features), "channel")
    assert pooled.headless
    assert (pooled.activation, pooled.output_spec.task) == ("none", "classify")
    assert not any("classes are unknown" in note for note in pooled.notes)
    if pool_too:
        has_a_map(name, image, **options)
    return pooled


def has_a_map(name, image, same_count=True, **options):
    raw = load(name, pool="none", **options)
    assert not same_count or raw.labels == load(name, **options).labels
    with torch.inference_mode():
        output = raw.module(image)
        scores = raw.read(output, 1).scores(0)
    ways = possible_layouts(output.shape, raw.preprocess.size, raw.output_spec.prefix)
    cells = to_nchw(output, next(one for one in ways if one.order != "ncl"))[0]
    assert len(cells) == len(raw.labels)
    torch.testing.assert_close(scores, cells.mean((1, 2)))
    # At the default layer Grad-CAM is the channel itself, over the number of its cells.
    [[one]] = Explainer(raw)(image, 3)
    np.testing.assert_allclose(one.map * one.map.size, cells[3], rtol=1e-3, atol=1e-5 * float(cells[3].abs().max()))


@pytest.mark.filterwarnings("default")  # the libraries' own, at building
@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_timm(name):
    holds(f"timm:{name}", pool_too=name not in NO_MAP)
    if name in NO_MAP:
        with pytest.raises(RequestError, match=r"without its pooling|no map of the image") as caught:
            load(f"timm:{name}", pool="none")
        assert "leave --pool none out" in caught.value.hint


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", SLOW_FAMILIES)
def test_more_families_of_timm(name):
    test_families_of_timm(name)


# The classifier that goes, and the number of features that are left.
TORCHVISION = {
    "alexnet": ("classifier.6", 4096),
    "convnext_tiny": ("classifier.2", 768),
    "densenet121": ("classifier", 1024),
    "efficientnet_b0": ("classifier.1", 1280),
    "googlenet": ("fc", 1024),
    "inception_v3": ("fc", 2048),
    "maxvit_t": ("classifier.5", 512),
    "mnasnet0_5": ("classifier.1", 1280),
    "mobilenet_v2": ("classifier.1", 1280),
    "mobilenet_v3_small": ("classifier.3", 1024),
    "regnet_y_400mf": ("fc", 440),
    "resnet18": ("fc", 512),
    "shufflenet_v2_x0_5": ("fc", 1024),
    "squeezenet1_1": ("classifier.1", 512),
    "swin_t": ("head", 768),
    "vgg11": ("classifier.6", 4096),
    "vit_b_32": ("heads.head", 768),
}
QUICK = ["mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"]
POOLED_INSIDE = {
    "alexnet": "'avgpool' pools to 6x6 cells",
    "densenet121": "no module of its own pools",
    "mnasnet0_5": "no module of its own pools",
    "mobilenet_v2": "no module of its own pools",
    "shufflenet_v2_x0_5": "no module of its own pools",
    "squeezenet1_1": "no module of its own pools",
    "vgg11": "'avgpool' pools to 7x7 cells",
    "vit_b_32": "no module of its own pools",
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TORCHVISION]
)
def test_families_of_torchvision(name):
    classifier, count = TORCHVISION[name]
    whole = load_model(f"torchvision:{name}", weights="random")
    pooled = holds(f"torchvision:{name}", pool_too=name not in POOLED_INSIDE)
    assert len(pooled.labels) == count
    parts = dict(pooled.module.named_modules())
    assert list(parts) == list(dict(whole.module.named_modules()))
    assert [part for part in parts if type(parts[part]) is nn.Identity and part == classifier] == [classifier]
    if name in POOLED_INSIDE:
        with pytest.raises(RequestError, match=POOLED_INSIDE[name]) as caught:
            load(f"torchvision:{name}", pool="none")
        assert (f"--model timm:{name}" in caught.value.hint) == timm.is_model(name)


def test_every_family_of_torchvision_is_held_to_it():
    def family(name):
        return torchvision.models.get_model_builder(name).__module__

    assert {family(name) for name in TORCHVISION} == {
        family(name) for name in torchvision.models.list_models(module=torchvision.models)
    }


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_what_stands_behind_a_pooling_is_done_cell_by_cell(name):
    raw, whole = load(f"torchvision:{name}", pool="none").module, load_model(f"torchvision:{name}", weights="random")
    images = pictures(3, (64, 96), dtype=torch.float32)
    body = whole.module.features if name != "resnet18" else nn.Sequential(*list(whole.module.children())[:-2])
    head = whole.module.classifier[:-1] if name != "resnet18" else nn.Identity()
    with torch.no_grad():
        cells = head(body(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(raw(images), cells)


# A model of each kind of image tower: how wide its embedding is, and its map.
OPEN_CLIP = {
    "ViT-S-32-alt": (256, 384),
    "RN50": (1024, 2048),
    "coca_ViT-B-32": (512, 768),
    "convnext_base": (512, 1024),
    "vit_medium_patch16_gap_256": (512, 512),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name", [name if name == "ViT-S-32-alt" else pytest.param(name, marks=pytest.mark.slow) for name in OPEN_CLIP]
)
def test_towers_of_open_clip(name):
    embedding, width = OPEN_CLIP[name]
    # Prompts, since random embeddings in their place would be drawn from the same seed.
    pooled = holds(f"open_clip:{name}", pool_too=False, text=("a cat", "a dog"))
    assert len(pooled.labels) == embedding
    assert {part.partition(".")[0] for part in pooled.module.state_dict()} == {"visual"}
    has_a_map(f"open_clip:{name}", pictures(1, pooled.preprocess.size, dtype=torch.float32), same_count=False)
    assert len(load(f"open_clip:{name}", pool="none").labels) == width


def test_towers_need_no_prompts_and_take_none():
    with pytest.raises(RequestError, match="prompts are the classes") as caught:
        load("open_clip:ViT-S-32-alt", text=("a cat",))
    assert "leave --text out" in caught.value.hint
    # Nor are they missed where there are weights: what is missed is the weights.
    with pytest.raises(RequestError, match="does not name its weights"):
        load_model("open_clip:ViT-B-32", head="none")
    with pytest.raises(RequestError, match="no classes of its own") as caught:
        load_model("open_clip:ViT-B-32")
    assert "--head none" in caught.value.hint


def test_a_tower_of_another_kind_keeps_its_pooling():
    from camcli.models.sources import open_clip

    with pytest.raises(RequestError, match="image tower of open_clip:another"):
        open_clip._remove_pooling(SimpleNamespace(visual=nn.Identity()), "open_clip:another")


def test_the_bundled_model_without_its_head():
    network = load_model("bundled:efficientnet-lite0", head="none")
    assert (len(network.labels), network.labels.names[100]) == (1280, "channel 100")
    assert network.weights == "pretrained"
    assert Explainer(network).describe_target() == "a pooled feature of the backbone"
    raw = load_model("bundled:efficientnet-lite0", head="none", pool="none")
    assert Explainer(raw).describe_target() == "a feature of the backbone before pooling: its mean over the cells"


# ---- architectures without a head, and files without one


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


# ---- how features are read


def read(tensor, channels, images=1, **outlet):
    labels = Labels.numbered(channels, "channel").names
    return OutputSpec("features", **outlet).read(tensor, images, labels, "none")


def test_features_are_read_in_every_layout():
    cells = torch.arange(2 * 5 * 2 * 3, dtype=torch.float64).reshape(2, 5, 2, 3)
    wanted = cells.mean((2, 3)).float()
    tokens = torch.cat([torch.full((2, 4, 5), 1e6), cells.flatten(2).mT], 1)
    for tensor, prefix in (
        (cells, 0),
        (cells.permute(0, 2, 3, 1), 0),
        (tokens, 4),
        (cells.mean((2, 3)), 0),
        (cells.mean((2, 3), keepdim=True), 0),
    ):
        predictions = read(tensor, 5, 2, prefix=prefix)
        assert predictions.classes == 5
        torch.testing.assert_close(torch.stack([predictions.scores(0), predictions.scores(1)]), wanted)
    # Nobody knows how many there are: channels first, as is usual.
    assert OutputSpec("features").read(cells, 2).classes == 5


def test_features_that_lie_both_ways_or_nowhere():
    with pytest.raises(RequestError, match="may be the first or the last"):
        read(torch.zeros(1, 6, 6, 6), 6)
    with pytest.raises(RequestError, match="returns 4 tokens, of which 4 are declared"):
        read(torch.zeros(1, 4, 6), 6, prefix=4)
    with pytest.raises(RequestError, match="not features for each"):
        read(torch.zeros(3, 4, 6), 6)


def test_features_are_chosen_by_the_number_of_channels():
    both = {"map": torch.zeros(1, 5, 3, 4), "tokens": torch.ones(1, 12, 6), "pooled": torch.zeros(1, 6)}
    assert read(both, 6).scores(0).tolist() == [1.0] * 6
    assert read(both, 5).scores(0).tolist() == [0.0] * 5


def test_likeness_of_features_that_are_not_pooled():
    torch.manual_seed(0)
    cells, reference = torch.randn(1, 5, 2, 3), torch.randn(1, 5)
    [cosine] = read(cells, 1, references=reference).scores(0)
    torch.testing.assert_close(cosine, nn.functional.cosine_similarity(cells.mean((2, 3)), reference)[0])


def test_a_network_that_says_it_is_headless():
    preprocess = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3, (8, 8), "squash", "bilinear")
    labels = Labels.numbered(4, "channel")
    module = Pooled()
    network = Network(
        "n", module.last, preprocess, labels, "random", "", "none", output_spec=OutputSpec("features"), headless=True
    )
    assert "before pooling" in Explainer(network).describe_target()
