"""Files are opened by camcli's own limits: what is harmless is read, what would take minutes is refused."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from camcli.base.errors import PictureError
from camcli.images.decode import count_pixels, decode, decode_reduced, never_reduce
from camcli.images.opening import MAX_SCANS

SMALL = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(5, 7, 3) * 2


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks, behind=False):
    """A PNG with further chunks in front of its pixels, or behind them."""
    stream = io.BytesIO()
    Image.fromarray(SMALL).save(stream, "PNG")
    whole = stream.getvalue()
    place = whole.index(b"IEND" if behind else b"IDAT") - 4
    return whole[:place] + b"".join(chunks) + whole[place:]


def test_importing_camcli_changes_nothing_of_the_hosts_pillow():
    lines = (
        "from PIL import Image, ImageFile, PngImagePlugin",
        "own = lambda: (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK)",
        "before = own()",
        "import camcli, camcli.runs.explain.run",
        "assert own() == before, own()",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize("most", [10, None])
def test_the_hosts_limit_of_pixels_is_not_camclis(most, monkeypatch):
    Image.fromarray(SMALL).save("a.png")
    Image.fromarray(SMALL).save("a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    assert np.array_equal(np.asarray(decode(Path("a.png"))), SMALL)
    assert decode(Path("a.jpg")).size == (7, 5)
    assert count_pixels(Path("a.png")) == 35
    # And of a file beyond camcli's own limit a host without one is not made to read it.
    Path("big.png").write_bytes(png_with().replace(struct.pack(">II", 7, 5), struct.pack(">II", 20_000, 10_000), 1))
    header = Path("big.png").read_bytes()
    Path("big.png").write_bytes(header[:29] + struct.pack(">I", zlib.crc32(header[12:29])) + header[33:])
    with pytest.raises(PictureError, match="too large: 20000 x 10000"):
        decode(Path("big.png"))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "tEXt"])
def test_much_text_in_a_png_is_passed_over(kind, behind):
    text = bytes(3 * PngImagePlugin.MAX_TEXT_CHUNK)
    packed = zlib.compress(text)
    data = {"zTXt": b"key\0\0" + packed, "iTXt": b"key\0\1\0\0\0" + packed, "tEXt": b"key\0" + text}[kind]
    # Of many texts Pillow counts the whole.
    Path("a.png").write_bytes(png_with(*[chunk(kind.encode(), data)] * 30, behind=behind))
    assert np.array_equal(np.asarray(decode(Path("a.png"))), SMALL)


def test_a_large_colour_profile_of_a_png_is_passed_over():
    profile = zlib.compress(bytes(2 * PngImagePlugin.MAX_TEXT_CHUNK))
    Path("a.png").write_bytes(png_with(chunk(b"iCCP", b"icc\0\0" + profile)))
    assert np.array_equal(np.asarray(decode(Path("a.png"))), SMALL)


def test_a_damaged_png_with_much_text_is_still_refused():
    data = b"key\0\0" + zlib.compress(bytes(3 * PngImagePlugin.MAX_TEXT_CHUNK))
    Path("a.png").write_bytes(png_with(chunk(b"zTXt", data))[:-30])
    with pytest.raises(PictureError, match=r"damaged or cut short|only the beginning|broken"):
        decode(Path("a.png"))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"MM\0*\0\0\0\xff" + b"\xff" * 40, b"nonsense"])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_malformed_exif_is_noted_and_the_picture_counts(name, exif):
    if name == "a.png":
        Path(name).write_bytes(png_with(chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))))
    else:
        Image.fromarray(SMALL).save(name, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    found = decode_reduced(Path(name), never_reduce)
    assert found.image.size == (7, 5)
    if name != "a.jpg":
        assert np.array_equal(np.asarray(found.image), SMALL)
    if name != "a.jpg" or exif.startswith(b"Exif"):  # there, what does not begin so is none
        [note] = found.notes
        assert "EXIF cannot be read" in note
        assert "upright" in note


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_sound_exif_has_no_note(name):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SMALL).save(name, exif=exif)
    found = decode_reduced(Path(name), never_reduce)
    assert found.image.size == (5, 7)
    assert found.notes == ()


def scans(count):
    """A progressive JPEG whose last scan stands there so many times more."""
    stream = io.BytesIO()
    Image.fromarray(SMALL).save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + whole[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused_before_they_are_decoded():
    Path("a.jpg").write_bytes(scans(0))
    assert decode(Path("a.jpg")).size == (7, 5)
    Path("a.jpg").write_bytes(scans(100))
    assert decode(Path("a.jpg")).size == (7, 5)
    Path("a.jpg").write_bytes(scans(5_000))
    with pytest.raises(PictureError, match=rf"JPEG of 5,0\d\d scans.* more than {MAX_SCANS}"):
        decode(Path("a.jpg"))
