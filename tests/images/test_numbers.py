"""A number for each image: read from tables as people have them, or refused with the line."""

from pathlib import Path

import pytest
from shared import Paint

from camcli.base.errors import PictureError, RequestError
from camcli.images.numbers import NumberColumn


def values(here: Path, text: str, asked: str = "v.csv", folders: tuple[str, ...] = ()) -> NumberColumn:
    (here / "v.csv").write_text(text, encoding="utf-8")
    return NumberColumn(asked, [Path(folder) for folder in folders])


def test_values_are_found_by_paths_as_targets_are(paint: Paint, here: Path) -> None:
    paint("in/a.png")
    paint("in/b.png")
    found = values(here, "Age, File\n3.5, a.png\n\n-1e3, in/b.png\n2, nobody.png\n", folders=("in",))
    assert found.column == "Age"
    assert [found(Path("in/a.png")), found(here / "in/b.png")] == [3.5, -1000]
    assert found.find_unused(iter([Path("in/a.png")])) == ["nobody.png", str(here / "in/b.png")]
    with pytest.raises(PictureError, match="no value for this image"):
        found(Path("in/c.png"))


def test_without_titles_the_second_cell_is_the_number(paint: Paint, here: Path) -> None:
    paint("a.png")
    found = values(here, '"a.png",7\n')
    assert (found(Path("a.png")), found.column) == (7, "values")


def test_a_file_whose_name_has_a_colon_is_a_file(paint: Paint, here: Path) -> None:
    paint("a.png")
    (here / "v.csv:age").write_text("picture,x\na.png,2\n")
    assert NumberColumn("v.csv:age")(Path("a.png")) == 2
    assert values(here, "picture,age,b\na.png,1,2\n", "v.csv:b")(Path("a.png")) == 2


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        ("", "v.csv", "'v.csv' lists nothing"),
        ("picture,age\n", "v.csv", "'v.csv' lists nothing"),
        ("picture\na.png\n", "v.csv", "no column beside that of the images"),
        ("picture,age\na.png,\n", "v.csv", r"line 2 \('a.png'\): the number is missing"),
        ("picture,age\n,3\n", "v.csv", "the image is missing"),
        ("picture,age\na.png,nan\n", "v.csv", "'nan' is not a finite number"),
        ("picture,age\na.png,inf\n", "v.csv", "'inf' is not a finite number"),
        ("name,age\na.png,3\n", "v.csv", r"line 1 \('name'\): 'age' is not a finite number"),
        ("picture,age\na.png,3,5\n", "v.csv", "line 2: 3 cells, and the first row has 2"),
        ("picture,age\na.png,3\na.png,3\n", "v.csv", "line 3: 'a.png' is listed twice, first in line 2"),
        ("picture,age,age\na.png,3,4\n", "v.csv:age", "2 columns 'age'"),
        ("a.png,3\n", "v.csv:age", "no header row, so there is no column 'age'"),
        ("a.png,3,4\n", "v.csv", "3 cells a row and no header row"),
        ('picture,age\n"a.png,3\n', "v.csv", "is not CSV"),
    ],
)
def test_a_values_file_that_cannot_be_says_why(paint: Paint, here: Path, text: str, asked: str, said: str) -> None:
    paint("a.png")
    with pytest.raises(RequestError, match=said):
        values(here, text, asked)


def test_a_values_file_that_is_no_text_says_so(here: Path) -> None:
    (here / "v.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="is not UTF-8 text"):
        NumberColumn("v.csv")
