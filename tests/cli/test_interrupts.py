"""Commands interrupted, and streams that are full, closed or cannot say every name."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import do, explain
from readback import files, ledger
from shared import Paint

# Ctrl-C is heard, even where the tests themselves were started by a shell that ignores it in the background.
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from camcli.cli import main; main()"


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_says_so_and_what_was_done_stays(
    paint: Paint, tiny_file: Path, sign: signal.Signals, code: int
) -> None:
    for number in range(60):
        paint(f"in/{number}.png", (200, number, 0))
    words = ["explain", "in", "--model", f"{tiny_file}:slow", "--out", "out", "--json", "-b", "1"]
    command = [sys.executable, "-c", HEARING]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(sign)
        sent = time.monotonic()
        process.stdout.read()
        said = process.stderr.read().decode()
    assert process.returncode == code, said
    assert time.monotonic() - sent < 5
    assert said.index("stopping after the images in progress") < said.index("interrupted; ")
    counts = re.search(r"interrupted; (\d+) done, (\d+) left; finished results are kept, and the same command", said)
    assert "Traceback" not in said
    done = [row["name"] for row in ledger()]
    assert done[0] == first["name"] == "in/0.png"
    assert 0 < len(done) < 60
    assert counts
    assert len(done) - int(counts[1]) in (0, 1)  # it may strike after a line is written and before it is counted
    assert int(counts[1]) + int(counts[2]) == 60
    # Of those that were being written when it struck, some may lie there whole without a line; they are done again.
    assert {f"{name}.overlay.jpg" for name in done} <= set(files())
    assert not list(Path("out").rglob("*.tmp"))
    # The same command again goes on from there.
    again = explain(f"{tiny_file}:make", "in")  # another job: its function is another
    assert again.exit_code == 2
    more = do("explain", *words[1:], "-b", "60")
    assert more.exit_code == 0, more.stderr
    assert f"{60 - len(done)} done, {len(done)} done before" in more.stderr
    assert len(files()) == len(ledger()) == 60


# An image that is never written to its end.
HANGING = HEARING.replace(
    "from camcli.cli",
    "import threading; from camcli.runs.explain import writer; "
    "writer.write_files = lambda *given: threading.Event().wait(); "
    "from camcli.cli",
)


def test_a_second_interrupt_ends_it_at_once(paint: Paint, tiny: str) -> None:
    for number in range(8):
        paint(f"in/{number}.png", (200, number, 0))
    words = ["explain", "in", "--model", tiny, "--out", "out", "--batch-size", "1", "--layer", "stem"]
    with subprocess.Popen([sys.executable, "-c", HANGING, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "target:" not in said:
            said += process.stderr.readline()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        while "stopping after the images in progress" not in said:
            said += process.stderr.readline()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)  # it is stopping already
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        assert "Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_ends_it_quietly(paint: Paint, tiny_file: Path, command: list[str]) -> None:
    for number in range(60):
        paint(f"in/{number}.png", (200, number, 0))
    words = ["explain", "in", "--model", f"{tiny_file}:slow", "--out", "out", "--json", "-b", "1", "-q"]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()  # as head -1 does
        said = process.stderr.read()
    assert process.returncode == 141
    assert said == b""
    assert 0 < len(ledger()) < 60


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_standard_output_that_is_full_is_said_in_a_line(paint: Paint, tiny: str, command: list[str]) -> None:
    paint("a.png")
    words = ["explain", "a.png", "--model", tiny, "--out", "out", "--json", "-q"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*command, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: standard output cannot be written to: No space left on device"]


def test_streams_that_are_closed_end_nothing(paint: Paint, tiny: str, command: list[str]) -> None:
    paint("a.png")
    words = shlex.join([*command, "explain", "a.png", "--model", tiny, "--out", "out"])
    assert subprocess.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"], check=False).returncode == 0
    assert len(ledger()) == 1


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_streams_that_cannot_say_every_name_write_escapes(
    paint: Paint, tiny: str, command: list[str], encoding: str
) -> None:
    paint("kätzchen 猫.png")
    settings = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    ranked = ["channels", tiny, "kätzchen 猫.png", "--top", "1", "--out", "ranked"]
    mapped = ["explain", "kätzchen 猫.png", "--model", tiny, "--out", "out", "-v"]
    for words in (ranked, mapped, ["methods"], ["models", "--cached"], ["layers", tiny], ["explain", "--help"]):
        done = subprocess.run([*command, *words], capture_output=True, env=settings, check=False)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        if words is ranked:
            assert b"\\u732b.png" in done.stdout


def test_python_m_camcli_reads_stdin(paint: Paint, tiny: str, command: list[str]) -> None:
    paint("a b.png")
    done = subprocess.run(
        [*command, "explain", "-", "-0", "--model", tiny, "--json", "--out", "out"],
        input=b"a b.png\0",
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        check=True,
    )
    assert json.loads(done.stdout)["source"] == "a b.png"
