"""Tables written row by row: each format, whole or not at all."""

import csv
import json
from pathlib import Path

import pytest

from camcli.base.errors import OutputError, RequestError
from camcli.runs.record import rows
from camcli.runs.record.rows import RowWriter, check_rows_file

COLUMNS = {"name": "text", "r": "number", "maps": "integer", "equal": "truth", "reasons": "texts"}
ROWS = [
    {"name": 'a, "b"\n', "r": 0.5, "maps": 2, "equal": True, "reasons": ("one", "two")},
    {"name": "\udcff", "r": None, "maps": None, "equal": None},
]


def write(path: str) -> None:
    with RowWriter(Path(path), COLUMNS) as writer:
        for row in ROWS:
            writer.write([row])


def test_lines_and_cells(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "GROUP_ROWS", 1)
    write("t.jsonl"), write("t.csv")
    first, last = (json.loads(line) for line in Path("t.jsonl").read_text().splitlines())
    assert first == {**ROWS[0], "reasons": ["one", "two"]}
    assert last == {"name": "\udcff", "r": None, "maps": None, "equal": None, "reasons": None}
    with Path("t.csv").open(newline="") as file:
        found = [*csv.DictReader(file)]
    assert found[0] == {"name": 'a, "b"\n', "r": "0.5", "maps": "2", "equal": "true", "reasons": "one; two"}
    assert found[1] == {"name": "\\udcff", "r": "", "maps": "", "equal": "", "reasons": ""}


def test_parquet(here: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    write("t.parquet")
    table = parquet.read_table("t.parquet")
    assert table.column_names == [*COLUMNS]
    assert table.to_pylist()[0] == {**ROWS[0], "reasons": ["one", "two"]}
    assert [str(one) for one in table.schema.types] == ["string", "double", "int64", "bool", "list<element: string>"]


def test_a_truth_among_numbers_is_a_number_where_columns_have_types(here: Path) -> None:
    for path in ("t.jsonl", "t.csv"):
        with RowWriter(Path(path), {"r": "number"}) as writer:
            writer.write([{"r": True}, {"r": 0.5}])
    assert Path("t.jsonl").read_text() == '{"r": true}\n{"r": 0.5}\n'
    assert Path("t.csv").read_text() == "r\n1.0\n0.5\n"
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    with RowWriter(Path("t.parquet"), {"r": "number"}) as writer:
        writer.write([{"r": True}, {"r": 0.5}])
    assert parquet.read_table("t.parquet").to_pylist() == [{"r": 1.0}, {"r": 0.5}]


def test_what_fails_leaves_the_file_as_it_was(here: Path) -> None:
    Path("t.csv").write_text("before")
    with pytest.raises(ZeroDivisionError), RowWriter(Path("t.csv"), COLUMNS) as writer:
        writer.write(ROWS)
        raise ZeroDivisionError
    assert Path("t.csv").read_text() == "before"
    assert [path.name for path in Path().iterdir()] == ["t.csv"]
    with pytest.raises(OutputError, match="cannot be written"), RowWriter(Path("no/t.csv"), COLUMNS):
        pass


@pytest.mark.parametrize("name", ["t.txt", "no/t.csv", "s3://b/t.csv", "memory://b/t.csv"])
def test_where_no_table_can_be_written(here: Path, name: str) -> None:
    with pytest.raises(RequestError):
        check_rows_file(Path(name))
