"""Which lines of an image count, where several runs left some: by the same rule for every reader."""

import json
from pathlib import Path

import pytest
from recorded import line, record, spot

from camcli.runs.record.finished import FinishedRun
from camcli.runs.record.heads import Worth, find_worth, make_head
from camcli.runs.record.status import read_status
from camcli.runs.record.tars import write_tars
from camcli.runs.record.view import look_at
from camcli.runs.report.entries import Entries

FILE = Path("outcomes.jsonl")


def one(name: str, run: str = "r1", label: str = "red", fails: bool = False):
    return line(name, None if fails else spot(1, 1), label, run=run)


def read(out: Path) -> list[tuple[str, str, int]]:
    """The name, the run and the number of maps of each image, which comparison and report agree on."""
    with FinishedRun(out) as run:
        compared = [[found.outcome for found in image] for image in run.iter_images()]
    with look_at(out) as view:
        shown = [entry.outcomes for entry in Entries(view, {"j1"})]
    found, other = (
        sorted((lines[0].name, lines[0].run, sum(not line.error for line in lines)) for lines in some)
        for some in (compared, shown)
    )
    assert found == other
    return found


def cut(path: Path, number: int) -> None:
    """Leave out a line, as a crash or a full disk does that ends a block early."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))


@pytest.mark.parametrize("last", [False, True])
def test_lines_that_a_crash_cut_short_do_not_count_and_no_others_are_taken_for_theirs(tmp_path, last):
    whole = [one("b", label="red"), one("b", label="green")]
    broken = [one("a", label=label) for label in ("red", "green", "blue")]
    out = record(tmp_path, *([whole, broken] if last else [broken, whole]))
    cut(out / FILE, 4 if last else 2)
    assert read(out) == [("b", "r1", 2)]
    status = read_status(out)
    assert (status.done, status.failed, status.missing) == (1, 0, 1)
    assert write_tars(out, tmp_path / "maps.tar", 10**6).samples == 1


def test_a_cut_result_leaves_the_earlier_one(tmp_path):
    out = record(tmp_path, [one("a"), one("a", label="green")], [one("a", "r2"), one("a", "r2", "green")])
    cut(out / FILE, 3)
    assert read(out) == [("a", "r1", 2)]


def test_a_failure_never_replaces_a_result_and_a_later_part_does(tmp_path):
    whole, part = [one("a"), one("a", label="green")], [one("a", "r2", "blue"), one("a", "r2", fails=True)]
    out = record(tmp_path / "failed", whole, [one("a", "r3", fails=True)])
    assert read(out) == [("a", "r1", 2)]
    assert read_status(out).done == 1
    assert write_tars(out, tmp_path / "maps.tar", 10**6).samples == 1
    out = record(tmp_path / "part", whole, part, [one("a", "r3", fails=True)])
    assert read(out) == [("a", "r2", 1)]
    assert (read_status(out).done, read_status(out).failed) == (0, 1)


@pytest.mark.parametrize(("first", "second"), [("r1", "r2"), ("r2", "r1")])
def test_the_latest_runs_result_counts_in_whatever_order_shards_are_read(tmp_path, first, second):
    record(tmp_path, [one("a", first, fails=True)], shard="1-of-2")
    out = record(tmp_path, [one("a", second, fails=True)], shard="1-of-3")
    assert read(out) == [("a", "r2", 0)]
    record(tmp_path, [one("a", first)], shard="1-of-2")
    record(tmp_path, [one("a", second)], shard="1-of-3")
    assert read(out) == [("a", "r2", 1)]


def test_how_much_lines_are_worth():
    def worth(*parts, fails=()):
        found = []
        for number, part in enumerate(parts):
            outcome, _ = one("a", fails=number in fails)
            values = {**json.loads(outcome.as_line()), "part": part}
            found.append(make_head(values, outcome.as_line()))
        return find_worth(found)

    assert worth("1/1") == worth("1/2", "2/2") == worth("1/2", "2/2", fails=[0]) == Worth.RESULT
    assert worth("1/2", "2/2", fails=[0, 1]) == worth("1/1", fails=[0]) == Worth.FAILED
    assert worth("1/2") == worth("2/2") == worth("1/3", "2/3") == worth("") == Worth.CUT
