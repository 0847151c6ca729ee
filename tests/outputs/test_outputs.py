"""Each output holds what it says, at the size it says, with the same view of the image."""

import io
from dataclasses import replace

import numpy as np
import pytest
from drawings import GRADIENT, SQUASH, STYLE, UNTRAINED, drawn, explanation, picture
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images.source import Picture
from camcli.outputs import COLORMAPS, OF_VOLUMES, OUTPUTS, banner, draw
from camcli.outputs.style import Style

OF_PICTURES = [name for name in OUTPUTS.names() if name not in OF_VOLUMES]


@pytest.mark.parametrize("name", OF_PICTURES)
@pytest.mark.parametrize("map_", [None, GRADIENT, np.zeros((1, 1), np.float32)], ids=["layer", "input", "nothing"])
def test_every_output_is_a_file_of_its_kind(name, map_):
    write = OUTPUTS.load(name)
    if name == "box" and map_ is not None:  # noise at the input has no region of its own, and zero none at all
        with pytest.raises(PictureError, match="there is no box"):
            write(picture(), explanation(map_), STYLE)
        return
    content = write(picture(), explanation(map_), STYLE)
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


@pytest.mark.parametrize("name", OF_PICTURES)
def test_same_in_same_out(name):
    write = OUTPUTS.load(name)
    assert write(picture(), explanation(), STYLE) == write(picture(), explanation(), STYLE)


@pytest.mark.parametrize("name", OF_VOLUMES)
def test_a_picture_has_no_slices(name):
    if name == "mp4":
        pytest.importorskip("av", reason="videos need the extra video")
    with pytest.raises(PictureError, match="is no volume"):
        OUTPUTS.load(name)(picture(), explanation(), STYLE)


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


def test_grey_values_are_the_map_from_none_to_full_strength():
    ramp = np.array([[-1, 0, 0.25], [0.5, 0.75, 2]], np.float32)
    square = picture(224, 224, SQUASH)
    for style in (STYLE, UNTRAINED):  # nothing is written over them
        pixels = drawn("grey", square, explanation(ramp), style)
        assert pixels.shape == (224, 224)
        levels = square.view.enlarge(np.clip(ramp, 0, 2) / 2) * 255
        assert np.abs(pixels - levels).max() <= 0.5
        assert (pixels.min(), pixels.max()) == (0, 255)
    partly = picture()
    seen = ~np.isnan(partly.view.onto_picture(np.ones((7, 7), np.float32)))
    assert (drawn("grey", partly, explanation(np.ones((7, 7), np.float32)), STYLE) == 255 * seen).all()


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
    for name in OF_PICTURES:
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
