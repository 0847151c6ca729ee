"""Position embeddings that follow the size of the input: what they become, and that nothing is left."""

import copy
import sys
import warnings
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from image_towers import TOWERS, clip, every_tower, half_higher, sides
from networks import pictures, untouched
from open_clip.model import resize_pos_embed
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.func import functional_call

from camcli import Explainer
from camcli.engine.hooks.input_size import adapt_to_input_size, notes, resample_positions
from camcli.engine.hooks.state import Snapshot, preserved
from camcli.engine.hooks.watch import layer_output
from camcli.models.load import load


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
        pytest.raises(ValueError, match="patches of 8x8, which do not divide it evenly"),
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
        ("levit_128s", (112, 448), "as many patches in another grid"),
        pytest.param("mvitv2_tiny", (160, 160), "only where it builds the model", marks=pytest.mark.slow),
        pytest.param("hiera_tiny_224", (112, 448), "as many patches", marks=pytest.mark.slow),
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
    assert not any("position" in note for note in explain.notes)
    assert not any("is called 2 times" in note for note in Explainer(load(f"timm:{name}", weights="random")).notes)
