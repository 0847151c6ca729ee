"""Another input size, another crop: what the model is given, and which models take it."""

from pathlib import Path

import open_clip
import pytest
import timm
import timm.data
import torch
import torchvision
from clips import PROMPTS, tiny_clip
from open_clip.model import resize_pos_embed
from PIL import Image
from timm.layers import resample_abs_pos_embed
from torchvision.models.vision_transformer import interpolate_embeddings

from camcli import RequestError
from camcli.engine.hooks.capture import capture_activations
from camcli.engine.layers.default_layer import find_default_layer
from camcli.engine.layers.layout import to_nchw
from camcli.engine.layers.probe import probe_image, probe_layers
from camcli.engine.network import Network
from camcli.images.decode import decode
from camcli.images.transform import Preprocess
from camcli.models.load import load


def scores(network: Network, picture: Image.Image) -> torch.Tensor:
    image, _ = network.preprocess(picture)
    with torch.no_grad():
        return network.module(image[None])[0]


# ---- what the model is given


@pytest.mark.parity
@pytest.mark.parametrize("size", [(192, 192), (128, 224), (250, 131)])
@pytest.mark.parametrize("name", ["test_efficientnet", "resnet18.a1_in1k", "resnetv2_50x1_bit.goog_in21k_ft_in1k"])
def test_timm_models_are_given_what_timm_gives_them_at_that_size(sample_images: Path, name: str, size) -> None:
    network = load(f"timm:{name}", weights="random", size="x".join(map(str, size)))
    config = timm.data.resolve_data_config({"input_size": (3, *size)}, model=network.module)
    expected = timm.data.create_transform(**config)
    picture = decode(sample_images / "chelsea.png")
    assert torch.equal(network.preprocess(picture)[0], expected(picture))


def test_torchvision_keeps_the_share_that_is_cut_away() -> None:
    # 224 of 256: at 256 of 292, at 384 of 438, rounded down.
    preprocess = load("torchvision:squeezenet1_1", weights="random", size="256x384").preprocess
    assert (preprocess.size, preprocess.resize, preprocess.fit) == ((256, 384), (292, 438), "shorter")


def test_the_models_own_size_changes_nothing(sample_images: Path) -> None:
    own, asked = load("bundled:efficientnet-lite0"), load("bundled:efficientnet-lite0", size="224")
    assert asked.preprocess == own.preprocess
    assert asked.sha256() == own.sha256()


def test_crops_of_the_bundled_model() -> None:
    def prepared(**options: str) -> Preprocess:
        return load("bundled:efficientnet-lite0", **options).preprocess

    assert prepared(crop="center") == prepared(crop="model") == prepared()
    none, squash = prepared(crop="none"), prepared(crop="squash", size="192x256")
    assert (none.size, none.resize, none.fit, none.fill) == ((224, 224), (224, 224), "longer", (128, 128, 128))
    assert (squash.size, squash.resize, squash.fit) == ((192, 256), (192, 256), "squash")


# ---- families: facts follow the size, and the grid lies right


def in_its_place(network: Network) -> list[bool]:
    """For each quadrant of an image: whether a change there is the greatest there at the default layer."""
    height, width = network.preprocess.size
    image = probe_image((height, width), torch.float32, torch.device("cpu"))
    layers = probe_layers(network.module, image, network.prefix, network.grid)
    name = find_default_layer(network.module, layers, image)
    layout = next(layer.layout for layer in layers if layer.name == name)

    def act(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), capture_activations({name: network.module.get_submodule(name)}) as activations:
            network.module(images)
        return to_nchw(activations[name].detach(), layout)

    right = []
    for down in (0, 1):
        for across in (0, 1):
            other = image.clone()
            rows, columns = slice(down * height // 2, None), slice(across * width // 2, None)
            if not down:
                rows = slice(0, height // 2)
            if not across:
                columns = slice(0, width // 2)
            other[:, :, rows, columns] *= -1
            change = (act(other) - act(image)).abs().mean((0, 1))[None, None]
            fine = torch.nn.functional.interpolate(change, (24, 24), mode="bilinear")[0, 0]
            quadrants = fine.reshape(2, 12, 2, 12).mean((1, 3))
            right.append(int(quadrants.argmax()) == 2 * down + across)
    return right


FAMILIES = [
    ("test_vit", "96x160", 1, (6, 10)),
    ("test_vit3", "96x160", 1, (6, 10)),
    ("test_efficientnet", "96x160", None, None),
    ("vit_tiny_patch16_224", "256x384", 1, (16, 24)),
    ("deit_tiny_distilled_patch16_224", "384x192", 2, (24, 12)),
    ("vit_tiny_r_s16_p8_224", "256x384", 1, (8, 12)),
    ("efficientvit_m0", "256x384", None, None),
    *(
        pytest.param(name, "256x384", prefix, grid, marks=pytest.mark.slow)
        for name, prefix, grid in (
            ("swin_s3_tiny_224", None, None),
            ("swinv2_tiny_window8_256", None, None),
            ("coat_lite_tiny", None, None),
            ("coatnet_nano_cc_224", None, None),
            ("xcit_nano_12_p8_224", None, None),
            ("vit_relpos_small_patch16_224", 0, (16, 24)),
            ("vitamin_small_224", 0, (16, 24)),
            ("sequencer2d_s", None, None),
        )
    ),
]


@pytest.mark.parametrize(("name", "size", "prefix", "grid"), FAMILIES)
def test_changes_stay_in_their_quadrant_at_a_size_that_is_not_square(name, size, prefix, grid) -> None:
    network = load(f"timm:{name}", weights="random", size=size)
    if grid:
        assert (network.prefix, network.grid) == (prefix, grid)
    else:
        assert network.grid is None
    assert network.preprocess.size == tuple(map(int, size.split("x")))
    assert all(in_its_place(network))


# 5 x 20 patches are as many as 10 x 10: a table of the same length, in which each row would begin somewhere else.
@pytest.mark.parametrize(("size", "grid"), [("96x160", (6, 10)), ("80x320", (5, 20))])
def test_positions_are_interpolated_by_timm_and_all_else_stays(size: str, grid: tuple[int, int]) -> None:
    own, asked = (load("timm:test_vit", weights="random", size=each) for each in ("", size))
    before, after = own.module.state_dict(), asked.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    made = timm.create_model("test_vit", img_size=asked.preprocess.size).eval()
    assert made.patch_embed.grid_size == grid
    state = {name: value.clone() for name, value in before.items()}
    state["pos_embed"] = resample_abs_pos_embed(before["pos_embed"], grid, num_prefix_tokens=1)
    made.load_state_dict(state)
    images = torch.randn(2, 3, *asked.preprocess.size)
    with torch.no_grad():
        assert torch.equal(asked.module(images), made(images))
        state["pos_embed"] = before["pos_embed"][:, : 1 + grid[0] * grid[1]]
        made.load_state_dict(state)
        assert not torch.allclose(asked.module(images), made(images))
    assert all(in_its_place(asked))


def test_the_grid_of_a_model_that_interpolates_in_its_forward_is_that_of_the_size_asked(tmp_path: Path) -> None:
    """timm saves this one as of no fixed size: it is used as it is, and itself names the grid of its own size."""
    timm.models.save_for_hf(timm.create_model("test_vit"), tmp_path / "it", safe_serialization=True)
    network = load(f"local-dir:{tmp_path / 'it'}", size="80x320")
    assert network.module.patch_embed.grid_size == (10, 10)
    assert (network.prefix, network.grid) == (1, (5, 20))
    assert all(in_its_place(network))


def test_a_file_of_weights_fits_and_then_the_size_is_changed(tmp_path: Path) -> None:
    made = timm.create_model("test_vit", num_classes=7)
    torch.save(made.state_dict(), tmp_path / "w.pth")
    network = load("timm:test_vit", weights=str(tmp_path / "w.pth"), size="96x160")
    assert network.module(torch.zeros(1, 3, 96, 160)).shape == (1, 7)
    assert torch.equal(network.module.patch_embed.proj.weight, made.patch_embed.proj.weight)
    assert not any("converted" in note for note in network.notes)


@pytest.mark.slow
def test_torchvisions_vision_transformers_by_torchvisions_own_interpolation() -> None:
    own, asked = (load("torchvision:vit_b_32", weights="random", size=size) for size in ("", "256"))
    made = torchvision.models.vit_b_32(image_size=256).eval()
    made.load_state_dict(interpolate_embeddings(256, 32, own.module.state_dict()))
    images = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        assert torch.equal(asked.module(images), made(images))
    assert (asked.prefix, asked.grid, asked.preprocess.resize) == (1, (8, 8), (292, 292))
    assert all(in_its_place(asked))
    with pytest.raises(RequestError, match=r"torchvision:vit_b_32\S* does not take images of 256x384.*squares only"):
        load("torchvision:vit_b_32", weights="random", size="256x384")
    with pytest.raises(RequestError, match="patches of 32x32"):
        load("torchvision:vit_b_32", weights="random", size="250")


@pytest.mark.parametrize("weights", ["", "random"])
def test_open_clips_positions_are_interpolated_as_it_loads_them(tmp_path: Path, weights: str) -> None:
    made = tiny_clip(tmp_path)
    network = load(f"open_clip:local-dir:{tmp_path}", text=PROMPTS, size="48x96", weights=weights)
    assert (network.prefix, network.grid, network.preprocess.size) == (1, (3, 6), (48, 96))
    assert (network.preprocess.resize, network.preprocess.fit) == ((48, 96), "squash")
    assert network.module(torch.zeros(2, 3, 48, 96)).shape == (2, 3)
    if not weights:
        built = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False, force_image_size=(48, 96)).eval()
        state = {f"visual.{name}": value for name, value in made.visual.state_dict().items()}
        resize_pos_embed(state, built)
        assert state["visual.positional_embedding"].shape == (1 + 3 * 6, 32)
        built.visual.load_state_dict({name.removeprefix("visual."): value for name, value in state.items()})
        images = torch.rand(2, 3, 48, 96)
        assert torch.equal(network.module.visual(images), built.visual(images))
        assert torch.equal(network.module.visual.positional_embedding, made.visual.positional_embedding)
    assert all(in_its_place(network))


def test_a_size_that_an_open_clip_tower_does_not_cut_evenly_is_refused(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    with pytest.raises(RequestError, match=r"does not take images of 40x40: .*patches of 16x16"):
        load(f"open_clip:local-dir:{tmp_path}", text=PROMPTS, size="40")


def test_a_tower_pooled_by_attention_over_cells_changes_its_size(tmp_path: Path) -> None:
    tiny_clip(tmp_path, vision_cfg={"image_size": 64, "layers": [1, 1, 1, 1], "width": 16})
    network = load(f"open_clip:local-dir:{tmp_path}", text=PROMPTS, size="96x64")
    assert (network.prefix, network.grid, network.preprocess.size) == (None, None, (96, 64))
    assert network.module(torch.zeros(2, 3, 96, 64)).shape == (2, 3)
    assert all(in_its_place(network))


def test_open_clip_towers_of_timm_change_their_size(tmp_path: Path) -> None:
    vision = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
    tiny_clip(tmp_path, vision_cfg=vision)
    network = load(f"open_clip:local-dir:{tmp_path}", text=PROMPTS, size="96x160")
    assert (network.prefix, network.grid, network.preprocess.size) == (1, (6, 10), (96, 160))
    assert all(in_its_place(network))


def test_the_seeds_weights_are_the_same_at_every_size() -> None:
    own, asked = (load("timm:test_vit2", weights="random", seed=3, size=size) for size in ("", "96x160"))
    before, after = own.module.state_dict(), asked.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name != "pos_embed")


def test_a_fully_convolutional_model_keeps_its_weights(sample_images: Path) -> None:
    own, wide = load("bundled:efficientnet-lite0"), load("bundled:efficientnet-lite0", size="256x384")
    assert own.sha256() == wide.sha256()
    picture = decode(sample_images / "coffee.png")
    assert int(scores(own, picture).argmax()) == int(scores(wide, picture).argmax()) == 967


# ---- refusals


@pytest.mark.parametrize(
    ("model", "size", "reason"),
    [
        ("timm:crossvit_tiny_240", "256", "weights are tied to its own size"),  # it would scale any input, unseen
        ("timm:convit_tiny", "256", r"weights are tied to its own size \(pos_embed\)"),
        ("timm:convit_tiny", "112x448", "as many patches in another grid"),
        ("timm:levit_128s", "112x448", "as many patches in another grid"),
        ("timm:efficientformer_l1", "256", "must match the size of tensor"),
        ("timm:test_vit", "100", "patches of 16x16, and 100x100 is no multiple"),
        ("timm:test_vit", "96x100", "patches of 16x16, and 96x100 is no multiple"),
        pytest.param("torchvision:maxvit_t", "256", "not divisible by partition size 7", marks=pytest.mark.slow),
    ],
)
def test_a_model_that_cannot_take_a_size_says_why(model: str, size: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        load(model, weights="random", size=size)
    assert caught.value.hint
    assert model.rpartition("/")[0] in caught.value.message


def test_a_patch_size_names_the_nearest() -> None:
    with pytest.raises(RequestError) as caught:
        load("timm:test_vit", weights="random", size="100x5")
    assert "--size 96x16" in caught.value.hint
