"""Positions that follow the size of the input: what they become, where maps then lie, and that nothing is left."""

import copy
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from clips import PROMPTS, tiny_clip
from networks import pictures, untouched
from open_clip.model import resize_pos_embed
from place import broken_law
from readback import facts
from test_size import do
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.func import functional_call

from camcli import Explainer, Network, PictureError, RequestError
from camcli.engine.hooks.input_size import adapt_to_input_size, notes, resample_positions
from camcli.engine.hooks.state import Snapshot, preserved
from camcli.engine.hooks.watch import layer_output
from camcli.methods import METHODS, works_at
from camcli.models.load import load

# What the image towers of small CLIP models are built of: of each kind that open_clip has.
VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
TOWERS = {
    "class token": VIT,
    "mean of patches": {**VIT, "pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True},
    "fixed sines": {**VIT, "pos_embed_type": "sin_cos_2d"},
    "pooled by attention": {**VIT, "attentional_pool": True, "attn_pooler_queries": 6, "attn_pooler_heads": 2},
    "ModifiedResNet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
    "of timm": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
}
LAYERS = {"ModifiedResNet": ["visual.layer2", "visual.layer3"], "of timm": ["visual.trunk.blocks[-3:-1]"]}
OF_TRANSFORMER = "visual.transformer.resblocks[-3:-1]"

every_tower = pytest.mark.parametrize("kind", TOWERS)


@pytest.fixture(scope="session")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small CLIP model for each kind of tower, made when it is first asked for."""
    return tmp_path_factory.mktemp("towers")


def clip(towers: Path, kind: str, size: str = "") -> Network:
    """A small CLIP model with a tower of this kind, and its weights."""
    folder = towers / kind
    if not folder.exists():
        folder.mkdir()
        torch.manual_seed(0)
        tiny_clip(folder, vision_cfg=TOWERS[kind])
    return load(f"open_clip:local-dir:{folder}", text=PROMPTS, size=size)


def sides(kind: str) -> int:
    return TOWERS[kind]["image_size"]


def half_higher(kind: str) -> tuple[int, int]:
    """A size that is not square, in whole patches or strides."""
    return sides(kind) * 3 // 2, sides(kind)


# ---- a table


def test_four_positions_for_one_cell_are_their_mean():
    table = torch.tensor([[9.0, -9.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    torch.testing.assert_close(resample_positions(table, (2, 2), (1, 1), 1), torch.tensor([[9.0, -9.0], [4.0, 5.0]]))


def test_tokens_that_are_no_cells_keep_theirs_and_one_position_is_that_of_all_cells():
    table = torch.tensor([[5.0], [6.0], [2.0]])
    assert resample_positions(table, (1, 1), (2, 3), 2).flatten().tolist() == [5, 6, *[2] * 6]


@pytest.mark.parametrize("after", [(3, 3), (8, 8), (4, 9), (2, 8)])
def test_a_table_is_interpolated_as_open_clip_and_timm_do_it(after):
    table = pictures(1, (17, 6), dtype=torch.float32)[0, 0]
    found = resample_positions(table, (4, 4), after, 1)
    by_timm = resample_abs_pos_embed(table[None], after, (4, 4), 1)[0]
    torch.testing.assert_close(found, by_timm, rtol=0, atol=1e-6)
    if after[0] * after[1] != 16:  # open_clip would take that as it is
        tower = nn.Module()
        tower.visual = nn.Module()
        tower.visual.grid_size = after
        state = {"visual.positional_embedding": table}
        resize_pos_embed(state, tower)
        assert torch.equal(found, state["visual.positional_embedding"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_table_keeps_its_precision(dtype):
    table = pictures(1, (5, 6))[0, 0]
    wanted = resample_positions(table, (2, 2), (3, 3), 1)
    found = resample_positions(table.to(dtype), (2, 2), (3, 3), 1)
    assert found.dtype == dtype
    assert (found.double() - wanted).abs().max() <= 4 * torch.finfo(dtype).eps * wanted.abs().max()


# ---- a tower


def built_for(folder: Path, kind: str, size: tuple[int, int]) -> nn.Module:
    """The image tower as open_clip builds it for a size, its positions interpolated by open_clip or timm."""
    with warnings.catch_warnings():
        own = open_clip.create_model(f"local-dir:{folder / kind}").eval()
        if kind == "of timm":
            own.visual.set_input_size(size)
            return own.visual
        made = open_clip.create_model(f"local-dir:{folder / kind}", load_weights=False, force_image_size=size).eval()
    state = {f"visual.{name}": value for name, value in own.visual.state_dict().items()}
    resize_pos_embed(state, made)
    made.visual.load_state_dict({name.removeprefix("visual."): value for name, value in state.items()})
    return made.visual


@pytest.mark.parametrize("kind", [kind for kind in TOWERS if kind not in ("ModifiedResNet", "fixed sines")])
def test_a_tower_given_another_size_is_the_one_that_its_library_builds_for_it(towers, kind):
    network = clip(towers, kind)
    for size in (half_higher(kind), (sides(kind) // 2,) * 2, (sides(kind) // 2, sides(kind))):
        images, built = torch.rand(2, 3, *size), built_for(towers, kind, size)
        with torch.no_grad(), untouched(network.module):
            found, wanted = network.module.visual(images), built(images)
        assert torch.equal(found, wanted), size


def test_of_a_pooling_by_attention_the_cells_positions_are_interpolated_and_the_means_stays(towers):
    visual = clip(towers, "ModifiedResNet").module.visual
    cells = torch.randn(2, visual.attnpool.q_proj.in_features, 3, 5)
    table = visual.attnpool.positional_embedding.detach()
    grid = table[1:].T.reshape(1, -1, 2, 2)
    resized = F.interpolate(grid, (3, 5), mode="bicubic", antialias=True, align_corners=False)
    changed = {"positional_embedding": torch.cat([table[:1], resized.flatten(2)[0].T])}
    fresh = copy.deepcopy(visual.attnpool)
    del vars(fresh)["forward"]
    with torch.no_grad():
        wanted = functional_call(fresh, changed, (cells,))
        torch.testing.assert_close(visual.attnpool(cells), wanted, rtol=0, atol=1e-6)
        assert visual(torch.rand(1, 3, 96, 160)).shape == (1, 16)


@every_tower
def test_at_its_own_size_a_tower_is_what_it_was(towers, kind):
    network = clip(towers, kind)
    images = torch.rand(2, 3, *[sides(kind)] * 2)
    with warnings.catch_warnings(), torch.no_grad():
        own = open_clip.create_model(f"local-dir:{towers / kind}").eval()
        before = own.encode_image(images)
        network.module.visual(torch.rand(1, 3, *half_higher(kind)))
        assert torch.equal(network.module.visual(images), before)
    assert network.sha256() == clip(towers, kind, "x".join(map(str, half_higher(kind)))).sha256()


@every_tower
def test_nothing_is_left_behind_by_a_forward_that_fails_or_ends_early(towers, kind):
    network = clip(towers, kind)
    size = half_higher(kind)
    inner = {"ModifiedResNet": "visual.attnpool", "of timm": "visual.trunk.blocks.1"}.get(kind, "visual.conv1")

    def fail(*_):
        raise KeyError("on purpose")

    for _ in range(2):
        with untouched(network.module):
            handle = network.module.get_submodule(inner).register_forward_hook(fail)
            with pytest.raises(KeyError, match="on purpose"):
                network.module(torch.rand(1, 3, *size))
            handle.remove()
    explain = Explainer(network)
    explain.check(torch.rand(1, 3, *size))
    with untouched(network.module):
        layer_output(
            network.module, explain.layers[0], torch.rand(1, 3, *size), call=1
        )  # ends there, by no plain error
    assert torch.equal(*(network.module(torch.ones(1, 3, *size)) for _ in range(2)))


def test_a_size_that_is_cut_into_no_whole_patches_is_refused_with_its_patches(towers):
    with (
        untouched(module := clip(towers, "class token").module),
        pytest.raises(ValueError, match="patches of 8x8, which do not go into it evenly"),
    ):
        module(torch.rand(1, 3, 36, 32))


def test_a_copy_follows_by_itself(towers):
    network = clip(towers, "class token")
    other = copy.deepcopy(network.module)
    with torch.no_grad():
        other.visual.positional_embedding.zero_()
        images = torch.rand(1, 3, 48, 32)
        assert not torch.equal(other(images), network.module(images))
        assert torch.equal(clip(towers, "class token").module(images), network.module(images))


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@every_tower
def test_positions_follow_in_every_precision(towers, kind, dtype):
    network = clip(towers, kind)
    images = torch.rand(1, 3, *half_higher(kind))
    with torch.no_grad():
        wanted = network.module.visual(images)
        network.module.to(dtype)
        found = network.module.visual(images.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.05 * float(wanted.abs().max()))


def test_what_follows_twice_in_one_forward_is_changed_anew_each_time():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.arange(4.0).reshape(4, 1))

        def forward(self, x):
            return self.table.flatten().sum() + x.sum()

    def change(module, size):
        module.table = nn.Parameter(resample_positions(module.table, (2, 2), size, 0), requires_grad=False)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Table()
            adapt_to_input_size(self.part, (2, 2), change, "positions follow")

        def forward(self, x):
            return torch.stack([self.part(x), self.part(x[:, :, :1, :1]), self.part(x[:, :, :2, :2])])

    model = Twice()
    assert notes(model) == []
    with untouched(model):
        found = model(torch.zeros(1, 1, 4, 4))
    torch.testing.assert_close(found, torch.tensor([24.0, 1.5, 6.0]))
    assert notes(model) == ["positions follow"]


def test_a_snapshot_brings_back_what_modules_were_but_no_hooks():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    weight = model[0].weight
    model[0].weight = nn.Parameter(torch.zeros(2, 2))
    changed, heard = Snapshot(model), []
    model[0].weight = weight
    handle = model[0].register_forward_hook(lambda *_: heard.append(1))
    with untouched(model):
        with changed.applied():
            assert not model[0].weight.any()
            model(torch.ones(1, 2))
        assert heard == [1]
        with preserved(model):
            model[0].register_buffer("more", torch.ones(1))
            model[0].kind = "other"
            del model[1]
    handle.remove()


# ---- maps


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
    assert sum("positions" in note and "interpolated" in note for note in explain.notes) == 1
    assert [note for note in sized.notes if "positions" in note] == [one for one in explain.notes if "positions" in one]


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


# ---- timm

FAMILIES = ["test_vit", "test_vit_relpos", "efficientvit_m0"]
SLOW = [
    "deit_tiny_distilled_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "eva02_tiny_patch14_224",
    "beit_base_patch16_224",
    "vitamin_small_224",
    "vit_base_mci_224",
    "vit_relpos_medium_patch16_cls_224",
    "test_coatnet",
    "swinv2_cr_tiny_224",
]


@pytest.mark.filterwarnings("default")  # torch's, of how timm looks up tables
@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)])
def test_models_of_timm_are_at_each_size_what_timm_makes_of_them(name):
    network = load(f"timm:{name}", weights="random")
    own = network.preprocess.size[0]
    step = 28 if "patch14" in name else 32
    for size in ((own - step, own - step), (own + step, own - step)):
        changed = copy.deepcopy(network.module)
        del vars(changed)["forward"]
        changed.set_input_size(img_size=size)
        images = torch.rand(1, 3, *size)
        with torch.no_grad(), untouched(network.module):
            assert torch.equal(network.module(images), changed(images)), size


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swin_s3_tiny_224", "swinv2_tiny_window8_256"])
def test_windows_of_attention_stay_as_they_were_trained(name):
    """Given another size a Swin is the one that timm builds for it with the same windows."""
    network = load(f"timm:{name}", weights="random")
    size = (160, 320)
    made = timm.create_model(name, img_size=size).eval()
    convert = sys.modules[type(made).__module__].checkpoint_filter_fn
    made.load_state_dict(convert(dict(network.module.state_dict()), made))
    images = torch.rand(1, 3, *size)
    with torch.no_grad(), untouched(network.module):
        torch.testing.assert_close(network.module(images), made(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("crossvit_tiny_240", (192, 192), "weights are tied to its own size"),
        ("levit_128s", (112, 448), "as many patches as before in another grid"),
        pytest.param("mvitv2_tiny", (160, 160), "only where it builds the model", marks=pytest.mark.slow),
        pytest.param("hiera_tiny_224", (112, 448), "as many patches as before", marks=pytest.mark.slow),
    ],
)
def test_models_that_would_take_another_size_and_be_wrong_are_refused(name, size, reason):
    network = load(f"timm:{name}", weights="random")
    with untouched(network.module), pytest.raises(ValueError, match=reason):
        network.module(torch.rand(1, 3, *size))


@pytest.mark.parametrize("name", [pytest.param("xcit_nano_12_p8_224", marks=pytest.mark.slow), "test_resnet"])
def test_models_without_positions_are_as_they_are(name):
    network = load(f"timm:{name}", weights="random")
    with torch.no_grad(), untouched(network.module):
        assert network.module(torch.rand(1, 3, 192, 128)).isfinite().all()
    explain = Explainer(network, scales=(0.5, 1.0))
    explain.check(torch.rand(1, 3, *network.preprocess.size))
    assert not any("positions" in note for note in explain.notes)
    assert not any("runs 2 times" in note for note in Explainer(load(f"timm:{name}", weights="random")).notes)


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
    assert "explained at other input sizes too: 24x24, 40x40" in said
    assert "positions are interpolated to the cells of each input (bicubic, antialiased)" in said
    assert "positions are interpolated" in json.dumps(facts("camcli-out/latest"))
    assert np.load("camcli-out/latest/a.png.npy").shape == (4, 4)
