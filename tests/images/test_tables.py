"""Images in rows of Parquet and Arrow files are found, named and read in place, with the classes of their dataset."""

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import SMALL, png

from camcli.base.errors import PictureError, RequestError
from camcli.images.decode import decode
from camcli.images.files import exists, read_stamp
from camcli.images.find import find
from camcli.images.formats import SkippedFiles
from camcli.images.told import read_told_classes

pa = pytest.importorskip("pyarrow", reason="pyarrow is an extra")
from pyarrow import ipc, parquet  # noqa: E402

pytestmark = pytest.mark.usefixtures("here")

OTHER = np.zeros((6, 4, 3), np.uint8)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = {"_type": "ClassLabel", "names": ["ant", "bee"]}


def make(rows=3, images=("image",), **columns):
    """Return a table as `datasets` makes it, of images that alternate, with columns of values and their features."""
    contents = [{"bytes": png((SMALL, OTHER)[row % 2]), "path": None} for row in range(rows)]
    arrays = {name: pa.array(contents, IMAGE) for name in images}
    arrays |= {name: pa.array(values) for name, (values, _) in columns.items()}
    features = {name: feature for name, (_, feature) in columns.items() if feature}
    info = json.dumps({"info": {"features": features}})
    return pa.table(arrays).replace_schema_metadata({"huggingface": info})


def save(name, table, **how):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        parquet.write_table(table, name, **how)
    else:
        with ipc.new_stream(name, table.schema) as file:
            file.write_table(table, max_chunksize=2)


def save_dataset(folder, *tables):
    names = [f"data-{number:05}-of-{len(tables):05}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        save(f"{folder}/{name}", table)
    Path(folder, "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    Path(folder, "dataset_info.json").write_text("{}")


def found(*inputs, **options):
    return list(find(inputs, out=Path("out"), **options))


def names(*inputs):
    return [one.name for one in found(*inputs) if not one.error]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_the_images_of_a_table_are_its_rows(name):
    save(name, make(40), **({"row_group_size": 25} if name == "t.parquet" else {}))
    sources = found(name)
    assert [one.name for one in sources] == [f"t/{row:06}" for row in range(40)]
    for row in (*range(40), 3, 39, 0):  # also back, over row groups and lots
        assert (np.asarray(decode(sources[row].path)) == (SMALL, OTHER)[row % 2]).all()
    assert len({read_stamp(one.path) for one in sources}) == 40
    assert exists(Path(name, "000039"))
    assert not exists(Path(name, "000040"))
    Path("list.txt").write_text(f"{name}/000001\n{name}/000007\n{name}/9\n")
    assert names(f"{name}/000007") == ["t/000007"]
    assert [one.name for one in found("@list.txt")] == ["t/000001", "t/000007", "t/9"]
    with pytest.raises(PictureError, match="no row '9'"):
        decode(Path(name, "9"))


def test_a_folder_that_datasets_saved_is_its_tables():
    save_dataset("d/train", make(2), make(1))
    save_dataset("d/test", make(1))
    Path("d/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    train = ["d/train/data-00000-of-00002/000000", "d/train/data-00000-of-00002/000001"]
    assert names("d/train") == [*train, "d/train/data-00001-of-00002/000000"]
    assert names("d") == [*names("d/train"), "d/test/data-00000-of-00001/000000"]
    assert names("d/train/image") == [name.replace("/0000", "/image/0000") for name in names("d/train")]
    Path("d/test/state.json").write_text('{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}')
    with pytest.raises(RequestError, match="rows are chosen by a list of indices"):
        found("d")


def test_of_several_columns_one_is_named():
    save("t.parquet", make(1, ("left", "right")))
    with pytest.raises(RequestError, match="several columns of images: 'left', 'right'") as caught:
        found("t.parquet")
    assert caught.value.hint == "name one: t.parquet/left"
    assert names("t.parquet/right") == ["t/right/000000"]
    assert decode(found("t.parquet/right")[0].path).size == (7, 5)
    with pytest.raises(RequestError, match="no column of images 'rihgt'") as caught:
        found("t.parquet/rihgt")
    assert "right" in caught.value.hint
    save("p.parquet", pa.table({"path": ["a.png"]}))
    with pytest.raises(RequestError, match="no column of images") as caught:
        found("p.parquet")
    assert "with @ before it" in caught.value.hint
    save("b.parquet", pa.table({"jpg": [png()], "key": ["a"]}))
    assert decode(found("b.parquet")[0].path).size == (7, 5)


def test_rows_without_an_image_fail_alone():
    rows = [None, {"bytes": None, "path": "a.png"}, {"bytes": b"", "path": None}, {"bytes": b"x", "path": None}]
    save("t.parquet", pa.table({"image": pa.array([*rows, {"bytes": png(), "path": None}], IMAGE)}))
    *bad, good = (one.path for one in found("t.parquet"))
    for path, says in zip(bad, ("holds no image", "holds a path", "holds no image", "is not an image"), strict=True):
        with pytest.raises(PictureError, match=says):
            decode(path)
    assert decode(good).size == (7, 5)


def test_damage_fails_what_it_reaches_and_no_more():
    save("t.arrow", make(6))
    whole = Path("t.arrow").read_bytes()
    Path("t.arrow").write_bytes(whole[: len(whole) * 3 // 4])
    *good, bad = found("t.arrow")
    assert [one.name for one in good] == [f"t/{row:06}" for row in range(4)]
    assert "cut short after 4 rows" in bad.error
    assert decode(good[3].path).size == (4, 6)
    images = pa.table({"image": [np.random.default_rng(row).bytes(5000) for row in range(80)]})
    how = {"use_dictionary": False, "data_page_size": 9000, "write_batch_size": 1, "write_page_checksum": True}
    save("p.parquet", images, row_group_size=40, **how)
    content = bytearray(Path("p.parquet").read_bytes())
    place = content.index(images["image"][34].as_py()[:100])
    content[place : place + 9] = bytes(9)
    Path("p.parquet").write_bytes(content)
    sources = found("p.parquet")
    says = []
    for one in sources:
        with pytest.raises(PictureError) as caught:
            decode(one.path)
        says.append("row group is damaged" in caught.value.message)
    assert not any(says[:32])
    assert all(says[34:40])
    assert not any(says[40:])
    for name in ("bad.parquet", "bad.arrow"):
        Path(name).write_bytes(b"PAR1 nothing")
        with pytest.raises(RequestError, match=r"is not an? (Parquet|Arrow) file"):
            found(name)


def test_tables_in_folders_are_counted_and_not_read():
    save("d/t.parquet", make(1))
    Path("d/a.png").write_bytes(png())
    skipped = SkippedFiles()
    assert [one.name for one in found("d", skipped=skipped)] == ["d/a.png"]
    assert "1 table in folders is not read: name them, as by 'folder/*.parquet'" in skipped.describe()


@pytest.mark.parametrize("file", ["t.parquet", "t.arrow"])
@pytest.mark.parametrize(
    ("columns", "name", "classes"),
    [
        ({"y": ([1, 0], NAMES), "label": ([5, 6], None)}, "", [(1, "bee")]),
        ({"y": ([1, 0], NAMES), "label": ([5, 6], None)}, "label", [(5, "")]),
        ({"category": (["bee", ""], None), "n": ([1, 2], None)}, "", [(None, "bee")]),
        ({"tags": ([[1, 0], []], {"feature": NAMES, "_type": "Sequence"})}, "", [(1, "bee"), (0, "ant")]),
        ({"tags": ([[1, 0], []], [NAMES])}, "tags", [(1, "bee"), (0, "ant")]),
        ({"label": ([-1, 0], NAMES)}, "", "gives it no label: -1"),
        ({"label": ([0.5, 0], None)}, "", "is no class: 0.5"),
        ({"n": ([1, 2], None)}, "", "no column 'of classes'"),
        ({"label": ([1, 2], None)}, "lable", "no column 'lable'"),
    ],
)
def test_a_column_tells_the_classes(file, columns, name, classes):
    save(file, make(2, **columns))
    path = Path(file, "000000")
    if isinstance(classes, str):
        with pytest.raises(PictureError, match=classes):
            read_told_classes(path, name, ("label", "category"))
    else:
        assert read_told_classes(path, name, ("label", "category")) == classes
