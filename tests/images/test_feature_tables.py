"""Extra features of images, from CSV and NumPy files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from shared import Paint
from torch import Tensor

from camcli import RequestError
from camcli.images.features import FeatureFile


def extras(text: str, name: str = "x.csv") -> FeatureFile:
    Path(name).write_text(text)
    return FeatureFile(Path(name))


def test_features_of_a_csv_are_one_tensor(paint: Paint) -> None:
    for name in "ab":
        paint(f"{name}.png")
    for text in ("a.png,1,2.5\nb.png,-3,4e-1\n", "picture,age,height\nb.png,-3,0.4\n\na.png, 1, 2.5\n"):
        found = extras(text)
        assert torch.equal(found.get([Path("b.png"), Path("a.png")]), torch.tensor([[-3, 0.4], [1, 2.5]]))
        assert found.sample(3).shape == (3, 2)
    found = extras("age,Image\n7,a.png\n8,nowhere.png\n")
    assert torch.equal(found.get([Path("a.png")]), torch.tensor([[7.0]]))
    assert found.unmatched == ["nowhere.png"]


def test_features_of_an_npz_are_a_tensor_or_several_by_name(paint: Paint) -> None:
    for name in "ab":
        paint(f"{name}.png")
    paths = [Path("b.png"), Path("a.png")]
    names = np.array(["a.png", "b.png"])
    np.savez("one.npz", picture=names, heat=np.arange(12, dtype=np.float64).reshape(2, 2, 3))
    one = FeatureFile(Path("one.npz")).get(paths)
    assert isinstance(one, Tensor)
    assert (one.dtype, one.shape) == (torch.float32, (2, 2, 3))
    assert torch.equal(one[1], torch.arange(6.0).reshape(2, 3))
    np.savez("two.npz", picture=names.astype("S"), kind=np.array([3, 4], np.uint8), on=np.array([True, False]))
    two = FeatureFile(Path("two.npz")).get(paths)
    assert {name: (values.dtype, values.tolist()) for name, values in two.items()} == {
        "kind": (torch.int64, [4, 3]),
        "on": (torch.bool, [False, True]),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,1\nb.png,nan\n", r"x\.csv, line 2: 'nan' is no finite number"),
        ("a.png,1\nb.png,1e99\n", r"x\.csv, line 2: '1e99' is no finite number"),
        ("picture,age\na.png,1\nb.png,old\n", r"x\.csv, line 3: 'old' in column 'age' is no finite number"),
        ("picture,age\na.png,\n", r"x\.csv, line 2: a value in column 'age' is missing"),
        ("a.png,1,2\nb.png,1\n", r"x\.csv, line 2: 2 cells, and the lines above have 3"),
        ("a.png,1\nnowhere.png,2\na.png,1\n", r"x\.csv, line 3: 'a.png' is listed twice"),
        ("name,age\na.png,1\n", r"x\.csv, line 1: 'age' is no finite number"),
        ("picture,age\n", "lists nothing"),
        ("a.png\nb.png\n", "lists no number"),
        ("", "lists nothing"),
        ("x.png,1\ny.png,2\n", r"none of the 2 names in x\.csv is an image that can be found, such as 'x.png'"),
        ('a.png,1\n"b.png,2\n', "is not CSV"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_line(paint: Paint, text: str, message: str) -> None:
    for name in "ab":
        paint(f"{name}.png")
    with pytest.raises(RequestError, match=message):
        extras(text)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"heat": np.zeros(2)}, "no array 'picture'"),
        ({"picture": np.zeros(2), "heat": np.zeros(2)}, "an array 'picture' of float64, 2"),
        ({"picture": np.array(["a.png"])}, "no array beside 'picture'"),
        (
            {"picture": np.array(["a.png", "b.png"]), "heat": np.zeros((3, 4))},
            "'heat' is 3x4, and 2 images are named",
        ),
        ({"picture": np.array(["a.png", "b.png"]), "heat": np.array([1, np.inf])}, "the first for 'b.png'"),
        ({"picture": np.array(["a.png"]), "heat": np.array(["hot"])}, "'heat' contains <U3, not numbers"),
        ({"picture": np.array(["a.png"]), "heat": np.array([{}], object)}, "cannot be read"),
    ],
)
def test_arrays_that_are_wrong_are_refused(paint: Paint, arrays: dict, message: str) -> None:
    for name in "ab":
        paint(f"{name}.png")
    np.savez("x.npz", **arrays)
    with pytest.raises(RequestError, match=message):
        FeatureFile(Path("x.npz"))


def test_files_of_other_types_are_refused(here: Path) -> None:
    (here / "x.json").write_text("{}")
    (here / "x.npz").write_text("no archive")
    (here / "x.csv").write_bytes(b"caf\xe9.png,1\n")
    for name, message in (
        ("x.json", "not .csv, .tsv or .npz"),
        ("x.npz", "cannot be read"),
        ("x.csv", "not UTF-8"),
        ("nowhere.csv", "No such file"),
    ):
        with pytest.raises(RequestError, match=message):
            FeatureFile(Path(name))
