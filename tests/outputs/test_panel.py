"""The panel: what it shows and says, strips, and words that are too long or in other letters."""

import re
from dataclasses import replace

import numpy as np
import pytest
from drawings import GRADIENT, PREPARE, SQUASH, STYLE, UNTRAINED, drawn, explanation, picture

from camcli.outputs import OUTPUTS, panel
from camcli.outputs.style import Style


def captions(map_, style=STYLE):
    return [tile.caption for tile in panel.draw_tiles(picture(), explanation(map_), style)]


def test_the_panel_shows_the_gradient_of_a_map_at_the_input():
    assert captions(None) == ["image", "heatmap", "overlay"]
    assert captions(np.abs(GRADIENT).max(0)) == ["image", "heatmap", "overlay, smoothed"]
    assert captions(GRADIENT) == ["image", "heatmap", "overlay, smoothed", "signed gradient, on its own scale"]


@pytest.mark.parametrize("size", [(300, 200), (4000, 3000), (16, 16), (5000, 20), (20, 5000), (1, 1)])
def test_the_panels_pictures_are_of_moderate_size(size):
    for tile in panel.draw_tiles(panel.crop_around_view(picture(*size)), explanation(), STYLE):
        assert min(tile.pixels.shape[:2]) >= panel.MIN_TILE_SIDE
        assert tile.pixels.shape[0] == panel.TILE_HEIGHT or tile.pixels.shape[1] == panel.MAX_TILE_WIDTH
        assert tile.pixels.shape[0] <= panel.TILE_HEIGHT
        assert tile.pixels.shape[1] <= panel.MAX_TILE_WIDTH
    sheet = drawn("panel", picture(*size), explanation(), STYLE)
    assert panel.MIN_WIDTH <= sheet.shape[1] <= 3 * panel.MAX_TILE_WIDTH + 200


@pytest.mark.parametrize(("size", "side"), [((300, 200), 100), ((200, 300), 900), ((5000, 20), 1000), ((16, 16), 64)])
def test_a_panels_images_have_the_size_asked_for_and_texts_grow_with_them(size, side):
    style, shown = replace(STYLE, panel_size=side), panel.crop_around_view(picture(*size))
    assert {max(tile.pixels.shape[:2]) for tile in panel.draw_tiles(shown, explanation(), style)} == {side}
    usual, sheet = (drawn("panel", picture(*size), explanation(), one) for one in (STYLE, style))
    by = side / max(next(panel.draw_tiles(shown, explanation(), STYLE)).pixels.shape[:2])
    if by > 1:  # the same page, larger
        assert sheet.shape[:2] == pytest.approx([length * by for length in usual.shape[:2]], abs=3 * by)
    svg = OUTPUTS.load("panel-svg")(picture(*size), explanation(), style).decode()
    assert f'width="{sheet.shape[1]}" height="{sheet.shape[0]}"' in svg
    assert 'font-size="30"' in svg


def test_a_prompt_is_named_as_one():
    assert [text for _, _, text in panel.heading(explanation(label="a cup"), "prompt")] == [
        "a cup",
        "prompt 281, score 9.25, probability 0.391",
    ]


def test_the_panel_says_class_index_score_probability_method_layer_and_notes():
    heading = " ".join(text for _, _, text in panel.heading(explanation()))
    assert heading == "tabby, tabby cat class 281, score 9.25, probability 0.391"
    footing = [text for _, _, text in panel.footing(picture(), picture(), explanation(notes=("a note",)), UNTRAINED)]
    assert footing == [
        "gradcam at blocks.6.0.bn3: in/a.jpg",
        "a note",
        "outside the frame: not seen by the model",
        "the weights are random: the map means nothing",
    ]
    squashed = picture(preprocess=SQUASH)
    assert len(panel.footing(squashed, squashed, explanation(), STYLE)) == 1


@pytest.mark.parametrize(
    ("style", "says"),
    [
        (STYLE, "from 0 to the maximum of this map"),
        (Style("inferno", 0.6, "range"), "from the minimum to the maximum of this map"),
        (Style("inferno", 0.6, "run", 1.5), "from 0 to the maximum of the run (of this map: 0.72)"),
        (Style("inferno", 0.6, "none"), "from 0 to 1, not normalised (maximum of this map: 0.72)"),
    ],
)
def test_the_panel_says_what_the_bars_ends_are(style, says):
    assert panel.describe_scale(np.array([[-9, 0.72]], np.float32), style) == says


@pytest.mark.parametrize("style", [STYLE, Style("inferno", 0.6, "run", 0.0)])
def test_the_panel_says_where_there_is_nothing_to_show(style):
    assert panel.describe_scale(np.array([[-9, 0]], np.float32), style) == "nothing to show: no value is above zero"


def strip(width, height, preprocess=PREPARE):
    """What the panel shows of a strip, and what it says of it."""
    whole = picture(width, height, preprocess)
    shown = panel.crop_around_view(whole)
    return shown, [text for _, _, text in panel.footing(whole, shown, explanation(), STYLE)][1:]


def test_a_picture_of_usual_proportions_is_shown_whole():
    for size in ((300, 200), (200, 300), (800, 200), (1, 1)):
        shown, _ = strip(*size)
        assert (shown.view, shown.pixels.shape) == (picture(*size).view, (size[1], size[0], 3))


@pytest.mark.parametrize("upright", [False, True])
def test_of_a_strip_the_surroundings_of_the_view_are_shown(upright):
    whole = picture(20, 5000) if upright else picture(5000, 20)
    shown = panel.crop_around_view(whole)
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


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, ["0", "0.25", "0.5", "0.75", "1"]),
        (0, 1.23456e-5, ["0", "6.17e-06", "1.23e-05"]),
    ],
)
def test_values_of_the_bar_do_not_touch(low, high, ticks):
    map_ = np.linspace(low, high, 49, dtype=np.float32).reshape(7, 7)
    style = Style("inferno", 0.6, "range")
    svg = OUTPUTS.load("panel-svg")(picture(preprocess=SQUASH), explanation(map_), style).decode()
    texts = re.findall(r">([^<>]+)</text>", svg)
    values = [text for text in texts if re.fullmatch(r"-?[0-9.e-]+", text)]
    assert values == ticks
