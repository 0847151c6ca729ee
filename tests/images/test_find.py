"""Each image is found once, in order, under its own name; what camcli wrote itself is passed over."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from image_files import lay

from camcli.base.errors import PictureError, RequestError
from camcli.images.decode import decode
from camcli.images.files import read_stamp
from camcli.images.find import find
from camcli.images.formats import SkippedFiles
from camcli.images.naming import output_name

pytestmark = pytest.mark.usefixtures("here")


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
    """An image below more folders than the interpreter recurses; taken away again, which pytest itself cannot."""
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
    # Two files, and of neither one is dropped; a link is an image of its own; another spelling of a file is not.
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
    assert "2 files that camcli wrote are left out" in unread.describe()
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
    assert unread.describe() == "3 images are named more than once, and each is processed once"
