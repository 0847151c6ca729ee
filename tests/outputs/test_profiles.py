"""Files drawn over an image keep the colour profile and resolution of its file."""

from pathlib import Path

import numpy as np
import pytest
from drawings import GRADIENT, STYLE, explanation, picture
from PIL import Image, ImageCms

import camcli
from camcli.images.file_info import FileInfo
from camcli.outputs import OUTPUTS, encode

RGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = RGB[:16] + b"GRAY" + RGB[20:]
pytestmark = pytest.mark.usefixtures("here")

SAVE = ("overlay", "overlay-png", "heatmap", "array", "panel")
PIXELS = Image.new("RGB", (32, 16), "navy")


def given(path):
    with Image.open(path) as image:
        image.load()
        return image.info.get("icc_profile"), image.info.get("dpi") and tuple(map(round, image.info["dpi"]))


@pytest.mark.parametrize(
    ("name", "mode", "stored", "profile", "dpi"),
    [
        ("a.jpg", "RGB", {"icc_profile": RGB, "dpi": (300, 200)}, RGB, (300, 200)),
        ("a.png", "RGBA", {"icc_profile": RGB, "dpi": (72, 72)}, RGB, (72, 72)),
        ("a.tif", "RGB", {"icc_profile": RGB, "dpi": (150, 150)}, RGB, (150, 150)),
        ("a.webp", "RGB", {"icc_profile": RGB}, RGB, None),
        ("a.png", "L", {"icc_profile": GREY}, None, None),
        ("a.jpg", "CMYK", {"icc_profile": RGB[:16] + b"CMYK" + RGB[20:], "dpi": (96, 96)}, None, (96, 96)),
        ("a.png", "RGB", {}, None, None),
    ],
)
def test_overlays_and_panels_keep_profile_and_resolution_and_heatmaps_the_resolution(
    go, name, mode, stored, profile, dpi
):
    PIXELS.convert(mode).save(name, **stored)
    ((line,),) = go(name, save=SAVE)
    files = {format_: given(Path("out") / file) for format_, file in line.files.items() if format_ != "array"}
    both = profile, dpi
    assert files == {"overlay": both, "overlay-png": both, "panel": both, "heatmap": (None, dpi)}


def test_a_turned_photos_resolution_is_turned_too_and_drawing_again_keeps_both(go):
    exif = Image.Exif()
    exif[0x0112] = 6
    PIXELS.save("a.jpg", icc_profile=RGB, dpi=(300, 200), exif=exif)
    ((line,),) = go("a.jpg", save=("array", "overlay"))
    ((again,),) = go("a.jpg", save=("array", "overlay"), colormap="jet")
    assert given(Path("out") / line.files["overlay"]) == (RGB, (200, 300))
    assert again.looks != line.looks


def test_explanations_in_python_keep_them(tiny, tmp_path):
    PIXELS.save("a.png", icc_profile=RGB, dpi=(300, 300))
    for image in ("a.png", Image.open("a.png")):
        one = camcli.explain(image, model=tiny, device="cpu")
        assert given(one.save(tmp_path / "b.jpg")) == (RGB, (300, 300))
        assert one.overlay().info["icc_profile"] == RGB


@pytest.mark.parametrize("form", [encode.png, encode.jpeg])
def test_long_profiles_are_whole_and_pixels_the_same(form, tmp_path):
    long = RGB + np.random.default_rng(0).bytes(150_000)
    pixels = picture().pixels
    (tmp_path / "a").write_bytes(form(pixels, FileInfo(long, (299.7, 5000.0))))
    (tmp_path / "b").write_bytes(form(pixels))
    assert given(tmp_path / "a") == (long, (300, 5000))
    assert np.array_equal(*(np.asarray(Image.open(tmp_path / name)) for name in "ab"))


@pytest.mark.parametrize("name", ["overlay", "heatmap", "panel"])
def test_nothing_is_added_where_nothing_is_known(name):
    content = OUTPUTS.load(name)(picture(), explanation(GRADIENT), STYLE)
    assert not any(mark in content for mark in (b"ICC_PROFILE", b"iCCP", b"pHYs"))


def test_damaged_facts_are_left_out(go):
    PIXELS.save("a.tif", dpi=(0, 10))
    PIXELS.save("b.png", icc_profile=b"short")
    for (line,) in go("a.tif", "b.png", save=("overlay-png",)):
        assert given(Path("out") / line.files["overlay-png"]) == (None, None)
