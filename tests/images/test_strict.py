"""A JPEG that is damaged in the middle is said to be, and a sound one is what Pillow makes of it, to the bit."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images import jpeg
from camcli.images.decode import decode_reduced, never_reduce

pytest.importorskip("simplejpeg")
WAYS = {"baseline": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 20}}


def sample(sample_images: Path, mode: str = "RGB", **options) -> bytes:
    stream = io.BytesIO()
    with Image.open(sample_images / "coffee.png") as image:
        image.convert(mode).save(stream, "JPEG", quality=88, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_sound_one_is_pillows_to_the_bit(sample_images: Path, way, subsampling, mode, tmp_path: Path) -> None:
    given = sample(sample_images, mode, subsampling=subsampling, **WAYS[way])
    (tmp_path / "a.jpg").write_bytes(given)
    found = decode_reduced(tmp_path / "a.jpg", never_reduce)
    with Image.open(io.BytesIO(given)) as image:
        assert np.array_equal(np.asarray(found.image), np.asarray(image.convert("RGB")))
    assert found.notes == ()


def test_one_that_stands_on_its_side_is_turned(sample_images: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(sample(sample_images, exif=exif))
    with Image.open(tmp_path / "a.jpg") as image:
        right = np.rot90(np.asarray(image), -1)
    assert np.array_equal(np.asarray(decode_reduced(tmp_path / "a.jpg", never_reduce).image), right)


@pytest.mark.parametrize("way", WAYS)
def test_damage_in_the_middle_is_noted_and_the_picture_counts(sample_images: Path, way, tmp_path: Path) -> None:
    given = sample(sample_images, **WAYS[way])
    random, noted, done = np.random.default_rng(1), 0, 0
    for number in range(36):
        damaged = bytearray(given)
        place, many = int(random.integers(len(given) // 4, 3 * len(given) // 4)), int(random.choice([8, 40, 200]))
        if number % 3 == 0:
            damaged[place : place + many] = random.bytes(many)
        elif number % 3 == 1:
            damaged[place : place + many] = bytes(many)
        else:
            del damaged[place : place + many]
        (tmp_path / "a.jpg").write_bytes(damaged)
        try:
            found = decode_reduced(tmp_path / "a.jpg", never_reduce)
        except PictureError:
            continue
        done += 1
        noted += any("the file is damaged" in note for note in found.notes)
        with Image.open(tmp_path / "a.jpg") as image:
            assert np.array_equal(np.asarray(found.image), np.asarray(image.convert("RGB")))
    # What libjpeg does not warn of is another image, as good as any.
    assert done >= 24
    assert noted >= done // 3


def test_without_the_library_pillow_does_it(sample_images: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.jpg").write_bytes(sample(sample_images))
    right = np.asarray(decode_reduced(tmp_path / "a.jpg", never_reduce).image)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    assert np.array_equal(np.asarray(decode_reduced(tmp_path / "a.jpg", never_reduce).image), right)
