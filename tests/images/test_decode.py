"""Images are decoded upright and whole, whatever format they have."""

import struct
import threading
import zlib
from pathlib import Path

import compose_sample
import numpy as np
import pytest
from image_files import SMALL
from PIL import Image

from camcli.base.errors import PictureError, RequestError
from camcli.images.decode import decode, from_image
from camcli.images.source import Picture, PictureSource
from camcli.images.view import View

pytestmark = pytest.mark.usefixtures("here")

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(image, name, **options):
    image.save(name, **options)
    return decode(Path(name))


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("suffix", ["png", "bmp", "dib", "tiff", "ppm", "webp", "apng"])
def test_lossless_formats_come_back_exactly(suffix):
    options = {"webp": {"lossless": True}, "apng": {"format": "PNG"}}.get(suffix, {})
    assert np.array_equal(pixels(saved(Image.fromarray(SMALL), f"a.{suffix}", **options)), SMALL)


def test_jpeg():
    grey = Image.new("RGB", (20, 10), (40, 90, 200))
    assert np.abs(pixels(saved(grey, "a.jpg", quality=95)).astype(int) - (40, 90, 200)).max() <= 3


def test_the_suffix_does_not_matter():
    Image.fromarray(SMALL).save("a.png")
    Path("a.png").rename("a.jpg")
    assert np.array_equal(pixels(decode(Path("a.jpg"))), SMALL)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tiff"])
def test_the_first_of_several_frames(name):
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    image = saved(first, name, save_all=True, append_images=[second], **({"lossless": True} if "webp" in name else {}))
    assert np.array_equal(pixels(image), pixels(first))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "b.tif"])
def test_all_levels_of_16_bit_grey_survive(name):
    wide = RAMP.astype(np.uint16) * 257
    if name == "b.tif":
        image = Image.frombytes("I;16B", (16, 16), wide.astype(">u2").tobytes())
    else:
        image = Image.fromarray(wide)
    assert np.array_equal(pixels(saved(image, name))[..., 0], RAMP)


def test_16_bit_grey_is_rounded():
    image = saved(Image.fromarray(np.array([[0, 128, 129, 65535, 65406]], np.uint16)), "a.png")
    assert pixels(image)[0, :, 0].tolist() == [0, 0, 1, 255, 254]


def test_16_bit_grey_with_a_transparent_level():
    image = Image.fromarray(np.array([[1000, 65535]], np.uint16))
    image.save("a.png", transparency=1000)
    assert pixels(decode(Path("a.png"), "#102030")).tolist() == [[[16, 32, 48], [255, 255, 255]]]


def test_integers_beyond_16_bit_are_not_guessed():
    Image.fromarray(np.array([[0, 70000]], np.int32)).save("a.tif")
    with pytest.raises(PictureError, match="70000"):
        decode(Path("a.tif"))


def test_16_bit_colour():
    wide = SMALL.astype(">u2") * 257

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    header = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    Path("a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    assert np.array_equal(pixels(decode(Path("a.png"))), SMALL)


def test_floating_point_only_between_0_and_1():
    assert pixels(saved(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "a.tif"))[0, :, 0].tolist() == [
        0,
        128,
        255,
    ]
    for wrong in (-0.1, 1.5, np.nan):
        Image.fromarray(np.array([[0, wrong]], np.float32)).save("b.tif")
        with pytest.raises(PictureError, match="floating-point"):
            decode(Path("b.tif"))


def test_greyscale_palette_and_one_bit():
    assert np.array_equal(pixels(saved(Image.fromarray(RAMP), "a.png"))[..., 2], RAMP)
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert pixels(saved(palette, "b.png")).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert pixels(saved(Image.fromarray(RAMP > 100), "c.png")).max() == 255


def transparent_palette():
    image = Image.new("P", (1, 1))
    image.putpalette([10, 20, 30])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    "image",
    [Image.new("LA", (1, 1), (200, 0)), Image.new("RGBA", (1, 1), (9, 9, 9, 0)), transparent_palette()],
    ids=["LA", "RGBA", "P"],
)
def test_what_is_transparent_shows_the_background(image):
    image.save("a.png")
    assert pixels(decode(Path("a.png"))).tolist() == [[[255, 255, 255]]]
    assert pixels(decode(Path("a.png"), "#ff8000")).tolist() == [[[255, 128, 0]]]


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_one_transparent_colour(mode):
    Image.new(mode, (1, 1), 0).save("a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert pixels(decode(Path("a.png"), "#ff8000")).tolist() == [[[255, 128, 0]]]


def test_half_transparent_is_mixed():
    Image.new("RGBA", (1, 1), (0, 0, 0, 127)).save("a.png")
    assert pixels(decode(Path("a.png"))).tolist() == [[[128, 128, 128]]]


def test_transparent_gif_and_webp():
    for name in ("a.gif", "a.webp"):
        Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(name)
        assert pixels(decode(Path(name), "#00ff00")).tolist() == [[[0, 255, 0]] * 4] * 4


def test_cmyk_is_not_inverted():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tif"):
        assert np.abs(pixels(saved(red, name)).astype(int) - (255, 0, 0)).max() <= 3


def test_a_colour_that_is_none_is_a_wrong_request():
    Image.fromarray(SMALL).save("a.png")
    with pytest.raises(RequestError, match="not a colour"):
        decode(Path("a.png"), "#ggg")


# What a camera stores for an upright image, held in each of the eight ways.
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: np.transpose(upright, (1, 0, 2)),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(np.transpose(upright, (1, 0, 2)), 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.tif", {}), ("b.tif", {"compression": "tiff_lzw"})])
def test_pictures_are_upright(orientation, name, options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](SMALL)))
    assert np.array_equal(pixels(saved(stored, name, exif=exif, **options)), SMALL)


@pytest.mark.parametrize("orientation", STORED)
def test_photographs_are_upright(orientation):
    upright = np.zeros((24, 48, 3), np.uint8)
    upright[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    assert np.abs(pixels(saved(stored, "a.jpg", exif=exif, quality=95)).astype(int) - upright).max() < 12


def test_an_orientation_that_does_not_exist_is_none():
    exif = Image.Exif()
    exif[0x0112] = 9
    assert np.array_equal(pixels(saved(Image.fromarray(SMALL), "a.png", exif=exif)), SMALL)


def test_no_byte_makes_the_decoder_stumble_unnoticed():
    Image.fromarray(SMALL).save("a.png")
    Image.fromarray(SMALL).save("a.tif")
    Image.fromarray(SMALL).save("a.gif")
    random = np.random.default_rng(3)
    for name in ("a.png", "a.tif", "a.gif"):
        whole = bytearray(Path(name).read_bytes())
        for _ in range(150):
            damaged = whole.copy()
            damaged[random.integers(8, len(whole))] = random.integers(0, 256)
            Path("damaged").write_bytes(damaged)
            try:
                decode(Path("damaged"))
            except PictureError as error:
                assert error.message


def test_decoding_in_threads_gives_the_same():
    wide = np.random.default_rng(2).integers(0, 65536, (50, 60), dtype=np.uint16)
    Image.fromarray(wide).save("a.png")
    Image.fromarray(SMALL).save("b.tif")
    Image.fromarray(SMALL).save("c.webp", lossless=True)
    expected = [decode(Path(name)).tobytes() for name in ("a.png", "b.tif", "c.webp")]
    results = []

    def work():
        results.append([decode(Path(name)).tobytes() for name in ("a.png", "b.tif", "c.webp")])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


def test_the_picture_is_free_of_its_file():
    Image.fromarray(SMALL).save("a.png")
    image = decode(Path("a.png"))
    Path("a.png").unlink()
    assert np.array_equal(pixels(image), SMALL)
    assert getattr(image, "fp", None) is None


def test_a_picture_in_memory_is_copied():
    given = Image.fromarray(SMALL)
    image = from_image(given).image
    given.paste((0, 0, 0), (0, 0, *given.size))
    assert np.array_equal(pixels(image), SMALL)


def test_a_picture_holds_what_was_decoded_and_seen():
    view = View((5, 7), (2, 2), (0.0, 0.0, 7.0, 5.0))
    picture = Picture(PictureSource("a.png", "a.png"), SMALL, view)
    assert picture.view is view


# --- the composed sample --------------------------------------------------------------------------------------------


def test_the_composed_sample_is_what_its_script_makes():
    stored = pixels(decode(compose_sample.SAMPLES / "cat-and-espresso.jpg")).astype(int)
    made = np.asarray(compose_sample.composed()).astype(int)
    assert stored.shape == made.shape
    assert np.abs(stored - made).mean() < 2
