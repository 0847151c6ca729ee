"""What is read is what the installed Pillow reads; what a folder holds beside it is counted and said."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from camcli.base.errors import NothingFoundError
from camcli.images.decode import decode
from camcli.images.find import find
from camcli.images.formats import FORMATS, HEIF, SUFFIXES, UNREADABLE_SUFFIXES, SkippedFiles
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job


def lay(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


@pytest.mark.skipif(not features.check_module("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(here):
    Image.new("RGB", (16, 12), (200, 40, 90)).save("a.avif", quality=95)
    assert [one.name for one in find(["."], out=Path("out"))] == ["a.avif"]
    assert np.abs(np.asarray(decode(Path("a.avif"))).astype(int) - (200, 40, 90)).max() <= 4


@pytest.mark.skipif(not features.check_codec("jpg_2000"), reason="this Pillow has no JPEG 2000")
@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
def test_jpeg_2000_is_read(here, suffix):
    photo = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(photo).save(f"a.{suffix}")
    assert [one.name for one in find(["."], out=Path("out"))] == [f"a.{suffix}"]
    assert np.array_equal(np.asarray(decode(Path(f"a.{suffix}"))), photo)  # lossless unless it is told otherwise


def test_heic_is_read_where_its_plug_in_is(here):
    pillow_heif = pytest.importorskip("pillow_heif")
    assert SUFFIXES >= HEIF
    assert "HEIF" in FORMATS
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 40, 90))).save("a.heic", quality=95)
    assert np.abs(np.asarray(decode(Path("a.heic"))).astype(int) - (200, 40, 90)).max() <= 6


def test_nothing_is_both_read_and_not():
    assert not UNREADABLE_SUFFIXES & SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in UNREADABLE_SUFFIXES | SUFFIXES)


def test_what_folders_hold_and_is_not_read_is_counted_once(here):
    lay(
        "p/a.jpg",
        "p/b.CR2",
        "p/c.nrrd",
        "p/d.txt",
        "p/e.json",
        "p/sub/f.cr2",
        "p/.g.cr2",
        "p/.h/i.cr2",
        "p/j.jxl/k.png",
    )
    unread = SkippedFiles()
    assert [one.name for one in find(["p", "p/sub"], out=Path("out"), skipped=unread)] == ["p/a.jpg", "p/j.jxl/k.png"]
    assert unread.counts == Counter({".cr2": 2, ".nrrd": 1})
    assert unread.describe().startswith("3 files are not read: 2 .cr2, 1 .nrrd (")
    assert "raw" in unread.describe()
    assert SkippedFiles().describe() == ""


def test_what_is_named_is_no_matter_of_folders(here):
    lay("p/b.cr2", "p/a.png")
    unread = SkippedFiles()
    assert [one.name for one in find(["p/*.cr2"], out=Path("out"), skipped=unread)] == ["p/b.cr2"]
    assert not unread.counts


def test_a_run_says_it_and_records_it(paint, tiny):
    paint("in/a.png")
    lay("in/b.nef", "in/c.nef")
    with Run(Job(model=tiny, inputs=("in",), out="out", device="cpu")) as run:
        assert run.total == 1
        assert len(list(run)) == 1
    assert any(note.startswith("2 files are not read: 2 .nef") for note in run.notes)
    assert json.loads(Path("out/run.json").read_text())["unread"] == {".nef": 2}


def test_a_folder_of_nothing_else_says_what_is_in_it(here):
    lay("in/a.nef")
    with pytest.raises(NothingFoundError, match=r"1 file is not read: 1 \.nef"):
        Run(Job(inputs=("in",), out="out"))


def test_folders_named_on_standard_input_count_too(paint, tiny, command):
    paint("in/a.png")
    lay("in/b.nef")
    done = subprocess.run(
        [*command, "explain", "-", "--model", tiny, "--json"], input=b"in\n", capture_output=True, check=False
    )
    assert done.returncode == 0
    assert b"note: 1 file is not read: 1 .nef" in done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("words", [["channels"], ["explain", "--model"]])
def test_the_commands_say_it(paint, tiny, command, words):
    paint("in/a.png")
    lay("in/b.nef")
    layer = ["--layer", "stem"]
    done = subprocess.run([*command, *words, tiny, "in", *layer], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"note: 1 file is not read: 1 .nef" in done.stderr
    file = "channels.json" if words == ["channels"] else "run.json"
    [facts] = {one.resolve() for one in Path("camcli-out").glob(f"*/{file}")}
    assert json.loads(facts.read_text())["unread"] == {".nef": 1}
