"""Files of boxes: what they may say, and where boxes lie in the model's input."""

from pathlib import Path

import numpy as np
import pytest
from shared import Paint

from camcli.base.errors import RequestError
from camcli.images.objects.boxes import Boxes
from camcli.images.source import PictureSource
from camcli.images.view import View

# The model sees the middle half of an image 80 pixels wide.
VIEW = View(picture=(20, 80), input=(10, 20), box=(20.0, 0.0, 60.0, 20.0))


NAMES = ["cat", "dog"]


def read(text: str) -> Boxes:
    Path("boxes.csv").write_text(text)
    return Boxes(Path("boxes.csv"), NAMES.index, NAMES.index)


def source(name: str) -> PictureSource:
    return PictureSource(name, name)


def test_boxes_in_the_input(paint: Paint) -> None:
    paint("a.png")
    boxes = read("image,x0,y0,x1,y1,label\na.png,24,0,32,4,cat\na.png,50,10,90,30,dog\na.png,0,0,10,10,cat\n")
    cat, dog = np.zeros((2, 10, 20), bool)
    cat[:2, 2:6] = True
    dog[5:, 15:] = True
    np.testing.assert_array_equal(boxes.find_region(source("a.png"), 0, VIEW), cat)
    np.testing.assert_array_equal(boxes.find_region(source("a.png"), 1, VIEW), dog)
    assert not boxes.find_region(source("other.png"), 0, VIEW).any()
    assert boxes.count_listed([source("a.png"), source("b.png")]) == 1


@pytest.mark.parametrize(
    "text", ["a.png,24,0,32,4", "a.png,24,0,32,4,", "y1,picture,y0,x1,x0,more\n4,a.png,0,32,24,5", "a;24;0;32;4"]
)
def test_ways_to_write_a_box_of_every_class(paint: Paint, text: str) -> None:
    paint("a.png")
    found = read(text)
    assert [found.find_region(source("a.png"), index, VIEW).sum() for index in (0, 7)] == [8, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x0,y0,x1\na.png,1,2,3", "no column 'y1'"),
        ("image,x0,y0,x1,y1\na.png,1,2,one,4", r"line 2 \('a.png'\): 1, 2, one, 4 is no box"),
        ("a.png,5,2,3,4", "is no box"),
        ("a.png,1,2,3", "line 1 has 4 cells"),
        ("image,x0,y0,x1,y1\n", "lists nothing"),
    ],
)
def test_what_is_no_file_of_boxes(paint: Paint, text: str, message: str) -> None:
    paint("a.png")
    with pytest.raises(RequestError, match=message):
        read(text)
