"""Frames of videos: found by time or number, upright, decoded in any order, and no more lost than is broken."""

import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from films import film

from camcli.base.errors import PictureError, RequestError
from camcli.images import describe_page, parse_every
from camcli.images.decode import decode, decode_reduced, never_reduce
from camcli.images.find import find
from camcli.images.formats import SkippedFiles
from camcli.images.pages import expand_pages
from camcli.images.videos import index_video

av = pytest.importorskip("av", reason="PyAV is an extra")

pytestmark = pytest.mark.usefixtures("here")


def frames(name, every):
    return list(expand_pages(find([name], out=Path("out"), videos=True), "first", every))


def grey(source):
    return round(float(np.asarray(decode(source.path, page=source.page))[:, -20:].mean()) / 5)


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv", "c.avi", "c.ts.mts"])
def test_frames_are_chosen_by_time_or_by_number(name):
    film(name)
    found = frames(name, "0.5s")
    assert [one.name for one in found] == [f"{name}.t{time:08.3f}s" for time in (0, 0.48, 1, 1.48)]
    assert [grey(one) for one in found] == [one.page - 1 for one in found]
    tenth = frames(name, "10")
    assert [one.page for one in tenth] == [1, 11, 21, 31, 41]
    assert [grey(one) for one in reversed(tenth)] == [40, 30, 20, 10, 0]
    assert describe_page(name, 11) == f"{name}, frame 11"


@pytest.mark.parametrize(
    ("name", "codec"),
    [("h.mp4", "libx264"), ("h.avi", "libx264"), ("h.mts", "libx264"), ("m.mpg", "mpeg2video")],
)
def test_each_page_is_its_frame_whatever_order_they_are_stored_in(name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    film(name, codec=codec, bf="2")
    found = frames(name, "1")
    assert len(found) == 50
    for one in (*found[::7], *found[::-9]):
        assert grey(one) == one.page - 1, one.name


def test_threads_ask_in_any_order():
    film("c.mp4")
    found = frames("c.mp4", "3")
    greys = {}
    threads = [
        threading.Thread(target=lambda one=one: greys.update({one.page: grey(one)})) for one in (*found, *found[::-1])
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert greys == {one.page: one.page - 1 for one in found}


def test_frames_are_upright_with_square_pixels():
    film("turned.mp4", 3, rotation=90)
    film("wide.mp4", 3, aspect=Fraction(3, 2))
    film("high.mp4", 3, aspect=Fraction(1, 2))
    turned = decode(Path("turned.mp4"), page=1)
    assert turned.size == (48, 64)
    white = np.asarray(turned).mean((1, 2)) > 200
    assert white[-12:].all()  # the left edge, turned counterclockwise, is at the bottom
    assert not white[:48].any()
    assert decode(Path("wide.mp4"), page=1).size == (96, 48)
    assert decode(Path("high.mp4"), page=1).size == (64, 96)
    admitted = []
    decode_reduced(Path("wide.mp4"), never_reduce, page=1, admit=admitted.append)
    assert admitted == [96 * 48]


def test_a_video_that_is_cut_short_loses_its_rest_alone():
    film("c.mkv")
    film("c.mp4")
    for name in ("c.mkv", "c.mp4"):
        content = Path(name).read_bytes()
        Path(f"cut.{name}").write_bytes(content[: len(content) // 2])
    found = frames("cut.c.mkv", "5")
    *good, rest = found
    assert rest.name == "cut.c.mkv.rest"
    assert "is damaged or cut short" in rest.error
    assert 2 < len(good) < 10
    greys = []
    for one in good:
        try:
            greys.append(grey(one) == one.page - 1)
        except PictureError as error:
            greys.append("damaged" in error.message)
    assert all(greys)
    (bad,) = frames("cut.c.mp4", "5")
    assert "not a video that can be read, or is damaged" in bad.error
    Path("none.mp4").write_bytes(b"")
    Path("text.mp4").write_text("#EXTM3U\n#EXTINF:1,\nc.mkv\n")
    for name in ("none.mp4", "text.mp4"):
        (bad,) = frames(name, "1s")
        assert "not a video" in bad.error
    with pytest.raises(PictureError, match="has no frame 99, but 50"):
        decode(Path("c.mkv"), page=99)


def test_videos_in_folders_are_found_only_with_a_step():
    Path("in").mkdir()
    film("in/c.mp4", 30)
    skipped = SkippedFiles()
    assert list(find(["in"], out=Path("out"), skipped=skipped)) == []
    assert "--every 1s explains a frame of each second" in skipped.describe()
    assert [one.name for one in frames("in", "1s")] == ["in/c.mp4.t0000.000s", "in/c.mp4.t0001.000s"]
    with pytest.raises(PictureError, match=r"\.mp4 files are not read") as caught:
        decode(Path("in/c.mp4"))
    assert "--every" in caught.value.hint
    assert len(index_video(Path("in/c.mp4")).times) == 30


@pytest.mark.parametrize(
    ("words", "step"),
    [("", (0, 0)), ("1s", (1, 0)), ("500 ms", (0.5, 0)), ("2min", (120, 0)), ("10", (0, 10)), ("0", None), ("s", None)],
)
def test_a_step_is_a_time_or_a_number_of_frames(words, step):
    if step is None:
        with pytest.raises(RequestError, match="every cannot be"):
            parse_every(words)
    else:
        assert parse_every(words) == step
