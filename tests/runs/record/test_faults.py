"""Every single write faulted in turn: nothing is torn, and the same commands again come to the same end."""

import errno
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ledgers import outcome
from shared import Paint
from typer.testing import CliRunner

from camcli.base.errors import OutputError
from camcli.cli import app
from camcli.runs.job.shard import Shard
from camcli.runs.record.ledger import FILE, Ledger
from camcli.runs.record.lines import LineFile
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.table import write_table

ERRORS = [OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE)]
# Modes in which records are opened to be written.
BINARY = ("ab", "xb", "rb+")
OLD, NEW = "10-20", "10-21"
RUNS = itertools.count()


def find_path(given: int | str | Path) -> str:
    return str(Path(f"/proc/self/fd/{given}").readlink() if isinstance(given, int) else Path(given).absolute())


class Fault:
    """Counts writes of one kind, and makes one of them fail."""

    def __init__(self, which: int, error: OSError) -> None:
        self.which, self.error, self.calls = which, error, 0

    def __call__(self, half: Callable[[], object] = lambda: None) -> None:
        self.calls += 1
        if self.calls - 1 == self.which:
            half()
            raise self.error


class FaultyFile:
    """File whose writes may fail half way."""

    def __init__(self, file: Any, fault: Fault) -> None:
        self.file, self.fault = file, fault

    def write(self, data: Any) -> int:
        self.fault(lambda: self.file.write(bytes(data)[: len(data) // 2]))
        return self.file.write(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __enter__(self) -> "FaultyFile":
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@contextmanager
def faulty(kind: str, fault: Fault, below: Path) -> Iterator[None]:
    """Faults in one kind of the calls that write maps, records and locks below a folder.

    The log is only written if it can be, and so are the caches elsewhere.
    """
    opened, whole = Path.open, getattr(os, kind, None)

    def call(*given: Any, **named: Any) -> Any:
        path = find_path(given[0])
        if path.startswith(str(below)) and (kind != "open" or path.endswith((".tmp", ".lock"))):
            fault(lambda: whole(given[0], bytes(given[1])[: len(given[1]) // 2]) if kind == "write" else None)
        return whole(*given, **named)

    def open_path(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        ours = mode in BINARY and find_path(path).startswith(str(below))
        if kind == "Path.open" and ours:
            fault()
        file = opened(path, mode, *more, **named)
        return FaultyFile(file, fault) if kind == "file" and ours else file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_path)
        if whole:
            patch.setattr(os, kind, call)
        yield


def explain(out: Path) -> None:
    """What a job does to its folder: two shards, a run of all that does an image anew, and a table."""
    for shard in (Shard(1, 2), Shard(2, 2)):
        with Ledger(out, "j1", Outcome, durable=True, shard=shard) as ledger:
            for name in filter(shard.holds, "abcd"):
                if not any(ledger.is_done(name, stamp) for stamp in (OLD, NEW)):
                    do(ledger, name, OLD, f"{name}.png")
            ledger.folder.write(f"shards/{shard.folder_name}/run.json", b"{}")
    with Ledger(out, "j1", Outcome, durable=True) as ledger:
        if not ledger.is_done("a", NEW):
            do(ledger, "a", NEW, "sub/a.other.png")
    lines = LineFile(out / FILE, Outcome)
    write_table((lines.parse(head) for _, block in lines.iter_blocks() for head in block), out / "table.jsonl")


def do(ledger: Ledger[Outcome], name: str, stamp: str, file: str) -> None:
    content = f"the whole map of {name}".encode()
    ledger.folder.write(file, content)
    sizes = {"overlay": len(content)}
    ledger.append([outcome(name, f"r{next(RUNS):06}", stamp=stamp, files={"overlay": file}, sizes=sizes)])


def read_end(out: Path) -> dict[str, Any]:
    """All files, and the record without the ids of runs; no others are there."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != ".camcli.lock"):
        name = path.relative_to(out).as_posix()
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            found[name] = sorted(({**row, "run": ""} for row in rows), key=lambda row: row["name"])
        else:
            found[name] = path.read_bytes()
    return found


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("open", "fsync", "mkdir", "Path.open")]


@pytest.mark.parametrize("kind", ["write", "replace", "unlink", "file", *SLOW])
def test_any_write_that_fails_tears_nothing_and_the_job_goes_on_to_the_same_end(tmp_path: Path, kind: str) -> None:
    count = Fault(-1, ERRORS[0])
    with faulty(kind, count, tmp_path):
        explain(tmp_path / "whole")
    whole = read_end(tmp_path / "whole")
    assert count.calls >= 2
    for which in range(count.calls):
        out = tmp_path / f"{which}"
        fault = Fault(which, ERRORS[which % len(ERRORS)])
        with faulty(kind, fault, tmp_path), suppress(OutputError, OSError):
            explain(out)
        for path in (*out.glob("*.png"), *out.glob("sub/*.png")):
            assert path.read_bytes().startswith(b"the whole map of "), (which, path)
        for path in out.rglob("*.jsonl"):
            assert all(json.loads(line) for line in path.read_bytes().splitlines()), (which, path)
        assert not (out / "table.jsonl").exists() or read_end(out)["table.jsonl"] == whole["table.jsonl"]
        explain(out)
        found = read_end(out)
        if kind == "unlink":  # an old file that cannot be deleted is said once, and stays
            found.pop("a.png", None)
        assert found == whole, (which, fault.calls)


@pytest.mark.parametrize("kind", ["write", "replace", "file"])
def test_a_write_that_fails_at_the_start_or_in_a_merge_is_an_error_and_the_same_command_helps(
    paint: Paint, tiny: str, kind: str
) -> None:
    for number in range(5):
        paint(f"in/{number}.png")
    run = CliRunner().invoke
    words = ["explain", "in", "--model", tiny, "--device", "cpu", "--out", "out", "--batch-size", "1", "--shard"]
    merge = ["merge", "out", "--to", "all.jsonl"]
    for command in ([*words, "1/2"], [*words, "2/2"], merge):
        with faulty(kind, Fault(0, ERRORS[1]), Path.cwd()):
            said = run(app, command)
        if kind != "write" or command is not merge:  # nothing of a merge is written by the system's write
            assert said.exit_code == 1, said.output
            assert "Input/output error" in said.output, said.output
        assert run(app, command).exit_code == 0
    assert [len(path.read_bytes().splitlines()) for path in (Path("out", FILE), Path("all.jsonl"))] == [5, 5]


def test_a_full_or_closed_folder_a_lost_image_and_too_many_open_files_are_said(paint: Paint, tiny: str) -> None:
    for name in "abcd":
        paint(f"in/{name}.png")
    run = CliRunner().invoke
    words = ["explain", "in", "--model", tiny, "--device", "cpu", "--out", "out", "--shard", "1/1"]
    Path("in/b.png").unlink()
    Path("in/b.png").symlink_to("gone.png")
    said = run(app, words)
    assert (said.exit_code, "b.png" in said.output) == (1, True), said.output
    with faulty("open", Fault(0, ERRORS[3]), Path.cwd()):
        said = run(app, words)
    assert (said.exit_code, "cannot be written to: Too many open files" in said.output) == (1, True), said.output
    readonly = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with faulty("mkdir", Fault(0, readonly), Path.cwd()):
        said = run(app, [*words, "--out", "new"])
    assert (said.exit_code, "cannot be written to: Read-only file system" in said.output) == (1, True), said.output
