"""Shards: every image in exactly one, side by side in one folder, whatever their number; merged, and counted."""

import json
from collections import Counter
from pathlib import Path

import pytest
from readback import facts, ledger
from shared import GREEN, Go, Paint
from typer.testing import CliRunner

from camcli import RequestError
from camcli.cli import app
from camcli.images.naming import mark_name
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.job.shard import Shard, parse_shard
from camcli.runs.record.join import MAX_OPEN
from camcli.runs.record.merge import merge_shards
from camcli.runs.record.status import read_status

SLURM = {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "2"}
ALONE = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}


@pytest.fixture
def eight(paint: Paint) -> None:
    for number in range(8):
        paint(f"in/{number}.png", GREEN)


def names(out: str = "out", shard: str = "") -> list[str]:
    folder = Path(out, "shards", shard) if shard else Path(out)
    return [row["name"] for row in map(json.loads, (folder / "outcomes.jsonl").read_bytes().splitlines())]


@pytest.mark.parametrize(
    ("given", "environment", "shard"),
    [
        ("3/16", {}, "3/16"),
        ("1/1", {}, "1/1"),
        ("env", {"SLURM_ARRAY_TASK_ID": "14", **SLURM}, "3/4"),
        (
            "env",
            {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "0", **ALONE},
            "1/2",
        ),
        ("env/4", {"SLURM_ARRAY_TASK_ID": "10", **SLURM}, "1/4"),
        ("env", {"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, "3/3"),
        ("env", ALONE, "1/1"),
        ("env/16", {"JOB_COMPLETION_INDEX": "15"}, "16/16"),
        ("env", {"RANK": "0", "WORLD_SIZE": "8"}, "1/8"),
        ("env/3", {"RANK": "2", "WORLD_SIZE": "1"}, "3/3"),
        ("env", {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "5"}, "2/5"),
        ("env", {"BATCH_TASK_INDEX": "1", "BATCH_TASK_COUNT": "5"}, "2/5"),
        ("env", {"CLOUD_RUN_TASK_INDEX": "4", "CLOUD_RUN_TASK_COUNT": "5"}, "5/5"),
    ],
)
def test_a_shard_is_named_by_number_or_by_the_scheduler(given: str, environment: dict[str, str], shard: str) -> None:
    assert str(parse_shard(given, environment)) == shard


@pytest.mark.parametrize(
    ("given", "environment", "error"),
    [
        ("0/4", {}, "no shard 0 of 4"),
        ("5/4", {}, "no shard 5 of 4"),
        ("4", {}, "shard cannot be '4'"),
        ("a/b", {}, "shard cannot be"),
        ("env", {}, "finds no task in the environment"),
        ("env", {"JOB_COMPLETION_INDEX": "3"}, "does not say how many there are"),
        ("env/3", {"JOB_COMPLETION_INDEX": "3"}, "not among the 3 shards"),
        ("env", {"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x'"),
        ("env", {"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "torchrun and of srun"),
        ("env", {"SLURM_ARRAY_TASK_ID": "11", **SLURM}, "not among the 4 shards"),
        ("env", {"SLURM_ARRAY_TASK_ID": "18", **SLURM}, "not among the 4 shards"),
        ("env/16", {"SLURM_ARRAY_TASK_ID": "10", **SLURM}, "of a SLURM array of 4"),
    ],
)
def test_what_names_no_shard_is_refused(given: str, environment: dict[str, str], error: str) -> None:
    with pytest.raises(RequestError, match=error):
        parse_shard(given, environment)


def test_every_name_is_in_exactly_one_shard_of_about_equal_size() -> None:
    shards = [Shard(number, 7) for number in range(1, 8)]
    sizes = Counter(one.number for number in range(7000) for one in shards if one.holds(f"a/{number}.jpg"))
    assert sum(sizes.values()) == 7000
    assert all(850 < size < 1150 for size in sizes.values())


def test_a_mark_for_a_namesake_changes_no_shard_and_folders_stay_whole() -> None:
    shard = Shard(2, 5)
    assert all(shard.holds(name) == shard.holds(mark_name(name, "x")) for name in map("{}.jpg".format, range(50)))
    by_folder = Shard(2, 5, by_folder=True)
    assert len({by_folder.holds(f"a/{number}.jpg") for number in range(50)}) == 1


@pytest.mark.usefixtures("eight")
def test_shards_give_the_files_and_lines_of_one_run(go: Go) -> None:
    go("in", out="whole")
    for number in (2, 1, 3):
        go("in", shard=f"{number}/3")
    assert sorted(name for number in (1, 2, 3) for name in names(shard=f"{number}-of-3")) == sorted(names("whole"))
    assert names() == []
    found = read_status(Path("out"))
    assert (found.images, found.done, found.failed, found.missing, found.is_complete) == (8, 8, 0, 0, True)
    merged = merge_shards(Path("out"))
    assert merged.replaced == 0
    assert [one.state for one in merged.status.shards] == ["merged"] * 3
    unlike = ("run", "seconds")
    rows = [
        {key: row[key] for key in row if key not in unlike} for row in sorted(ledger(), key=lambda row: row["name"])
    ]
    assert rows == [{key: row[key] for key in row if key not in unlike} for row in ledger("whole")]
    for row in rows:
        for file in row["files"].values():
            assert Path("out", file).read_bytes() == Path("whole", file).read_bytes()
    assert "finished" in facts()
    assert go("in") == [[]] * 8  # a run of all images finds all done


@pytest.mark.usefixtures("eight")
def test_another_number_of_shards_or_none_goes_on_where_they_stopped(go: Go, paint: Paint) -> None:
    there = [len(list(go("in", shard=f"{number}/4"))) for number in (1, 3)]
    begun = names(shard="1-of-4") + names(shard="3-of-4")
    again = [
        name for number in (1, 2) for lines in go("in", shard=f"{number}/2") for name in {one.name for one in lines}
    ]
    assert sorted(begun + again) == [f"in/{number}.png" for number in range(8)]
    assert sum(there) == len(begun)
    paint("in/8.png", GREEN)
    assert sum(map(len, go("in"))) == 1  # and a run of all images joins their records first
    assert sorted(names()) == [f"in/{number}.png" for number in range(9)]
    assert not list(Path("out/shards").rglob("outcomes.jsonl"))
    assert sum(sum(map(len, go("in", shard=f"{number}/2"))) for number in (1, 2)) == 0


@pytest.mark.usefixtures("eight")
def test_an_image_done_twice_has_its_last_result(go: Go, paint: Paint) -> None:
    go("in")
    paint("in/3.png", GREEN, size=(20, 20))
    redone = [one for number in (1, 2) for lines in go("in", shard=f"{number}/2") for one in lines]
    assert [one.name for one in redone] == ["in/3.png"]
    merged = merge_shards(Path("out"))
    assert (merged.replaced, merged.status.done) == (1, 8)
    assert [row["run"] for row in ledger() if row["name"] == "in/3.png"] == [redone[0].run]


@pytest.mark.usefixtures("eight")
def test_runs_that_would_spoil_each_other_are_refused(go: Go, tiny: str) -> None:
    job = Job(model=tiny, inputs=("in",), out="out", device="cpu", save=("array",), shard="1/2")
    with Run(job):
        for shard, error in {"1/2": "does shard 1/2", "": "shard 1-of-2 is being done", "1/3": "shard 1-of-2"}.items():
            with pytest.raises(RequestError, match=error):
                go("in", shard=shard)
        go("in", shard="2/2")
        assert [one.state for one in read_status(Path("out")).shards] == ["running", "finished"]
        with pytest.raises(RequestError, match="is being done"):
            merge_shards(Path("out"))
    with Run(Job(**{**job.as_dict(), "shard": "", "out": "whole"})), pytest.raises(RequestError, match="all images"):
        go("in", out="whole", shard="1/2", layers=())
    with pytest.raises(RequestError, match="another job"):
        go("in", shard="1/2", target=("top:2",), overwrite=True)


@pytest.mark.usefixtures("eight")
def test_a_dry_run_counts_what_shards_have_done(go: Go, tiny: str) -> None:
    done = len(list(go("in", shard="1/2")))
    run = CliRunner().invoke
    words = ["explain", "in", "--model", tiny, "--out", "out", "--device", "cpu", "--dry-run"]
    assert f"8 found, {done} of them done already" in run(app, words).stdout
    assert f"{done} found, {done} of them done already" in run(app, [*words, "--shard", "1/2"]).stdout


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"normalize": "run"}, "needs the maps of all images"),
        ({"group": "2"}, "which 2 images are a group"),
        ({"overwrite": True, "drop_others": True}, "what other shards wrote"),
    ],
)
def test_what_needs_all_images_is_refused(options: dict, error: str) -> None:
    with pytest.raises(RequestError, match=error):
        Job(shard="1/2", **options)


def test_a_shard_without_images_is_done(go: Go, paint: Paint) -> None:
    paint("in/a.png")
    assert sorted(len(go("in", shard=f"{number}/5")) for number in range(1, 6)) == [0, 0, 0, 0, 1]
    assert read_status(Path("out")).is_complete


def test_the_commands_report_failures_gaps_and_a_table(go: Go, paint: Paint) -> None:
    for number in range(6):
        paint(f"in/{number}.png")
    Path("in/3.png").write_bytes(b"no image")
    Path("in/5.png").write_bytes(b"no image")
    run = CliRunner().invoke
    assert run(app, ["status", "out"]).exit_code == 3
    go("in", shard="1/2")
    gaps = run(app, ["merge", "out"])
    assert gaps.exit_code == 1
    assert "missing" in gaps.output
    assert "2-of-2" in gaps.output
    go("in", shard="2/2")
    told = json.loads(run(app, ["status", "out", "--json"]).stdout)
    assert (told["done"], told["failed"], told["missing"], told["complete"]) == (4, 2, 0, False)
    [reason] = told["reasons"]
    assert told["reasons"][reason] == 2
    merged = run(app, ["merge", "out", "--to", "all.jsonl"])
    assert merged.exit_code == 1
    assert f"failed: 2 images: {reason}" in merged.output
    assert len(Path("all.jsonl").read_bytes().splitlines()) == 6
    assert run(app, ["merge", "out", "--to", "all.xls"]).exit_code == 2


def test_a_parquet_table_has_a_column_for_each_field(go: Go, paint: Paint) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    paint("in/a.png", (200, 100, 50))
    Path("t.csv").write_text("path,site,blur\nin/a.png,x,0.5\nin/none.png,y,1\n")
    go("@t.csv", target=("red", "green"), carry=("site", "blur"))
    merged = CliRunner().invoke(app, ["merge", "out", "--to", "all.parquet"])
    assert merged.exit_code == 1, merged.output  # an image is not there, and has its columns too
    table = parquet.read_table("all.parquet").to_pylist()
    assert [row["name"] for row in table] == ["in/a.png", "in/a.png", "in/none.png"]
    for name in ("files", "columns"):
        assert [dict(row[name]) for row in table] == [row[name] for row in ledger()]
    assert dict(table[2]["columns"]) == {"site": "y", "blur": "1"}
    assert table[0].keys() == ledger()[0].keys()


def test_more_shards_are_joined_than_files_can_be_open(go: Go, paint: Paint) -> None:
    paint("in/a.png")
    go("in")
    line = Path("out/outcomes.jsonl").read_text()
    for number in range(1, MAX_OPEN + 20):
        folder = Path("out/shards", f"{number:04}-of-5000")
        folder.mkdir(parents=True)
        (folder / "outcomes.jsonl").write_text(line.replace("in/a.png", f"in/{number}.png"))
    assert merge_shards(Path("out")).status.failed == MAX_OPEN + 19  # they name files that are not there
    assert len(names()) == MAX_OPEN + 20


@pytest.mark.usefixtures("eight")
def test_concepts_of_all_images_are_refused(go: Go) -> None:
    with pytest.raises(RequestError, match="finds concepts in all images"):
        go("in", method="dff", shard="1/2", options=("concepts=2",))
