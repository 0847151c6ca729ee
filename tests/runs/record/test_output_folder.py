"""The folder of a run: locked while it is written to, and left alone where it is something else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import is_done, lines, outcome, write

from camcli.base.errors import OutputError, RequestError
from camcli.runs.record.folder import LOCK_FILE, Folder
from camcli.runs.record.ledger import FILE, Ledger
from camcli.runs.record.outcome import Outcome


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
    with pytest.raises(RequestError, match=r"outcomes\.jsonl, line 2, is not a record") as caught:
        Ledger(tmp_path, "j1", Outcome)
    assert path.read_bytes() == before
    # The lock was let go, not only forgotten (the traceback still holds it): the next attempt has the same reason.
    assert caught.value.__traceback__ is not None
    with pytest.raises(RequestError, match="line 2"):
        Ledger(tmp_path, "j1", Outcome)


def test_a_ledger_that_cannot_be_read_is_refused_with_its_reason(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(RequestError, match=r"outcomes\.jsonl is not a file") as caught:
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
    with Ledger(tmp_path, "j1", Outcome) as ledger, pytest.raises(RequestError, match="line of 'a' is not a record"):
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
    with pytest.raises(RequestError, match="is a link, which camcli does not create"):
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
    assert "move it back" in caught.value.hint
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
