"""The input equals each library's own; maps come back to where the model saw them."""

import math
from dataclasses import replace

import numpy as np
import open_clip.transform
import pytest
import timm
import timm.data
import torch
import torch.nn.functional as F
import torchvision.models
from PIL import Image

from camcli.images import transform
from camcli.images.corners import box_to_picture
from camcli.images.placement import Placement
from camcli.images.transform import Preprocess
from camcli.images.view import View

HALF, ZERO, ONE = (0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE0 = Preprocess(size=(224, 224), mean=HALF, std=HALF, resize=(256, 256), fit="shorter", interpolation="bicubic")
SIZES = [(500, 375), (375, 500), (640, 641), (33, 57), (256, 256), (224, 300), (1, 1), (301, 7)]


def seen(picture, *box):
    return View(picture, (224, 224), tuple(map(float, box)))


def noise(width, height):
    values = np.random.default_rng(width * 1009 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def assert_equal(preprocess, transform, sizes=SIZES):
    for size in sizes:
        ours, _ = preprocess(noise(*size))
        assert torch.equal(ours, transform(noise(*size))), size


# --- the model's input, to the bit --------------------------------------------------------------------------------

TIMM_FIT = {"center": "shorter", "squash": "squash", "border": "longer"}


def from_timm(config):
    """What a source of timm models makes of timm's data config."""
    size = config["input_size"][1:]
    fill = tuple(round(255 * value) for value in config["mean"]) if config["crop_mode"] == "border" else 0
    resize = tuple(math.floor(side / config["crop_pct"]) for side in size)
    fit = TIMM_FIT[config["crop_mode"]]
    return Preprocess(size, config["mean"], config["std"], resize, fit, config["interpolation"], fill)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "tf_efficientnet_lite0.in1k", "deit3_small_patch16_384.fb_in1k"])
def test_input_is_that_of_timm_models(name):
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    assert_equal(from_timm(config), timm.data.create_transform(**config))


@pytest.mark.parity
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(224, 224), (192, 256), (97, 131)])
@pytest.mark.parametrize(("crop_pct", "interpolation"), [(0.875, "bilinear"), (0.95, "lanczos"), (1.0, "bicubic")])
def test_input_is_that_of_timm_in_every_mode(crop_mode, size, crop_pct, interpolation):
    config = {
        "input_size": (3, *size),
        "mean": MEAN,
        "std": STD,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "interpolation": interpolation,
    }
    assert_equal(from_timm(config), timm.data.create_transform(**config, is_training=False))


@pytest.mark.parity
@pytest.mark.parametrize(
    "weights",
    [
        torchvision.models.ResNet50_Weights.IMAGENET1K_V2,
        torchvision.models.EfficientNet_B1_Weights.IMAGENET1K_V2,
        torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
    ],
    ids=str,
)
def test_input_is_that_of_torchvision(weights):
    preset = weights.transforms()
    crop, resize = preset.crop_size * 2, preset.resize_size * 2
    preprocess = Preprocess(
        tuple(crop), tuple(preset.mean), tuple(preset.std), tuple(resize), "shorter", preset.interpolation.value
    )
    assert_equal(preprocess, preset)


@pytest.mark.parity
@pytest.mark.parametrize(("mode", "fit"), [("shortest", "shorter"), ("squash", "squash"), ("longest", "longer")])
@pytest.mark.parametrize("size", [(224, 224), (240, 320)])
def test_input_is_that_of_open_clip(mode, fit, size):
    theirs = open_clip.transform.image_transform(size, False, MEAN, STD, resize_mode=mode, fill_color=7)
    assert_equal(Preprocess(size, MEAN, STD, size, fit, "bicubic", 7 if mode == "longest" else 0), theirs)


def test_input_of_one_grey_is_known_by_hand():
    values, _ = LITE0(Image.new("RGB", (300, 200), (0, 51, 255)))
    assert values.shape == (3, 224, 224)
    torch.testing.assert_close(values[:, 100, 100], torch.tensor([-1.0, -0.6, 1.0]))


def test_padding_has_the_fill():
    preprocess = Preprocess((4, 4), ZERO, ONE, (4, 4), "longer", "bilinear", (255, 0, 51))
    values, view = preprocess(Image.new("RGB", (8, 4), (102, 102, 102)))
    torch.testing.assert_close(values[:, 0, 0], torch.tensor([1.0, 0.0, 0.2]))
    torch.testing.assert_close(values[:, 1, 0], torch.tensor([0.4, 0.4, 0.4]))
    assert view.box == (0, -2, 8, 6)


def test_only_rgb_pictures_are_prepared():
    with pytest.raises(ValueError, match="RGB"):
        LITE0(Image.new("L", (10, 10)))


@pytest.mark.parametrize("size", [(10, 4000), (4000, 10), (3, 1000)])
def test_a_strip_is_the_same_whether_made_whole_or_in_part(size, monkeypatch):
    smooth = noise(8, 8).resize(size, Image.Resampling.BICUBIC)
    whole, _ = LITE0(smooth)
    monkeypatch.setattr(transform, "MAX_RESIZED_PIXELS", 0)
    part, _ = LITE0(smooth)
    torch.testing.assert_close(part, whole, rtol=0, atol=2 / 127.5)


def test_a_strip_of_a_hundred_thousand_pixels_is_done():
    values, view = LITE0(Image.new("RGB", (100_000, 1), (255, 0, 0)))
    assert values.shape == (3, 224, 224)
    assert view.picture == (1, 100_000)


@pytest.mark.parametrize("fit", ["shorter", "longer", "squash"])
def test_no_picture_is_too_thin(fit):
    preprocess = Preprocess((64, 96), HALF, HALF, (64, 96), fit)
    assert preprocess(noise(1, 900))[0].shape == (3, 64, 96)


@pytest.mark.parametrize("fit", ["shorter", "longer", "squash"])
def test_another_size_keeps_the_share_that_is_cut_away(fit):
    changed = replace(LITE0, fit=fit).adapt((256, 384))
    assert changed == Preprocess((256, 384), HALF, HALF, (292, 438), fit, "bicubic")  # 256 / 0.875 = 292.57
    assert LITE0.adapt((224, 224)) == LITE0.adapt(None) == LITE0


def test_each_crop_by_its_picture():
    # 512 x 256: the middle square of 7/8; all of it between stripes; all of it, stretched.
    assert LITE0.adapt(crop="center").view(512, 256).box == (144, 16, 368, 240)
    assert LITE0.adapt(crop="none").view(512, 256).box == (0, -128, 512, 384)
    assert LITE0.adapt(crop="squash").view(512, 256).box == (0, 0, 512, 256)
    assert LITE0.adapt((128, 256), "none").view(512, 256).box == (0, 0, 512, 256)
    squashing = replace(LITE0, fit="squash")
    assert squashing.adapt(crop="model") == squashing
    assert squashing.adapt(crop="center") == LITE0


def test_padding_is_grey_as_the_mean_unless_the_model_has_its_own():
    values, _ = LITE0.adapt((4, 4), "none")(Image.new("RGB", (8, 4), (255, 255, 255)))
    assert values[:, 0].abs().max() < 0.01
    assert values[:, 1].min() > 0.9
    assert replace(LITE0, fit="longer", fill=7).adapt(crop="none").fill == 7


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", ["none", "squash"])
@pytest.mark.parametrize("input_size", [(224, 224), (96, 160)])
def test_without_a_crop_every_pixel_is_seen(size, crop, input_size):
    view = LITE0.adapt(input_size, crop).view(*size)
    assert view.sees_whole_picture
    assert not np.isnan(view.onto_picture(random_map(7, 7))).any()


# --- the view -----------------------------------------------------------------------------------------------------


def test_box_by_hand():
    # 512 x 256 becomes 512 x 256; the middle 224 x 224 begins at 144, 16.
    assert LITE0.view(512, 256).box == (144, 16, 368, 240)
    # Twice as large, twice as far.
    assert LITE0.view(1024, 512).box == (288, 32, 736, 480)
    # Squashed: the edges scale with each side.
    squash = Preprocess((224, 224), HALF, HALF, (256, 256), "squash")
    assert squash.view(512, 256).box == (32, 16, 480, 240)


@pytest.mark.parametrize("fit", ["shorter", "longer", "squash"])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 1000)])
def test_a_mark_in_the_picture_is_found_in_the_input_where_the_view_says(fit, size):
    preprocess = Preprocess((96, 128), ZERO, ONE, (108, 144), fit, "bilinear")
    width, height = size
    view = preprocess.view(width, height)
    x0, y0, x1, y1 = view.box
    # A white square about the centre of one cell of the input, well inside the image.
    row, column = 40, 70
    x, y = view.cell_centre(row, column, (96, 128))
    picture = np.zeros((height, width, 3), np.uint8)
    reach = 4 * max((x1 - x0) / 128, (y1 - y0) / 96)
    picture[round(y - reach) : round(y + reach), round(x - reach) : round(x + reach)] = 255
    values, _ = preprocess(Image.fromarray(picture))
    light = values[0].numpy()
    rows, columns = np.indices(light.shape)
    assert abs((light * rows).sum() / light.sum() - row) < 0.6
    assert abs((light * columns).sum() / light.sum() - column) < 0.6


def test_position_is_the_centre_of_the_cell():
    view = seen((100, 200), 10, 20, 80, 90)
    assert view.cell_centre(0, 0, (7, 7)) == (15, 25)
    assert view.cell_centre(6, 3, (7, 7)) == (45, 85)


def test_the_peak_is_the_strongest_cell_that_shows_the_picture():
    # A 12 x 3 image in 4 x 4 cells of 3 pixels: it lies across the middle two rows, half in each.
    view = seen((3, 12), 0, -4.5, 12, 7.5)
    assert view.visible_cells((4, 4)).tolist() == [[False] * 4, [True] * 4, [True] * 4, [False] * 4]
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0], heat[2, 3] = 9, 1
    assert view.peak(heat) == (10.5, 3)
    assert view.peak(-np.ones((4, 4), np.float32)) == (1.5, 0)
    inside = seen((100, 200), 10, 20, 80, 90)
    assert inside.visible_cells((7, 7)).all()
    assert inside.peak(np.eye(1, 49, 24, dtype=np.float32).reshape(7, 7)) == inside.cell_centre(3, 3, (7, 7))


def test_scaled_view_covers_the_same_part():
    scaled = LITE0.view(500, 375).scale(750, 1000)
    assert scaled.picture == (750, 1000)
    assert scaled.box == pytest.approx(LITE0.view(1000, 750).box)


# --- maps back onto the image -------------------------------------------------------------------------------------


def random_map(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(7, 7), (5, 9), (1, 1), (40, 3)])
def test_a_whole_view_is_bilinear_interpolation(shape):
    grid = random_map(*shape)
    ours = seen((61, 83), 0, 0, 83, 61).onto_picture(grid)
    exact = F.interpolate(torch.from_numpy(grid).double()[None, None], (61, 83), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(ours, exact[0, 0], atol=1e-6)
    assert ours.dtype == np.float32


def test_values_by_hand():
    # Two cells over four pixels: centres at pixel edges 1 and 3.
    onto = seen((1, 4), 0, 0, 4, 1).onto_picture(np.array([[0, 8]], np.float32))
    assert onto.tolist() == [[0, 2, 6, 8]]


def test_what_was_not_seen_is_nan_and_nothing_else():
    onto = LITE0.view(512, 256).onto_picture(random_map(7, 7))
    expected = np.zeros((256, 512), bool)
    expected[16:240, 144:368] = True
    assert np.array_equal(~np.isnan(onto), expected)
    assert not LITE0.view(512, 256).sees_whole_picture
    assert Preprocess((224, 224), HALF, HALF, (224, 224), "squash").view(512, 256).sees_whole_picture


@pytest.mark.parametrize(("edge", "inside"), [(0.5, True), (0.51, False)])
def test_a_pixel_is_seen_when_its_centre_is(edge, inside):
    view = seen((1, 4), edge, 0, 4, 1)
    assert (not np.isnan(view.onto_picture(random_map(2, 2))[0, 0])) is inside
    assert view.sees_whole_picture is inside


def test_padding_is_left_behind():
    # A 4 x 2 image in a 4 x 4 input: of a map's four rows the middle two lie on it.
    view = Preprocess((4, 4), HALF, HALF, (4, 4), "longer").view(4, 2)
    grid = np.repeat(np.arange(4, dtype=np.float32)[:, None], 4, 1)
    assert view.onto_picture(grid).tolist() == [[1] * 4, [2] * 4]


def test_a_constant_map_stays_constant_and_no_value_leaves_the_range():
    view = LITE0.view(500, 375)
    onto = view.onto_picture(np.full((7, 7), 0.1, np.float32))
    assert np.unique(onto[~np.isnan(onto)]).tolist() == [np.float32(0.1)]
    grid = random_map(7, 7)
    onto = view.onto_picture(grid)
    assert np.nanmax(onto) <= grid.max() + 1e-6
    assert np.nanmin(onto) >= grid.min() - 1e-6


def test_a_mirrored_map_gives_a_mirrored_picture():
    view, grid = seen((70, 50), 5.2, 3.1, 44.8, 66.9), random_map(7, 5)
    np.testing.assert_allclose(view.onto_picture(grid[:, ::-1]), view.onto_picture(grid)[:, ::-1], atol=2e-6)
    np.testing.assert_allclose(view.onto_picture(grid[::-1]), view.onto_picture(grid)[::-1], atol=2e-6)


@pytest.mark.parametrize("size", [(500, 375), (300, 451), (1, 1), (7, 1000), (5000, 3)])
def test_the_greatest_value_is_where_position_says(size):
    view = LITE0.view(*size)
    grid = np.zeros((7, 7), np.float32)
    grid[2, 4] = 1
    onto = view.onto_picture(grid)
    assert not np.isnan(onto).all()
    y, x = np.unravel_index(np.nanargmax(onto), onto.shape)
    if min(size) > 20:
        expected = view.cell_centre(2, 4, grid.shape)
        assert (x + 0.5, y + 0.5) == pytest.approx(expected, abs=1)


def test_one_value_that_is_not_a_number_stays_in_its_place():
    grid = np.zeros((7, 7), np.float32)
    grid[3, 3] = np.nan
    onto = seen((70, 70), 0, 0, 70, 70).onto_picture(grid)
    assert np.isnan(onto[35, 35])
    assert not np.isnan(onto[:20]).any()


@pytest.mark.parametrize("size", [(3000, 1), (1, 500), (224, 1)])
def test_of_a_strip_of_one_pixel_nothing_is_seen_and_nothing_fails(size):
    onto = LITE0.view(*size).onto_picture(random_map(7, 7))
    assert onto.shape == size[::-1]
    assert np.isnan(onto).all()


def test_corners_of_a_box_in_pictures_that_are_not_square_by_hand():
    # An input of 100 rows and 200 columns over the part from x 20 to 60, y 10 to 130 of an image of 160 x 64: a pixel
    # of the input is 0.2 wide and 1.2 high.
    view = View((160, 64), (100, 200), (20.0, 10.0, 60.0, 130.0))
    assert box_to_picture(view, (50.0, 10.0, 150.0, 75.0)) == (30, 22, 50, 100)
    # What lies beyond the image is cut off at its own edges: 64 to the right, 160 below.
    assert box_to_picture(view, (-200.0, -100.0, 400.0, 300.0)) == (0, 0, 64, 160)
    assert box_to_picture(View((64, 160), (100, 200), (0.0, 0.0, 160.0, 64.0)), (0.0, 0.0, 200.0, 100.0)) == (
        0,
        0,
        160,
        64,
    )


def test_cells_that_are_placed_lie_by_rows_and_columns_of_an_input_that_is_no_square() -> None:
    # Two pixels of the image for each of the input: 2 (4 + 8) down, 2 (10 + 2 * 20) across.
    placement = Placement(first=(4.0, 10.0), stride=(8.0, 20.0))
    view = View((60, 200), (30, 100), (0.0, 0.0, 200.0, 60.0), placement)
    assert view.cell_centre(1, 2, (3, 5)) == pytest.approx((100, 24))


def test_the_outermost_of_cells_that_are_placed_show_what_lies_between_them_and_the_inputs_edge() -> None:
    # Cells of 8 pixels around 8, 16 and 24 end at 28, and the image is the input's last three columns.
    view = View((32, 3), (32, 32), (-29.0, 0.0, 3.0, 32.0), Placement(first=(8.0, 8.0), stride=(8.0, 8.0)))
    assert view.visible_cells((3, 3)).tolist() == [[False, False, True]] * 3
    assert view.visible_window((3, 3)) == (slice(0, 3), slice(2, 3))


def test_a_view_that_is_drawn_at_another_size_is_scaled_along_each_axis_by_itself() -> None:
    view = View((60, 200), (30, 100), (10.0, 6.0, 110.0, 36.0)).scale(30, 400)
    assert (view.picture, view.input, view.box) == ((30, 400), (30, 100), (20.0, 3.0, 220.0, 18.0))
