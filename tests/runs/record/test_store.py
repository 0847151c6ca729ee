"""Outputs in an object store: the files of a local run, whole or not at all, whatever fails; one run at a time."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from commands import do
from fsspec.implementations.memory import MemoryFileSystem
from readback import files, ledger
from shared import GREEN, RED, Go, Paint

from camcli.base.errors import CamcliError, OutputError, RequestError
from camcli.images.find import find
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.job.shard import Shard
from camcli.runs.record import store_folder
from camcli.runs.record.merge import merge_shards
from camcli.runs.record.status import read_status
from camcli.runs.record.store_folder import StoreFolder
from camcli.runs.store import lock, sizes, store
from camcli.runs.store.store import Store

URL = "memory://b/run"
RECORDS = {"outcomes.jsonl", "run.json", ".camcli.lock", "camcli.log"}
CALLS = ("pipe_file", "put_file", "cat_file", "rm_file", "ls", "exists")


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """A store in memory, whose locks soon count no more."""
    for module, name, value in (
        (store, "WAITS", (0.0,)),
        (store, "QUICK_WAITS", ()),
        (lock, "STALE_SECONDS", 0.2),
        (lock, "POLL_SECONDS", 0.05),
        (lock, "SETTLE_SECONDS", 0.0),
    ):
        monkeypatch.setattr(module, name, value)
    made = fsspec.filesystem("memory")
    made.store.clear()
    yield made
    made.store.clear()


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Goes to another machine, as far as its cache shows."""

    def on(machine: str) -> None:
        monkeypatch.setattr("camcli.base.cache.find_folder", lambda: tmp_path / machine)

    on("one")
    return on


@pytest.fixture
def three(paint: Paint) -> None:
    for number in range(3):
        paint(f"in/{number}.png", GREEN)


def there(url: str = URL) -> dict[str, bytes]:
    """What images have in the store."""
    found = fsspec.filesystem("memory").store
    top = url.replace("memory:/", "") + "/"
    kept = {name.removeprefix(top): one.getvalue() for name, one in found.items() if name.startswith(top)}
    return {name: content for name, content in kept.items() if name.rpartition("/")[2] not in RECORDS}


def here(out: str = "out") -> dict[str, bytes]:
    return {name: Path(out, name).read_bytes() for name in files(out)}


def rows(url: str = URL, record: str = "outcomes.jsonl") -> list[dict]:
    content = Store(url).get(record) or b""
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.usefixtures("three")
def test_a_store_has_what_a_local_folder_would(go: Go, on, memory) -> None:
    go("in")
    go("in", out=URL)
    assert there() == here()
    unlike = ("run", "seconds", "root")  # of a local folder it is relative
    local, remote = (
        [{key: one[key] for key in one if key not in unlike} for one in some] for some in (ledger(), rows())
    )
    assert local == remote
    on("two")
    assert go("in", out=URL) == [[]] * 3
    assert not [name for name in memory.store if "lock" in name or "tmp" in name]
    memory.rm_file("b/run/in/1.png.overlay.jpg")
    memory.pipe_file("b/run/in/2.png.overlay.jpg", b"cut short")
    assert [len(lines) for lines in go("in", out=URL)] == [0, 1, 1]
    assert there() == here()


@pytest.mark.usefixtures("three")
def test_shards_are_counted_merged_and_written_as_a_table(go: Go, on) -> None:
    go("in")
    for number in (1, 2):
        on(f"machine {number}")
        go("in", out=URL, shard=f"{number}/2")
    assert there() == here()
    found = do("status", URL)
    assert (found.exit_code, "3 done, 0 failed, 0 missing" in found.output) == (0, True)
    on("three")
    merged = do("merge", URL, "--to", "memory://b/table.jsonl")
    assert (merged.exit_code, len(rows("memory://b", "table.jsonl"))) == (0, 3), merged.output
    tars = do("merge", URL, "--to", "memory://b/maps.tar")
    assert "memory://b/maps-000000.tar: 3 images" in tars.output
    with tarfile.open(fileobj=io.BytesIO(there("memory://b")["maps-000000.tar"])) as file:
        assert len(file.getnames()) == len(there()) + 3  # and the lines of each image
    assert [one.state for one in read_status(Path(URL)).shards] == ["merged"] * 2
    assert sorted(one["name"] for one in rows()) == [f"in/{number}.png" for number in range(3)]
    assert go("in", out=URL) == [[]] * 3
    assert go("in", out=URL, shard="2/3") == [[]] * sum(Shard(2, 3).holds(f"in/{number}.png") for number in range(3))


class OutageError(OSError):
    """What a store says when it does not answer."""


def cut(patch: pytest.MonkeyPatch, first: int, last: float, after: bool = False) -> list[str]:
    """Make calls of the store fail, from one to another; some do their work before they fail. Return all calls."""
    made: list[str] = []

    def replace(name: str) -> None:
        whole = getattr(MemoryFileSystem, name)

        def call(self, *given, **named):
            made.append(name)
            fails = first <= len(made) <= last
            if fails and not after:
                raise OutageError("503")
            found = whole(self, *given, **named)
            if fails:
                raise OutageError("503")
            return found

        patch.setattr(MemoryFileSystem, name, call)

    for name in CALLS:
        replace(name)
    return made


def check_truth() -> None:
    """No line names a file that is not there as it was written."""
    found = there()
    for one in rows():
        for kind, name in one["files"].items():
            assert len(found[name]) == one["sizes"][kind]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["refused", "unheard"])
@pytest.mark.usefixtures("three")
def test_a_store_that_goes_away_at_any_call_loses_nothing(go: Go, on, memory, tiny: str, after: bool) -> None:
    go("in")
    whole = here()
    with pytest.MonkeyPatch.context() as patch:
        made = cut(patch, 10**6, 0)
        go("in", out=URL)
        calls = len(made)
    for number in range(1, calls + 1, 3):
        memory.store.clear()
        on(f"{number} {after}")
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, number, 10**6, after)
            with pytest.raises(CamcliError):
                go("in", out=URL)
        check_truth()
        on(f"{number} {after}" if number % 2 else "another")
        go("in", out=URL)
        assert there() == whole
        assert len(rows()) == 3
        check_truth()


@pytest.mark.slow
@pytest.mark.usefixtures("three")
def test_a_store_that_fails_now_and_then_is_asked_again(go: Go, on, memory) -> None:
    go("in")
    for after in (False, True):
        for number in range(1, 40, 4):
            memory.store.clear()
            with pytest.MonkeyPatch.context() as patch:
                cut(patch, number, number, after)
                go("in", out=URL)
            assert there() == here()


@pytest.mark.usefixtures("three")
def test_lines_that_a_killed_run_did_not_put_count_on_its_machine_alone(go: Go, on, tiny: str, monkeypatch) -> None:
    save = StoreFolder.save_records
    with monkeypatch.context() as patch:
        patch.setattr(StoreFolder, "save_records", lambda folder: None if len(there()) > 1 else save(folder))
        patch.setattr(StoreFolder, "close", lambda folder: store_folder.Folder.close(folder))  # as the system does
        go("in", out=URL)
    assert rows() == []
    assert read_status(Path(URL)).missing == 3
    kept = go("in", out=URL)
    assert kept == [[]] * 3
    assert len(rows()) == 3
    on("two")
    assert go("in", out=URL) == [[]] * 3


@pytest.mark.usefixtures("three")
def test_a_killed_runs_lock_is_waited_for_on_another_machine(go: Go, on, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StoreFolder, "close", lambda folder: store_folder.Folder.close(folder))
        go("in", out=URL)
    said: list[str] = []
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.6)
    on("two")
    merge_shards(Path(URL), said.append)
    assert ["may have been killed" in one for one in said] == [True]
    go("in", out=URL)


@pytest.mark.parametrize(
    ("first", "second"), [(None, None), (None, Shard(1, 2)), (Shard(1, 2), None), (Shard(1, 2), Shard(1, 3))]
)
def test_runs_that_would_do_images_twice_are_refused(on, monkeypatch, first, second) -> None:
    monkeypatch.setattr(lock, "STALE_SECONDS", 60.0)
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.1)
    with StoreFolder(Path(URL), first, print):
        on("two")
        with pytest.raises(RequestError, match="another run is writing to memory://b/run"):
            StoreFolder(Path(URL), second, print)
    StoreFolder(Path(URL), second, print).close()


def test_shards_of_one_number_run_at_once(on) -> None:
    with StoreFolder(Path(URL), Shard(1, 2), print), StoreFolder(Path(URL), Shard(2, 2), print):
        pass


@pytest.mark.usefixtures("three")
def test_a_run_whose_lock_was_taken_ends(go: Go, on, tiny: str) -> None:
    run = Run(Job(model=tiny, inputs=("in",), out=URL, device="cpu"))
    with pytest.raises(OutputError, match="no longer this run's: a run on another"), run:
        Store(URL).put(lock.FILE, b'{"token": "x", "host": "another"}')
        with pytest.raises(OutputError, match="a run on another"):
            run.session.folder.save_records()
        list(run)
    assert there() == {}
    assert Store(URL).get(lock.FILE)  # which is the other's


@pytest.mark.usefixtures("three")
def test_another_job_is_refused_replaced_and_dropped_with_its_files(go: Go, on) -> None:
    go("in", out=URL, target=("red",), save=("array",))
    on("two")
    for shard in ("", "1/2"):
        with pytest.raises(RequestError, match="'memory://b/run' contains the results of another job"):
            go("in/0.png", out=URL, shard=shard)
    go("in/0.png", out=URL, overwrite=True, drop_others=True)
    assert set(there()) == {"in/0.png.overlay.jpg"}
    assert len(rows()) == 1


@pytest.mark.usefixtures("three")
def test_kept_arrays_are_read_from_the_store_and_drawn(go: Go, on) -> None:
    for out in ("out", URL):
        go("in", out=out, save=("array",))
    on("two")
    for out in ("out", URL):
        assert not [one.error for lines in go("in", out=out, save=("array", "heatmap")) for one in lines if one.error]
        go("in", out=out, save=("array", "overlay"), normalize="run")
    assert there() == here()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"out": "https://host/run"}, "outputs cannot be written to"),
        ({"out": "s5://b/run"}, "outputs cannot be written to"),
        ({"out": "memory://b//run"}, "empty part"),
        ({"out": "memory:/b/run"}, "is no address"),
        ({"out": URL, "durable": True}, "--durable is about disks"),
    ],
)
@pytest.mark.usefixtures("three")
def test_what_cannot_be_an_output_folder_is_refused(go: Go, options: dict, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        go("in", **options)


def test_a_store_that_refuses_is_an_error_before_a_model_is_loaded(paint: Paint, monkeypatch) -> None:
    paint("a.png", RED)

    def refuse(*_given, **_named):
        raise PermissionError("no")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    refused = do("explain", "--model", "none.py:make", "--out", URL, "a.png")
    assert (refused.exit_code, "no permission: no" in refused.output) == (2, True), refused.output


def test_outputs_in_a_store_are_not_found_as_images(memory, on) -> None:
    for name in ("b/a.png", "b/run/in/0.png", "b/running/1.png"):
        memory.pipe_file(name, b"x")
    assert [one.name for one in find(["memory://b"], out=Path(URL))] == ["%memory/b/a.png", "%memory/b/running/1.png"]
    with pytest.raises(RequestError, match="this is the output folder"):
        list(find(["memory://b/run/*"], out=Path(URL)))


def test_sizes_are_as_listed_and_as_changed_since(memory, monkeypatch) -> None:
    monkeypatch.setattr(sizes, "MAX_CHANGES", 3)
    for number in range(5):
        memory.pipe_file(f"b/run/in/{number}", b"x" * (number + 1))
    known = sizes.Sizes(Store(URL))
    assert [known.get(f"in/{number}") for number in range(6)] == [1, 2, 3, 4, 5, 0]
    for number in range(3, 9):
        known.set(f"in/{number}", 10 * number)
    known.set("in/0", 0)
    assert [known.get(f"in/{number}") for number in range(10)] == [0, 2, 3, 30, 40, 50, 60, 70, 80, 0]


def test_a_name_that_no_store_has_fails_its_image_alone(go: Go, on, paint: Paint) -> None:
    paint("in/a.png", RED)
    Path("in/a.png").rename(b"in/\xff.png".decode("utf-8", "surrogateescape"))
    paint("in/b.png", RED)
    errors = [lines[0].error or "" for lines in go("in", out=URL)]
    assert sorted(bool(one) for one in errors) == [False, True]
    assert any("no valid UTF-8" in one for one in errors)
