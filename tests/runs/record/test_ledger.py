"""The ledger: what counts as done, which lines and files go, and what a crash may leave."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import is_done, lines, outcome, write

from camcli.base.errors import OutputError, RequestError
from camcli.runs.record.ledger import FILE, Ledger
from camcli.runs.record.lines import LineFile
from camcli.runs.record.outcome import Outcome


def test_what_was_recorded_with_its_files_is_done(tmp_path: Path) -> None:
    write(tmp_path / "out", [outcome("a")])
    assert is_done(tmp_path / "out", "a")
    assert not is_done(tmp_path / "out", "b")


def test_a_changed_picture_is_not_done(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", stamp="10-20")])
    assert not is_done(tmp_path, "a", stamp="10-21")


def test_a_picture_without_a_stamp_is_never_done(tmp_path: Path) -> None:
    # It is not there: its stamp then and now are equal, and mean nothing.
    write(tmp_path, [outcome("a", stamp="")])
    assert not is_done(tmp_path, "a", stamp="")


def test_a_picture_whose_file_is_missing_is_not_done(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", files={"overlay": "a.png", "array": "a.npy"})])
    assert is_done(tmp_path, "a")
    (tmp_path / "a.npy").unlink()
    assert not is_done(tmp_path, "a")
    assert is_done(tmp_path, "a", wanted={"overlay": ""})


def test_a_failure_is_not_done_nor_is_a_picture_of_which_one_map_failed(tmp_path: Path) -> None:
    write(
        tmp_path,
        [outcome("a", files={}, error="empty")],
        [outcome("b", part="1/2"), outcome("b", part="2/2", files={}, error="no map")],
    )
    assert not is_done(tmp_path, "a")
    assert not is_done(tmp_path, "b")


def test_a_picture_some_of_whose_lines_are_lost_is_not_done(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", part="1/3"), outcome("a", part="2/3", files={})])
    assert not is_done(tmp_path, "a")


def test_a_line_torn_by_a_crash_is_dropped_and_its_picture_done_again(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a")], [outcome("b")])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-5])
    assert is_done(tmp_path, "a")
    assert not is_done(tmp_path, "b")
    # What is appended next does not stick to the torn end.
    write(tmp_path, [outcome("b", run="r2")])
    assert lines(tmp_path) == [("a", "r1"), ("b", "r2")]
    assert is_done(tmp_path, "b")


def test_replaced_lines_go_when_the_ledger_is_closed_and_the_order_stays(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a")], [outcome("b")])
    write(tmp_path, [outcome("a", run="r2", stamp="10-99")])
    assert lines(tmp_path) == [("b", "r1"), ("a", "r2")]
    assert is_done(tmp_path, "a", stamp="10-99")


def test_replaced_lines_left_by_a_crash_go_when_the_ledger_is_opened(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a")])
    with (tmp_path / FILE).open("ab") as file:
        file.write(outcome("a", run="r2", stamp="10-99").as_line())
    assert not is_done(tmp_path, "a", stamp="10-20")
    assert lines(tmp_path) == [("a", "r2")]


def test_files_that_only_replaced_lines_name_are_removed(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", files={"overlay": "a.1-cat.png"})], [outcome("b")])
    write(tmp_path, [outcome("a", run="r2", files={"overlay": "a.2-dog.png"})])
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["a.2-dog.png", "b.png"]


def test_a_file_that_the_new_line_names_too_stays(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", files={"overlay": "a.png", "array": "a.npy"})])
    write(tmp_path, [outcome("a", run="r2", files={"overlay": "a.png"})])
    assert (tmp_path / "a.png").read_text() == "r2"
    assert not (tmp_path / "a.npy").exists()


def test_no_file_outside_the_output_folder_is_ever_removed(tmp_path: Path) -> None:
    outside = tmp_path / "photo.png"
    outside.write_text("dear to me")
    out = tmp_path / "out"
    write(out, [outcome("a", files={"overlay": "../photo.png"})], files=False)
    write(out, [outcome("a", run="r2")])
    assert outside.read_text() == "dear to me"


def test_another_jobs_lines_are_told_and_do_not_count_as_done(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", job="j1")])
    with Ledger(tmp_path, "j2", Outcome) as ledger:
        assert ledger.other_jobs == {"j1"}
        assert not ledger.is_done("a", "10-20")
        ledger.append([outcome("a", run="r2", job="j2")])
    with Ledger(tmp_path, "j2", Outcome) as ledger:
        assert ledger.other_jobs == set()  # replaced, every one
        assert ledger.is_done("a", "10-20")


def test_another_jobs_lines_and_files_go_when_they_are_dropped_but_not_of_pictures_met(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", job="j1")], [outcome("b", job="j1")], [outcome("d", job="j1")])
    write(tmp_path, [outcome("c", run="r2", job="j2")], job="j2")
    with Ledger(tmp_path, "j2", Outcome) as ledger:
        assert ledger.other_jobs == {"j1"}
        assert ledger.find_unnamed(["b", "c"]) == ["a", "d"]
        assert ledger.is_done("c", "10-20")
        # What the other job did of it is all there is of it.
        ledger.append([outcome("b", run="r3", job="j2", files={}, error="no such file")])
        assert len(lines(tmp_path)) == 5
        ledger.drop_others()
    assert lines(tmp_path) == [("b", "r1"), ("c", "r2"), ("b", "r3")]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["b.png", "c.png"]


FAILED = {"files": {}, "error": "there is no such file"}


def test_a_failure_replaces_no_result_and_goes_when_the_picture_is_found_done(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a")], [outcome("b")])
    write(tmp_path, [outcome("a", run="r2", stamp="", **FAILED)])
    write(tmp_path, [outcome("a", run="r3", stamp="", **FAILED)])
    assert lines(tmp_path) == [("a", "r1"), ("b", "r1"), ("a", "r3")]
    assert (tmp_path / "a.png").exists()
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        assert [[one.run for one in each] for each in ledger.iter_pictures()] == [["r1"], ["r1"]]
        assert (ledger.has_earlier_result("a"), ledger.is_changed("a", "10-20"), ledger.is_changed("a", "10-21")) == (
            True,
            False,
            True,
        )
    assert len(lines(tmp_path)) == 3
    assert is_done(tmp_path, "a")
    assert lines(tmp_path) == [("a", "r1"), ("b", "r1")]


def test_a_failure_of_this_run_stays_also_where_the_picture_was_found_done(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a")])
    write(tmp_path, [outcome("a", run="r2", **FAILED)])
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        assert ledger.is_done("a", "10-20")  # but another of its group must be done, and fails
        ledger.append([outcome("a", run="r3", **FAILED)])
    assert lines(tmp_path) == [("a", "r1"), ("a", "r3")]


def test_of_a_picture_that_failed_in_part_the_maps_that_were_not_written_over_stay(tmp_path: Path) -> None:
    maps = [outcome("a", part=f"{n}/3", files={"overlay": f"a{n}.png"}) for n in (1, 2, 3)]
    write(tmp_path, maps)
    again = [replace(maps[0], run="r2"), outcome("a", run="r2", part="2/3", **FAILED), replace(maps[2], run="r2")]
    write(tmp_path, again)
    assert lines(tmp_path) == [("a", "r1"), ("a", "r2"), ("a", "r2"), ("a", "r2")]
    assert [(tmp_path / f"a{n}.png").read_text() for n in (1, 2, 3)] == ["r2", "r1", "r2"]
    assert not is_done(tmp_path, "a")
    write(tmp_path, [replace(one, run="r3") for one in maps])
    assert lines(tmp_path) == [("a", "r3")] * 3
    assert is_done(tmp_path, "a")


def test_what_two_runs_left_of_one_picture_is_not_one_result(tmp_path: Path) -> None:
    maps = [outcome("a", part=f"{n}/3", files={"overlay": f"a{n}.png"}) for n in (1, 2, 3)]
    write(tmp_path, maps)
    # Each did one of the maps again, in vain for the others: a line of the first and of the second are all that stays.
    for number, run in ((2, "r2"), (3, "r3")):
        again = [outcome("a", run=run, part=f"{n}/3", **FAILED) for n in (1, 2, 3)]
        again[number - 1] = replace(maps[number - 1], run=run)
        write(tmp_path, again)
    assert [run for _, run in lines(tmp_path)] == ["r1", "r2", "r3", "r3", "r3"]
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        assert [[one.run for one in each] for each in ledger.iter_pictures()] == [["r1"], ["r2"], ["r3"] * 3]


def test_a_result_replaces_a_failure(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", **FAILED)])
    write(tmp_path, [outcome("a", run="r2", **FAILED)])
    assert lines(tmp_path) == [("a", "r2")]
    write(tmp_path, [outcome("a", run="r3")])
    assert lines(tmp_path) == [("a", "r3")]


def test_a_file_cut_short_or_empty_is_done_again_an_older_line_says_no_sizes(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a", sizes={"overlay": 2})], [outcome("b")])
    assert is_done(tmp_path, "a")
    (tmp_path / "a.png").write_text("r")
    assert not is_done(tmp_path, "a")
    (tmp_path / "b.png").write_text("r")
    path = tmp_path / FILE
    old = [
        {name: one for name, one in json.loads(line).items() if name != "sizes"}
        for line in path.read_text().splitlines()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    assert is_done(tmp_path, "a")
    assert is_done(tmp_path, "b")
    (tmp_path / "b.png").write_text("")
    assert not is_done(tmp_path, "b")


@pytest.mark.parametrize("name", ["../photo.png", "/etc/hostname", "link/photo.png", "", "..", "a\0b"])
def test_what_a_ledger_names_outside_the_folder_is_neither_done_nor_removed(tmp_path: Path, name: str) -> None:
    outside, out = tmp_path / "photo.png", tmp_path / "out"
    outside.write_text("dear to me")
    out.mkdir()
    (out / "link").symlink_to(tmp_path, target_is_directory=True)
    write(out, [outcome("a", files={"overlay": name})], files=False)
    with Ledger(out, "j1", Outcome) as ledger:
        # The last is there and can be seen, but no more.
        assert ledger.is_done("a", "10-20") == (name == "link/photo.png")
        assert ledger.folder.resolve_inside(name) is None
    write(out, [outcome("a", run="r2")])
    assert lines(out) == [("a", "r2")]
    assert outside.read_text() == "dear to me"


def test_a_picture_recorded_twice_by_one_run_has_its_last_lines(tmp_path: Path) -> None:
    # Its map was made, then it could not be drawn: the file of the map stays, the drawing goes.
    maps = [outcome("a", part=f"{n}/2", files={"array": f"a{n}.npy", "heatmap": f"a{n}.png"}) for n in (1, 2)]
    undrawn = [maps[0], outcome("a", part="2/2", files={"array": "a2.npy"}, error="gone")]
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        ledger.append(maps)
        for file in ("a1.npy", "a1.png", "a2.npy", "a2.png"):
            (tmp_path / file).write_text("")
        ledger.append(undrawn, replacing=True)
    assert lines(tmp_path) == [("a", "r1"), ("a", "r1")]
    assert sorted(path.name for path in tmp_path.glob("a*")) == ["a1.npy", "a1.png", "a2.npy"]
    assert not is_done(tmp_path, "a")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, [outcome("a")])
    whole = (tmp_path / FILE).read_bytes()

    class Full:
        def __init__(self, file) -> None:
            self.file, self.left = file, 10

        def write(self, data) -> int:
            if not self.left:
                raise OSError(28, "No space left on device")
            written, self.left = self.file.write(data[: self.left]), 0
            return written

        def __getattr__(self, name: str):
            return getattr(self.file, name)

    opened = Path.open

    def filling(path: Path, mode: str = "r", **how):
        file = opened(path, mode, **how)
        return Full(file) if mode == "ab" else file

    monkeypatch.setattr(Path, "open", filling)
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        with pytest.raises(OutputError, match=r"outcomes\.jsonl cannot be written to: No space left"):
            ledger.append([outcome("b")])
        assert (tmp_path / FILE).read_bytes() == whole


def test_outcomes_are_those_of_this_job_that_did_not_fail(tmp_path: Path) -> None:
    kept = outcome("c", run="r2", job="j2", notes=("all negative",), label="tabby")
    write(tmp_path, [outcome("a", job="j1")])
    write(tmp_path, [outcome("b", run="r2", job="j2", files={}, error="empty")], [kept], job="j2")
    with Ledger(tmp_path, "j2", Outcome) as ledger:
        assert list(ledger.iter_pictures()) == [[kept]]


def test_outcomes_hold_only_the_last_line_of_a_picture_also_while_the_run_goes_on(tmp_path: Path) -> None:
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        ledger.append([outcome("a", run="r1")])
        ledger.append([outcome("a", run="r2")], replacing=True)
        assert [one.run for (one,) in ledger.iter_pictures()] == ["r2"]
        ledger.append([outcome("b", run="r2")])
    assert lines(tmp_path) == [("a", "r2"), ("b", "r2")]


def test_few_replaced_lines_of_a_large_ledger_stay_until_they_are_many_or_files_go(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("camcli.runs.record.ledger.FEW_BLOCKS", 10)
    write(tmp_path, *([outcome(f"{number}")] for number in range(40)), [outcome("x", **FAILED)])
    for run in ("r2", "r3"):  # an image that always fails
        write(tmp_path, [outcome("x", run=run, **FAILED)])
    assert len(lines(tmp_path)) == 43
    assert all(is_done(tmp_path, f"{number}") for number in range(40))
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        assert len(list(ledger.iter_pictures())) == 40
    assert lines(tmp_path)[40:] == [("x", "r3")]  # who reads all lines has them dropped
    write(tmp_path, [outcome("1", run="r4", stamp="10-21")], [outcome("2", run="r4", **FAILED)])
    assert len(lines(tmp_path)) == 43
    assert is_done(tmp_path, "1", stamp="10-21")
    assert is_done(tmp_path, "2")
    write(tmp_path, [outcome("3", run="r5", files={"overlay": "3.other.png"})])
    assert not (tmp_path / "3.png").exists()
    assert len(lines(tmp_path)) == 42  # the failure of one that was not looked up stays
    write(tmp_path, *([outcome(f"{number}", run="r6")] for number in range(4, 8)))
    assert len(lines(tmp_path)) == 42


@pytest.mark.parametrize(
    "name",
    ["a.png", 'a "quoted" one.png', "back\\slash", "caf\udce9.png", "{a}, b: [c]", "\u7535\x07.png", 'x", "stamp": "y'],
)
def test_the_head_of_a_line_says_what_its_whole_says(tmp_path: Path, name: str) -> None:
    written = [
        outcome(name),
        outcome(name, error="no", files={}, run="r2"),
        outcome(name, notes=('a "{b}"',), run="r3"),
    ]
    (tmp_path / FILE).write_bytes(b"".join(one.as_line() for one in written))
    found = [block[0] for _, block in LineFile(tmp_path / FILE, Outcome).iter_blocks()]
    assert [(one.name, one.stamp, one.job, one.run, one.part, one.root, one.failed) for one in found] == [
        (one.name, one.stamp, one.job, one.run, one.part, one.root, bool(one.error)) for one in written
    ]
    assert [json.loads(one.files) for one in found] == [one.files for one in written]


@pytest.mark.parametrize("cut", [10, 60, 200])
def test_lines_that_were_glued_together_are_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / FILE).write_bytes(outcome("a").as_line()[:cut] + outcome("b").as_line())
    with pytest.raises(RequestError, match="line 1, is not a record"):
        Ledger(tmp_path, "j1", Outcome)


def test_threads_look_blocks_up_at_the_same_time(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(200)]
    write(tmp_path, *[[outcome(name)] for name in names])
    file = LineFile(tmp_path / FILE, Outcome)
    places = [start for start, _ in file.iter_blocks()] * 5
    with ThreadPoolExecutor(8) as pool:
        found = [block[0].name for block in pool.map(file.read_block, places)]
    assert found == names * 5
    file.close()
