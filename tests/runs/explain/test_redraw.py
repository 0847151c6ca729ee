"""One scale for the whole run: maps drawn after the last image, and drawn again when a stronger one joins."""

from pathlib import Path

import pytest
from readback import facts, files
from resumed_runs import NORMALIZED, at_middle, changes, times
from shared import Go, Paint

from camcli.runs.explain import writer
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job


def test_an_empty_drawing_is_drawn_again(paint: Paint, go: Go) -> None:
    paint("in/full.png", (240, 0, 0))
    go("in", **NORMALIZED)
    Path("out/in/full.png.heatmap.png").write_bytes(b"")
    assert go("in", **NORMALIZED) == [[]]
    assert at_middle("in/full.png.heatmap.png") == 255


def test_one_scale_for_the_run_redrawn_when_a_stronger_picture_joins(paint: Paint, go: Go) -> None:
    paint("in/half.png", (120, 0, 0))
    paint("in/weak.png", (60, 0, 0))
    go("in", **NORMALIZED)
    assert files() == ["in/half.png.heatmap.png", "in/half.png.npy", "in/weak.png.heatmap.png", "in/weak.png.npy"]
    strong = at_middle("in/half.png.heatmap.png")
    assert strong == 255  # the strongest of the run
    middle = at_middle("in/weak.png.heatmap.png")
    assert 90 < middle < 150  # half as strong
    assert facts()["scale"] == pytest.approx(10 / 64 * 120 / 255, rel=1e-6)
    before = times()
    assert go("in", **NORMALIZED) == [[], []]
    assert changes(before) == set()
    paint("in/full.png", (240, 0, 0))
    assert [len(each) for each in go("in", **NORMALIZED)] == [1, 0, 0]
    assert facts()["scale"] == pytest.approx(10 / 64 * 240 / 255, rel=1e-6)
    assert at_middle("in/full.png.heatmap.png") == 255
    assert abs(at_middle("in/half.png.heatmap.png") - middle) <= 1
    assert at_middle("in/weak.png.heatmap.png") < middle - 30
    assert "in/half.png.npy" not in changes(before)  # drawn anew, not computed anew


def test_a_weaker_picture_that_joins_changes_no_other_drawing(paint: Paint, go: Go) -> None:
    paint("in/full.png", (240, 0, 0))
    go("in", **NORMALIZED)
    before = times()
    paint("in/weak.png", (60, 0, 0))
    go("in", **NORMALIZED)
    assert changes(before) == {"in/weak.png.heatmap.png", "in/weak.png.npy"}


def test_a_drawing_that_was_removed_is_drawn_again(paint: Paint, go: Go) -> None:
    paint("in/full.png", (240, 0, 0))
    go("in", **NORMALIZED)
    Path("out/in/full.png.heatmap.png").unlink()
    assert go("in", **NORMALIZED) == [[]]
    assert "in/full.png.heatmap.png" in files()


def test_interrupted_before_drawing_and_resumed(paint: Paint, go: Go, tiny: str) -> None:
    for number, red in enumerate((60, 120, 240)):
        paint(f"in/{number}.png", (red, 0, 0))
    job = Job(model=tiny, inputs=("in",), out="out", **NORMALIZED)
    with Run(job) as run:
        outcomes = iter(run)
        next(outcomes)
        with pytest.raises(KeyboardInterrupt):
            outcomes.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert not list(Path("out").rglob("*.heatmap.png"))
    go("in", **NORMALIZED)
    assert len(list(Path("out").rglob("*.heatmap.png"))) == 3
    assert at_middle("in/2.png.heatmap.png") == 255


def test_interrupted_while_drawing_and_resumed(paint: Paint, go: Go, tiny: str, monkeypatch) -> None:
    for number, red in enumerate((60, 120)):
        paint(f"in/{number}.png", (red, 0, 0))
    go("in", **NORMALIZED)
    paint("in/2.png", (240, 0, 0))
    # The second drawing at the new scale is where Ctrl-C strikes.
    drawn = []
    original = writer.write_files

    def struck(folder, style, picture, explanation, files):
        if "heatmap" in files:
            drawn.append(files)
            if len(drawn) == 2:
                raise KeyboardInterrupt
        return original(folder, style, picture, explanation, files)

    with monkeypatch.context() as patched:
        patched.setattr(writer, "write_files", struck)
        with pytest.raises(KeyboardInterrupt):
            go("in", **NORMALIZED, workers=1)
    go("in", **NORMALIZED)
    greys = [at_middle(f"in/{number}.png.heatmap.png") for number in range(3)]
    assert greys[2] == 255
    assert greys[0] < greys[1] - 30 < greys[2] - 60


def test_another_jobs_drawings_do_not_pass_for_this_ones_after_an_interruption(
    paint: Paint, go: Go, tiny: str, pixels
) -> None:
    paint("in/a.png", (240, 0, 0))
    go("in", **NORMALIZED)
    jet = {**NORMALIZED, "colormap": "jet"}
    with Run(Job(model=tiny, inputs=("in",), out="out", overwrite=True, **jet)) as run:
        outcomes = iter(run)
        next(outcomes)  # the map is made; the drawing of the other job, of the same name, still lies there
        outcomes.close()  # type: ignore[attr-defined]
    go("in", **jet)
    assert pixels("out/in/a.png.heatmap.png")[16, 16].tolist() == [128, 0, 0]  # the end of jet


def test_a_picture_of_an_earlier_run_that_is_gone_keeps_its_drawing_and_a_note_says_so(
    paint: Paint, here: Path, go: Go, tiny: str
) -> None:
    paint("in/a.png", (60, 0, 0))
    paint("in/b.png", (90, 0, 0))
    go("in", **NORMALIZED)
    before = times()
    (here / "in/a.png").unlink()
    paint("in/c.png", (240, 0, 0))
    with Run(Job(model=tiny, inputs=("in",), out="out", device="cpu", **NORMALIZED)) as run:
        assert [[one.error for one in outcomes] for outcomes in run] == [[], [None]]
        assert run.notes[-1] == "1 image of earlier runs could not be drawn at this scale: gone or changed"
    assert times()["in/a.png.heatmap.png"] == before["in/a.png.heatmap.png"]
    assert changes(before) == {"in/b.png.heatmap.png", "in/c.png.heatmap.png", "in/c.png.npy"}


def test_a_picture_that_changes_while_the_run_goes_on_fails_and_is_done_again(paint: Paint, go: Go, tiny: str) -> None:
    for number, red in enumerate((60, 120)):
        paint(f"in/{number}.png", (red, 0, 0))
    with Run(Job(model=tiny, inputs=("in",), out="out", device="cpu", **NORMALIZED)) as run:
        outcomes = iter(run)
        assert [one.error for one in next(outcomes)] == [None]
        paint("in/0.png", (61, 0, 7), size=(40, 40))
        *_, (failed,) = outcomes
    assert failed.name == "in/0.png"
    assert failed.error == "it cannot be drawn: the image was changed since"
    assert (facts()["failed"], facts()["pictures"]) == (1, 2)
    assert files() == ["in/0.png.npy", "in/1.png.heatmap.png", "in/1.png.npy"]
    assert [len(each) for each in go("in", **NORMALIZED)] == [1, 0]
    assert "in/0.png.heatmap.png" in files()


def test_none_draws_the_map_as_it_is(paint: Paint, go: Go) -> None:
    # At `stem` the map of the brightest red is 10/256: 0.039 * 255 = 10 of 255 levels.
    paint("a.png", (255, 0, 0))
    go("a.png", **{**NORMALIZED, "normalize": "none"}, layers=("stem",))
    assert 5 <= at_middle("a.png.heatmap.png") <= 12
