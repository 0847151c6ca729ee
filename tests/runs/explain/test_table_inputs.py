"""A run over rows of a table is one like any other: resumed, with the classes of the dataset, also by name."""

from pathlib import Path

import pytest
from shared import Go, Paint

pa = pytest.importorskip("pyarrow", reason="pyarrow is an extra")
from pyarrow import parquet  # noqa: E402


def test_a_run_over_a_table_is_resumed_and_knows_its_classes(paint: Paint, go: Go) -> None:
    image = paint("x.png", (200, 100, 50)).read_bytes()
    names = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["blue", "red", "mauve"]}}}}'
    table = pa.table({"image": [{"bytes": one} for one in (image, image, image, b"")], "label": [0, 1, 2, 0]})
    parquet.write_table(table.replace_schema_metadata({"huggingface": names}), "t.parquet")
    first, second, unknown, bad = go("t.parquet", target=("dataset",))
    assert [one.label for one in (*first, *second)] == ["blue", "red"]
    assert first[0].source == "t.parquet/000000"
    assert Path("out", first[0].files["overlay"]).is_file()
    assert unknown[0].error is not None
    assert "class 'mauve' is none of the model" in unknown[0].error
    assert bad[0].error == "its row holds no image"
    assert [len(one) for one in go("t.parquet", target=("dataset",))] == [0, 0, 1, 1]
