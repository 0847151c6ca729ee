"""Images decoded at a part of their size: what the model sees is nearly the same, and lies at the same place."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compose_sample import SAMPLES
from PIL import Image

import camcli
from camcli.base.errors import PictureError
from camcli.images.decode import DIVISORS, decode, decode_reduced, never_reduce
from camcli.images.transform import Preprocess
from camcli.images.view import REDUCING_GAP
from camcli.outputs.sheet import make_thumbnail

HERE = pytest.mark.usefixtures("here")
# A timm model's usual preparation, at a size that small images are large for.
SMALL = Preprocess((56, 56), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (64, 64))
TURNS = range(1, 9)


@functools.cache
def photograph(width: int, height: int) -> Image.Image:
    return Image.open(SAMPLES / "citrus-fruits.jpg").convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def saved(image: Image.Image, orientation: int = 1, name: str = "a.jpg", **options) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(name, exif=exif, **{"quality": 92, **options})
    return Path(name)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def levels(preprocess: Preprocess, path: Path) -> np.ndarray:
    """By how many of 255 levels the input differs when the image is reduced."""
    full, view = preprocess(decode(path))
    reduced = decode_reduced(path, preprocess.max_divisor)
    assert reduced.image.size < decode(path).size
    values, same = preprocess.from_reduced(reduced.image, reduced.size, reduced.box)
    assert same == view
    return 255 * (values - full).abs().numpy()


@HERE
@pytest.mark.parametrize("orientation", TURNS)
def test_a_reduced_picture_lies_where_the_full_one_does_whichever_way_it_is_held(orientation):
    path = saved(photograph(1003, 774), orientation)
    assert levels(SMALL, path).mean() < 1
    assert levels(replace(SMALL, fit="squash", resize=SMALL.size), path).mean() < 1
    assert levels(replace(SMALL, fit="longer", resize=SMALL.size), path).mean() < 1


@HERE
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("parts", DIVISORS)
def test_size_and_box_are_those_of_the_upright_picture(parts, orientation):
    path = saved(photograph(803, 606), orientation)
    reduced = decode_reduced(path, lambda width, height: float(parts))
    full = decode(path).size
    assert reduced.size == full
    assert reduced.image.size == tuple(-(-side // parts) for side in full)
    left, top, right, bottom = reduced.box
    assert (right - left, bottom - top) == pytest.approx([side / parts for side in full])
    assert left in (0, pytest.approx(reduced.image.width - full[0] / parts))
    assert top in (0, pytest.approx(reduced.image.height - full[1] / parts))


@HERE
def test_the_factor_is_asked_for_the_upright_picture_and_rounded_down():
    asked = []

    def spare(*size: int) -> float:
        asked.append(size)
        return 7.9

    assert decode_reduced(saved(photograph(800, 600), 6), spare).image.size == (150, 200)
    assert asked == [(600, 800)]


@HERE
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg(mode, progressive):
    path = saved(photograph(1000, 800).convert(mode), progressive=progressive)
    assert levels(SMALL, path).max() < 12


@HERE
def test_a_jpeg_with_more_behind_it_and_one_of_a_few_pixels():
    behind = [photograph(300, 200)]
    photograph(1000, 800).save("a.jpg", "MPO", save_all=True, append_images=behind, quality=92)
    assert levels(SMALL, Path("a.jpg")).max() < 12
    tiny = saved(photograph(3, 5), name="tiny.jpg")
    assert decode_reduced(tiny, lambda *size: 8.0).image.size == (2, 3)


@HERE
def test_other_formats_are_decoded_whole():
    photograph(400, 300).save("a.png")
    reduced = decode_reduced(Path("a.png"), lambda *size: 8.0)
    assert reduced.image.tobytes() == decode(Path("a.png")).tobytes()
    assert reduced.box == (0, 0, 400, 300)


@HERE
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_file_is_refused_in_the_same_words(share, progressive):
    path = saved(photograph(800, 600), progressive=progressive)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    said = []
    for way in (decode, functools.partial(decode_reduced, max_divisor=lambda *size: 8.0)):
        with pytest.raises(PictureError) as caught:
            way(path)
        said.append(caught.value.message.partition("(")[0])
    assert said[0] == said[1]
    assert "cut short" in said[0]


@pytest.mark.parametrize("size", [(127, 120), (64, 64), (50, 300)])
def test_a_picture_that_is_not_large_is_prepared_as_ever(size):
    picture = photograph(*size)
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    values, view = SMALL.from_reduced(picture, size, whole)
    expected, same = SMALL(picture)
    assert values.equal(expected)
    assert view == same


def test_a_reduced_strip_is_made_in_part_where_the_full_one_is():
    strip = photograph(40_000, 8)
    preprocess = replace(SMALL, resize=(256, 256), size=(224, 224))
    whole = (0.0, 0.0, 40_000.0, 8.0)
    assert 255 * (preprocess.from_reduced(strip, strip.size, whole)[0] - preprocess(strip)[0]).abs().max() < 2


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.glob("*.[jp][pn]g")))
def test_the_input_differs_by_as_little_as_the_documentation_says(sample, here):
    picture = Image.open(SAMPLES / sample).convert("RGB")
    # The smallest that is halved, which is where it differs most; and as sharp as it is.
    side = min(picture.size) / (2 * REDUCING_GAP)
    preprocess = replace(SMALL, size=(int(side), int(side)), resize=(int(side), int(side)))
    path = saved(picture)
    whole = decode_reduced(path, lambda width, height: 2.0)
    values, _ = preprocess.from_reduced(whole.image, whole.size, whole.box)
    differences = 255 * (values - preprocess(decode(path))[0]).abs()
    assert differences.max() < 9.5
    assert differences.mean() < 0.45


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def soft(here: Path, tiny_file: Path) -> str:
    """The small model of colour, which resizes smoothly."""
    path = here / "soft.py"
    path.write_text(tiny_file.read_text().replace('"nearest"', '"bilinear"'))
    return f"{path}:make"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """By how much each image of a run could have been divided that was not decoded for its own pixels."""
    asked: list[float] = []

    def noted(path, spare, background, *more, **named):
        if spare is not never_reduce:
            asked.append(spare(1600, 1200))
        return decode_reduced(path, spare, background, *more, **named)

    monkeypatch.setattr("camcli.runs.worker.prepare.decode_reduced", noted)
    return asked


def test_maps_and_places_of_reduced_pictures_are_nearly_those_of_full_ones(soft, go, here, ways):
    saved(photograph(1600, 1200), 6, "photo.jpg")
    runs = [go("photo.jpg", model=soft, save=("array", "heatmap"), out=way, decode=way) for way in ("full", "reduced")]
    (full,), (reduced,) = (outcomes for run in runs for outcomes in run)
    assert full.job != reduced.job
    assert full.peak == reduced.peak
    maps = [np.load(here / way / full.files["array"]) for way in ("full", "reduced")]
    assert 0 < np.abs(maps[0] - maps[1]).max() < 0.02 * maps[0].max()
    heatmaps = [size_of(here / way / full.files["heatmap"]) for way in ("full", "reduced")]
    assert heatmaps == [(1200, 1600)] * 2
    assert len(ways) == 1


@pytest.mark.parametrize("save", ["overlay", "panel", "array,overlay-png"])
def test_where_the_pictures_own_pixels_are_shown_it_is_decoded_whole(save, soft, go, here, ways):
    saved(photograph(1600, 1200), name="photo.jpg")
    ((outcome,),) = go("photo.jpg", model=soft, save=tuple(save.split(",")), decode="reduced")
    for name in {"overlay", "overlay-png"} & outcome.files.keys():
        assert size_of(here / "out" / outcome.files[name]) == (1600, 1200)
    assert not ways


def test_a_run_drawn_at_the_end_decodes_whole_only_then(soft, go, here, ways):
    saved(photograph(1600, 1200), name="photo.jpg")
    ((outcome,),) = go("photo.jpg", model=soft, normalize="run", decode="reduced")
    assert size_of(here / "out" / outcome.files["overlay"]) == (1600, 1200)
    assert len(ways) == 1


def test_pictures_in_memory_and_from_python(soft, ways):
    picture = photograph(1600, 1200)
    path = saved(picture, name="photo.jpg")
    one, two = camcli.explain([picture, path], model=soft, decode="reduced", device="cpu")
    assert one.view == two.view
    assert one.view.picture == (1200, 1600)
    assert np.abs(one.map - two.map).max() < 0.02 * one.map.max()
    assert len(ways) == 1


def test_on_contact_sheets_a_reduced_picture_stands_where_the_full_one_does():
    picture = photograph(1003, 774)
    view = SMALL.view(*picture.size)
    full, seen = make_thumbnail(np.asarray(picture), view)
    drawn, same = make_thumbnail(np.asarray(picture.reduce(2)), view)
    assert drawn.shape == pytest.approx(full.shape, abs=1)
    assert same.box == pytest.approx(seen.box, abs=1)


def test_where_single_pixels_are_picked_nothing_is_reduced():
    assert replace(SMALL, interpolation="nearest").max_divisor(8000, 6000) == 1
    assert SMALL.max_divisor(8000, 6000) == pytest.approx(min(6000 / 256, 6000 / 64 / REDUCING_GAP))
