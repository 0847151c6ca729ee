"""Images of NumPy's files and of TIFFs of any bands: every value reaches the model, and three bands are drawn."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.base.errors import PictureError, RequestError
from camcli.images import Bands, parse_bands, parse_percentiles, parse_value_range
from camcli.images.arrays import from_array, read_tiff, turn_upright
from camcli.images.decode import decode_reduced, never_reduce
from camcli.images.transform import Preprocess

DEEP = np.random.default_rng(0).integers(0, 65536, (6, 9, 5), dtype=np.uint16)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def saved(values, name="a.npy"):
    np.save(name, values)
    return Path(name)


def read(path, words="", bands=None, page=0):
    return decode_reduced(Path(path), never_reduce, value_range=words, bands=bands, page=page)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_a_window_is_its_centre_and_width():
    assert parse_value_range("40/400") == (-160, 240)
    assert parse_value_range("1%,99%") is None
    assert parse_percentiles("1%, 99.5%") == (1, 99.5)
    assert parse_percentiles("auto") == (0, 100)
    assert parse_percentiles("1,99") is None
    for wrong in ("40/0", "40/-1", "40/1/2", "9%,1%", "1%,101%", "1%", "1%,2%,3%", "1.2.3%,9%", "x/y"):
        with pytest.raises(RequestError, match="range cannot be"):
            parse_value_range(wrong)


def test_percentiles_are_of_the_image():
    values = np.arange(101, dtype=np.float32).reshape(1, 101) * 10 - 500
    planes = read(saved(values), "10%,60%").planes
    np.testing.assert_allclose(planes[0, [0, 10, 35, 60, 100], 0], [0, 0, 0.5, 1, 1], atol=1e-6)


def test_grey_of_16_bits_reaches_the_model_with_all_of_them():
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(grey).save("a.png")
    for decoded in (read("a.png", "0,1000"), read(saved(grey), "0,1000")):
        np.testing.assert_allclose(decoded.planes[..., 0], grey / 1000, atol=1e-7)
        assert np.array_equal(np.asarray(decoded.image)[..., 0], np.rint(grey * 0.255))
    values, _ = Preprocess((8, 8), (0.5,) * 3, (0.25,) * 3).from_planes(decoded.planes)
    np.testing.assert_allclose(values.numpy(), np.stack([(grey / 1000 - 0.5) / 0.25] * 3), atol=1e-6)


def test_colours_of_16_bits_for_a_model_of_grey():
    planes = read(saved(DEEP[..., :3])).planes
    grey, _ = Preprocess((6, 9), (0.0,), (1.0,)).from_planes(planes)
    np.testing.assert_allclose(grey[0].numpy(), DEEP[..., :3] / 65535 @ [0.299, 0.587, 0.114], atol=1e-5)


def test_colours_of_16_bits_over_a_background_and_upright(tmp_path):
    import cv2

    wide = np.concatenate([DEEP[..., :3], np.full((6, 9, 1), 65535, np.uint16)], 2)
    wide[:, 5:, 3] = 0
    cv2.imwrite("a.png", wide[..., [2, 1, 0, 3]])
    planes = decode_reduced(Path("a.png"), never_reduce, "#ff8000").planes
    np.testing.assert_allclose(planes[:, :5], DEEP[:, :5, :3] / 65535, atol=1e-6)
    np.testing.assert_allclose(planes[:, 5:], np.broadcast_to([1, 128 / 255, 0], (6, 4, 3)), atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation):
    from camcli.images.decode import TRANSPOSE_BY_ORIENTATION

    image = Image.fromarray(DEEP[..., 0].astype(np.float32))
    way = TRANSPOSE_BY_ORIENTATION.get(orientation)
    expected = np.asarray(image if way is None else image.transpose(way))
    assert np.array_equal(turn_upright(DEEP[..., 0], orientation), expected)


# --- bands ------------------------------------------------------------------------------------------------------------


def test_bands_are_read():
    assert parse_bands("") is None
    assert parse_bands("4, 3,2,8", "3,2,1") == Bands((4, 3, 2, 8), (3, 2, 1))
    assert parse_bands("", "2") == Bands((), (2,))
    for chosen, shown in (("0", ""), ("a", ""), ("1,,2", ""), ("-1", ""), ("1", "1,2"), ("", "1,2,3,4")):
        with pytest.raises(RequestError, match=r"bands cannot be|rgb cannot be"):
            parse_bands(chosen, shown)


def test_bands_are_chosen_in_order_and_three_are_drawn():
    decoded = read(saved(DEEP), bands=Bands((5, 1, 3, 2)))
    np.testing.assert_allclose(decoded.planes, DEEP[..., [4, 0, 2, 1]] / 65535, atol=1e-7)
    assert np.array_equal(np.asarray(decoded.image), np.rint(DEEP[..., [4, 0, 2]].astype(float) * 255 / 65535))
    drawn = read(saved(DEEP), bands=Bands((5, 1, 3, 2), (4, 4, 1)))
    assert np.array_equal(drawn.planes, decoded.planes)
    assert np.array_equal(np.asarray(drawn.image), np.rint(DEEP[..., [3, 3, 0]].astype(float) * 255 / 65535))
    two = np.asarray(read(saved(DEEP), bands=Bands((2, 4))).image)
    assert np.array_equal(two[..., 0], two[..., 2])
    assert np.array_equal(two[..., 0], np.rint(DEEP[..., 1].astype(float) * 255 / 65535))


def test_one_range_is_of_all_chosen_bands():
    values = np.stack([np.full((4, 4), value, np.float32) for value in (-5, 0, 5, 100)], 2)
    decoded = read(saved(values), "auto", Bands((1, 2, 3), (4,)))
    np.testing.assert_allclose(decoded.planes[0, 0], [0, 0.5, 1])
    assert np.asarray(decoded.image).min() == 255  # beyond the greatest of those chosen


def test_bands_first_are_bands_too():
    first = read(saved(np.ascontiguousarray(DEEP.transpose(2, 0, 1))))
    assert np.array_equal(first.planes, read(saved(DEEP)).planes)


def test_bands_that_an_image_lacks():
    with pytest.raises(PictureError, match="has 5 bands, and none of number 6"):
        read(saved(DEEP), bands=Bands((6,)))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save("a.png")
    with pytest.raises(PictureError, match="has 3 bands, and none of number 4"):
        read("a.png", bands=Bands((1, 4)))


def test_colours_of_a_picture_are_bands():
    pixels = DEEP[..., :3].astype(np.uint8)
    Image.fromarray(pixels).save("a.png")
    decoded = read("a.png", bands=Bands((3, 1)))
    assert np.array_equal(decoded.planes, pixels[..., [2, 0]].astype(np.float32) / 255)
    assert np.array_equal(np.asarray(decoded.image), pixels[..., [2, 2, 2]])


def test_bands_of_a_deep_picture_keep_their_bits():
    Image.fromarray(DEEP[..., 0]).save("a.png")
    decoded = read("a.png", bands=Bands((1, 1)))
    np.testing.assert_allclose(decoded.planes, DEEP[..., [0, 0]] / 65535, atol=1e-6)
    with pytest.raises(PictureError, match="has 1 band, and none of number 2"):
        read("a.png", bands=Bands((2,)))


def test_pictures_of_8_bits_are_as_pillow_has_them():
    for values in (np.uint8(DEEP[..., :3] >> 8), np.uint8(DEEP[..., 0] >> 8)):
        decoded = from_array(values)
        assert decoded.planes is None
        assert np.array_equal(np.asarray(decoded.image), np.asarray(Image.fromarray(values).convert("RGB")))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(5), "an array of shape 5,"),
        (np.zeros((2, 3, 4, 5)), "an array of shape 2x3x4x5,"),
        (np.array([["a"]]), "values of type <U1"),
        (np.array([[1j]]), "values of type complex128"),
        (np.array([[None]], object), "an array of object,"),
        (np.zeros((3, 3), "i4,i4"), "which is no image"),
        (np.array([[np.nan, 1]]), "NaN or infinite, at 1 of 2"),
        (np.zeros((0, 4)), "has no pixels"),
        (np.array([[300.0]]), "floating-point values from 300 to 300"),
    ],
)
def test_arrays_that_are_no_images(values, words):
    np.save("a.npy", values, allow_pickle=True)
    with pytest.raises(PictureError, match=words):
        read("a.npy")


def test_an_array_that_is_cut_short_or_claims_too_much():
    path = saved(DEEP)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PictureError, match="damaged or cut short"):
        read(path)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": (10**6, 10**6)})
    path.write_bytes(file.getvalue())
    with pytest.raises(PictureError, match="is too large"):
        read(path)


# --- TIFF -------------------------------------------------------------------------------------------------------------

tiffs = pytest.mark.usefixtures("tifffile")


@pytest.fixture
def tifffile():
    return pytest.importorskip("tifffile", reason="TIFFs of other bands need the extra tiff")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32])
def test_tiffs_of_five_bands(tifffile, planar, kind):
    values = (DEEP >> 8).astype(kind) if kind is not np.float32 else DEEP.astype(kind) / 65535
    laid = values if planar == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite("a.tif", laid, photometric="minisblack", planarconfig=planar)
    decoded = read("a.tif", "" if kind is not np.int16 else "0,255")
    most = {np.uint8: 255, np.uint16: 65535, np.int16: 255, np.float32: 1}[kind]
    np.testing.assert_allclose(decoded.planes, values / most, atol=1e-6)


def test_compressed_tiffs(tifffile):
    pytest.importorskip("imagecodecs", reason="as of the extra tiff")
    tifffile.imwrite("a.tif", DEEP, photometric="minisblack", planarconfig="contig", compression="lzw", predictor=True)
    assert np.array_equal(read("a.tif").planes, read(saved(DEEP)).planes)


def test_a_fourth_band_is_no_transparency_where_bands_are_chosen(tifffile):
    values = (DEEP[..., :4] >> 8).astype(np.uint8)
    tifffile.imwrite("a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read("a.tif", bands=Bands()).planes, values.astype(np.float32) / 255)


def test_pages_are_bands_unless_one_is_asked_for(tifffile):
    tifffile.imwrite("a.tif", DEEP.transpose(2, 0, 1), photometric="minisblack")
    np.testing.assert_allclose(read("a.tif", bands=Bands((2, 5))).planes, DEEP[..., [1, 4]] / 65535, atol=1e-6)
    np.testing.assert_allclose(read("a.tif", bands=Bands(), page=2).planes, DEEP[..., [1]] / 65535, atol=1e-6)
    with pytest.raises(PictureError, match="has no page 6"):
        read("a.tif", bands=Bands(), page=6)


def test_a_damaged_tiff_is_an_error_of_its_own(tifffile):
    tifffile.imwrite("a.tif", DEEP, photometric="minisblack", planarconfig="contig")
    content = Path("a.tif").read_bytes()
    Path("a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(PictureError, match=r"damaged|not an image"):
        read("a.tif")


def test_without_tifffile_it_is_said_what_to_install(monkeypatch, tifffile):
    tifffile.imwrite("a.tif", DEEP, photometric="minisblack", planarconfig="contig")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(PictureError, match="bands that Pillow does not read") as caught:
        read("a.tif")
    assert "camcli-vision[tiff]" in caught.value.hint
    with Path("a.tif").open("rb") as file, pytest.raises(PictureError, match="bands"):
        read_tiff(file, 0, lambda width, height: None)
