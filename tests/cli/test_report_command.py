"""The commands that write a report: ``camcli report``, and ``camcli explain --report``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import do, explain
from report_runs import make_run, read_items
from shared import RED, Paint


def test_a_run_ends_with_its_report_also_when_nothing_was_left_to_do(paint: Paint, tiny: str) -> None:
    paint("in/red/a.png", RED)
    assert explain(tiny, "in", "--target", "folder", "--report").exit_code == 0
    paint("in/red/b.png", (60, 0, 250))  # mostly blue
    done = explain(tiny, "in", "--target", "folder", "--report")
    assert (done.exit_code, "report: 2 images, 2 maps" in done.stderr) == (0, True), done.output
    Path("out/report.html").unlink()
    assert explain(tiny, "in", "--target", "folder", "--report").exit_code == 0
    first, second = read_items(Path("out"))
    assert (first["labels"], first["predicted"], first["right"]) == (["0 red"], "0 red", True)
    assert (second["labels"], second["predicted"], second["right"]) == (["0 red"], "2 blue", False)


def test_images_that_failed_have_their_reason_in_the_report_and_the_exit_code_stays(paint: Paint, tiny: str) -> None:
    paint("in/a.png", RED)
    Path("in/b.png").write_bytes(b"no image")
    assert explain(tiny, "in", "--report").exit_code == 1
    good, bad = read_items(Path("out"))
    assert (good["name"], bad["name"], "error" in good, bool(bad["error"])) == ("in/a.png", "in/b.png", False, True)


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("--shard", "1/2"), "of one shard"),
        (("--out", "s3://bucket/maps"), "of a store"),
        (("--engine", "ray"), "of a cluster"),
    ],
)
def test_what_is_not_a_whole_run_in_a_local_folder_is_refused_before_it_begins(paint, tiny, words, where) -> None:
    paint("in/a.png", RED)
    done = do("explain", "--model", tiny, "--report", *(words if "--out" in words else (*words, "--out", "out")), "in")
    assert done.exit_code == 2
    assert where in done.stderr and "camcli report OUT" in done.stderr


def test_the_command_says_where_the_page_is_and_what_to_know(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    done = do("report", str(out))
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"camcli explain --config {out}/run.json --save overlay,heatmap --report" in done.stderr
    assert "report: 2 images, 2 maps in " in done.stderr and done.stderr.rstrip().endswith(f"{out}/report.html")
    single = do("report", str(out), "--single-file", "--image-size", "0", "--quiet")
    assert (single.exit_code, single.stderr) == (0, "")


def test_mistakes_are_told(tmp_path: Path) -> None:
    assert do("report", str(tmp_path)).exit_code == 3
    wrong = do("report", str(make_run(tmp_path, 1)), "--columns", str(tmp_path / "none.csv"))
    assert wrong.exit_code == 2 and "cannot be read" in wrong.stderr


def test_a_report_and_a_status_are_made_without_torch(tmp_path: Path) -> None:
    out = make_run(tmp_path, 1)
    program = f"""
import sys
from camcli.runs.record.status import read_status
from camcli.runs.report import ReportOptions
from camcli.runs.report.run import write_report
from pathlib import Path
read_status(Path({str(out)!r}))
write_report(Path({str(out)!r}), ReportOptions())
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert json.loads((out / "run.json").read_text())["fingerprint"] == "j1"
