"""The same command again: what is done is skipped, what changed is done again, another job is refused."""

import errno
import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from readback import facts, files, ledger
from resumed_runs import NORMALIZED, at_middle, changes, times
from shared import GREEN, Go, Paint

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError
from camcli.engine.explanation import Explanation
from camcli.runs.explain import writer
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.record.failures import RESULT_OUTDATED, RESULT_STAYS


@pytest.mark.usefixtures("two")
def test_the_same_command_again_skips_what_is_done(go: Go) -> None:
    go("in")
    before, lines = times(), ledger()
    assert go("in") == [[], []]
    assert changes(before) == set()
    assert ledger() == lines
    assert (facts()["pictures"], facts()["skipped"], facts()["failed"]) == (2, 2, 0)
    # Neither how the work is done nor where from makes it another job.
    assert go("in/b.png", "in/a.png", batch_size=1, workers=1) == [[], []]


@pytest.mark.usefixtures("two")
def test_a_changed_picture_and_a_missing_file_are_done_again(paint: Paint, go: Go) -> None:
    go("in")
    before = times()
    paint("in/b.png", GREEN)
    first, (second,) = go("in")
    assert (first, second.label) == ([], "green")
    assert changes(before) == {"in/b.png.overlay.jpg"}
    assert [(row["name"], row["label"]) for row in ledger()] == [("in/a.png", "red"), ("in/b.png", "green")]
    Path("out/in/a.png.overlay.jpg").unlink()
    (first,), second = go("in")
    assert (first.label, second) == ("red", [])


@pytest.mark.usefixtures("two")
def test_a_new_picture_joins(paint: Paint, go: Go) -> None:
    go("in")
    paint("in/aa.png", GREEN)
    assert [[one.label for one in each] for each in go("in")] == [[], ["green"], []]
    assert len(ledger()) == 3


@pytest.mark.usefixtures("two")
def test_another_class_of_a_changed_picture_leaves_no_orphan(paint: Paint, go: Go) -> None:
    go("in", target=("top:1",))
    paint("in/b.png", GREEN)
    go("in", target=("top:1",))
    assert files() == ["in/a.png.0-red.overlay.jpg", "in/b.png.1-green.overlay.jpg"]


@pytest.mark.usefixtures("two")
def test_overwrite_replaces_the_named_picture_of_the_same_job_alone(go: Go) -> None:
    go("in")
    before = times()
    go("in/a.png", overwrite=True)
    assert changes(before) == {"in/a.png.overlay.jpg"}
    assert go("in") == [[], []]


@pytest.mark.usefixtures("two")
def test_overwrite_that_is_interrupted_leaves_what_it_did_not_reach_and_goes_on(go: Go, tiny: str) -> None:
    go("in")
    before, old = times(), ledger()
    job = Job(model=tiny, inputs=("in",), out="out", device="cpu", background="#000000", batch_size=1, workers=1)
    with Run(replace(job, overwrite=True)) as run:
        outcomes = iter(run)
        next(outcomes)
        outcomes.close()  # type: ignore[attr-defined]
    assert set(before) == set(files())
    assert [(row["name"], row["job"] == old[0]["job"]) for row in ledger()] == [("in/b.png", True), ("in/a.png", False)]
    # Files of the second job may lie under lines of the first one, had it been killed: that goes on only if asked.
    with pytest.raises(RequestError, match="another job: background was '#000000'"):
        go("in")
    assert [len(each) for each in go("in", background="#000000")] == [0, 1]
    assert {row["job"] for row in ledger()}.isdisjoint({row["job"] for row in old})


@pytest.mark.usefixtures("two")
def test_files_that_another_job_wrote_over_before_it_was_killed_do_not_pass_for_this_ones(go: Go, tiny: str) -> None:
    go("in")
    with Run(Job(model=tiny, inputs=("in",), out="out", device="cpu", background="#000000", overwrite=True)) as run:
        # Killed behind the file and before its line: the ledger is that of the first job.
        run.session.folder.write("in/a.png.overlay.jpg", Path("out/in/b.png.overlay.jpg").read_bytes())
    with pytest.raises(RequestError, match="another job: background was '#000000'"):
        go("in")
    assert [len(each) for each in go("in", overwrite=True)] == [1, 1]
    assert go("in") == [[], []]


def test_pictures_that_cannot_be_reached_lose_nothing(paint: Paint, go: Go, here: Path, tiny: str) -> None:
    for number in range(8):
        paint(f"drive/{number}.png", (200, 10 * number, 0))
    (here / "list.txt").write_text("".join(f"drive/{number}.png\n" for number in range(8)))
    both = {"save": ("overlay", "array"), "batch_size": 4}
    go("@list.txt", **both)
    before, lines = times(), ledger()
    assert len(before) == 16
    (here / "drive").rename("unmounted")
    for _ in range(2):
        with Run(Job(model=tiny, inputs=("@list.txt",), out="out", device="cpu", **both)) as run:
            outcomes = [one for [one] in run]
        assert all("there is no such file" in (one.error or "") for one in outcomes)
        assert all(one.notes == (RESULT_STAYS,) for one in outcomes)
        assert run.notes[-1] == "results of an earlier run stay for 8 images that failed"
        assert (changes(before), len(times())) == (set(), 16)
        assert ledger()[:8] == lines
        assert [row["error"] is None for row in ledger()] == [True] * 8 + [False] * 8
        assert (facts()["pictures"], facts()["failed"]) == (8, 8)
    (here / "names").write_text((here / "list.txt").read_text())
    with (here / "names").open("rb") as names, Run(Job(model=tiny, inputs=("-",), out="out", **both), names) as run:
        list(run)
    assert changes(before) == set()
    (here / "unmounted").rename("drive")
    assert go("@list.txt", **both) == [[]] * 8
    assert ledger() == lines


@pytest.mark.usefixtures("two")
def test_a_picture_that_changed_and_fails_keeps_its_old_result_and_says_so(go: Go, here: Path) -> None:
    go("in")
    before = times()
    (here / "in/b.png").write_bytes(b"no picture any more")
    [], [failed] = go("in")
    assert failed.notes == (RESULT_OUTDATED,)
    assert changes(before) == set()
    assert [row["error"] is None for row in ledger()] == [True, True, False]
    [], [failed] = go("in")
    assert failed.error


# ---- what a crash can leave


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("left", [0, 100], ids=["empty", "short"])
def test_files_that_are_not_whole_are_not_done(go: Go, left: int) -> None:
    first, _ = go("in", save=("overlay", "array"))
    assert first[0].sizes == {name: Path("out", file).stat().st_size for name, file in first[0].files.items()}
    for file, cut in (("in/a.png.overlay.jpg", left), ("in/b.png.npy", left)):
        whole = Path("out", file).read_bytes()
        assert len(whole) > 100
        Path("out", file).write_bytes(whole[:cut])
        assert sum(map(len, go("in", save=("overlay", "array")))) == 1
        assert Path("out", file).read_bytes() == whole


@pytest.mark.usefixtures("two")
def test_durable_files_are_on_the_disk_before_their_line_and_the_line_before_the_next(go: Go, monkeypatch) -> None:
    synced: list[str] = []
    sync, move = os.fsync, os.replace

    def told(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", told)
    monkeypatch.setattr(os, "replace", lambda one, other: (synced.append(f"{other}"), move(one, other))[1])
    go("in/a.png", durable=True)
    names = ["*.tmp" if path.endswith(".tmp") else Path(path).name for path in synced]
    # A file, its move, its folder, and the one that this was made in; then the line.
    start = names.index("a.png.overlay.jpg") - 1
    assert names[start : start + 5] == ["*.tmp", "a.png.overlay.jpg", "in", "out", "outcomes.jsonl"]
    synced.clear()
    go("in/b.png")
    assert [path for path in synced if path.startswith("/")] == []
    assert go("in", durable=True) == [[], []]


@pytest.mark.usefixtures("two")
def test_an_output_folder_moved_away_ends_the_run(tiny: str, go: Go) -> None:
    with (
        pytest.raises(OutputError, match="'out' is gone: it was moved or deleted"),
        Run(Job(model=tiny, inputs=("in",), out="out", batch_size=1, workers=1)) as run,
    ):
        outcomes = iter(run)
        next(outcomes)
        shutil.move("out", "away")
        list(outcomes)
    assert not Path("out").exists()
    shutil.move("away", "out")
    assert [len(each) for each in go("in")] == [0, 1]


@pytest.mark.usefixtures("two")
def test_a_targets_file_that_was_changed_makes_it_another_job(go: Go, here: Path) -> None:
    (here / "t.csv").write_text("a.png,red\nb.png,blue\n")
    go("in", targets="t.csv")
    (here / "t.csv").write_text("a.png,red\nb.png,red\n")
    with pytest.raises(RequestError, match="another job: the weights or a file that the job names changed"):
        go("in", targets="t.csv")


def test_interrupted_and_resumed(paint: Paint, tiny: str, go: Go) -> None:
    for number in range(6):
        paint(f"in/{number}.png", (200, 10 * number, 0))
    with Run(Job(model=tiny, inputs=("in",), out="out", batch_size=1, workers=1)) as run:
        outcomes = iter(run)
        done = [next(outcomes), next(outcomes)]
        with pytest.raises(KeyboardInterrupt):
            outcomes.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert "finished" not in facts()
    assert len(ledger()) == 2
    rest = go("in")
    assert rest[:2] == [[], []]
    assert all(len(each) == 1 for each in rest[2:])
    assert [row["name"] for row in ledger()] == [f"in/{number}.png" for number in range(6)]
    assert {row["run"] for row in ledger()} == {done[0][0].run, rest[-1][0].run}


@pytest.mark.usefixtures("two")
def test_the_output_folder_inside_the_input_is_not_taken_for_pictures(go: Go) -> None:
    assert len(go(".", out="in/out")) == 2
    assert len(go(".", out="in/out")) == 2
    assert len(go(".", out="second")) == 2  # nor is another run's


def test_a_copy_of_the_folder_is_the_same_job_at_another_place(paint: Paint, go: Go) -> None:
    paint("in/a.png")
    go("in")
    shutil.copytree("out", "moved")
    assert go("in", out="moved") == [[]]


@pytest.mark.usefixtures("two")
def test_a_full_disk_ends_the_run_at_once_and_room_lets_it_go_on(tiny: str, go: Go, monkeypatch) -> None:
    def full(path: Path, content: bytes, **how) -> None:
        if path.name.startswith("b.png"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content, **how)

    write = atomic.write
    job = Job(model=tiny, inputs=("in",), out="out", batch_size=1, workers=1)
    with monkeypatch.context() as broken, Run(job) as run:
        broken.setattr(atomic, "write", full)
        outcomes = iter(run)
        assert next(outcomes)[0].error is None
        with pytest.raises(OutputError, match="'out' cannot be written to: No space left"):
            next(outcomes)
    assert [row["name"] for row in ledger()] == ["in/a.png"]
    assert [len(each) for each in go("in")] == [0, 1]


@pytest.mark.usefixtures("two")
def test_an_output_folder_that_is_a_file_is_refused_before_the_model_is_loaded(here: Path) -> None:
    (here / "out").write_text("")
    with pytest.raises(RequestError, match="--out out is a file"):
        Run(Job(model="no such model", inputs=("in",), out="out"))


# ---- drawn from the ledger


def test_of_a_picture_of_which_one_map_fails_the_others_are_drawn(paint: Paint, go: Go) -> None:
    paint("in/a.png", (200, 100, 0))  # no blue at all: that map is zero everywhere
    paint("in/b.png", (100, 50, 25))
    (red, green, blue), _ = go("in", **{**NORMALIZED, "target": ("red", "green", "blue")})
    assert (red.error, green.error, bool(blue.error)) == (None, None, True)
    named = [file for row in ledger() for file in row["files"].values()]
    assert sorted(named) == files()
    assert len(named) == 2 * 5
    assert facts()["failed"] == 1
    assert at_middle("in/a.png.0-red.heatmap.png") == 255
    assert 90 < at_middle("in/a.png.1-green.heatmap.png") < 150  # half as strong
    # The image that failed in part is tried again, whether or not the scale changes.
    assert [len(each) for each in go("in", **{**NORMALIZED, "target": ("red", "green", "blue")})] == [3, 0]


def test_a_map_that_cannot_be_drawn_where_another_failed_is_counted_once(paint: Paint, tiny: str) -> None:
    paint("in/a.png", (200, 100, 0))
    job = Job(model=tiny, inputs=("in",), out="out", device="cpu", **{**NORMALIZED, "target": ("red", "blue")})
    with Run(job) as run:
        outcomes = iter(run)
        next(outcomes)
        paint("in/a.png", (201, 101, 1), size=(40, 40))
        assert list(outcomes) == []
    assert run.notes[-1] == "1 image of which some maps failed could not be drawn either"
    assert facts()["failed"] == 1
    assert [row["error"] is None for row in ledger()] == [False, False]


@pytest.mark.parametrize(
    "options",
    [
        {"target": ("red",), "score": "margin", "versus": ("green",)},
        {"target": ("channels:top:1:red",)},
        {"method": "activation", "target": ("channel:0",)},
    ],
    ids=["over", "channel of a class", "channel"],
)
def test_what_is_drawn_later_has_all_that_is_drawn_at_once(paint: Paint, go: Go, monkeypatch, options: dict) -> None:
    paint("in/a.png", (200, 100, 0))
    shown: list[Explanation] = []
    write = writer.write_files

    def seen(folder, style, picture, explanation, names):
        if "panel" in names:
            shown.append(explanation)
        return write(folder, style, picture, explanation, names)

    monkeypatch.setattr(writer, "write_files", seen)
    go("in", **options, save=("panel",))
    go("in", **options, save=("panel",), normalize="run", out="later")
    once, later = shown
    for field in fields(Explanation):
        if field.name not in ("map", "source", "view"):
            assert getattr(once, field.name) == getattr(later, field.name), field.name
    assert (once.map == later.map).all()


@pytest.mark.parametrize("name", ["../stolen", "/tmp/stolen-by-camcli", "in/../../stolen", "link/stolen"])
@pytest.mark.parametrize("kind", ["heatmap", "array"])
def test_a_ledger_that_somebody_changed_makes_it_write_and_read_nothing_outside(
    paint: Paint, go: Go, here: Path, tiny: str, name: str, kind: str
) -> None:
    paint("in/a.png", (60, 0, 0))
    go("in", **NORMALIZED)
    Path("out/link").symlink_to(here, target_is_directory=True)
    [row] = ledger()
    row["files"][kind] = name
    Path("out/outcomes.jsonl").write_text(json.dumps(row) + "\n")
    outside = here / "stolen"
    outside.write_bytes(Path("out/in/a.png.npy").read_bytes())
    before = outside.read_bytes()
    paint("in/b.png", (240, 0, 0))  # a stronger one: all are drawn again
    with Run(Job(model=tiny, inputs=("in/b.png",), out="out", device="cpu", **NORMALIZED)) as run:
        list(run)
    assert outside.read_bytes() == before
    assert not Path("/tmp/stolen-by-camcli").exists()
    if kind == "array":
        assert run.notes[-1] == "1 image of earlier runs could not be drawn at this scale: gone or changed"
    else:  # drawn in its own place
        assert "in/a.png.heatmap.png" in [row["files"]["heatmap"] for row in ledger()]
    # When the image is done again its old line goes, and nothing of what that named.
    go("in", **NORMALIZED, overwrite=True)
    assert outside.read_bytes() == before


def test_a_changed_picture_killed_before_it_is_drawn_keeps_no_old_drawing(paint: Paint, go: Go, tiny: str) -> None:
    paint("in/a.png", (240, 0, 0))
    paint("in/b.png", (120, 0, 0), box=(0, 0, 16, 32))
    go("in", **NORMALIZED)
    left_half = at_middle("in/b.png.heatmap.png")
    paint("in/b.png", (120, 0, 0), box=(14, 0, 32, 32))
    job = Job(model=tiny, inputs=("in",), out="out", device="cpu", **NORMALIZED)
    with Run(job) as run:
        outcomes = iter(run)
        assert [len(next(outcomes)), len(next(outcomes))] == [0, 1]
        outcomes.close()  # type: ignore[attr-defined]
    # The scale is the same, so that nothing else would have it drawn.
    go("in", **NORMALIZED)
    assert at_middle("in/b.png.heatmap.png") > left_half + 20
