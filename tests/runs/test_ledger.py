import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from camcli.base.errors import OutputError, RequestError
from camcli.runs.record.folder import LOCK_FILE, Folder
from camcli.runs.record.ledger import FILE, Ledger
from camcli.runs.record.outcome import Outcome


def outcome(name: str, run: str = "r1", job: str = "j1", **more) -> Outcome:
    values = {"stamp": "10-20", "peak": (1.0, 2.0), "files": {"overlay": f"{name}.png"}, **more}
    return Outcome(source=name, name=name, run=run, job=job, **values)


def write(out: Path, *blocks: list[Outcome], job: str = "j1", files: bool = True) -> None:
    """What a run of this job would leave: its lines, and the files they name."""
    with Ledger(out, job, Outcome) as ledger:
        for block in blocks:
            ledger.append(block)
            for one in block if files else []:
                for file in one.files.values():
                    (out / file).write_text(one.run)


def lines(out: Path) -> list[tuple[str, str]]:
    """Name and run of each line, as they stand in the file."""
    rows = [json.loads(line) for line in (out / FILE).read_bytes().splitlines()]
    return [(row["name"], row["run"]) for row in rows]


def is_done(out: Path, name: str, stamp: str = "10-20", job: str = "j1", **options) -> bool:
    with Ledger(out, job, Outcome, **options) as ledger:
        return ledger.is_done(name, stamp)


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
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        ledger.append([outcome("a")])
        whole = (tmp_path / FILE).read_bytes()
        file = ledger._file

        class Full:
            def __init__(self) -> None:
                self.left = 10

            def write(self, data) -> int:
                if not self.left:
                    raise OSError(28, "No space left on device")
                written, self.left = file.write(data[: self.left]), 0
                return written

            def __getattr__(self, name: str):
                return getattr(file, name)

        monkeypatch.setattr(ledger, "_file", Full())
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


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with Ledger(tmp_path, "j1", Outcome), pytest.raises(RequestError, match="another run is writing"):
        Ledger(tmp_path, "j1", Outcome)
    with Ledger(tmp_path, "j1", Outcome):
        pass


def test_the_lock_of_another_process_is_respected_and_goes_with_it(tmp_path: Path) -> None:
    code = (
        "import sys; from camcli.runs.record.outcome import Outcome; from camcli.runs.record.ledger import Ledger\n"
        f"with Ledger(__import__('pathlib').Path({str(tmp_path)!r}), 'j', Outcome):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RequestError, match="another run is writing") as caught:
            Ledger(tmp_path, "j1", Outcome)
        assert "--out" in caught.value.hint
    finally:
        other.kill()  # as a crash would: nothing is tidied up
        other.communicate()
    with Ledger(tmp_path, "j1", Outcome):
        pass


LINE = outcome("a").as_line().decode()


@pytest.mark.parametrize(
    "line",
    [
        *("hello", "[1, 2]", '{"name": "a"}', "3", "null", "\ud800", "[" * 100_000),
        *(LINE.replace('"a"', word, 1).strip() for word in ("3", "null", '["a"]')),
        *(LINE.replace('{"overlay": "a.png"}', word).strip() for word in ("7", '["a.png"]', '{"overlay": null}')),
        LINE.replace('"1/1"', "[]").strip(),
        LINE.replace("}\n", ', "sizes": {"overlay": "much"}}').strip(),
        LINE.replace("}\n", ', "unheard": 1}').strip(),
    ],
)
def test_a_file_that_is_not_a_ledger_is_refused_with_its_line_and_left_alone(tmp_path: Path, line: str) -> None:
    write(tmp_path, [outcome("a")])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogatepass") + b"\n")
    before = path.read_bytes()
    with pytest.raises(RequestError, match=r"outcomes\.jsonl, line 2, is not an outcome") as caught:
        Ledger(tmp_path, "j1", Outcome)
    assert path.read_bytes() == before
    # The lock was let go, not only forgotten (the traceback still holds it): the next attempt has the same reason.
    assert caught.value.__traceback__ is not None
    with pytest.raises(RequestError, match="line 2"):
        Ledger(tmp_path, "j1", Outcome)


def test_a_ledger_that_cannot_be_read_is_refused_with_its_reason(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(RequestError, match=r"outcomes\.jsonl is no file") as caught:
        Ledger(tmp_path, "j1", Outcome)
    assert "--out" in caught.value.hint
    (tmp_path / FILE).rmdir()
    write(tmp_path, [outcome("a")])
    opened = Path.open

    def closed(path: Path, mode: str = "r", *more, **options):
        if path.name == FILE and mode == "rb":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(RequestError, match=r"outcomes\.jsonl cannot be read: Permission denied"):
        Ledger(tmp_path, "j1", Outcome)


def test_a_line_whose_inside_is_wrong_is_refused_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, [outcome("a")])
    path = tmp_path / FILE
    path.write_text(path.read_text().replace('"concepts": []', '"concepts": [{}]'))
    with Ledger(tmp_path, "j1", Outcome) as ledger, pytest.raises(RequestError, match="the line of 'a' is not an out"):
        list(ledger.iter_pictures())


def test_what_a_killed_run_left_half_written_goes_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / ".camcli-0123456789abcdef.tmp"
    others = [".camcli-0123.tmp", "camcli-0123456789abcdef.tmp", ".camcli-0123456789abcdef.tmp.png", "a.tmp"]
    for name in (left.name, *others):
        (tmp_path / name).write_text("half")
    link = tmp_path / ".camcli-ffffffffffffffff.tmp"
    link.symlink_to(tmp_path / "a.tmp")
    with Folder(tmp_path):
        assert not left.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, LOCK_FILE, link.name])


def test_a_lock_that_is_a_link_harms_nothing_and_is_said(tmp_path: Path) -> None:
    dear = tmp_path / "photo.jpg"
    dear.write_text("dear to me")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK_FILE).symlink_to(dear)
    with pytest.raises(RequestError, match="is a link, and camcli makes none"):
        Folder(tmp_path / "out")
    assert dear.read_text() == "dear to me"


def test_the_locks_own_library_follows_no_link_either(tmp_path: Path, monkeypatch) -> None:
    # As if it were put there in the moment after we looked.
    monkeypatch.setattr(Path, "is_symlink", lambda path: False)
    test = tmp_path / "photo.jpg"
    test.write_text("dear to me")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK_FILE).symlink_to(test)
    with pytest.raises(OutputError, match="cannot be written to"):
        Folder(tmp_path / "out")
    assert test.read_text() == "dear to me"


@pytest.mark.parametrize("instead", [False, True], ids=["gone", "another in its place"])
def test_a_folder_that_is_moved_away_is_told_and_not_made_anew(tmp_path: Path, instead: bool) -> None:
    out, away = tmp_path / "out", tmp_path / "away"
    with (
        pytest.raises(OutputError, match="is gone: it was moved or deleted") as caught,
        Ledger(out, "j1", Outcome) as one,
    ):
        one.folder.write("in/a.png", b"good")
        one.append([outcome("a", files={"overlay": "in/a.png"})])
        shutil.move(out, away)
        if instead:
            out.mkdir()
        with pytest.raises(OutputError, match="is gone"):
            one.folder.write("in/b.png", b"good")
        one.append([outcome("b")])
    assert "put it back" in caught.value.hint
    assert lines(away) == [("a", "r1")]
    assert (away / "in/a.png").read_bytes() == b"good"
    assert (list(out.iterdir()) == []) if instead else (not out.exists())


def test_an_output_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written to"):
        Ledger(tmp_path / "file" / "out", "j1", Outcome)


def test_names_that_are_not_utf8_come_back_as_they_were(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n\xff.jpg")
    write(tmp_path, [outcome(name, files={})], [outcome("\u732b.jpg", files={})])
    raw = (tmp_path / FILE).read_bytes()
    raw.decode("utf-8")  # the file itself is UTF-8 throughout
    assert raw.count(b"\n") == 2  # the name's own newline ends no line
    assert "\u732b".encode() in raw
    assert is_done(tmp_path, name)
    with Ledger(tmp_path, "j1", Outcome) as ledger:
        ((first,), _) = ledger.iter_pictures()
    assert os.fsencode(first.name) == b"caf\xe9\n\xff.jpg"
