"""What is said while one image takes minutes: masks done, and the time left for it."""

import io
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console as RichConsole
from shared import Paint
from typer.testing import CliRunner

from camcli.base import passes, timing
from camcli.base.passes import Counted, Passes, counting, naming
from camcli.cli import app, progress
from camcli.cli.console import Console
from camcli.cli.loading import STAGES
from camcli.runs.record.outcome import Counts


def test_masks_are_counted_while_an_image_takes_long(
    paint: Paint, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    monkeypatch.setattr(progress, "TICK", 0.05)
    paint("a.png")
    words = ["explain", "-m", f"{tiny_file}:slow", "a.png", "--method", "rise", "-o", "samples=24", "-b", "4"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = re.findall(r"0/1 \w+, \d+ s so far; rise: (\d+)/24 masks, \d+ s left for this image", result.stderr)
    assert found
    assert found == sorted(found, key=int)
    assert not passes.list_running()


def test_a_loop_is_counted_where_it_runs_and_forgotten_behind_it() -> None:
    with naming("rise"), counting(Counted(iter("abc"), 3), "masks", images=2) as one:
        assert passes.list_running() == [one]
        assert (one.method, one.total, one.images) == ("rise", 3, 2)
        assert one.estimate_seconds() is None
        one.began -= 10
        one.done = 2
        assert one.estimate_seconds() == pytest.approx(5, abs=0.1)
    assert not passes.list_running()


def test_loops_of_several_threads_are_told_apart() -> None:
    met = threading.Barrier(2)

    def run(method: str) -> None:
        with naming(method), counting([], "masks", 1) as one:
            met.wait(5)
            assert one.method == method
            met.wait(5)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("rise", "scorecam")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not passes.list_running()


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (Passes("rise", "masks", 4000, 1, 1000, began=-30.0), "rise: 1000/4000 masks, 90 s left for this image"),
        (Passes("smoothgrad", "samples", 50, 8, 10, began=0.0), "smoothgrad: 10/50 samples, 0 s left for these 8 im"),
        (Passes("rise", "masks", 4000, 1), "rise: 0/4000 masks"),
        (Passes("own", "masks", 0, 1, 7), "own: 7 masks"),
    ],
)
def test_a_loop_is_described(one: Passes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes.time, "monotonic", lambda: 0.0)
    (said,) = progress.describe_passes([one])
    assert said.startswith(words)


@pytest.mark.parametrize(
    ("method", "options", "seconds", "said"),
    [
        (
            "rise",
            {"samples": 4000, "cells": 7},
            30,
            "rise takes about 120 s for each map, for 40 masks",
        ),
        ("rise", {"samples": 4000}, 10, ""),
        ("scorecam", {}, 30, ""),
    ],
)
def test_of_a_loop_of_minutes_it_is_said_once_how_it_gets_quicker(
    method: str, options: dict[str, int], seconds: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = progress.SlowNotes(Console())
    with naming(method, options), counting(Counted([], 40), "masks", 1) as one:
        one.began -= seconds
        one.done = 10
        slow.tick()
        slow.tick()
    text = capsys.readouterr().err
    assert text.count("note:") == bool(said)
    assert said in text
    assert text.rstrip().endswith("-o samples=1000" if said else "")


def test_of_several_loops_the_longest_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes.time, "monotonic", lambda: 0.0)
    two = [Passes("rise", "masks", 100, 1, done, began=-10.0) for done in (50, 20)]
    assert progress.describe_passes(two) == ["rise: 20/100 masks, 40 s left for this image"]
    assert progress.describe_passes([]) == []


def test_a_bar_has_a_line_on_masks_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = RichConsole(file=io.StringIO(), force_terminal=True, width=100)
    bar = progress.PassesProgress(console=screen)
    assert len(list(bar.get_renderables())) == 1
    with naming("rise"), counting(Counted([], 10), "masks", 1) as one:
        assert len(list(bar.get_renderables())) == 1  # most loops are over before anybody looks
        one.began -= 5
        *_, line = bar.get_renderables()
        assert str(line).startswith("rise: 0/10 masks")


def test_a_line_comes_only_after_a_silence(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = progress.LineReporter(Console(), Counts(), 3)
    reporter.tick()
    assert capsys.readouterr().err == ""
    reporter.last_line -= progress.SILENCE
    reporter.tick()
    reporter.tick()
    assert capsys.readouterr().err.splitlines() == [f"{reporter.format_line()}, 0 s so far"]


def test_loading_that_takes_long_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK", 0.01)
    monkeypatch.setattr("camcli.cli.console.SILENCE", 0.05)
    with Console().working("loading resnet50"):
        threading.Event().wait(0.3)
    with Console(quiet=True).working("loading resnet50"):
        threading.Event().wait(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert set(lines) == {"loading resnet50, 0 s so far"}


def test_what_takes_long_is_named_once_the_weights_are_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "TICK", 0.01)
    monkeypatch.setattr("camcli.cli.console.SILENCE", 0.05)
    with Console().working("loading resnet50", STAGES), timing.within("load"):
        threading.Event().wait(0.1)
        with timing.within("trial"), timing.within("place"):
            threading.Event().wait(0.2)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert (first, last) == (
        "loading resnet50, 0 s so far",
        "measuring where the layer's cells look, 0 s since the start",
    )
