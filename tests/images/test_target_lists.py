"""Lists that name each image's targets: CSV and JSON lines, found, surplus or wrong."""

import json
import os
from pathlib import Path

import pytest
from labelled_scores import LABELS, SCORES

from camcli.base.errors import PictureError, RequestError
from camcli.targets.named import TargetManifest


@pytest.fixture
def photos(here: Path) -> Path:
    for name in ("photos/a.jpg", "photos/b.jpg", "photos/in/c.jpg", "d, e.jpg"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(b"")
    return here


def listed(text: str, file: str = "t.csv", folders: tuple[str, ...] = ()) -> TargetManifest:
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text(text, encoding="utf-8")
    return TargetManifest(Path(file), LABELS, [Path(folder) for folder in folders])


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    "text",
    [
        "photos/a.jpg,tabby\nphotos/b.jpg,4\n",
        "picture,target\nphotos/a.jpg,tabby\nphotos/b.jpg,4\n",
        "\ufeffFilename,Label\r\nphotos/a.jpg,tabby\r\n\r\nphotos/b.jpg, tiger cat\r\n",
        "class,split,path\ntabby,val,photos/a.jpg\nn00000005,val,photos/b.jpg\n",
        'photos/a.jpg,"tabby, tabby cat"\n"photos/b.jpg", "4"\n',
    ],
)
def test_csv_with_and_without_a_heading(text: str) -> None:
    target = listed(text)
    assert target(Path("photos/a.jpg"), SCORES) == [2]
    assert target(Path("photos/b.jpg"), SCORES) == [4]
    assert target.unmatched == []


def test_under_a_heading_other_columns_are_no_targets_and_without_one_all_are(photos: Path) -> None:
    assert listed("picture,target,split\nphotos/a.jpg,2,val\n")(Path("photos/a.jpg"), SCORES) == [2]
    assert listed("photos/a.jpg,2,4,0\n")(Path("photos/a.jpg"), SCORES) == [2, 4, 0]
    assert listed("photos/a.jpg,2\nphotos/b.jpg,1\nphotos/a.jpg,0\n")(Path("photos/a.jpg"), SCORES) == [2, 0]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("file", ["t.jsonl", "t.ndjson", "T.JSONL"])
def test_jsonl_with_one_target_or_several(file: str) -> None:
    rows = [{"picture": "photos/a.jpg", "target": "tabby"}, {"picture": "d, e.jpg", "target": [4, "tench"]}]
    target = listed("\n".join(map(json.dumps, rows)) + "\n\n", file)
    assert target(Path("photos/a.jpg"), SCORES) == [2]
    assert target(Path("d, e.jpg"), SCORES) == [4, 0]


def test_other_line_ends_within_a_name_end_no_line(photos: Path) -> None:
    (photos / "f\u2028g.jpg").write_bytes(b"")
    assert listed('{"picture": "f\u2028g.jpg", "target": 2}\r\n', "t.jsonl")(Path("f\u2028g.jpg"), SCORES) == [2]
    assert listed("f\u2028g.jpg,2\n")(Path("f\u2028g.jpg"), SCORES) == [2]


def test_a_picture_is_found_from_here_from_the_files_folder_and_from_the_folders_given(photos: Path) -> None:
    assert listed("a.jpg,2\n", "photos/t.csv")(Path("photos/a.jpg"), SCORES) == [2]
    assert listed("c.jpg,2\n", folders=("photos/in",))(Path("photos/in/c.jpg"), SCORES) == [2]
    assert listed(f"{photos}/photos/a.jpg,2\n")(Path("photos/a.jpg"), SCORES) == [2]
    assert listed("photos/a.jpg,2\n")(photos / "photos" / "a.jpg", SCORES) == [2]
    assert listed("./photos/in/../a.jpg,2\n")(Path("photos/../photos/a.jpg"), SCORES) == [2]


def test_a_link_is_a_picture_of_its_own(photos: Path) -> None:
    (photos / "link.jpg").symlink_to("photos/a.jpg")
    target = listed("link.jpg,2\n")
    assert target(Path("link.jpg"), SCORES) == [2]
    with pytest.raises(PictureError, match="lists no target"):
        target(Path("photos/a.jpg"), SCORES)


def test_a_picture_that_is_not_listed_fails_and_is_not_guessed(photos: Path) -> None:
    with pytest.raises(PictureError, match=r"t\.csv lists no target for this image"):
        listed("photos/a.jpg,2\n")(Path("photos/b.jpg"), SCORES)


def test_what_is_listed_and_not_among_the_pictures_is_surplus(photos: Path) -> None:
    target = listed("photos/a.jpg,2\nnowhere.jpg,1\nphotos/b.jpg,2\n")
    assert target.unmatched == ["nowhere.jpg"]
    unused = target.find_unused(iter([Path("photos/a.jpg")]))
    assert unused == ["nowhere.jpg", str(photos / "photos" / "b.jpg")]


def test_a_name_that_two_folders_have_is_refused(photos: Path) -> None:
    (photos / "a.jpg").write_bytes(b"")
    with pytest.raises(RequestError, match=r"t\.csv, line 2: 'a.jpg' can be 2 images") as caught:
        listed("photos/b.jpg,2\na.jpg,2\n", folders=("photos",))
    assert f"{photos}/a.jpg, {photos}/photos/a.jpg" in caught.value.message
    assert "whole path" in caught.value.hint


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("t.csv", "photos/a.jpg,2\nphotos/b.jpg,zebra\n", r"line 2 \('photos/b.jpg'\): there is no class 'zebra'"),
        ("t.csv", "photos/a.jpg,crane\n", r"line 1 \('photos/a.jpg'\): 'crane' is ambiguous"),
        ("t.csv", "photos/a.jpg,7\n", "line 1 .*: there is no class 7"),
        ("t.csv", "photos/a.jpg,2\n\nphotos/b.jpg\n", "line 3: an image and its target are needed"),
        ("t.csv", "photos/a.jpg,2\n,3\n", "line 2: an image and its target are needed"),
        ("t.csv", 'photos/a.jpg,2\n"photos"/b.jpg,2\n', "line 2 is not CSV"),
        ("t.csv", 'photos/a.jpg,2\n"photos/b.jpg,2\n', "line 2 is not CSV"),
        ("t.csv", "image,klass\nphotos/a.jpg,2\n", "line 1 .*: there is no class 'klass'"),
        ("t.csv", "", "lists nothing"),
        ("t.csv", "picture,target\n", "lists nothing"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": 2}\n{"picture"', "line 2 is not JSON"),
        ("t.jsonl", '["photos/a.jpg", 2]', "line 1 is not an object"),
        ("t.jsonl", '{"picture": "photos/a.jpg"}', "line 1: an image and its target are needed"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": []}', "line 1: an image and its target are needed"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": null}', "line 1: an image is a path"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": true}', "line 1: an image is a path"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": 2.0}', "line 1: an image is a path"),
        ("t.jsonl", '{"picture": 3, "target": 2}', "line 1: an image is a path"),
    ],
)
def test_a_row_that_is_wrong_is_named_by_its_line(file: str, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        listed(text, file)
    assert file in caught.value.message


def test_a_file_that_is_no_text_or_not_there_is_refused(here: Path) -> None:
    (here / "t.csv").write_bytes(b"caf\xe9.jpg,2\n")
    with pytest.raises(RequestError, match="not UTF-8"):
        TargetManifest(Path("t.csv"), LABELS)
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        TargetManifest(Path("nowhere.csv"), LABELS)


def test_a_file_of_the_run_that_json_can_only_escape_is_still_found(photos: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (photos / name).write_bytes(b"")
    assert listed(json.dumps({"picture": name, "target": 2}), "t.jsonl")(Path(name), SCORES) == [2]


@pytest.mark.usefixtures("photos")
def test_a_parquet_table_lists_targets_as_json_lines_do() -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")

    def write(**columns: list[object]) -> TargetManifest:
        parquet.write_table(pa.table(columns), "t.parquet")
        return TargetManifest(Path("t.parquet"), LABELS)

    target = write(**{"File Name": ["photos/a.jpg", "photos/b.jpg"], "Label": ["tabby", "4"], "n": [b"1", b"2"]})
    assert [target(Path(f"photos/{one}.jpg"), SCORES) for one in "ab"] == [[2], [4]]
    assert write(path=["photos/a.jpg"], target=[[2, 0]])(Path("photos/a.jpg"), SCORES) == [2, 0]
    for columns, says in (
        ({"path": ["photos/a.jpg"], "x": [1]}, "one is missing"),
        ({"path": ["photos/a.jpg"], "target": [None]}, "an image is a path, its target a class"),
        ({"path": ["photos/a.jpg"], "target": ["zebra"]}, r"t.parquet, line 1 \('photos/a.jpg'\): there is no class"),
        ({"path": ["photos/a.jpg"], "target": [[0, 1, 0]]}, "is one-hot"),
    ):
        with pytest.raises(RequestError, match=says):
            write(**columns)
    Path("t.parquet").write_text("a,1")
    with pytest.raises(RequestError, match="not a Parquet file"):
        TargetManifest(Path("t.parquet"), LABELS)
