"""Maps of vision transformers at other sizes: where they lie, and what a run says of them."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clips import PROMPTS
from commands import do
from image_towers import clip, every_tower, half_higher, sides
from networks import pictures, untouched
from place import broken_law
from readback import facts

from camcli import Explainer, PictureError, RequestError
from camcli.methods import METHODS, works_at

LAYERS = {"ModifiedResNet": ["visual.layer2", "visual.layer3"], "of timm": ["visual.trunk.blocks[-3:-1]"]}
OF_TRANSFORMER = "visual.transformer.resblocks[-3:-1]"


# ---- maps


@pytest.mark.slow
@every_tower
def test_scales_are_the_mean_of_the_maps_at_each_size(towers, kind):
    own = sides(kind)
    images = pictures(2, own, dtype=torch.float32)
    explain = Explainer(clip(towers, kind), scales=(1.0, 1.5))
    with untouched(explain.module):
        found = explain(images, [0, 2])
    shown = F.interpolate(images, (own * 3 // 2,) * 2, mode="bilinear", align_corners=False)
    sized = Explainer(clip(towers, kind, str(own * 3 // 2)))
    plain, larger = Explainer(clip(towers, kind))(images, [0, 2]), sized(shown, [0, 2])
    for [one], [small], [large] in zip(found, plain, larger, strict=True):
        resized = torch.from_numpy(large.map)[None, None]
        resized = F.interpolate(resized, small.map.shape, mode="bilinear", align_corners=False)[0, 0]
        np.testing.assert_allclose(one.map, (small.map + resized.numpy()) / 2, atol=1e-6 * np.abs(one.map).max())
        assert one.score == pytest.approx(small.score)
    assert any(f"{own * 3 // 2}x{own * 3 // 2}" in note for note in explain.notes)
    assert sum("position embeddings" in note and "interpolated" in note for note in explain.notes) == 1
    assert [note for note in sized.notes if "position embeddings" in note] == [
        one for one in explain.notes if "position embeddings" in one
    ]


@every_tower
def test_places_lie_right_at_a_size_that_is_not_square(towers, kind):
    network = clip(towers, kind)
    size = half_higher(kind)
    explain = Explainer(network)
    explain.check(torch.randn(1, 3, *size))
    [(layer, layout)] = explain.layouts.items()
    assert layout.grid[0] * 2 == layout.grid[1] * 3
    assert not broken_law(network.module, layer, layout, size)


def test_as_many_cells_in_another_grid_are_read_in_that_grid(towers):
    """Four by four cells are known, and an image of two by eight has as many."""
    network = clip(towers, "class token")
    assert (network.grid, network.grid_at((16, 64)), network.grid_at((24, 48))) == ((4, 4), (2, 8), (3, 6))
    assert network.grid_at((20, 32)) is None
    explain = Explainer(network)
    explain.check(torch.randn(1, 3, 16, 64))
    [layout] = explain.layouts.values()
    assert layout.grid == (2, 8)
    assert not broken_law(network.module, explain.layers[0], layout, (16, 64))


# Methods of one layer that the heads or the layers of these towers refuse, with a word of the reason.
UNFIT = {"cam": "linear"}
QUICK = {"samples": 2, "top": 3, "iterations": 4, "concepts": 2}


@pytest.mark.slow
@pytest.mark.parametrize("method", [one for one in METHODS.names() if works_at(METHODS.find(one)) == "layer"])
@pytest.mark.parametrize(
    "kind", ["class token", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ModifiedResNet", "of timm"))]
)
def test_every_method_at_layers_goes_with_several_layers_and_sizes(towers, kind, method):
    row = METHODS.find(method)
    own = [name for name in QUICK if name in known_options(method)]
    options = {name: QUICK[name] for name in own}
    network = clip(towers, kind)
    images, layers = pictures(1, sides(kind), dtype=torch.float32), LAYERS.get(kind, [OF_TRANSFORMER])
    around = {} if row.kind == "concept" else {"fuse": "mean", "scales": (1.0, 1.5)}
    # Of three classes one may have no map at all where a method rectifies.
    try:
        found = Explainer(network, layers=layers, method=method, options=options, **around).results(
            images, lambda row, scores: [0, 1, 2]
        )[0]
    except RequestError as error:
        assert UNFIT.get(method, "no reason") in error.message
        return
    assert method not in UNFIT
    maps = [one for one in found if not isinstance(one, PictureError)]
    assert maps
    assert all(np.isfinite(one.map).all() and (one.layer.count("+") == 1) == bool(around) for one in maps)


def known_options(method: str) -> set[str]:
    from camcli.engine.maps.method import read_method_options

    return set(read_method_options(METHODS.find(method)))


@pytest.mark.parametrize("kind", ["class token", "mean of patches", "of timm"])
def test_attention_goes_with_sizes(towers, kind):
    own, other, methods = sides(kind), sides(kind) * 3 // 2, "gae,rollout,attention"
    images = pictures(1, own, dtype=torch.float32)
    shown = F.interpolate(images, (other, other), mode="bilinear", align_corners=False)
    [both] = Explainer(clip(towers, kind), method=methods, scales=(1.0, 1.5))(images, 1)
    [plain] = Explainer(clip(towers, kind), method=methods)(images, 1)
    [large] = Explainer(clip(towers, kind, str(other)), method=methods)(shown, 1)
    for one, small, larger in zip(both, plain, large, strict=True):
        resized = torch.from_numpy(larger.map)[None, None]
        resized = F.interpolate(resized, small.map.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
        np.testing.assert_allclose(one.map, (small.map + resized) / 2, atol=1e-6 * np.abs(one.map).max())


# ---- from the shell


def test_a_run_says_how_positions_were_interpolated(towers, here, paint):
    clip(towers, "class token")
    paint("a.png", size=(64, 48), box=(4, 4, 30, 30))
    asked = [
        "explain",
        "-m",
        f"open_clip:local-dir:{towers / 'class token'}",
        *(w for one in PROMPTS for w in ("--text", one)),
    ]
    layers = ["-l", "visual.transformer.resblocks[-3:-1]", "--fuse", "mean", "--scales", "0.75,1,1.25"]
    result = do(*asked, *layers, "a.png", "--save", "array", "-t", "predicted")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "averaged over further input sizes: 24x24, 40x40" in said
    assert "position embeddings are interpolated to each input's grid (bicubic, antialiased)" in said
    assert "position embeddings are interpolated" in json.dumps(facts("camcli-out/latest"))
    assert np.load("camcli-out/latest/a.png.npy").shape == (4, 4)
