"""The log file of a command, and --debug."""

import sys
from pathlib import Path

import pytest
from shared import GREEN, RED, Paint
from typer.testing import CliRunner, Result

from camcli.base.log import LOGGER
from camcli.cli import app, log


def explain(tiny: str, *words: str) -> Result:
    return CliRunner().invoke(app, ["explain", "in", "--model", tiny, "--out", "out", *words])


@pytest.fixture
def log_file(here: Path, paint: Paint) -> Path:
    paint("in/a.png", RED)
    paint("in/b.png", GREEN)
    (here / "in/c.png").write_bytes(b"no image")
    return here / "out/camcli.log"


def test_the_log_has_what_was_said_with_times_and_tracebacks(
    log_file: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["camcli", "explain", "in", "--quiet"])
    result = explain(tiny, "--quiet")
    assert result.exit_code == 1
    text = log_file.read_text()
    assert text.splitlines()[0].endswith("INFO camcli 0.1.0: explain in --quiet")
    for words in (
        ", torch 2.",
        f"INFO model: {tiny}",
        "WARNING failed: in/c.png: ",
        "DEBUG in/c.png failed\nTraceback (most recent call last):",
        "2 done, 1 failed in ",
        "INFO time: ",
    ):
        assert words in text
    assert "Traceback" not in result.stderr
    assert "2 done" not in result.stderr
    assert explain(tiny, "--method", "layercam").exit_code == 2  # refused: another job's results are there
    assert log_file.read_text() == text
    explain(tiny)
    assert "1 failed, 2 done before in" in log_file.read_text().removeprefix(text)
    assert not LOGGER.handlers


def test_debug_prints_tracebacks_timings_and_versions(log_file: Path, tiny: str) -> None:
    result = explain(tiny, "--debug")
    assert "in/c.png failed\nTraceback (most recent call last):" in result.stderr
    time_line = next(line for line in result.stderr.splitlines() if line.startswith("time: "))
    for stage in ("find", "load", "trial", "wait for images", "compute", "in all", "decode", "draw and write"):
        assert f"{stage} " in time_line
    assert "\nversions: python 3." in result.stderr
    refused = explain(tiny, "--debug", "-l", "nowhere")
    assert refused.exit_code == 2
    assert "RequestError: " in refused.stderr


def test_an_error_of_our_own_is_logged(log_file: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("camcli.runs.record.session.Session.drop_others", fail)
    assert isinstance(explain(tiny).exception, ZeroDivisionError)
    assert "ZeroDivisionError: ours" in log_file.read_text()


def test_the_log_is_limited_and_never_a_link(
    log_file: Path, here: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_BYTES", 500)
    explain(tiny)
    assert log_file.with_name("camcli.log.1").exists()
    assert log_file.stat().st_size < 4000
    log_file.unlink()
    log_file.symlink_to(here / "other")
    assert explain(tiny).exit_code == 1
    assert not (here / "other").exists()
