"""The contact sheet of channels: one scale for a row, room for every row."""

import numpy as np

from camcli.images.view import View
from camcli.outputs import draw
from camcli.outputs.sheet import THUMBNAIL_SIDE, SheetRow, SheetTile, compose_sheet
from camcli.outputs.style import Style


def tile(strength: float) -> SheetTile:
    view = View((THUMBNAIL_SIDE, THUMBNAIL_SIDE), (8, 8), (0.0, 0.0, float(THUMBNAIL_SIDE), float(THUMBNAIL_SIDE)))
    return SheetTile(
        "cat.png",
        np.full((THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), 128, np.uint8),
        view,
        np.full((2, 2), strength, np.float32),
    )


def test_a_rows_pictures_are_drawn_on_one_scale_and_rows_are_not() -> None:
    style = Style("viridis", 0.6, "run")

    def drawn(rows: list[list[float]]) -> np.ndarray:
        tiles = [[tile(strength) for strength in strengths] for strengths in rows]
        return compose_sheet("t", [], [SheetRow("channel", [], some) for some in tiles], [], style, 2)

    page = drawn([[2.0, 1.0], [1.0, 1.0]])
    grey = np.full((1, 1, 3), 128, np.uint8)
    full, half = (draw.blend(grey, np.array([[heat]], np.float32), style)[0, 0] for heat in (1.0, 0.5))

    def cells(colour: np.ndarray) -> int:
        return round((page == colour).all(axis=2).sum() / THUMBNAIL_SIDE**2)

    assert (cells(full), cells(half)) == (3, 1)


def test_what_is_not_above_zero_is_not_drawn() -> None:
    style = Style("viridis", 0.6, "run")
    page = compose_sheet("t", [], [SheetRow("channel", [], [tile(-1.0), tile(0.0)])], [], style, 2)
    bare = draw.blend(np.full((1, 1, 3), 128, np.uint8), np.zeros((1, 1), np.float32), style)[0, 0]
    assert round((page == bare).all(axis=2).sum() / THUMBNAIL_SIDE**2) == 2


def test_a_sheet_has_room_for_every_row_and_line() -> None:
    style = Style("viridis", 0.6, "run")
    one = compose_sheet("t", ["a"], [SheetRow("channel", ["x"], [tile(1.0)])], ["word " * 300], style, 3)
    empty = SheetRow("channel 7", [], [], ["zero in every image"])
    two = compose_sheet("t", ["a"], [SheetRow("channel", ["x"], [tile(1.0)]), empty], ["word " * 300], style, 3)
    assert one.shape[1] == two.shape[1]
    assert len(two) > len(one)
    assert (one[-10:] == 255).all()
    gone = compose_sheet("t", [], [SheetRow("channel", [], [SheetTile("gone.png")])], [], style, 1)
    assert (gone != 255).any()
