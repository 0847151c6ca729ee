"""Another job in the same folder: refused, overwritten, or dropped, and what of it stays."""

from dataclasses import replace
from pathlib import Path

import pytest
from readback import facts, files, ledger
from resumed_runs import changes, times
from shared import Go, Paint

from camcli.base.errors import RequestError
from camcli.runs.explain.run import Run, plan_run
from camcli.runs.job.job import Job
from camcli.runs.record.failures import RESULT_STAYS


@pytest.mark.usefixtures("two")
def test_another_job_is_refused_with_what_is_different_and_nothing_is_touched(go: Go) -> None:
    go("in")
    before, lines, run = times(), ledger(), facts()
    with pytest.raises(RequestError, match="contains the results of another job") as caught:
        go("in", background="#000000", target=("red",))
    assert f"target was ['auto'], is ['red']; background was {Job().background!r}, is '#000000'" in caught.value.message
    assert "--overwrite" in caught.value.hint
    assert (changes(before), ledger(), facts()) == (set(), lines, run)


@pytest.mark.usefixtures("two")
def test_overwrite_does_the_same_again_and_replaces_another_job(go: Go) -> None:
    go("in", target=("top:1",))
    before = times()
    assert [len(each) for each in go("in", target=("top:1",), overwrite=True)] == [1, 1]
    assert changes(before) == set(files())
    go("in", save=("array",), overwrite=True)
    assert files() == ["in/a.png.npy", "in/b.png.npy"]  # nothing of the other job is left
    assert len(ledger()) == 2
    assert go("in", save=("array",)) == [[], []]


@pytest.mark.usefixtures("two")
def test_what_another_job_did_of_pictures_not_named_goes_only_by_a_word_of_its_own(go: Go) -> None:
    go("in")
    before, lines = times(), ledger()
    message = r"'out' contains another job's results of 1 image that are not in this run: in/b.png \(background was"
    with pytest.raises(RequestError, match=message) as caught:
        go("in/a.png", background="#000000", overwrite=True)
    assert "--overwrite --drop-others" in caught.value.hint
    assert (changes(before), ledger()) == (set(), lines)
    go("in/a.png", background="#000000", overwrite=True, drop_others=True)
    assert files() == ["in/a.png.overlay.jpg"]
    assert [row["name"] for row in ledger()] == ["in/a.png"]
    assert go("in/a.png", background="#000000") == [[]]
    with pytest.raises(RequestError, match="no effect without --overwrite"):
        go("in/a.png", background="#000000", drop_others=True)


@pytest.mark.usefixtures("two")
def test_nothing_is_dropped_for_a_run_that_did_nothing(go: Go, here: Path, tiny: str) -> None:
    go("in")
    before, lines = times(), ledger()
    (here / "c.png").write_text("no image")
    job = Job(
        model=tiny, inputs=("c.png",), out="out", device="cpu", background="#000000", overwrite=True, drop_others=True
    )
    with Run(job) as run:
        list(run)
    assert run.notes[-1] == "no image could be processed, so the results of other jobs are kept"
    assert (changes(before), ledger()[:2]) == (set(), lines)


@pytest.mark.usefixtures("two")
def test_of_names_on_standard_input_nobody_knows_which_they_replace(tiny: str, go: Go, here: Path) -> None:
    go("in")
    (here / "names").write_text("in/a.png\n")
    job = Job(model=tiny, inputs=("-",), out="out", device="cpu", background="#000000", overwrite=True)
    message = "results of 2 images and standard input may not name all"
    with pytest.raises(RequestError, match=message), Run(job):
        pass
    with (here / "names").open("rb") as names, Run(replace(job, drop_others=True), names) as run:
        list(run)
    assert files() == ["in/a.png.overlay.jpg"]


@pytest.mark.usefixtures("two")
def test_overwrite_of_what_cannot_be_done_keeps_what_another_job_did(go: Go, here: Path) -> None:
    go("in")
    (here / "in/b.png").unlink()
    (here / "list.txt").write_text("in/a.png\nin/b.png\n")
    [done], [failed] = go("@list.txt", colormap="jet", overwrite=True)
    assert (done.error, failed.notes) == (None, (RESULT_STAYS,))
    assert files() == ["in/a.png.overlay.jpg", "in/b.png.overlay.jpg"]
    assert [row["name"] for row in ledger()] == ["in/b.png", "in/a.png", "in/b.png"]
    assert [len(each) for each in go("@list.txt", colormap="jet")] == [0, 1]


def test_namesakes_count_by_the_names_that_they_get(paint: Paint, go: Go, here: Path, tiny: str, monkeypatch) -> None:
    out, other = str(here / "out"), {"background": "#000000", "overwrite": True}
    for folder in "ab":
        paint(f"{folder}/x.png", (250, 0, 0))
    monkeypatch.chdir(here / "a")
    go("x.png", out=out)
    monkeypatch.chdir(here / "b")
    for _ in range(2):  # at first only that of the other folder is there, then both
        with pytest.raises(RequestError, match=r"results of 1 image that are not in this run: x.png \("):
            go("x.png", out=out, **other)
        go("x.png", out=out)
    go("x.png", out=out, **other, drop_others=True)
    [row] = ledger(out)
    assert row["name"].startswith("x~")
    # It keeps its name, and is known to be done, though no other has the plain name now.
    job = Job(model=tiny, inputs=("x.png",), out=out, device="cpu", background="#000000")
    assert plan_run(Run(job)).done == 1
    assert go("x.png", out=out, background="#000000") == [[]]
