"""Parts of images that a person names, brought to the model's input."""

import numpy as np
import pytest

from camcli.base.errors import PictureError, RequestError
from camcli.images.corners import box_to_picture
from camcli.images.region import Region, parse_rectangle
from camcli.images.view import View

# An image of 8x4 pixels (w x h) in an input of 4x4: half as large, a row of padding above and below.
VIEW = View((4, 8), (4, 4), (0.0, -2.0, 8.0, 6.0))


def test_the_whole_picture_is_what_is_not_padding():
    inside = Region().contains(*VIEW.pixel_centres(), VIEW.picture)
    assert inside.tolist() == [[False] * 4, [True] * 4, [True] * 4, [False] * 4]


def test_a_rectangle_is_inside_where_its_edges_are_around_a_cells_centre():
    region = parse_rectangle("2, 0, 8, 1.5")
    assert region is not None
    # Columns' centres lie at 1, 3, 5, 7; rows' at -1, 1, 3, 5.
    assert region.contains(*VIEW.pixel_centres(), VIEW.picture).tolist() == [
        [False] * 4,
        [False, True, True, True],
        [False] * 4,
        [False] * 4,
    ]


def test_a_mask_is_read_where_the_centres_lie():
    mask = np.zeros((4, 8), bool)
    mask[3, 5] = mask[0, 7] = True
    inside = Region(mask=mask).contains(*VIEW.pixel_centres(), VIEW.picture)
    assert np.argwhere(inside).tolist() == [[2, 2]]


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(PictureError, match="8x4 pixels, but the mask of the region is 4x8"):
        Region(mask=np.ones((8, 4), bool)).contains(*VIEW.pixel_centres(), VIEW.picture)


@pytest.mark.parametrize("text", ["mask.png", "1,2,3", "a,b,c,d", "1,2,3,4,5", ""])
def test_what_is_no_rectangle(text):
    assert parse_rectangle(text) is None


@pytest.mark.parametrize("text", ["5,0,5,9", "5,5,9,4"])
def test_an_empty_rectangle_is_refused(text):
    with pytest.raises(RequestError, match="is empty"):
        parse_rectangle(text)


def test_a_box_in_the_input_is_one_in_the_picture_cut_off_at_its_edges():
    assert box_to_picture(VIEW, (1.0, 1.0, 3.0, 2.5)) == (2.0, 0.0, 6.0, 3.0)
    assert box_to_picture(VIEW, (-1.0, 0.0, 9.0, 4.0)) == (0.0, 0.0, 8.0, 4.0)
