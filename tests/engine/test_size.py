"""Another input size, another cut: what the model is given, and where maps then lie."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import timm.data
import torch
import torchvision
from clips import PROMPTS, tiny_clip
from open_clip.model import resize_pos_embed
from PIL import Image
from readback import facts, ledger
from timm.layers import resample_abs_pos_embed
from torchvision.models.vision_transformer import interpolate_embeddings
from typer.testing import CliRunner, Result

import camcli
from camcli import Job, RequestError
from camcli.cli import app
from camcli.engine.hooks.capture import capture_activations
from camcli.engine.layers.default_layer import find_default_layer
from camcli.engine.layers.layout import to_nchw
from camcli.engine.layers.probe import probe_image, probe_layers
from camcli.engine.network import Network
from camcli.images.decode import decode
from camcli.images.transform import Preprocess
from camcli.models.load import load
from conftest import BLUE, RED


def do(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


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


# ---- hand-worked: a classifier by colour, whose image is squashed to 16 x 16 unless told otherwise. At `stem` the
# map of a colour is that channel times 10 / (height x width of the input).


def stem(*inputs, **options) -> list[camcli.Explanation]:
    return list(camcli.explain([str(one) for one in inputs], layer="stem", target="red", **options))


@pytest.mark.parametrize("left", [0, 16, 40])
def test_a_moved_object_moves_in_a_map_that_is_not_square(paint, tiny: str, left: int) -> None:
    # 48 x 32 image, squashed to 24 columns and 8 rows: 2 x 4 pixels to a cell.
    path = paint("a.png", RED, box=(left, 8, left + 8, 16), size=(48, 32))
    (one,) = stem(path, model=tiny, size="8x24", crop="squash")
    expected = np.zeros((8, 24), np.float32)
    expected[2:4, left // 2 : left // 2 + 4] = 10 / (8 * 24) * 250 / 255
    np.testing.assert_allclose(one.map, expected, rtol=1e-5)
    assert one.view.sees_whole_picture
    assert one.view.cell_centre(2, left // 2, (8, 24)) == (left + 1, 10)
    onto = one.view.onto_picture(one.map)
    assert onto.shape == (32, 48)
    lit = np.argwhere(onto > onto.max() / 2)  # but for the corners, which bilinear interpolation rounds
    assert lit.min(0).tolist() == [8, left]
    assert lit.max(0).tolist() == [15, left + 7]


def test_no_crop_fits_the_picture_between_two_paddings(paint, tiny: str) -> None:
    # A square in 8 x 24: the middle eight columns, of 4 x 4 pixels to a cell. Its upper right corner is red.
    path = paint("a.png", RED, box=(24, 0, 32, 8))
    (one,) = stem(path, model=tiny, size="8x24", crop="none")
    expected = np.zeros((8, 24), np.float32)
    expected[0:2, 14:16] = 10 / (8 * 24) * 250 / 255
    np.testing.assert_allclose(one.map, expected, rtol=1e-5)
    assert one.view.box == (-32, 0, 64, 32)
    assert one.view.sees_whole_picture
    assert one.view.peak(one.map) == (26, 2)


def test_a_centre_crop_to_what_is_not_square(paint, tiny: str) -> None:
    # A square that covers 8 x 24 is 24 x 24, of which rows 8 to 16 stay: the middle third of the image.
    path = paint("a.png", RED, box=(0, 20, 96, 48), size=(96, 96))
    (one,) = stem(path, model=tiny, size="8x24", crop="center")
    assert one.view.box == (0, 32, 96, 64)
    assert not one.view.sees_whole_picture
    np.testing.assert_allclose(one.map[:4], 10 / (8 * 24) * 250 / 255, rtol=1e-5)
    assert not one.map[4:].any()


def test_strength_in_the_padding_is_told_and_the_peak_stays_in_the_picture(here: Path, paint, go, tiny: str) -> None:
    # The same classifier, whose padding is red: brighter than the image.
    file = Path(tiny.rpartition(":")[0])
    (here / "padded.py").write_text(
        file.read_text() + "\n\ndef padded():\n    module, prepare, labels = make()\n"
        "    return module, Preprocess(prepare.size, prepare.mean, prepare.std, (16, 16), 'longer', 'nearest',\n"
        "                           (255, 0, 0)), labels\n"
    )
    path = paint("a.png", (90, 0, 0), box=(8, 4, 16, 8), size=(32, 8))
    ((outcome,),) = go(str(path), model="padded.py:padded", layers=("stem",), target=("red",))
    # 2 x 2 pixels to a cell: the strongest cells of the image begin at 8, 4.
    assert outcome.peak == (9, 5)
    assert any("in the padding" in note for note in outcome.notes)
    ((same,),) = go(str(path), model="padded.py:padded", layers=("stem",), target=("red",), crop="squash", out="other")
    assert same.notes == ()


# ---- real weights


@pytest.mark.parametrize("options", [{}, {"size": "256x384"}, {"size": "192x256"}])
def test_without_a_crop_each_object_of_the_sample_is_seen_and_found(sample_images: Path, options) -> None:
    """By eye, in 600 x 450 pixels: the cat fills the left half, the cup's round stands at (300..520, 20..240)."""
    picture = sample_images / "cat-and-espresso.jpg"
    found = camcli.explain(picture, target=["Egyptian cat", "espresso"], crop="none", **options)
    cat, espresso = found
    for one in (cat, espresso):
        assert one.view.sees_whole_picture
        assert not np.isnan(one.view.onto_picture(one.map)).any()
    x, y = cat.view.peak(cat.map)
    assert x < 295
    x, y = espresso.view.peak(espresso.map)
    assert 305 < x < 520
    assert 20 < y < 240
    # And it is more than the peak: most of the heat lies there.
    for one, half in ((cat, slice(0, 300)), (espresso, slice(300, 600))):
        heat = one.view.onto_picture(one.map).clip(0)
        assert heat[:, half].sum() > 0.75 * heat.sum()


def test_the_whole_of_a_wide_picture_is_seen_where_the_crop_would_lose_its_end(sample_images: Path, here: Path) -> None:
    """The cup at the far right of a strip: the centre crop leaves it out, the other two find it."""
    with Image.open(sample_images / "coffee.png") as cup:
        strip = Image.new("RGB", (1200, 300), (90, 110, 90))
        strip.paste(cup.convert("RGB").resize((450, 300)), (750, 0))
    boxes = {}
    for crop in ("model", "none", "squash"):
        (one,) = camcli.explain(strip, target="espresso", crop=crop, size="224x448")
        boxes[crop] = one.view
        if crop != "model":
            x, _ = one.view.peak(one.map)
            assert x > 750, crop
    assert not boxes["model"].sees_whole_picture
    assert boxes["none"].sees_whole_picture
    assert boxes["squash"].sees_whole_picture
    assert boxes["none"].box == pytest.approx((0, -150, 1200, 450))


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


def test_a_model_of_ones_own_that_cannot_is_refused_before_the_first_picture(here: Path, paint) -> None:
    (here / "flat.py").write_text(
        "from torch import nn\nfrom camcli import Preprocess\n\n"
        "def make():\n    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.Linear(5 * 64, 2))\n"
        "    return net, Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3, (8, 8), 'squash')\n"
    )
    paint("a.png")
    result = do("explain", "-m", "flat.py:make", "--size", "8x16", "a.png", "--out", "out")
    assert result.exit_code == 2
    assert "flat.py:make does not take images of 8x16: " in result.stderr
    assert "mat1 and mat2 shapes cannot be multiplied" in result.stderr  # torch may name the operation before it
    assert "--size" in result.stderr
    assert not Path("out").exists()
    assert do("explain", "-m", "flat.py:make", "--size", "8", "a.png", "--out", "out").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "big"), "size cannot be 'big'"),
        (("--size", "0"), "size cannot be '0'"),
        (("--size", "224*224"), "256x384"),
        (("--crop", "middle"), "center"),
    ],
)
def test_words_that_mean_nothing_are_refused(here: Path, paint, tiny: str, words, said: str) -> None:
    paint("a.png")
    result = do("explain", "-m", tiny, "a.png", *words)
    assert result.exit_code == 2
    assert said in result.stderr


# ---- from the shell to run.json


def test_size_and_crop_from_the_shell_to_run_json_and_back(here: Path, paint, tiny: str) -> None:
    paint("a.png", RED, box=(0, 0, 16, 32))
    words = ("explain", "-m", tiny, "-l", "stem", "-t", "red", "a.png", "--save", "array")
    assert do(*words, "--size", "8x24", "--crop", "none", "--out", "one").exit_code == 0
    recorded = facts("one")
    assert (recorded["job"]["size"], recorded["job"]["crop"]) == ("8x24", "none")
    prepared = recorded["model"]["preprocessing"]
    assert (prepared["size"], prepared["resize"], prepared["fit"]) == ([8, 24], [8, 24], "longer")
    assert np.load("one/a.png.npy").shape == (8, 24)
    assert do("explain", "--config", "one/run.json", "--trust-config", "--out", "two").exit_code == 0
    assert np.array_equal(np.load("two/a.png.npy"), np.load("one/a.png.npy"))
    Path("job.toml").write_text("size = '8x24'\ncrop = 'none'\n")
    assert do(*words, "--config", "job.toml", "--out", "three").exit_code == 0
    assert facts("three")["fingerprint"] == recorded["fingerprint"]
    (row,) = ledger("one")
    assert row["peak"][0] < 16


def test_another_size_or_crop_is_another_job(here: Path, paint, tiny: str) -> None:
    paint("a.png")
    words = ("explain", "-m", tiny, "a.png", "--out", "out")
    assert do(*words).exit_code == 0
    for more in (("--size", "8"), ("--crop", "none")):
        result = do(*words, *more)
        assert result.exit_code == 2
        assert f"{more[0][2:]} was" in result.stderr


def test_a_square_can_be_said_in_two_ways() -> None:
    assert Job(size="256").fingerprint == Job(size="256x256").fingerprint != Job().fingerprint


def test_the_environment_sets_them_too(here: Path, paint, tiny: str) -> None:
    paint("a.png")
    settings = {"CAMCLI_SIZE": "8x24", "CAMCLI_CROP": "squash"}
    assert CliRunner().invoke(app, ["explain", "-m", tiny, "a.png", "--out", "out"], env=settings).exit_code == 0
    assert facts()["model"]["preprocessing"]["size"] == [8, 24]


@pytest.mark.parametrize("size", ["8x24", (8, 24), [8, 24]])
def test_in_python_a_size_may_be_numbers(paint, tiny: str, size) -> None:
    (one,) = stem(paint("a.png"), model=tiny, size=size)
    assert one.map.shape == (8, 24)
    (one,) = stem("a.png", model=tiny, size=8)
    assert one.map.shape == (8, 8)


def test_cells_that_do_not_divide_the_input_are_told_of(paint, tiny: str) -> None:
    # A 2 x 2 mean over 9 columns gives 4.
    paint("a.png", BLUE)
    assert do("explain", "-m", tiny, "a.png", "--out", "even", "--size", "8x10").stderr.count("do not divide") == 0
    said = do("explain", "-m", tiny, "a.png", "--out", "odd", "--size", "8x9").stderr
    assert "the 4x4 cells of body do not divide 8x9 evenly" in " ".join(said.split())


def test_layers_at_another_size(here: Path) -> None:
    rows = [line.split("\t") for line in do("layers", "timm:test_vit", "--size", "96x160").stdout.splitlines()]
    chosen = next(row for row in rows if row[4] == "default")
    assert (chosen[2], chosen[3]) == ("nx61x64", "tokens 6x10 after 1 prefix")
    assert do("layers", "timm:test_vit", "--size", "100").exit_code == 2
    assert do("layers", "timm:test_vit", "--size", "nonsense").exit_code == 2
