"""Images that cannot be decoded are refused with a reason: cut, too large, not readable."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import SMALL, lay
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images.decode import decode

pytestmark = pytest.mark.usefixtures("here")


def refusal(path):
    with pytest.raises(PictureError) as caught:
        decode(Path(path))
    return caught.value.message


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.tif", "b.tif", "a.gif", "a.webp", "a.ppm"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_file_is_refused(name, share):
    options = {"compression": "tiff_lzw"} if name == "b.tif" else {}
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(name, **options)
    whole = Path(name).read_bytes()
    Path(name).write_bytes(whole[: int(len(whole) * share)])
    assert "cut short" in refusal(name) or "an incomplete one" in refusal(name)


def test_a_progressive_jpeg_cut_short_is_refused():
    Image.fromarray(SMALL).resize((200, 200)).save("a.jpg", progressive=True)
    Path("a.jpg").write_bytes(Path("a.jpg").read_bytes()[:-200])
    assert "cut short" in refusal("a.jpg")


def test_reasons(monkeypatch, here):
    lay("text.jpg")
    assert "not an image" in refusal("text.jpg")
    Path("empty.jpg").touch()
    assert refusal("empty.jpg") == "the file is empty"
    Path("folder.jpg").mkdir()
    assert refusal("folder.jpg") == "is a folder"
    assert "no such file" in refusal("gone.jpg")
    os.mkfifo("pipe.jpg")
    assert refusal("pipe.jpg") == "is not a regular file"
    assert "File name too long" in refusal("x" * 300)
    assert refusal("nul\0.jpg")


def test_permission_denied(monkeypatch):
    Image.fromarray(SMALL).save("a.png")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refusal("a.png") == "permission denied"


def bomb(width, height):
    """The header of a one-bit bitmap of this size, and nothing after it."""
    return (
        b"BM"
        + struct.pack("<IHHI", 62, 0, 0, 62)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 1, *[0] * 6)
        + b"\0" * 8
    )


@pytest.mark.parametrize("side", [13_400, 20_000, 40_000])
def test_a_picture_beyond_the_limit_is_refused_by_its_size(side):
    Path("a.bmp").write_bytes(bomb(side, side))
    message = refusal("a.bmp")
    assert "too large" in message
    assert f"{side} x {side}" in message or str(side * side) in message


def test_a_huge_but_legal_picture_is_done_without_a_warning():
    Image.new("1", (12_000, 10_000)).save("a.png")
    assert decode(Path("a.png")).size == (12_000, 10_000)
