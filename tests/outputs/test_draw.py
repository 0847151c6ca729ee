"""A map is drawn as what it is: zero is zero, the strongest is 1, what was not seen is neither."""

import io
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images.view import View
from camcli.outputs import COLORMAPS, Outside, draw, style
from camcli.outputs.draw import apply_colormap, blend, draw_gradient
from camcli.outputs.encode import png
from camcli.outputs.style import Style, peak_value, rectify, to_unit_range

STYLE = Style("inferno", 0.6, "image")


def array(values):
    return np.array(values, np.float32)


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def photo(height=40, width=60):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- what is shown of a map -----------------------------------------------------------------------------------------


def test_a_layers_map_is_rectified():
    assert rectify(array([[-3, 2], [0, -1]])).tolist() == [[0, 2], [0, 0]]


def test_of_a_gradient_the_greatest_magnitude_over_the_colours_is_shown():
    assert rectify(array([[[1, -5]], [[-2, 3]], [[0, 4]]])).tolist() == [[2, 5]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_not_drawn(wrong):
    with pytest.raises(PictureError, match="finite"):
        rectify(array([[1, wrong]]))


def test_by_itself_a_map_is_divided_by_its_greatest_value():
    assert to_unit_range(array([[-4, 1, 2]]), STYLE).tolist() == [[0, 0.5, 1]]


def test_scale_does_not_matter_to_image_normalisation():
    np.testing.assert_allclose(
        to_unit_range(random(7, 7) * 1e-12, STYLE), to_unit_range(random(7, 7), STYLE), rtol=1e-5
    )


@pytest.mark.parametrize("values", [np.zeros((2, 2)), -np.ones((2, 2)), np.zeros((3, 2, 2))])
@pytest.mark.parametrize("style", [STYLE, Style("jet", 0.5, "none"), Style("jet", 0.5, "run", 0.0)])
def test_nothing_to_show_stays_nothing(values, style):
    assert not to_unit_range(array(values), style).any()


def test_a_gradients_few_greatest_pixels_do_not_set_the_scale():
    gradient = np.full((3, 100, 100), 0.1, np.float32)
    gradient[0, 0, :40] = 100
    assert peak_value(gradient, fine=True) == pytest.approx(0.1)
    assert to_unit_range(gradient, STYLE, fine=True).tolist() == [[1.0] * 100] * 100
    assert peak_value(array([[0.1] * 99 + [100]])) == 100


def test_a_gradient_of_one_pixel_is_still_shown():
    gradient = np.zeros((3, 100, 100), np.float32)
    gradient[1, 5, 5] = -2
    assert peak_value(gradient, fine=True) == 2
    assert to_unit_range(gradient, STYLE, fine=True)[5, 5] == 1


def test_a_fine_map_without_colours_is_scaled_as_a_gradient_and_by_a_small_object_in_it():
    gradient = random(3, 100, 100)
    assert peak_value(np.abs(gradient).max(0), fine=True) == peak_value(gradient, fine=True)
    object_ = np.full((100, 100), 0.1, np.float32)
    object_[40:46, 40:46] = 10  # 0.4 % of the map
    assert 4.5 < peak_value(object_, fine=True) <= 5
    assert peak_value(object_) == 10


def test_over_a_run_maps_stay_comparable():
    weak, strong = array([[1, 2]]), array([[3, 4]])
    style = Style("inferno", 0.6, "run", max(map(peak_value, (weak, strong))))
    assert to_unit_range(weak, style).tolist() == [[0.25, 0.5]]
    assert to_unit_range(strong, style).tolist() == [[0.75, 1]]
    with pytest.raises(ValueError, match="scale"):
        to_unit_range(weak, Style("inferno", 0.6, "run"))


def test_without_normalisation_values_are_taken_as_they_are():
    assert to_unit_range(array([[-1, 0.25, 7]]), Style("inferno", 0.6, "none")).tolist() == [[0, 0.25, 1]]


# --- spread for overlays --------------------------------------------------------------------------------------------


def lattice(height, width, step):
    """A gradient of 1 at every ``step``-th pixel of every ``step``-th row."""
    gradient = np.zeros((3, height, width), np.float32)
    gradient[0, step // 2 :: step, step // 2 :: step] = 1
    return gradient


def test_a_layers_map_is_not_spread():
    assert np.array_equal(to_unit_range(random(7, 7), STYLE, smooth=True), to_unit_range(random(7, 7), STYLE))


def test_a_gradient_is_spread_by_the_stated_share_of_its_shorter_side():
    gradient = np.zeros((3, 200, 300), np.float32)
    gradient[1, 100, 150] = -1
    heat = to_unit_range(gradient, Style("jet", 0.5, "none"), fine=True, smooth=True).astype(float)
    offsets = np.arange(-20, 21)
    row, column = heat[100, 130:171], heat[80:121, 150]
    # Below half of its greatest value, where it is 1, the Gaussian of 0.006 x 200 = 1.2 pixels is as it should be.
    expected = 2 * np.exp(-(offsets**2) / (2 * 1.2**2))
    inner = (expected < 1) & (np.abs(offsets) <= 3)
    np.testing.assert_allclose(row[inner], expected[inner], rtol=0.02)
    np.testing.assert_allclose(column, row, atol=1e-6)


def test_spreading_an_even_gradient_changes_nothing_to_the_very_edge():
    even = np.full((3, 60, 90), 0.25, np.float32)
    np.testing.assert_allclose(to_unit_range(even, Style("jet", 0.5, "none"), fine=True, smooth=True), 0.25, rtol=1e-6)


def test_what_is_spread_keeps_its_strength():
    gradient = random(3, 224, 224)
    heat = to_unit_range(
        gradient, Style("jet", 0.5, "run", 2 * peak_value(gradient, fine=True)), fine=True, smooth=True
    )
    assert np.percentile(heat, style.ROBUST_PERCENTILE) == pytest.approx(0.5, rel=1e-5)
    plain = to_unit_range(gradient, Style("jet", 0.5, "none"), fine=True, smooth=True)
    assert np.percentile(plain, style.ROBUST_PERCENTILE) == pytest.approx(
        min(1, peak_value(gradient, fine=True)), rel=1e-5
    )


def test_over_a_run_spread_maps_stay_comparable():
    strong, style = random(3, 100, 100), Style("jet", 0.5, "run", peak_value(random(3, 100, 100), fine=True))
    half, quarter = (
        to_unit_range(strong / 2, style, fine=True, smooth=True),
        to_unit_range(strong / 4, style, fine=True, smooth=True),
    )
    np.testing.assert_allclose(half, 2 * quarter, rtol=1e-4)


def test_dust_becomes_an_even_cloud():
    heat = to_unit_range(lattice(224, 224, 2), STYLE, fine=True, smooth=True)
    assert to_unit_range(lattice(224, 224, 2), STYLE, fine=True).mean() < 0.26
    assert heat[10:-10, 10:-10].min() > 0.75


def test_a_single_pixel_is_spread_to_a_spot_and_not_to_a_disc():
    gradient = np.zeros((3, 224, 224), np.float32)
    gradient[0, 100, 100] = 1
    heat = to_unit_range(gradient, STYLE, fine=True, smooth=True)
    assert heat[100, 100] == 1
    assert (heat > 0.99).sum() < 20
    assert heat[100, 105] < 0.05


# --- colours --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_every_colormap_is_there_and_tells_its_ends_apart(colormap):
    low, high = apply_colormap(array([[0, 1]]), colormap)[0].astype(int)
    assert np.abs(low - high).max() > 60


def test_colours_are_red_green_blue():
    cold, hot = apply_colormap(array([[0, 1]]), "jet")[0]
    assert cold.tolist() == [0, 0, 128]
    assert hot.tolist() == [128, 0, 0]
    assert apply_colormap(array([[0, 1]]), "inferno")[0].tolist() == [[0, 0, 4], [252, 255, 164]]


@pytest.mark.parametrize("colormap", COLORMAPS)
@pytest.mark.parametrize("outside", get_args(Outside))
def test_what_was_not_seen_is_grey_or_hatched_and_looks_like_no_heat(colormap, outside):
    heat = np.full((40, 60), np.nan, np.float32)
    heat[:, 30:] = 0
    drawn = apply_colormap(heat, colormap, outside)
    unseen = {tuple(pixel) for pixel in drawn[:, :30].reshape(-1, 3).tolist()}
    greys = (draw.HATCH_GROUND, draw.HATCH_LINE) if outside == "hatch" else (draw.UNSEEN_GREY,)
    assert unseen == {(grey,) * 3 for grey in greys}
    assert len(np.unique(drawn[:, 30:].reshape(-1, 3), axis=0)) == 1
    assert np.abs(drawn[0, -1].astype(int) - draw.UNSEEN_GREY).max() > 40


# --- overlay --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fine", [False, True])
def test_where_there_is_no_heat_the_image_is_muted_and_nothing_else(fine):
    drawn = blend(photo(), np.zeros((40, 60), np.float32), STYLE, fine=fine)
    grey = (photo() @ (0.299, 0.587, 0.114))[..., np.newaxis]
    # Of its colours 1 - 0.5 x 0.6 is left, and of its light 1 - 0.25 x 0.6, or twice as little.
    expected = (0.7 * photo() + 0.3 * grey) * (0.7 if fine else 0.85)
    assert np.abs(drawn - expected).max() < 2


def test_without_opacity_the_picture_is_untouched():
    assert np.array_equal(blend(photo(), np.ones((40, 60), np.float32), Style("jet", 0.0, "image")), photo())


def test_with_full_opacity_the_strongest_heat_is_its_colour():
    heat = np.ones((40, 60), np.float32)
    assert np.array_equal(blend(photo(), heat, Style("jet", 1.0, "image")), apply_colormap(heat, "jet"))


def test_a_blend_by_hand():
    # Heat 1 at opacity 0.6 over orange: of its own colours 0.1 x 0.7 are left, the others are its grey of 149, and of
    # its light 0.85; the rest is the heat's.
    pixels = np.full((1, 1, 3), (255, 128, 0), np.uint8)
    grey = 0.299 * 255 + 0.587 * 128
    expected = 0.4 * 0.85 * (0.07 * np.array([255, 128, 0]) + 0.93 * grey) + 0.6 * np.array([252, 255, 164])
    assert np.abs(blend(pixels, array([[1]]), STYLE)[0, 0] - expected).max() <= 1


def test_more_heat_is_more_colour():
    grey = np.full((1, 256, 3), 128, np.uint8)
    heat = np.linspace(0, 1, 256, dtype=np.float32)[np.newaxis]
    ground = 128 * 0.85
    distance = np.abs(blend(grey, heat, STYLE) - ground).sum(2)[0]
    coloured = np.abs(apply_colormap(heat, "inferno") - ground).sum(2)[0]
    share = distance / coloured
    assert share[0] == pytest.approx(0, abs=0.01)
    assert share[-1] == pytest.approx(0.6, abs=0.02)
    assert (share[[32, 64, 128, 192, 255]][1:] > share[[32, 64, 128, 192, 255]][:-1]).all()


@pytest.mark.parametrize("level", range(0, 256, 15))
def test_what_was_not_seen_is_darker_than_what_was_and_framed(level):
    pixels = np.full((40, 60, 3), level, np.uint8)
    heat = np.zeros((40, 60), np.float32)
    heat[:, :30] = np.nan
    drawn = blend(pixels, heat, STYLE).astype(int)
    seen, unseen = drawn[0, -1, 0], drawn[0, 0, 0]
    assert unseen <= seen
    assert (drawn[:, :30] == unseen).all()
    assert draw.frame(drawn.astype(np.uint8), View((40, 60), (8, 8), (30.0, 0.0, 60.0, 40.0)))[:, 29].min() == 255


def test_a_frame_lies_outside_what_the_model_saw_and_nowhere_else():
    framed = draw.frame(photo(), View((40, 60), (8, 8), (10.0, -3.0, 50.0, 38.0)))
    expected = np.zeros((40, 60), bool)
    expected[:38, [9, 50]] = expected[38, 9:51] = True
    assert np.array_equal((framed == 255).all(2) & (photo() < 255).any(2), expected)
    assert np.array_equal(framed[~expected], photo()[~expected])
    assert np.array_equal(draw.frame(photo(), View((40, 60), (8, 8), (0.0, 0.0, 60.0, 40.0))), photo())


@pytest.mark.parametrize("outside", get_args(Outside))
def test_what_was_not_seen_is_as_asked_for(outside):
    heat = np.full((40, 60), np.nan, np.float32)
    drawn = blend(photo(), heat, replace(STYLE, outside=outside)).astype(float)
    luminance = photo() @ (0.299, 0.587, 0.114)
    if outside == "keep":
        assert np.array_equal(drawn, photo())
    elif outside == "hide":
        assert np.unique(drawn).tolist() == [draw.UNSEEN_GREY]
    elif outside == "hatch":
        assert (drawn == drawn[..., :1]).all()
        assert np.corrcoef(drawn[..., 0].ravel(), luminance.ravel())[0, 1] > 0.9
    else:
        grey = luminance[..., np.newaxis]
        assert np.abs(drawn - 0.5 * (grey + 0.25 * (photo() - grey))).max() < 2


@pytest.mark.parametrize("alpha", [0.3, 0.6, 1.0])
def test_a_blend_is_its_formula_at_every_heat(alpha):
    pixels, heat = photo(), np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60)
    opacity = alpha * (np.rint(255 * heat.astype(float)) / 255)[..., np.newaxis] ** 0.75
    grey = (pixels @ (0.299, 0.587, 0.114))[..., np.newaxis]
    own = (1 - 0.5 * alpha) * (1 - np.minimum(1.5 * opacity, 1))
    faded = (grey + own * (pixels - grey)) * (1 - 0.25 * alpha)
    expected = faded + opacity * (apply_colormap(heat, "jet") - faded)
    distance = np.abs(blend(pixels, heat, Style("jet", alpha, "image")) - expected)
    assert distance.max() < 1.5
    assert distance.mean() < 0.35


def test_a_picture_blended_in_strips_has_no_seams(monkeypatch):
    heat = np.abs(random(40, 60)).clip(0, 1)
    heat[:, 50:] = np.nan
    whole = blend(photo(), heat, STYLE)
    monkeypatch.setattr(draw, "STRIP_PIXELS", 60 * 7)
    assert np.array_equal(blend(photo(), heat, STYLE), whole)


def test_mirrored_heat_on_a_mirrored_picture_is_the_mirrored_overlay():
    heat = np.abs(random(40, 60)).clip(0, 1)
    mirrored = blend(np.ascontiguousarray(photo()[:, ::-1]), np.ascontiguousarray(heat[:, ::-1]), STYLE)
    assert np.array_equal(mirrored, blend(photo(), heat, STYLE)[:, ::-1])


def test_neither_picture_nor_heat_is_changed():
    pixels, heat = photo(), np.full((40, 60), 0.5, np.float32)
    heat[0] = np.nan
    blend(pixels, heat, STYLE)
    apply_colormap(heat, "jet")
    assert np.array_equal(pixels, photo())
    assert np.isnan(heat[0]).all()


# --- gradient -------------------------------------------------------------------------------------------------------


def test_a_gradient_of_nothing_is_mid_grey():
    assert np.unique(draw_gradient(np.zeros((3, 4, 4), np.float32))).tolist() == [128]


def test_a_gradient_is_symmetric_around_mid_grey():
    gradient = random(3, 30, 30)
    drawn, opposite = draw_gradient(gradient).astype(int), draw_gradient(-gradient).astype(int)
    assert np.abs(drawn + opposite - 255).max() <= 1
    assert drawn.min() == 0
    assert opposite.max() == 255


def test_a_gradient_by_hand():
    gradient = array([[[2, -2]], [[1, 0]], [[-1, 0]]])
    # The 99.5th percentile of 2 and 2 is 2.
    assert draw_gradient(gradient).tolist() == [[[255, 191, 64], [0, 128, 128]]]


def test_a_gradients_percentile_becomes_black_and_white():
    # 200 pixels whose greatest magnitudes are 1 to 200; the 99.5th percentile lies at 0.995 * 199 = 198.005 of 0..199,
    # so it is 199 + 0.005 = 199.005, and 200 is clipped.
    gradient = np.zeros((3, 1, 200), np.float32)
    gradient[0, 0] = np.arange(1, 201)
    red = draw_gradient(gradient)[0, :, 0]
    assert red[[99, 198, 199]].tolist() == [round(127.5 + 127.5 * 100 / 199.005), 255, 255]
    gradient[0, 0, 199] = 1e6  # an outlier: the percentile is 199 + 0.005 * (1e6 - 199) = 5198.005
    red = draw_gradient(gradient)[0, :, 0]
    assert red[[198, 199]].tolist() == [round(127.5 + 127.5 * 199 / 5198.005), 255]
    assert draw_gradient(-gradient)[0, 199, 0] == 0


def test_a_gradient_keeps_what_was_not_seen_apart():
    gradient = np.zeros((3, 40, 40), np.float32)
    gradient[:, :, :20] = np.nan
    gradient[0, 5, 30] = 1
    drawn = draw_gradient(gradient)
    assert set(np.unique(drawn[:, :20])) == {draw.UNSEEN_GREY}
    assert set(np.unique(draw_gradient(gradient, "hatch")[:, :20])) == {draw.HATCH_GROUND, draw.HATCH_LINE}
    assert drawn[5, 30].tolist() == [255, 128, 128]
    assert draw_gradient(np.full((3, 4, 4), np.nan, np.float32)).shape == (4, 4, 3)


# --- files ----------------------------------------------------------------------------------------------------------


def test_png_holds_the_pixels_as_they_are():
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(photo())))), photo())


def test_a_picture_that_cannot_be_encoded_is_an_error(monkeypatch):
    monkeypatch.setattr(draw.cv2, "imencode", lambda *_: (False, None))
    with pytest.raises(OSError, match="60 x 40"):
        png(photo())


def test_a_range_begins_at_the_least_value_shown():
    style = Style("viridis", 0.6, "range")
    assert to_unit_range(np.float32([[3, 4], [4, 5]]), style).tolist() == [[0, 0.5], [0.5, 1]]
    # What is negative is not shown, so the least value shown is 0.
    assert to_unit_range(np.float32([[-3, 0], [2, 4]]), style).tolist() == [[0, 0], [0.5, 1]]
    assert to_unit_range(np.float32([[2, 2]]), style).tolist() == [[1, 1]]
    assert to_unit_range(np.float32([[-2, -1]]), style).tolist() == [[0, 0]]
