"""Writes that fail: half way, a full disk, a disk that is broken. What stood there stays whole, and it is said."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from readback import facts, files, ledger
from shared import Go, Paint

from camcli.base import atomic
from camcli.base.errors import OutputError
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.job.shard import Shard
from camcli.runs.record.folder import LOCK_FILE, Folder
from camcli.runs.record.ledger import FILE, Ledger
from camcli.runs.record.outcome import Outcome

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


class Break:
    """Makes the system's write (to temporary files), fsync or replace fail, from one call on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.mend = patch.undo

    def __call__(self, what: str, error: OSError, after: int = 0, times: int = 10**6) -> None:
        whole, calls = getattr(os, what), 0

        def failing(*given, **named):
            nonlocal calls
            ours = what != "write" or is_temporary(given[0])
            calls += ours
            if ours and after < calls <= after + times:
                if what == "write":  # half of it gets there
                    whole(given[0], bytes(given[1])[: len(given[1]) // 2])
                raise error
            return whole(*given, **named)

        self.patch.setattr(os, what, failing)


@pytest.fixture
def broken() -> Iterator[Break]:
    with pytest.MonkeyPatch.context() as patch:
        yield Break(patch)


def is_temporary(descriptor: int) -> bool:
    return atomic.TEMPORARY_NAME.fullmatch(Path(f"/proc/self/fd/{descriptor}").readlink().name) is not None


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE)


@pytest.mark.parametrize("what", ["write", "replace", "fsync"])
@pytest.mark.parametrize("error", [FULL, BROKEN], ids=["full", "broken"])
def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_behind(
    tmp_path: Path, broken: Break, what: str, error: OSError
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"the old one")
    broken(what, error)
    with pytest.raises(OSError, match=error.strerror):
        atomic.write(path, b"the new one", durable=True)
    assert path.read_bytes() == b"the old one"
    assert left(tmp_path) == ["a.png"]


def test_a_write_that_takes_a_part_at_a_time_gets_all_there(tmp_path: Path, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    atomic.write(tmp_path / "a.png", b"ten bytes.")
    assert (tmp_path / "a.png").read_bytes() == b"ten bytes."


def test_a_process_that_dies_half_way_through_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "sub/a.png"
    path.parent.mkdir()
    path.write_bytes(b"the old one")
    code = (
        "import os\nfrom pathlib import Path\nfrom camcli.runs.record.folder import Folder\nwrite = os.write\n"
        "os.write = lambda file, data: (write(file, data[:5]), os._exit(9))\n"
        f"Folder(Path({str(tmp_path)!r})).write('sub/a.png', b'the new one')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert path.read_bytes() == b"the old one"
    [half] = [name for name in left(tmp_path) if name != "a.png"]
    assert (tmp_path / half).read_bytes() == b"the n"  # at the top, where the next run finds it
    with Folder(tmp_path):
        assert left(tmp_path) == ["a.png"]


def test_outputs_are_never_opened_under_their_own_names(paint: Paint, go: Go, monkeypatch) -> None:
    paint("in/a.png")
    opened: list[str] = []
    whole = os.open

    def noted(path, flags, *more, **named):
        if flags & (os.O_WRONLY | os.O_RDWR):
            opened.append(Path(path).name)
        return whole(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", noted)
    go("in", save=("overlay", "array", "panel", "heatmap"))
    assert sum(atomic.TEMPORARY_NAME.fullmatch(name) is not None for name in opened) == 4 + 2  # and run.json, twice
    assert {Path(name).name for name in (*files(), "run.json")}.isdisjoint(opened)


def test_a_picture_whose_file_cannot_be_written_fails_and_its_old_result_stays(
    paint: Paint, go: Go, broken: Break
) -> None:
    paint("in/a.png")
    paint("in/b.png")
    go("in", batch_size=1, workers=1)
    before = {name: Path("out", name).read_bytes() for name in files()}
    broken("write", BROKEN, after=1, times=1)  # run.json first
    first, second = go("in", batch_size=1, workers=1, overwrite=True)
    assert "Input/output error" in (first[0].error or "")
    assert second[0].error is None
    assert {name: Path("out", name).read_bytes() for name in files()} == before
    assert [(row["name"], row["error"] is None) for row in ledger()] == [
        ("in/a.png", True),
        ("in/a.png", False),
        ("in/b.png", True),
    ]


def test_a_disk_that_fills_half_way_through_a_file_ends_the_run_and_it_goes_on_later(
    paint: Paint, tiny: str, go: Go, broken: Break
) -> None:
    for name in "abc":
        paint(f"in/{name}.png")
    job = Job(model=tiny, inputs=("in",), out="out", device="cpu", batch_size=1, workers=1)
    broken("write", FULL, after=2)  # run.json and a.png
    with pytest.raises(OutputError, match="'out' cannot be written to: No space left"), Run(job) as run:
        list(run)
    broken.mend()
    assert files() == ["in/a.png.overlay.jpg"]
    assert "finished" not in facts()
    assert [len(each) for each in go("in")] == [0, 1, 1]


def outcome(name: str, run: str = "r1", **more) -> Outcome:
    values = {"stamp": "10-20", "files": {"overlay": f"{name}.png"}, **more}
    return Outcome(source=name, name=name, run=run, job="j1", **values)


@pytest.mark.parametrize("error", [FULL, BROKEN], ids=["full", "broken"])
@pytest.mark.parametrize("what", ["replace", "fsync"])
def test_a_ledger_that_cannot_be_tidied_up_stays_and_is_the_next_time(
    tmp_path: Path, broken: Break, what: str, error: OSError
) -> None:
    for name in ("a.1.png", "a.2.png"):
        (tmp_path / name).write_text(name)
    with Ledger(tmp_path, "j1", Outcome) as one:
        one.append([outcome("a", files={"overlay": "a.1.png"})])
    with (
        pytest.raises(OutputError, match=error.strerror),
        Ledger(tmp_path, "j1", Outcome) as one,
    ):
        one.append([outcome("a", run="r2", files={"overlay": "a.2.png"})])
        one.folder.durable = True
        broken(what, error)
    broken.mend()
    assert len((tmp_path / FILE).read_bytes().splitlines()) == 2
    assert not list(tmp_path.glob(".camcli-*.tmp"))
    with Ledger(tmp_path, "j1", Outcome) as one:
        assert one.is_done("a", "10-20")
    assert len((tmp_path / FILE).read_bytes().splitlines()) == 1
    assert left(tmp_path) == ["a.2.png", FILE]


def test_a_line_that_cannot_be_synced_is_taken_back(tmp_path: Path, broken: Break) -> None:
    with Ledger(tmp_path, "j1", Outcome, durable=True) as one:
        one.append([outcome("a")])
        before = (tmp_path / FILE).read_bytes()
        broken("fsync", BROKEN)
        with pytest.raises(OutputError, match="Input/output error"):
            one.append([outcome("b")])
        broken.mend()
        assert (tmp_path / FILE).read_bytes() == before


def test_a_folder_moved_away_in_the_middle_of_a_write_is_not_made_anew(tmp_path: Path, monkeypatch) -> None:
    out, fill = tmp_path / "out", atomic.fill

    def struck(path: Path, content: bytes, durable: bool = False) -> None:
        fill(path, content, durable)
        out.rename(tmp_path / "away")

    with Folder(out) as folder:
        monkeypatch.setattr(atomic, "fill", struck)
        with pytest.raises(OutputError, match="is gone"):
            folder.write("in/a.png", b"good")
    assert not out.exists()


def test_a_folder_below_on_another_file_system_is_written_to_all_the_same(tmp_path: Path, broken: Break) -> None:
    # What rename says where temporary file and target are on two file systems, as by a link below the output folder.
    broken("replace", OSError(errno.EXDEV, "Invalid cross-device link"), times=1)
    atomic.write(tmp_path / "sub/a.png", b"good", top=tmp_path)
    assert (tmp_path / "sub/a.png").read_bytes() == b"good"
    assert left(tmp_path) == ["a.png"]


def test_a_system_out_of_threads_is_said(paint: Paint, tiny: str, monkeypatch) -> None:
    from typer.testing import CliRunner

    from camcli.cli import app

    paint("in/a.png")
    words = ["explain", "in", "--model", tiny, "--device", "cpu", "--out", "out"]

    def none(*given, **named):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", none)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "error: the system cannot start more threads: its limit is reached" in result.stderr
    assert "--workers 1" in result.stderr


def test_durable_writes_reach_the_disk_in_an_order_that_a_power_cut_can_stop_anywhere(
    tmp_path: Path, monkeypatch
) -> None:
    out, events = tmp_path / "new/out", list[str]()
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def note(what: str, path: str | Path) -> None:
        name = os.path.relpath(path, tmp_path)
        events.append(f"{what} {'temporary' if name.endswith('.tmp') else name}")

    monkeypatch.setattr(os, "fsync", lambda file: (note("sync", Path(f"/proc/self/fd/{file}").readlink()), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda one, two: (note("name", two), replace(one, two)))
    monkeypatch.setattr(os, "unlink", lambda path: (note("delete", path), unlink(path)))
    with Ledger(out, "j1", Outcome, durable=True, shard=Shard(1, 1)) as one:
        assert {"sync .", "sync new", "sync new/out", "sync new/out/shards", "sync new/out/shards/1-of-1"} == {*events}
        events.clear()
        one.folder.write("in/a.png", b"map")
        one.append([outcome("a", files={"overlay": "in/a.png"})])
    map_first = ["sync temporary", "name new/out/in/a.png", "sync new/out/in", "sync new/out"]
    assert events[:5] == [*map_first, "sync new/out/shards/1-of-1/outcomes.jsonl"]
    events.clear()
    with Ledger(out, "j1", Outcome, durable=True):
        pass
    moved = ["sync temporary", "name new/out/outcomes.jsonl", "sync new/out"]
    first = events.index("sync temporary")
    assert events[first : first + 4] == [*moved, "delete new/out/shards/1-of-1/outcomes.jsonl"]
