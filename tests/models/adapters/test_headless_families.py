"""Networks of every library without their head: their channels stand where classes stood."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torchvision
from headless import load
from networks import pictures
from torch import nn

from camcli import Explainer, Labels
from camcli.base.errors import RequestError
from camcli.engine.layers.layout import possible_layouts, to_nchw
from camcli.models.load import load as load_model

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
        with pytest.raises(
            RequestError, match=r"the pooling of .* cannot be removed|which is not a feature map"
        ) as caught:
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
        open_clip.remove_pooling(SimpleNamespace(visual=nn.Identity()), "open_clip:another")


def test_the_bundled_model_without_its_head():
    network = load_model("bundled:efficientnet-lite0", head="none")
    assert (len(network.labels), network.labels.names[100]) == (1280, "channel 100")
    assert network.weights == "pretrained"
    assert Explainer(network).describe_target() == "a pooled feature of the backbone"
    raw = load_model("bundled:efficientnet-lite0", head="none", pool="none")
    assert Explainer(raw).describe_target() == "a feature of the backbone before pooling: its mean over the cells"
