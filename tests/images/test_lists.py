"""Images are named by lists of lines and by a column of a table."""

import json
from pathlib import Path

import pytest
from image_files import lay

from camcli.base.errors import RequestError
from camcli.images.find import find

pytestmark = pytest.mark.usefixtures("here")


def write(name, rows):
    path = Path(name)
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        text = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(text) + "\n")


def names(given):
    return [one.name for one in find([given], out=Path("out"))]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("title", ["path", "Image", "file_name"])
def test_a_table_names_images_in_a_column(kind, title):
    lay("p/a.jpg", "p/b c.jpg")
    title = title.lower() if kind == "jsonl" else title
    write(f"t.{kind}", [{"target": 1, title: "p/b c.jpg"}, {"target": 2, title: "p/a.jpg"}])
    assert names(f"@t.{kind}") == ["p/b c.jpg", "p/a.jpg"]


def test_a_list_with_the_suffix_of_a_table_is_a_list():
    lay("a.jpg", "b.jpg")
    Path("t.csv").write_text("a.jpg\nb.jpg\n")
    Path("t.jsonl").write_text('"a.jpg"\n\n"b.jpg"\n')
    assert names("@t.csv") == names("@t.jsonl") == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", "a,b\n1,2\n", "has no column of images"),
        ("t.csv", "path,b\n,2\n", "line 2: '' is not a path"),
        ("t.csv", 'path,b\n"a"x,2\n', "line 2: is not CSV"),
        ("t.jsonl", '{"paht": "a.jpg"}', "line 1 has no column of images"),
        ("t.jsonl", '{"path": 3}', "line 1: 3 is not a path"),
        ("t.jsonl", '"\\ud800"', "is not a path"),
        ("t.jsonl", "{", "line 1: is not JSON"),
        ("t.parquet", "nothing", "is not a table that can be read"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(name, content, says):
    Path(name).write_text(content)
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    with pytest.raises(RequestError, match=says):
        names(f"@{name}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_of_a_table_go_with_its_images(kind):
    lay("p/a.jpg", "p/b.jpg", "c.jpg")
    write(f"t.{kind}", [{"path": "p", "site": "x", "blur": 0.5}, {"path": "c.jpg", "site": "é", "blur": 2.0}])
    found = list(find([f"@t.{kind}"], out=Path("out"), carry=("blur", "site")))
    number = str if kind == "csv" else float
    first = {"blur": number(0.5), "site": "x"}
    assert [one.name for one in found] == ["p/a.jpg", "p/b.jpg", "c.jpg"]
    assert [json.loads(one.columns) for one in found] == [first, first, {"blur": number(2.0), "site": "é"}]
    assert [one.columns for one in find([f"@t.{kind}"], out=Path("out"))] == [""] * 3


def test_values_that_are_missing_are_null():
    lay("a.jpg", "b.jpg")
    Path("t.csv").write_text("path,site\na.jpg,\nb.jpg\n")
    Path("t.jsonl").write_text('{"path": "a.jpg", "site": null}\n{"path": "b.jpg"}\n')
    carried = {
        name: [json.loads(one.columns)["site"] for one in find([name], out=Path("out"), carry=("site",))]
        for name in ("@t.csv", "@t.jsonl")
    }
    assert carried == {"@t.csv": ["", None], "@t.jsonl": [None, None]}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("@t.csv", "the list 't.csv' has no column 'sit'"),
        ("@t.jsonl", "the list 't.jsonl' has no column 'sit'"),
        ("@t.txt", "a list of names has no columns to carry along: sit"),
        ("a.jpg", "no table lists the images"),
    ],
)
def test_a_column_that_is_nowhere_is_refused(given, says):
    lay("a.jpg")
    Path("t.csv").write_text("path,site\na.jpg,x\n")
    Path("t.jsonl").write_text('{"path": "a.jpg", "site": "x"}\n')
    Path("t.txt").write_text("a.jpg\n")
    with pytest.raises(RequestError, match=says) as refused:
        list(find([given], out=Path("out"), carry=("sit",)))
    assert ("did you mean 'site'" in (refused.value.hint or "")) == (given in ("@t.csv", "@t.jsonl"))


def test_what_json_has_not_is_not_carried():
    lay("a.jpg")
    Path("t.jsonl").write_text('{"path": "a.jpg", "weight": Infinity}\n')
    with pytest.raises(RequestError, match="line 1: a value of weight cannot be carried along"):
        list(find(["@t.jsonl"], out=Path("out"), carry=("weight",)))
