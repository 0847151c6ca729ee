"""Each output holds what it says, at the size it says, with the same view of the picture."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.engine.explanation import Explanation
from camcli.images.source import Picture, PictureSource
from camcli.images.transform import Preprocess
from camcli.outputs import COLORMAPS, OUTPUTS, banner, draw, panel
from camcli.outputs.style import Style

STYLE = Style("inferno", 0.6, "image")
UNTRAINED = Style("inferno", 0.6, "image", untrained=True)
HALF = (0.5, 0.5, 0.5)
PREPARE = Preprocess((224, 224), HALF, HALF, (256, 256))
SQUASH = Preprocess((224, 224), HALF, HALF, (224, 224), "squash")


def picture(width=300, height=200, preprocess=PREPARE):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture(PictureSource(Path("in/a.jpg"), "in/a.jpg"), pixels, preprocess.view(width, height))


def explanation(map_=None, label="tabby, tabby cat", notes=()):
    if map_ is None:
        map_ = np.random.default_rng(1).standard_normal((7, 7)).astype(np.float32)
    return Explanation(map_, "gradcam", "blocks.6.0.bn3", 281, label, 9.25, 0.391, notes)


GRADIENT = np.random.default_rng(2).standard_normal((3, 224, 224)).astype(np.float32)


def drawn(name, *args):
    return np.asarray(Image.open(io.BytesIO(OUTPUTS.load(name)(*args))))


@pytest.mark.parametrize("name", OUTPUTS.names())
@pytest.mark.parametrize("map_", [None, GRADIENT, np.zeros((1, 1), np.float32)], ids=["layer", "input", "nothing"])
def test_every_output_is_a_file_of_its_kind(name, map_):
    content = OUTPUTS.load(name)(picture(), explanation(map_), STYLE)
    assert type(content) is bytes
    magic = {"npy": b"\x93NUMPY", "png": b"\x89PNG", "jpg": b"\xff\xd8\xff", "svg": b"<svg ", "pdf": b"%PDF"}
    assert content.startswith(magic[OUTPUTS.find(name).suffix.rpartition(".")[2]])


@pytest.mark.parametrize("style", [STYLE, UNTRAINED], ids=["trained", "untrained"])
def test_the_overlay_as_jpeg_is_the_one_as_png_to_a_few_levels_in_its_colours_too(style):
    smooth = np.asarray(Image.fromarray(picture(12, 8).pixels).resize((300, 200), Image.Resampling.BICUBIC))
    seen = Picture(picture().source, smooth, picture().view)
    loose, exact = (drawn(name, seen, explanation(), style).astype(int) for name in ("overlay", "overlay-png"))
    assert np.abs(loose - exact).mean() < 2
    assert np.abs(loose - exact).mean((0, 1)).max() < 2.5


def test_a_picture_that_jpeg_cannot_hold_says_what_can():
    with pytest.raises(OSError, match=r"70000 x 2 .* JPEG: --save overlay-png"):
        OUTPUTS.load("overlay")(picture(70000, 2), explanation(), STYLE)


def test_no_two_outputs_end_alike():
    suffixes = [row.suffix for row in OUTPUTS.rows]
    assert len(set(suffixes)) == len(suffixes)
    assert not any(one != other and one.endswith(other) for one in suffixes for other in suffixes)


@pytest.mark.parametrize("name", OUTPUTS.names())
def test_same_in_same_out(name):
    write = OUTPUTS.load(name)
    assert write(picture(), explanation(), STYLE) == write(picture(), explanation(), STYLE)


def test_the_array_is_the_map_as_the_method_gave_it():
    map_ = -np.arange(35, dtype=np.float32).reshape(5, 7)
    for style in (STYLE, UNTRAINED, Style("jet", 0.1, "none")):
        loaded = np.load(io.BytesIO(OUTPUTS.load("array")(picture(), explanation(map_), style)), allow_pickle=False)
        assert loaded.dtype == np.float32
        assert np.array_equal(loaded, map_)


@pytest.mark.parametrize("name", ["overlay", "overlay-png", "heatmap"])
@pytest.mark.parametrize("size", [(300, 200), (33, 57), (1, 1), (1000, 5)])
def test_overlay_and_heatmap_have_the_pictures_own_size(name, size):
    for map_ in (None, GRADIENT):
        for style in (STYLE, UNTRAINED):
            assert drawn(name, picture(*size), explanation(map_), style).shape == (size[1], size[0], 3)


def test_the_heat_lies_where_the_model_saw_it():
    corner = np.zeros((7, 7), np.float32)
    corner[6, 0] = 1
    heat = drawn("heatmap", picture(), explanation(corner), STYLE).astype(int).sum(2)
    y, x = np.unravel_index(np.where(heat > 600, heat, 0).argmax(), heat.shape)
    expected = picture().view.cell_centre(6, 0, (7, 7))
    assert abs(x - expected[0]) < 15
    assert abs(y - expected[1]) < 15


def test_what_the_model_did_not_see_is_grey_or_hatched():
    seen = ~np.isnan(picture().view.onto_picture(np.zeros((7, 7), np.float32)))
    assert set(np.unique(drawn("heatmap", picture(), explanation(), STYLE)[~seen])) == {draw.UNSEEN_GREY}
    hatched = replace(STYLE, outside="hatch")
    heat = drawn("heatmap", picture(), explanation(), hatched)
    assert set(np.unique(heat[~seen])) == {draw.HATCH_GROUND, draw.HATCH_LINE}
    over = drawn("overlay-png", picture(), explanation(), hatched)
    assert (over[~seen] == over[~seen][:, :1]).all()
    assert not (over[seen] == over[seen][:, :1]).all()


@pytest.mark.parametrize("name", ["overlay", "heatmap", "panel"])
@pytest.mark.parametrize("map_", [None, GRADIENT], ids=["layer", "input"])
def test_untrained_weights_are_said_on_every_picture(name, map_):
    def distance(style):
        off = np.abs(drawn(name, picture(), explanation(map_), style) - np.array(banner.BANNER_COLOUR))
        return (off <= (12 if name == "overlay" else 0)).all(2).sum()  # JPEG moves colours by a few levels

    assert distance(STYLE) < 50
    assert distance(UNTRAINED) > 2000


@pytest.mark.parametrize("name", ["overlay", "heatmap", "panel"])
def test_untrained_weights_are_said_beside_a_box_too(name):
    boxed = replace(explanation(), box=(40.0, 30.0, 200.0, 150.0), number=1)
    content = OUTPUTS.load(name)(picture(), boxed, UNTRAINED)
    assert content != OUTPUTS.load(name)(picture(), boxed, STYLE)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_every_colormap_draws_every_output(colormap):
    for name in OUTPUTS.names():
        assert OUTPUTS.load(name)(picture(40, 30), explanation(), Style(colormap, 0.6, "image"))


def test_a_gradient_is_spread_in_the_overlay_only():
    dust = np.zeros((3, 224, 224), np.float32)
    dust[:, ::8, ::8] = 1
    square = picture(224, 224, SQUASH)
    heat = drawn("heatmap", square, explanation(dust), STYLE)
    assert (heat == (0, 0, 4)).all(2).mean() > 0.95
    over = drawn("overlay-png", square, explanation(dust), STYLE)
    assert (over == square.pixels).all(2).mean() < 0.05
    raw = np.load(io.BytesIO(OUTPUTS.load("array")(square, explanation(dust), STYLE)))
    assert np.array_equal(raw, dust)


# --- the panel ------------------------------------------------------------------------------------------------------


def captions(map_, style=STYLE):
    return [tile.caption for tile in panel._draw_tiles(picture(), explanation(map_), style)]


def test_the_panel_shows_the_gradient_of_a_map_at_the_input():
    assert captions(None) == ["image", "heatmap", "overlay"]
    assert captions(GRADIENT) == ["image", "heatmap", "overlay, smoothed", "signed gradient, on its own scale"]


@pytest.mark.parametrize("size", [(300, 200), (4000, 3000), (16, 16), (5000, 20), (20, 5000), (1, 1)])
def test_the_panels_pictures_are_of_moderate_size(size):
    for tile in panel._draw_tiles(panel._crop_around_view(picture(*size)), explanation(), STYLE):
        assert min(tile.pixels.shape[:2]) >= panel.MIN_TILE_SIDE
        assert tile.pixels.shape[0] == panel.TILE_HEIGHT or tile.pixels.shape[1] == panel.MAX_TILE_WIDTH
        assert tile.pixels.shape[0] <= panel.TILE_HEIGHT
        assert tile.pixels.shape[1] <= panel.MAX_TILE_WIDTH
    sheet = drawn("panel", picture(*size), explanation(), STYLE)
    assert panel.MIN_WIDTH <= sheet.shape[1] <= 3 * panel.MAX_TILE_WIDTH + 200


def test_the_panel_says_class_index_score_probability_method_layer_and_notes():
    heading = " ".join(text for _, _, text in panel._heading(explanation()))
    assert heading == "tabby, tabby cat class 281, score 9.25, probability 0.391"
    footing = [text for _, _, text in panel._footing(picture(), picture(), explanation(notes=("a note",)), UNTRAINED)]
    assert footing == [
        "gradcam at blocks.6.0.bn3: in/a.jpg",
        "a note",
        "outside the frame: not seen by the model",
        "the weights are random: the map means nothing",
    ]
    squashed = picture(preprocess=SQUASH)
    assert len(panel._footing(squashed, squashed, explanation(), STYLE)) == 1


@pytest.mark.parametrize(
    ("style", "says"),
    [
        (STYLE, "1 = 0.72, this map's strongest"),
        (Style("inferno", 0.6, "run", 1.5), "1 = 1.5, the run's strongest (this map's is 0.72)"),
        (Style("inferno", 0.6, "none"), "1 = 1, not normalised (this map's strongest is 0.72)"),
    ],
)
def test_the_panel_says_what_full_colour_is(style, says):
    assert panel._describe_scale(np.array([[-9, 0.72]], np.float32), style) == says


@pytest.mark.parametrize("style", [STYLE, Style("inferno", 0.6, "run", 0.0)])
def test_the_panel_says_where_there_is_nothing_to_show(style):
    assert panel._describe_scale(np.array([[-9, 0]], np.float32), style) == "nothing to show: no value is above zero"


def strip(width, height, preprocess=PREPARE):
    """What the panel shows of a strip, and what it says of it."""
    whole = picture(width, height, preprocess)
    shown = panel._crop_around_view(whole)
    return shown, [text for _, _, text in panel._footing(whole, shown, explanation(), STYLE)][1:]


def test_a_picture_of_usual_proportions_is_shown_whole():
    for size in ((300, 200), (200, 300), (800, 200), (1, 1)):
        shown, _ = strip(*size)
        assert (shown.view, shown.pixels.shape) == (picture(*size).view, (size[1], size[0], 3))


@pytest.mark.parametrize("upright", [False, True])
def test_of_a_strip_the_surroundings_of_the_view_are_shown(upright):
    whole = picture(20, 5000) if upright else picture(5000, 20)
    shown = panel._crop_around_view(whole)
    pixels = whole.pixels[2460:2540] if upright else whole.pixels[:, 2460:2540]
    assert np.array_equal(shown.pixels, pixels)
    _, words = strip(*((20, 5000) if upright else (5000, 20)))
    size, of = ("20 x 80", "20 x 5000") if upright else ("80 x 20", "5000 x 20")
    assert words == [
        f"shown: the {size} pixels around the model's view, of {of}",
        "outside the frame: not seen by the model",
    ]
    # The map lies on the same pixels as before.
    map_ = explanation().map
    onto = whole.view.onto_picture(map_)
    onto = onto[2460:2540] if upright else onto[:, 2460:2540]
    np.testing.assert_allclose(shown.view.onto_picture(map_), onto, rtol=1e-4, atol=1e-5)


def test_a_strip_that_the_model_saw_whole_is_shown_whole_and_stretched():
    shown, words = strip(5000, 20, SQUASH)
    assert shown.pixels.shape == (20, 5000, 3)
    assert words == ["drawn stretched: 5000 x 20 pixels as 896 x 72"]


def test_words_too_long_for_the_sheet_are_shortened():
    assert panel.shorten_text("short", 20, 500) == "short"
    shortened = panel.shorten_text("a very long label " * 40, 20, 500)
    assert shortened.endswith("…")
    assert 400 < panel.measure_text(shortened, 20) <= 500


@pytest.mark.parametrize("label", ["", "line\nbreak\tand \x1b[31mescape", "猫 ünïcødé", "lone \udcff", "x" * 5000])
def test_any_label_can_be_written(label):
    sheet = drawn("panel", picture(), explanation(label=label), STYLE)
    assert sheet.shape[0] == drawn("panel", picture(), explanation(), STYLE).shape[0]


def test_nothing_is_written_beyond_the_margin():
    sheet = drawn("panel", picture(), explanation(label="W" * 500, notes=("n" * 900,)), UNTRAINED)
    margin = panel.MARGIN - 4
    for edge in (sheet[:margin], sheet[-margin:], sheet[:, :margin], sheet[:, -margin:]):
        assert (edge == 255).all()
