"""Values of more than 8 bits become 0 to 255 as they are said to, and what leaves few levels is noted."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import camcli
from camcli.base.errors import PictureError, RequestError
from camcli.images import parse_value_range
from camcli.images.decode import decode, decode_reduced, from_image, never_reduce
from camcli.images.depth import RANGE_IGNORED_NOTE
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job

# An X-ray of 12 bits: 0 to 4095, in a file of 16.
TWELVE = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 65).astype(np.uint16)
COLOURS = np.random.default_rng(0).integers(0, 4096, (6, 8, 3), dtype=np.uint16)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def saved(values, name="a.png", **options):
    if values.ndim == 3:
        cv2.imwrite(name, values[..., ::-1] if values.shape[2] == 3 else values[..., [2, 1, 0, 3]])
    else:
        Image.fromarray(values).save(name, **options)
    return Path(name)


def levels(path, words="", **options):
    return np.asarray(decode(path, value_range=words, **options))


def notes(path, words=""):
    return decode_reduced(path, never_reduce, value_range=words).notes


def by_hand(values, low, high):
    return np.floor(255 * (np.clip(values.astype(np.float64), low, high) - low) / (high - low) + 0.5)


# --- the range --------------------------------------------------------------------------------------------------------


def test_twelve_bits_in_sixteen_are_noted_and_brought_out_by_a_range():
    path = saved(TWELVE)
    assert len(np.unique(levels(path))) == 17  # 4095 / 257 and none
    [note] = notes(path)
    assert "6.2%" in note
    assert "--range 0,4095" in note
    assert np.array_equal(levels(path, "0,4095")[..., 0], by_hand(TWELVE, 0, 4095))
    assert len(np.unique(levels(path, "0,4095"))) == 64
    assert notes(path, "0,4095") == ()


def test_auto_is_the_files_least_and_greatest():
    path = saved(TWELVE + np.uint16(1000))
    assert np.array_equal(levels(path, "auto")[..., 0], by_hand(TWELVE, 0, 4095))
    assert levels(saved(np.full((4, 4), 700, np.uint16)), "auto").max() == 0  # nothing is above its least


def test_what_lies_beyond_the_range_is_clipped():
    path = saved(np.array([[0, 99, 100, 150, 200, 201, 65535]], np.uint16))
    assert levels(path, "100,200")[0, :, 0].tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_a_range_that_a_picture_hardly_touches_is_noted_too():
    assert "uses only 0.0%" in notes(saved(TWELVE + np.uint16(5000)), "0,4095")[0]


def test_a_picture_that_uses_its_bits_is_not_noted():
    assert notes(saved(TWELVE * np.uint16(16))) == ()
    assert notes(saved(np.full((4, 4), 9, np.uint16))) == ()  # which is one colour however it is scaled


@pytest.mark.parametrize(("least", "most", "noted"), [(0, 6553, True), (0, 6554, False), (60000, 65535, True)])
def test_less_than_a_tenth_is_little(least, most, noted):
    assert bool(notes(saved(np.array([[least, most]], np.uint16)))) == noted


def test_a_tiff_that_says_it_has_12_bits_is_scaled_by_them():
    # 0xfff and 0x123, packed: two values in three bytes.
    data = bytes([0xFF, 0xF1, 0x23])
    entries = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 1)]
    entries.append((279, 4, 3))
    ifd = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHI", tag, kind, 1) + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for tag, kind, value in entries
    )
    Path("a.tif").write_bytes(b"II*\0" + struct.pack("<I", 12) + data + b"\0" + ifd + b"\0" * 4)
    assert levels(Path("a.tif"))[0, :, 0].tolist() == [255, round(0x123 * 255 / 4095)]


def test_a_pgm_keeps_its_own_numbers():
    Path("a.pgm").write_bytes(b"P5 3 1 1000\n" + struct.pack(">3H", 0, 500, 1000))
    assert levels(Path("a.pgm"))[0, :, 0].tolist() == [0, 128, 255]
    assert levels(Path("a.pgm"), "0,2000")[0, :, 0].tolist() == [0, 64, 128]


def test_signed_integers_want_a_range():
    path = saved(np.array([[-1000, 0, 3000]], np.int32), "ct.tif")
    with pytest.raises(PictureError, match="-1000 to 3000") as error:
        decode(path)
    assert "--range LOW,HIGH" in error.value.hint
    assert levels(path, "-1000,1000")[0, :, 0].tolist() == [0, 128, 255]
    assert levels(path, "auto")[0, :, 0].tolist() == [0, 64, 255]


def test_floating_point_wants_a_range_beyond_0_to_1_and_numbers_always():
    path = saved(np.array([[0, 1.25, 5]], np.float32), "f.tif")
    with pytest.raises(PictureError, match="floating-point"):
        decode(path)
    assert levels(path, "0,5")[0, :, 0].tolist() == [0, 64, 255]
    for wrong in (np.nan, np.inf):
        path = saved(np.array([[0, wrong]], np.float32), "n.tif")
        with pytest.raises(PictureError, match="NaN or infinite, at 1 of 2 values"):
            decode(path, value_range="auto")


def test_a_transparent_level_is_no_part_of_the_picture():
    path = saved(np.array([[65535, 100, 200]], np.uint16), transparency=65535)
    assert levels(path, "auto", background="#102030")[0].tolist() == [[16, 32, 48], [0, 0, 0], [255, 255, 255]]


def test_pictures_of_8_bits_are_left_alone_and_it_is_said():
    path = saved(np.array([[10, 200]], np.uint8))
    assert levels(path, "auto")[0, :, 0].tolist() == [10, 200]
    assert notes(path, "auto") == (RANGE_IGNORED_NOTE,)
    assert notes(path) == ()


# --- colours of 16 bits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm"])
def test_colours_of_16_bits(name):
    path = saved(COLOURS, name)
    assert np.abs(levels(path).astype(int) - COLOURS // 257).max() <= 1  # the upper bits, as ever
    assert "--range 0,4095" in notes(path)[0]
    assert np.array_equal(levels(path, "0,4095"), by_hand(COLOURS, 0, 4095))
    assert levels(path, "auto").max() == 255


def test_colours_of_16_bits_over_a_background():
    alpha = np.zeros((6, 8, 1), np.uint16)
    alpha[:, 4:] = 65535
    path = saved(np.concatenate([COLOURS, alpha], 2))
    drawn = levels(path, "0,4095", background="#102030")
    assert np.array_equal(drawn[:, 4:], by_hand(COLOURS, 0, 4095)[:, 4:])
    assert np.unique(drawn[:, :4].reshape(-1, 3), axis=0).tolist() == [[16, 32, 48]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colours_of_16_bits_are_upright_whoever_reads_them(orientation):
    path = saved(COLOURS, "a.tif")
    data = path.read_bytes()
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    entries = [one for one in entries if struct.unpack("<H", one[:2])[0] != 274]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, orientation, 0))
    entries.sort(key=lambda one: struct.unpack("<H", one[:2])[0])
    end = len(data) + len(data) % 2
    ifd = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
    path.write_bytes((data[:4] + struct.pack("<I", end) + data[8:]).ljust(end, b"\0") + ifd)
    turned = [COLOURS, COLOURS[:, ::-1], COLOURS[::-1, ::-1], COLOURS[::-1]]
    turned += [np.swapaxes(one, 0, 1) for one in (COLOURS, COLOURS[::-1], COLOURS[::-1, ::-1], COLOURS[:, ::-1])]
    assert np.array_equal(levels(path, "0,4095"), by_hand(turned[orientation - 1], 0, 4095))


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_ranges_are_read():
    assert parse_value_range("") is parse_value_range("auto") is None
    assert parse_value_range("-1000, 400.5") == (-1000, 400.5)
    for wrong in ("x", "1", "5,5", "9,1", "0,nan", "0,inf", "1,2,3", "12-bit"):
        with pytest.raises(RequestError, match="range cannot be"):
            Job(range=wrong)


def test_a_range_counts_in_the_fingerprint_by_what_it_means():
    plain, twelve, spaced, every = (Job(range=one).fingerprint for one in ("", "0,4095", "0.0, 4095", "auto"))
    assert len({plain, twelve, every}) == 3
    assert twelve == spaced


def test_a_picture_in_memory_has_a_range_too():
    image = Image.fromarray(TWELVE)
    assert np.array_equal(np.asarray(from_image(image, value_range="0,4095").image)[..., 0], by_hand(TWELVE, 0, 4095))


def test_the_model_sees_and_the_overlay_shows_the_same_values(go):
    # The tiny model's score of red is 10 times the mean of red, of values 0 to 1.
    Path("p").mkdir()
    saved(np.full((16, 16), 1024, np.uint16), "p/a.png")
    saved(np.tile(np.array([[0, 2048]], np.uint16), (16, 8)), "p/b.png")
    job = {"target": ("red",), "layers": ("stem",), "save": ("overlay-png",), "alpha": 0.0}
    [_], [plain] = go("p", **job)
    assert plain.score == pytest.approx(10 * 1024 / 65535, rel=1e-5)  # not rounded to 4 of 255 levels
    assert "uses only 3.1%" in plain.notes[0]
    [one], [other] = go("p", **job, range="0,4095", out="ranged")
    assert one.score == pytest.approx(10 * 1024 / 4095, rel=1e-5)
    assert other.score == pytest.approx(10 * 1024 / 4095, rel=1e-5)
    assert np.unique(np.asarray(Image.open("ranged/p/a.png.overlay.png"))).tolist() == [64]


def test_the_run_says_it_once(tiny):
    Path("p").mkdir()
    for name in ("p/a.png", "p/b.png"):
        saved(TWELVE, name)
    with Run(Job(model=tiny, inputs=("p",), out="out", device="cpu")) as run:
        assert all("--range 0,4095" in one.notes[0] for [one] in run)
    [said] = [note for note in run.notes if "--range" in note]
    assert said.startswith("p/a.png uses only 6.2%")
    assert said in json.loads(Path("out/run.json").read_text())["notes"]


def test_python_takes_a_range_as_numbers(tiny):
    saved(np.full((16, 16), 1024, np.uint16))
    [one] = camcli.explain("a.png", model=tiny, target="red", layer="stem", range=(0, 4095))
    assert one.score == pytest.approx(10 * 1024 / 4095, rel=1e-5)
