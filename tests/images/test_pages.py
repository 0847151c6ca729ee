"""Each page of a file is an image of its own, where that is asked for; else the first is, and it is said."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

import camcli
from camcli.base.errors import PictureError, RequestError
from camcli.images import parse_page_ranges
from camcli.images.decode import decode, decode_reduced, never_reduce
from camcli.images.find import find
from camcli.images.pages import expand_pages
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 200, 250)]
LOSSLESS = {".webp": {"lossless": True}}


@pytest.fixture(autouse=True)
def _in_a_folder(here):
    Path("p").mkdir()


def saved(name="p/x.tif", count=5):
    first, *others = [Image.new("RGB", (16, 16), colour) for colour in COLOURS[:count]]
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(name, **more, **LOSSLESS.get(Path(name).suffix, {}))
    return Path(name)


def named(words, *inputs):
    return [(one.name, one.page, one.error) for one in expand_pages(find(inputs or ("p",), out=Path("out")), words)]


@pytest.mark.parametrize("name", ["p/x.tif", "p/x.gif", "p/x.webp", "p/x.png"])
def test_every_page_is_what_it_is_in_the_file(name):
    path = saved(name)
    for number, colour in enumerate(COLOURS, start=1):
        assert np.asarray(decode(path, page=number))[3, 3].tolist() == list(colour)
    assert decode_reduced(path, never_reduce).notes == ("page 1 of 5: --pages all for each",)
    assert decode_reduced(path, never_reduce, page=1).notes == ()
    with pytest.raises(PictureError, match="has no page 6"):
        decode(path, page=6)


def test_a_file_of_one_page_is_not_noted():
    for name in ("p/x.tif", "p/x.gif", "p/x.png", "p/x.jpg"):
        assert decode_reduced(saved(name, 1), never_reduce).notes == ()


def test_what_lies_behind_a_jpeg_is_no_page_of_it():
    first, second = Image.new("RGB", (16, 16), COLOURS[0]), Image.new("RGB", (8, 8), COLOURS[1])
    first.save("p/x.jpg", format="MPO", save_all=True, append_images=[second])
    assert decode_reduced(Path("p/x.jpg"), never_reduce).notes == ()
    assert named("all") == [("p/x.jpg", 0, "")]


def test_pages_are_named_behind_their_file():
    saved()
    saved("p/y.png", 1)
    assert named("first") == [("p/x.tif", 0, ""), ("p/y.png", 0, "")]
    assert named("all") == [*((f"p/x.tif.page{page}", page, "") for page in range(1, 6)), ("p/y.png", 0, "")]
    assert named("1-2") == [("p/x.tif.page1", 1, ""), ("p/x.tif.page2", 2, ""), ("p/y.png", 0, "")]
    assert named("4-9, 1", "p/x.tif") == [(f"p/x.tif.page{page}", page, "") for page in (4, 5, 1)]


def test_pages_that_are_not_there_are_failures():
    saved()
    saved("p/y.png", 1)
    assert named("9,2") == [
        ("p/x.tif.page9", 9, "has no page 9, but 5"),
        ("p/x.tif.page2", 2, ""),
        ("p/y.png", 0, "has 1 page, none of them of --pages 9,2"),
    ]
    assert named("7-9", "p/x.tif") == [("p/x.tif", 0, "has 5 pages, none of them of --pages 7-9")]


def test_what_is_no_picture_is_told_when_it_is_read():
    Path("p/x.tif").write_bytes(b"II*\0nothing")
    assert named("all") == [("p/x.tif", 0, "")]


def test_pages_that_cannot_be_counted_are_a_failure_where_they_are_asked_for(monkeypatch):
    saved()
    seek = TiffImageFile._seek

    def torn(image, frame):
        if frame > 2:
            raise OSError("torn")
        seek(image, frame)

    monkeypatch.setattr(TiffImageFile, "_seek", torn)
    assert named("all")[0][2] == "its pages cannot be counted: torn"
    image = decode_reduced(Path("p/x.tif"), never_reduce)  # the first is whole
    assert image.notes == ("the pages after its first cannot be counted: torn",)


def test_no_file_is_opened_for_the_first_page(monkeypatch):
    saved()
    monkeypatch.setattr("camcli.images.pages.open_image", lambda *_a, **_k: pytest.fail("opened"))
    assert named("first") == [("p/x.tif", 0, "")]


def test_words_for_pages():
    assert parse_page_ranges("first") == ()
    assert parse_page_ranges("all") == ((1, None),)
    assert parse_page_ranges("1,3, 5-7") == ((1, 1), (3, 3), (5, 7))
    for wrong in ("0", "x", "3-1", "", "1,,2", "-3", "last"):
        with pytest.raises(RequestError, match="pages cannot be"):
            Job(pages=wrong)
    assert Job(pages="all").fingerprint == Job().fingerprint  # as other inputs are


def test_each_page_has_its_line_its_files_and_is_resumed_by_itself(go):
    saved()
    job = {"target": ("predicted",), "layers": ("stem",)}
    [[first]] = go("p", **job)
    assert first.page == 0
    assert "page 1 of 5: --pages all for each" in first.notes
    some = go("p", **job, pages="1-3")
    assert [(one.name, one.page) for [one] in some] == [(f"p/x.tif.page{page}", page) for page in (1, 2, 3)]
    assert [one.label for [one] in some] == ["red", "green", "blue"]
    assert all(Path("out", one.files["overlay"]).is_file() for [one] in some)
    assert some[2][0].files["overlay"] == "p/x.tif.page3.overlay.jpg"
    assert go("p", **job, pages="2-4")[:2] == [[], []]  # done before
    lines = [json.loads(line) for line in Path("out/outcomes.jsonl").read_text().splitlines()]
    assert [(line["source"], line["page"]) for line in lines] == [("p/x.tif", page) for page in range(5)]
    assert go("p", **job, pages="all", batch_size=2)[-1][0].name == "p/x.tif.page5"


def test_pages_are_drawn_at_one_scale_after_the_last(go, pixels):
    saved(count=2)
    go("p", layers=("stem",), pages="all", normalize="run", save=("overlay-png",), alpha=0.0)
    for page, colour in enumerate(COLOURS[:2], start=1):
        assert pixels(f"out/p/x.tif.page{page}.overlay.png")[3, 3].tolist() == list(colour)


def test_pages_can_be_a_group():
    saved(count=4)
    from camcli.images.grouping import group_items

    sources = expand_pages(find(["p"], out=Path("out")), "all")
    assert [[one.page for one in some] for some in group_items(sources, "2", lambda one: one.path)] == [[1, 2], [3, 4]]


def test_the_run_says_once_that_there_are_more_pages(tiny):
    saved()
    saved("p/y.gif")
    with Run(Job(model=tiny, inputs=("p",), out="out", device="cpu")) as run:
        list(run)
    assert [note for note in run.notes if "page" in note] == ["p/x.tif is read as page 1 of 5: --pages all for each"]


def test_python_takes_pages(tiny):
    saved()
    found = list(camcli.explain("p/x.tif", model=tiny, target="predicted", layer="stem", pages="2-3"))
    assert [(one.source, one.page, one.label) for one in found] == [("p/x.tif", 2, "green"), ("p/x.tif", 3, "blue")]
    [one] = camcli.explain("p/x.tif", model=tiny, layer="stem", pages=3)
    assert one.page == 3


def test_channels_are_ranked_over_pages(tiny, command):
    saved()
    words = [*command, "channels", tiny, "p", "--layer", "stem", "--pages", "all", "--out", "out", "--json"]
    done = subprocess.run(words, capture_output=True, check=True)
    red = next(line for line in map(json.loads, done.stdout.splitlines()) if line["channel"] == 0)
    # Red is in the red page and the yellow one alike, of which the first comes first.
    assert [(one["source"], one["page"]) for one in red["strongest"]] == [("p/x.tif", 1), ("p/x.tif", 4)]
    assert "p/x.tif, page 4" in Path("out/channels.csv").read_text()


@pytest.mark.slow
def test_prompts_are_compared_in_each_page(standin, command):
    saved(count=2)
    words = [*command, "prompts", "p", "--model", standin, "--text", "red", "--text", "green", "--json"]
    done = subprocess.run([*words, "--pages", "all", "--out", "out"], capture_output=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["source"], line["page"], line["error"]) for line in lines] == [
        ("p/x.tif", 1, None),
        ("p/x.tif", 2, None),
    ]
    assert Path("out/p/x.tif.page2.prompts.png").is_file()
    unstable = json.loads(Path("out/prompts.json").read_text())["summary"]["unstable"]
    assert {(one["source"], one["page"]) for one in unstable} == {("p/x.tif", 1), ("p/x.tif", 2)}
