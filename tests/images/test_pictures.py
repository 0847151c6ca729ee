"""Each picture is found once, in order, under its own name; decoded upright and whole, or refused with a reason."""

import io
import json
import os
import struct
import sys
import threading
import zlib
from pathlib import Path

import compose_sample
import numpy as np
import pytest
from PIL import Image

from camcli.base.errors import PictureError, RequestError
from camcli.images.decode import decode, upright
from camcli.images.find import find
from camcli.images.formats import SkippedFiles
from camcli.images.naming import output_name, read_stamp
from camcli.images.source import Picture, PictureSource
from camcli.images.view import View


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def lay(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def found(*inputs, out="out", **options):
    return list(find(inputs, out=Path(out), **options))


def names(*inputs, **options):
    sources = found(*inputs, **options)
    assert not [source.error for source in sources if source.error]
    return [source.name for source in sources]


# --- find: what is asked for ----------------------------------------------------------------------------------------


def test_a_folder_is_walked_in_natural_order():
    lay("p/img10.png", "p/img2.png", "p/B/x.jpg", "p/a.JPEG", "p/c.tif", "p/img02.png")
    assert names("p") == ["p/a.JPEG", "p/B/x.jpg", "p/c.tif", "p/img02.png", "p/img2.png", "p/img10.png"]


def test_a_walk_takes_pictures_only_and_nothing_hidden():
    lay("p/a.jpg", "p/notes.txt", "p/.b.jpg", "p/.git/c.jpg", "p/jpg", "p/d.webp")
    assert names("p") == ["p/a.jpg", "p/d.webp"]


def test_a_file_given_by_name_is_tried_whatever_its_suffix():
    lay("notes.txt", ".hidden.jpg")
    assert names("notes.txt", ".hidden.jpg") == ["notes.txt", ".hidden.jpg"]


def test_names_may_have_anything_in_them():
    strange = ["p/a b.jpg", "p/a[1].jpg", "p/line\nbreak.jpg", "p/ünïcødé 猫.jpg", os.fsdecode(b"p/not-utf8-\xff.jpg")]
    lay(*strange)
    assert sorted(names("p")) == sorted(strange)


def test_files_with_one_stem_stay_apart():
    lay("a.jpg", "a.png")
    assert names("a.jpg", "a.png") == ["a.jpg", "a.png"]


def test_the_current_folder():
    lay("a.jpg", "b/c.jpg")
    assert names(".") == ["a.jpg", "b/c.jpg"]
    assert names("./b/../a.jpg") == ["a.jpg"]
    assert names("b/") == ["b/c.jpg"]


def test_links_are_followed_but_not_in_circles():
    lay("p/a.jpg", "elsewhere/b.jpg")
    Path("p/link").symlink_to("../elsewhere")
    Path("p/loop").symlink_to(".")
    Path("p/self").symlink_to("self")
    Path("elsewhere/back").symlink_to("../p")
    assert names("p") == ["p/a.jpg", "p/link/b.jpg"]


def test_a_link_to_nothing_is_a_picture_that_fails():
    Path("p").mkdir()
    Path("p/gone.jpg").symlink_to("nowhere")
    assert names("p") == ["p/gone.jpg"]
    with pytest.raises(PictureError, match="link"):
        decode(Path("p/gone.jpg"))


@pytest.fixture
def abyss(here):
    """A picture below more folders than the interpreter recurses; taken away again, which pytest itself cannot."""
    # Python's own, since libraries raise it, to more than a path can be long.
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    depth = 1050
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    lay("a.jpg")
    os.chdir(here)
    yield "d" + "/d" * (depth - 1) + "/a.jpg"
    for _ in range(depth):
        os.chdir("d")
    Path("a.jpg").unlink()
    for _ in range(depth):
        os.chdir("..")
        Path("d").rmdir()
    sys.setrecursionlimit(before)


def test_folders_deeper_than_the_interpreter_recurses(abyss):
    assert names(".") == [abyss]


def test_a_pattern_and_a_file_of_that_very_name():
    lay("a[1].jpg", "a1.jpg", "b.jpg", "c/d.jpg", "c/e/f.jpg", ".h.jpg")
    assert names("a[1].jpg") == ["a[1].jpg"]
    assert names("?.jpg") == ["b.jpg"]
    assert names("*.jpg") == ["a1.jpg", "a[1].jpg", "b.jpg"]
    assert names("**/*.jpg") == ["a1.jpg", "a[1].jpg", "b.jpg", "c/d.jpg", "c/e/f.jpg"]
    assert names("c/**/f.jpg") == ["c/e/f.jpg"]
    assert names("c/**") == ["c/d.jpg", "c/e/f.jpg"]
    assert names("[bc]*") == ["b.jpg", "c/d.jpg", "c/e/f.jpg"]
    assert names(".h*") == [".h.jpg"]
    assert names(str(Path.cwd() / "c" / "*.jpg")) == ["c/d.jpg"]


def test_what_a_pattern_matches_counts_as_given_by_name():
    lay("p/a.dat", "p/b.jpg")
    assert names("p/*") == ["p/a.dat", "p/b.jpg"]


def test_a_list(here):
    lay("a.jpg", "b/c.jpg", "@odd.jpg")
    Path("list.txt").write_bytes(b"\xef\xbb\xbfa.jpg\r\n\nb\nmissing.jpg")
    sources = found("@list.txt")
    assert [(source.name, bool(source.error)) for source in sources] == [
        ("a.jpg", False),
        ("b/c.jpg", False),
        ("missing.jpg", True),
    ]
    assert "no such file" in sources[-1].error
    assert names("./@odd.jpg") == ["@odd.jpg"]


def test_standard_input():
    lay("a.jpg", "two\nlines.jpg")
    assert names("-", stdin=io.BytesIO(b"a.jpg\n")) == ["a.jpg"]
    assert names("-", stdin=io.BytesIO(b"two\nlines.jpg\0a.jpg"), null_separated=True) == ["two\nlines.jpg", "a.jpg"]


def test_standard_input_is_read_as_it_comes():
    lay("a.jpg", "b.jpg")
    predictions, writing = os.pipe()
    with os.fdopen(predictions, "rb") as stdin, os.fdopen(writing, "wb", buffering=0) as pipe:
        sources = find(["-"], out=Path("out"), stdin=stdin, null_separated=True)
        pipe.write(b"a.jpg\0")
        assert next(sources).name == "a.jpg"
        pipe.write(b"b.jpg\0")
        assert next(sources).name == "b.jpg"


def test_nul_separated_names_without_saying_so():
    (source,) = found("-", stdin=io.BytesIO(b"a.jpg\0b.jpg\0"))
    assert "-0" in source.error


def test_a_picture_reached_twice_is_yielded_once():
    lay("p/a.jpg", "p/b.jpg")
    Path("list.txt").write_text("p/b.jpg\np/b.jpg\n")
    assert names("p/b.jpg", "p", "./p/a.jpg", str(Path("p/a.jpg").absolute())) == ["p/b.jpg", "p/a.jpg"]
    assert names("@list.txt") == ["p/b.jpg"]


def test_the_output_is_not_the_input():
    lay(
        "a.jpg",
        "out/a.jpg.overlay.jpg",
        "old/run.json",
        "old/outcomes.jsonl",
        "old/x.png",
        "half/run.json",
        "half/y.png",
    )
    Path("link").symlink_to("out")
    assert names(".") == ["a.jpg", "half/y.png"]
    assert names("*") == ["a.jpg", "half/y.png"]
    assert names("**/*.png") == ["half/y.png"]
    assert names("old") == ["old/x.png"]
    assert names("out/a.jpg.overlay.jpg") == ["out/a.jpg.overlay.jpg"]
    for same in ("out", "./out/", "link"):
        with pytest.raises(RequestError, match="output folder"):
            found(same)
    assert found("-", stdin=io.BytesIO(b"out\n"))[0].error == "is the output folder"


def test_an_output_folder_around_the_input_hides_nothing():
    lay("out/p/a.jpg")
    assert names("out/p") == ["out/p/a.jpg"]
    assert names("out/p", root=Path("out")) == ["p/a.jpg"]


def test_nothing_found_is_nothing_yielded():
    Path("p").mkdir()
    assert names("p") == []
    assert names() == []


# --- find: what cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("imgg2.png", "img2.png"),
        ("p/y.jpg", "in 'p': did you mean 'x.jpg'"),
        ("pp/x.jpg", "did you mean 'p'"),
        ("", ""),
    ],
)
def test_a_missing_input_is_named_with_its_neighbours_before_anything_is_yielded(given, hint):
    lay("img2.png", "p/x.jpg")
    with pytest.raises(RequestError) as caught:
        find(["img2.png", given], out=Path("out"))
    assert repr(given) in caught.value.message
    assert hint in caught.value.hint


def test_a_pattern_without_a_match_is_an_error():
    lay("a.jpg")
    for pattern in ("*.png", "q/*.jpg", "a.jpg/*", "a.jpg/**/*.jpg", "**/q/*.jpg"):
        with pytest.raises(RequestError, match="nothing matches"):
            find([pattern], out=Path("out"))


def test_a_list_that_cannot_be_read_is_an_error():
    Path("folder").mkdir()
    for given in ("@missing.txt", "@folder"):
        with pytest.raises(RequestError, match="list"):
            find([given], out=Path("out"))


def test_a_folder_that_cannot_be_read_rides_along(monkeypatch):
    lay("p/a.jpg", "p/locked/b.jpg", "p/z.jpg")
    scandir = os.scandir

    def refusing(folder):
        if "locked" in str(folder):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    for given in ("p", "p/**/*.jpg"):
        sources = found(given)
        assert sorted(source.name for source in sources) == ["p/a.jpg", "p/locked", "p/z.jpg"]
        assert [source.error for source in sources if source.error] == ["the folder cannot be read: Permission denied"]


def test_find_is_lazy(monkeypatch):
    lay(*(f"p/{number}/a.jpg" for number in range(5)))
    opened = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (opened.append(folder), scandir(folder))[1])
    sources = find(["p"], out=Path("out"))
    assert opened == []
    next(sources)
    assert opened == ["p/", "p/0/"]


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_name_depends_on_the_path_alone(tmp_path, here):
    assert output_name("a/b.jpg", here) == "a/b.jpg"
    assert output_name(here / "a/../b.jpg", here) == "b.jpg"
    assert output_name("../b.jpg", here) == "%root" + str(tmp_path / "b.jpg")
    assert output_name("../here2/b.jpg", here).startswith("%root/")
    assert output_name("..b.jpg", here) == "..b.jpg"
    assert output_name("b.jpg", "/") == str(here / "b.jpg")[1:]


def test_behind_a_link_dots_lead_where_the_system_has_them_lead(here, tmp_path):
    lay("x.jpg", "other/inner/y.jpg", "other/x.jpg")
    Path("link").symlink_to("other/inner")
    Path("one").symlink_to("x.jpg")
    assert Path("link/../x.jpg").samefile("other/x.jpg")
    assert output_name("link/../x.jpg", here) == "other/x.jpg"
    assert output_name("link/../../x.jpg", here) == "x.jpg"
    assert output_name("link/y.jpg", here) == "link/y.jpg"
    # Two files, and of neither one is dropped; a link is a picture of its own; another spelling of a file is not.
    assert names("link/../x.jpg", "x.jpg", "one", "./x.jpg") == ["other/x.jpg", "x.jpg", "one"]


def test_names_are_never_shared(here):
    paths = ["%root/a.jpg", "/a.jpg", "%25root/a.jpg", "%/a.jpg", "x/%root.jpg", "%2525root/a.jpg", "root/a.jpg"]
    shared = [output_name(path, here) for path in paths]
    assert len(set(shared)) == len(paths)
    assert shared[:3] == ["%25root/a.jpg", "%root/a.jpg", "%2525root/a.jpg"]
    assert shared[4] == "x/%root.jpg"


def test_a_link_keeps_its_own_name(here):
    lay("real/a.jpg")
    Path("link").symlink_to("real")
    assert names("link") == ["link/a.jpg"]


@pytest.mark.parametrize("letter", ["a", "é", "猫", "\udcff"])
def test_long_names_are_cut_and_stay_apart(letter, here):
    size = len(os.fsencode(letter))
    whole, one, other = (
        letter * (180 // size),
        letter * (183 // size + 1) + "1.jpg",
        letter * (183 // size + 1) + "2.jpg",
    )
    assert output_name(whole, here) == whole
    cut = output_name(one, here)
    assert 180 - 4 < len(os.fsencode(cut)) <= 180
    assert cut[-13] == "~"
    assert cut != output_name(other, here)


def test_stamp_follows_the_file():
    lay("a.jpg")
    before = read_stamp(Path("a.jpg"))
    assert before == f"1-{Path('a.jpg').stat().st_mtime_ns}"
    Path("a.jpg").write_bytes(b"xy")
    assert read_stamp(Path("a.jpg")) != before
    assert read_stamp(Path("gone.jpg")) == ""


# --- decode: what is in a file --------------------------------------------------------------------------------------

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
SMALL = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


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


# What a camera stores for an upright picture, held in each of the eight ways.
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


# --- decode: what is not ----------------------------------------------------------------------------------------------


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
    assert "cut short" in refusal(name) or "beginning of one" in refusal(name)


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
    image = upright(given)
    given.paste((0, 0, 0), (0, 0, *given.size))
    assert np.array_equal(pixels(image), SMALL)


def test_a_picture_holds_what_was_decoded_and_seen():
    view = View((5, 7), (2, 2), (0.0, 0.0, 7.0, 5.0))
    picture = Picture(PictureSource(Path("a.png"), "a.png"), SMALL, view)
    assert picture.view is view


# --- the composed sample --------------------------------------------------------------------------------------------


def test_the_composed_sample_is_what_its_script_makes():
    stored = pixels(decode(compose_sample.SAMPLES / "cat-and-espresso.jpg")).astype(int)
    made = np.asarray(compose_sample.composed()).astype(int)
    assert stored.shape == made.shape
    assert np.abs(stored - made).mean() < 2


# --- find: what camcli wrote, and what is named twice ---------------------------------------------------------------


def ledger(folder, *files):
    Path(folder).mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"files": {"overlay": file}}) for file in files]
    Path(folder, "outcomes.jsonl").write_text("\n".join([*lines, "torn"]))
    Path(folder, "run.json").write_text("{}")


@pytest.mark.parametrize(
    "inputs", [("*.jpg", "s/*.jpg"), ("**/*.jpg",), ("a.jpg", "a.jpg.overlay.jpg", "s"), ("@list",)]
)
def test_outputs_among_pictures_are_no_pictures(inputs):
    lay("a.jpg", "a.jpg.overlay.jpg", "s/b.jpg", "s/b.jpg.overlay.jpg", "mine.overlay.jpg")
    ledger(".", "a.jpg.overlay.jpg", "s/b.jpg.overlay.jpg")
    Path("list").write_text("a.jpg\na.jpg.overlay.jpg\ns/b.jpg\ns/b.jpg.overlay.jpg\n")
    unread = SkippedFiles()
    found = {source.name for source in find(inputs, out=Path(), skipped=unread)}
    assert found - {"mine.overlay.jpg"} == {"a.jpg", "s/b.jpg"}
    assert "2 file(s) that camcli wrote are left out" in unread.describe()
    # In another folder's run too.
    assert set(names(*inputs, out="elsewhere")) == found


def test_a_folder_of_outputs_that_is_named_is_meant():
    lay("maps/a.jpg.overlay.jpg")
    ledger("maps", "a.jpg.overlay.jpg")
    assert names("maps") == ["maps/a.jpg.overlay.jpg"]
    assert names(".") == []


def test_what_is_named_twice_is_done_once_and_said():
    lay("a.jpg", "p/b.jpg")
    unread = SkippedFiles()
    assert names("a.jpg", "./a.jpg", "p/../a.jpg", "p", "p/b.jpg", skipped=unread) == ["a.jpg", "p/b.jpg"]
    assert unread.describe() == "3 picture(s) are named more than once, and each is done once"
