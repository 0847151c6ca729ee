"""Maps at another input size and another crop lie where the model looked."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared import RED

import camcli

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


@pytest.mark.slow
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


@pytest.mark.parametrize("size", ["8x24", (8, 24), [8, 24]])
def test_in_python_a_size_may_be_numbers(paint, tiny: str, size) -> None:
    (one,) = stem(paint("a.png"), model=tiny, size=size)
    assert one.map.shape == (8, 24)
    (one,) = stem("a.png", model=tiny, size=8)
    assert one.map.shape == (8, 8)
