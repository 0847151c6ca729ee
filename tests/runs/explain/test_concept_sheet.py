"""The sheet of crops of each concept: what it shows, when it is written, and when not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shared import BLUE, GREEN, RED, Go, Paint

from camcli.engine.maps import concepts
from camcli.outputs.sheet import THUMBNAIL_SIDE, SheetRow, compose_sheet
from camcli.runs.explain import concept_sheet

DFF = {"method": "dff", "layers": ("stem",), "options": ("concepts=3",)}
SHEET = Path("out/concepts.png")


@pytest.fixture
def set_of_three(paint: Paint) -> None:
    """Red beside green, red beside blue, and green beside blue."""
    paint("in/a.png", RED, box=(0, 0, 16, 32), ground=GREEN)
    paint("in/b.png", RED, box=(0, 0, 16, 32), ground=BLUE)
    paint("in/c.png", BLUE, box=(16, 0, 32, 32), ground=GREEN)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[SheetRow]]:
    """The rows of every sheet that is drawn."""
    found = []

    def compose(title: str, heading: Sequence[str], rows: Sequence[SheetRow], *more: Any) -> np.ndarray:
        found.append(rows)
        return compose_sheet(title, heading, rows, *more)

    monkeypatch.setattr(concept_sheet, "compose_sheet", compose)
    return found


def show(rows: Sequence[SheetRow]) -> list[tuple[str, list[str]]]:
    """Of each row the colour in the middle of its crops, which must be the same in all, and their images."""
    found = []
    for row in rows:
        middles = {"rgb"[int(tile.pixels[THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE // 2].argmax())] for tile in row.tiles}
        assert len(middles) == 1
        found.append((middles.pop(), [tile.caption.split()[-1] for tile in row.tiles]))
    return sorted(found)


@pytest.mark.usefixtures("set_of_three")
@pytest.mark.parametrize("sampled", [False, True])
def test_each_concept_has_crops_of_where_it_is_strongest(
    go: Go, monkeypatch: pytest.MonkeyPatch, drawn: list[Sequence[SheetRow]], sampled: bool
) -> None:
    if sampled:  # 100 of the 256 cells
        monkeypatch.setattr(concepts, "MAX_VALUES", 100 * 3 * concepts.MAX_PICTURES)
    go("in", **DFF)
    [rows] = drawn
    assert show(rows) == [("b", ["b.png", "c.png"]), ("g", ["a.png", "c.png"]), ("r", ["a.png", "b.png"])]
    assert [row.name for row in rows] == ["concept 1", "concept 2", "concept 3"]
    if not sampled:
        assert {row.lines[0] for row in rows} <= {"33% of all", "34% of all"}
    with Image.open(SHEET) as sheet:
        assert sheet.size[0] > 8 * THUMBNAIL_SIDE


@pytest.mark.usefixtures("set_of_three")
def test_it_is_of_the_images_in_which_concepts_were_found(
    go: Go, paint: Paint, drawn: list[Sequence[SheetRow]]
) -> None:
    go("in", **DFF)
    before = SHEET.read_bytes()
    paint("in/d.png", RED)
    go("in", **DFF)
    assert SHEET.read_bytes() == before
    assert len(drawn) == 1
    go("in", **DFF, overwrite=True)
    assert show(drawn[1])[2] == ("r", ["a.png", "b.png", "d.png"])


@pytest.mark.usefixtures("set_of_three")
def test_where_concepts_are_each_images_own_or_no_directions_there_is_none(go: Go) -> None:
    go("in", method="dff", layers=("stem",), options=("concepts=2", "over=picture"))
    assert not SHEET.exists()
    go("in", method="kmeans", layers=("stem",), options=("segments=2",), out="other")
    assert not Path("other/concepts.png").exists()


@pytest.mark.usefixtures("set_of_three")
def test_several_layers_share_a_sheet(go: Go, drawn: list[Sequence[SheetRow]]) -> None:
    go("in", method="dff,gradcam", layers=("stem", "body"), options=("concepts=3",))
    [rows] = drawn
    assert [(row.name, row.lines[1]) for row in rows] == [
        (f"concept {number}", f"at {layer}") for layer in ("stem", "body") for number in (1, 2, 3)
    ]
    assert show(rows[:3]) == [("b", ["b.png", "c.png"]), ("g", ["a.png", "c.png"]), ("r", ["a.png", "b.png"])]
