"""The zoo: an everyday dozen of families keeps all laws; every module of timm gives a right map or a reason (slow)."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from camcli import Explainer, Network, PictureError, RequestError, models
from networks import untouched
from place import place

# The smallest model with a classifier of each module of timm, by weights times pixels of its input; where no model of
# a module has one, the smallest.
TIMM: dict[str, str] = json.loads((Path(__file__).parent / "zoo.json").read_text())

# Minutes and gigabytes each; they are tried by hand.
LARGE = frozenset(
    {
        "deepseek_vit_412m",
        "gemma4_vit_167m",
        "qwen3_vit_88m",
        "naflexvit_base_patch16_parfac_gap",
        "nasnetalarge",
        "pnasnet5large",
        "mobilenetv5_base",
    }
)

# One of each kind: CNNs with and without ReLUs, channels last, class token, pooled tokens, MLP-like. What an untrained
# network does to a change is partly chance; these keep the law of place with the seeds used here.
EVERYDAY = [
    "timm:test_byobnet",
    "timm:test_convnext",
    "timm:test_efficientnet",
    "timm:test_mambaout",
    "timm:test_nfnet",
    "timm:test_resnet",
    "timm:test_vit",
    "timm:test_vit_relpos",
    "timm:convit_tiny",
    "timm:crossvit_tiny_240",
    "timm:gmlp_ti16_224",
    "timm:mobilenetv3_small_050",
    "torchvision:squeezenet1_1",
]
TOLERANCE = 2e-3  # float32, through a whole network


def untrained(model: str) -> tuple[Network, torch.Tensor]:
    network = models.load(model, weights="random")
    images = torch.randn(2, 3, *network.prepare.size, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        network.module(images[:1])  # some networks build tables at their first image
    return network, images


def hold_to_the_laws_of_maps(network: Network, images: torch.Tensor) -> Explainer:
    explain = Explainer(network)
    with untouched(network.module):
        [[alone]] = explain(images[1:], [1])
        [one] = explain(images, [0, 1])[1]
        [layer] = explain.layers
        assert alone.map.shape == explain.grids[layer]
        assert np.isfinite(alone.map).all()
        assert np.ptp(alone.map) > 1e-5 * np.abs(alone.map).max()  # not constant
        assert np.abs(alone.map - one.map).max() < TOLERANCE * np.abs(alone.map).max()  # a batch is its singles
        try:
            [[guided]] = Explainer(network, method="guided-backprop")(images[:1], [0])
        except (RequestError, PictureError) as error:
            assert error.message
        else:
            assert guided.map.shape == tuple(images.shape[1:])
            assert np.isfinite(guided.map).all()
    return explain


@pytest.mark.filterwarnings("default")  # timm's own, at building
@pytest.mark.parametrize("model", EVERYDAY)
def test_a_dozen_families_keep_the_laws_and_the_law_of_place(model):
    network, images = untrained(model)
    explain = hold_to_the_laws_of_maps(network, images)
    [layer] = explain.layers
    size = (images.shape[2], images.shape[3])
    assert not place(network.module, layer, explain.layouts[layer], size).broken()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # timm's own, at building
@pytest.mark.parametrize("module", sorted(name for name, model in TIMM.items() if model not in LARGE))
def test_every_module_of_timm_keeps_the_laws_of_maps(module):
    hold_to_the_laws_of_maps(*untrained(f"timm:{TIMM[module]}"))


def test_the_zoo_names_models_that_timm_has():
    assert all(model in timm.list_models(module=module) for module, model in TIMM.items())
