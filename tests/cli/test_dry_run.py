"""--dry-run and --limit."""

import re
from pathlib import Path

import pytest
from shared import BLUE, GREEN, RED
from typer.testing import CliRunner, Result

from camcli.cli import app
from camcli.runs.record import plan


@pytest.fixture
def photos(paint) -> None:
    for name, colour in zip("abcd", (RED, GREEN, BLUE, RED), strict=True):
        paint(f"in/{name}.png", colour)


def explain(tiny: str, *words: str) -> Result:
    result = CliRunner().invoke(app, ["explain", "in", "--model", tiny, "--out", "out", *words])
    assert result.exit_code == 0, result.output
    return result


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(here: Path, photos: None, tiny: str) -> None:
    (here / "in/e.webm").write_bytes(b"a film")
    (here / "in/f.png").write_bytes(b"no image")
    before = sorted(here.rglob("*"))
    result = explain(tiny, "--dry-run", "--save", "overlay,array")
    lines = result.stdout.splitlines()
    assert lines[0] == "input: 16x16, fp32, up to 16 images in a batch"
    assert lines[1].startswith("images: 5 found; 1 file is not read: 1 .webm")
    assert lines[2] == "output: overlay, array, in out, a new folder"
    assert lines[3].startswith("maps: 1 for each image, about ")
    assert lines[4].startswith("time: about ")
    assert "from 5 that were tried" in lines[4]
    assert f"model: {tiny}" in result.stderr
    assert "would fail: in/f.png: " in result.stderr
    assert sorted(here.rglob("*")) == before


def test_what_is_done_is_counted_and_other_jobs_are_named(here: Path, photos: None, tiny: str) -> None:
    explain(tiny, "--limit", "3")
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    assert "images: 4 found, 3 of them done already, 1 to do" in explain(tiny, "--dry-run").stdout
    assert "images: 4 found\n" in explain(tiny, "--dry-run", "--overwrite").stdout
    words = ["explain", "in", "--model", tiny, "--out", "out", "--dry-run", "--method", "layercam"]
    other = CliRunner().invoke(app, words)
    assert other.exit_code == 2
    assert "'out' contains the results of another job: method was 'auto', is 'layercam'" in other.stderr
    (here / "out/in/a.png.overlay.jpg").unlink()
    assert "2 of them done already, 2 to do" in explain(tiny, "--dry-run").stdout
    del before[here / "out/in/a.png.overlay.jpg"]
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*") if path in before and path.is_file()} == {
        path: time for path, time in before.items() if path.is_file()
    }


def test_a_dry_run_leaves_most_masks_out_and_says_their_number_and_time(
    here: Path, photos: None, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LOOP_SECONDS", 0.001)
    lines = explain(tiny, "--dry-run", "-m", tiny, "--method", "rise", "-o", "samples=100000").stdout.splitlines()
    assert re.fullmatch(r"rise: 100000 masks for each map, about .+", lines[3])
    assert re.fullmatch(r"time: about .+ once the model is loaded \(.+, from 1 that were tried\)", lines[4])


def test_a_limit_takes_the_first_and_the_same_command_goes_on(here: Path, photos: None, tiny: str) -> None:
    assert "2 done in" in explain(tiny, "--limit", "2").stderr
    assert {path.name for path in (here / "out/in").iterdir()} == {"a.png.overlay.jpg", "b.png.overlay.jpg"}
    assert "2 done, 2 done before" in explain(tiny).stderr


def test_of_standard_input_a_limit_reads_no_more_and_a_dry_run_nothing(here: Path, photos: None, tiny: str) -> None:
    words = ["explain", "-", "--model", tiny, "--out", "out"]
    names = b"in/a.png\nin/b.png\nin/c.png\n"
    result = CliRunner().invoke(app, [*words, "--dry-run"], input=names)
    assert "images: named on standard input, which is not read in a dry run" in result.stdout
    assert not (here / "out").exists()
    assert "1 done in" in CliRunner().invoke(app, [*words, "--limit", "1"], input=names).stderr


def test_groups_are_not_cut(here: Path, photos: None) -> None:
    result = CliRunner().invoke(app, ["explain", "in", "--group", "folder", "--wrap", "a.py:A", "--limit", "2"])
    assert result.exit_code == 2
    assert "--limit would leave out a part of a group" in result.stderr


@pytest.mark.slow
def test_channels_and_prompts_have_it_too(here: Path, photos: None, tiny: str, standin: str) -> None:
    ranked = CliRunner().invoke(app, ["channels", tiny, "in", "--limit", "2", "--dry-run", "--out", "out"])
    assert ranked.exit_code == 0, ranked.output
    assert "images: the first 2 (--limit)\n" in ranked.stdout
    compared = CliRunner().invoke(
        app, ["prompts", "in", "-m", standin, "--text", "red", "--text", "blue", "--out", "out", "--dry-run"]
    )
    assert compared.exit_code == 0, compared.output
    assert "images: 4 found\n" in compared.stdout
    assert "time: about " in compared.stdout
    assert not (here / "out").exists()
