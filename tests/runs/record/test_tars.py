"""Outputs as tars of samples, which WebDataset's own rule reads back."""

import json
import re
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest
from shared import Go, Paint
from typer.testing import CliRunner

from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.runs.record.tars import make_key, parse_bytes, write_tars

# webdataset.tariterators.base_plus_ext
MEMBER = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


def merge(*words: str) -> str:
    result = CliRunner().invoke(app, ["merge", "out", "--to", "maps.tar", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def samples() -> dict[str, dict[str, bytes]]:
    """The members of all tars, as WebDataset groups them; those of a sample follow one another."""
    found: dict[str, dict[str, bytes]] = defaultdict(dict)
    last = ""
    for path in sorted(Path().glob("maps-*.tar")):
        with tarfile.open(path, "r:") as file:
            for info in file:
                assert (info.mtime, info.uid, info.gid, info.uname) == (0, 0, 0, "")
                key, kind = MEMBER.match(info.name).groups()
                assert key == last or key not in found
                last = key
                found[key][kind.lower()] = file.extractfile(info).read()
    return found


def test_a_tar_has_a_sample_for_each_image(go: Go, paint: Paint) -> None:
    for name in ("b.png", "a.v1.png", "c.png", "c.jpg"):
        paint(f"v2.0/{name}", (200, 100, 50))
    Path("v2.0/bad.png").write_bytes(b"")
    go("v2.0", target=("red", "green"), save=("overlay", "array"))
    said = merge()
    assert "maps-000000.tar: 4 images" in said
    assert "1 image is left out: without outputs" in said
    found = samples()
    assert list(found) == sorted(found)
    assert [re.sub("~.*", "~", key) for key in found] == ["v2.0/a_v1", "v2.0/b", "v2.0/c~", "v2.0/c~"]
    outcomes = json.loads(found["v2.0/b"].pop("json"))
    assert [one["label"] for one in outcomes] == ["red", "green"]
    files = {file for one in outcomes for file in one["files"].values()}
    assert {f"v2.0/b.png.{kind}": content for kind, content in found["v2.0/b"].items()} == {
        file: Path("out", file).read_bytes() for file in files
    }


def test_tars_are_cut_by_size_and_the_same_each_time(go: Go, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        paint(f"in/{number}.png")
    go("in", target=("red",), save=("array",))
    monkeypatch.setattr("camcli.runs.record.tars.LEAST_BYTES", 1)
    merge("--max-size", "10kB")
    small = {path.name: path.read_bytes() for path in Path().glob("maps-*.tar")}
    assert sorted(samples()) == [f"in/{number}" for number in range(6)]
    assert len(small) > 1
    assert all(len(content) <= 10_240 for content in small.values())
    Path("maps-000000.tar").write_bytes(b"cut")
    merge("--max-size", "10kB")
    assert {path.name: path.read_bytes() for path in Path().glob("maps-*.tar")} == small
    said = merge()
    assert f"{len(small) - 1} tars are of an earlier writing: delete maps-000001.tar" in said


def test_a_tar_that_cannot_be_written_leaves_nothing_half(
    go: Go, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint("in/a.png")
    go("in", target=("red",))
    Path("out/in/a.png.overlay.jpg").write_bytes(b"other")

    def fail(*_given: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    assert write_tars(Path("out"), Path("maps.tar"), 10**6).left_out == 1
    go("in", target=("red",))
    monkeypatch.setattr("camcli.runs.record.tars.format_member", fail)
    assert "maps-000000.tar cannot be written: No space left" in merge()
    assert {path.name for path in Path().iterdir()} == {"in", "out"}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cat.jpg", "cat"),
        ("a/b.c/cat.JPG", "a/b.c/cat"),
        ("scan.tif.page3", "scan_page3"),
        ("a.b.c.png", "a_b_c"),
        ("%root/x/cat", "%root/x/cat"),
        (".png", "_"),
    ],
)
def test_a_key_has_no_dots_in_its_last_part(name: str, key: str) -> None:
    assert make_key(name) == key


@pytest.mark.parametrize(("text", "size"), [("1GB", 10**9), ("2 GiB", 2**31), ("0.5m", 500_000), ("1e9", 0), ("1", 0)])
def test_sizes_are_written_as_usual(text: str, size: int) -> None:
    if size:
        assert parse_bytes(text) == size
    else:
        with pytest.raises(RequestError, match="size of a tar cannot be"):
            parse_bytes(text)
