"""``--save box``: its numbers in pixels of the upright image, drawn again from kept maps, and maps without a box."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readback import files, ledger
from shared import Go
from typer.testing import CliRunner

import camcli
from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.runs.explain import writer
from camcli.runs.record.outcome import Outcome
from camcli.runs.worker.item import Item

pytestmark = pytest.mark.usefixtures("here")
# Cells are 10 x 5 pixels of this image, of which those from 20 to 39 and 20 to 34 are red. Between two cells of 0 and
# two of 1 the cubic is (3 t^2 - 2 t^3 + t) / 2, which is 0.2 at t = 0.247: between the centres at 15 and 25 at 17.5,
# and between those at 17.5 and 22.5 at 18.7. The first pixel whose centre lies beyond is 17, and 19.
BOX = (17, 19, 26, 17)
RED = {"layers": ("body",), "target": ("red",)}


@pytest.fixture
def red() -> str:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[20:35, 20:40, 0] = 255
    Image.fromarray(pixels).save("red.png")
    return "red.png"


def size_of(file: str) -> tuple[int, int]:
    with Image.open(Path("out", file)) as image:
        return image.size


def refuse(_: writer.Writer, item: Item) -> list[Outcome]:
    assert item.skipped, "the network was asked again"
    return []


def test_its_numbers_are_those_worked_out_by_hand_also_of_a_turned_photo_and_in_python(go: Go, red: str, tiny: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(red) as upright:
        upright.transpose(Image.Transpose.ROTATE_90).save("turned.png", exif=exif)
    lines = [line for (line,) in go(red, "turned.png", save=("box",), **RED)]
    assert [line.heat_box for line in lines] == [BOX, BOX]
    assert size_of(lines[1].files["box"]) == (80, 40)
    one = camcli.explain(red, model=tiny, device="cpu", layer="body", target="red")[0]
    assert one.heat_box() == BOX
    x, y, width, height = one.heat_box(threshold=0.9)
    assert (x > 17, y > 19, width < 26, height < 17) == (True,) * 4
    with pytest.raises(RequestError, match="threshold cannot be 20"):
        one.heat_box(20)
    assert one.save("a.box.jpg").read_bytes() == Path("out", lines[0].files["box"]).read_bytes()


def test_the_line_of_json_has_it_and_only_if_it_is_asked_for(go: Go, red: str, tiny: str):
    (((line,),),) = [go(red, **RED)]
    assert line.heat_box is None
    words = ["explain", red, "-m", tiny, "-l", "body", "-t", "red", "-O", "out", "--save", "box", "--json", "-q"]
    printed = CliRunner().invoke(app, words).stdout
    assert json.loads(printed)["heat_box"] == list(BOX)


def test_it_is_drawn_again_from_the_kept_map_and_counted_anew(go: Go, red: str, monkeypatch):
    go(red, save=("array",), **RED)
    monkeypatch.setattr(writer.Writer, "write", refuse)
    ((line,),) = go(red, save=("array", "box"), **RED)
    assert line.heat_box == tuple(ledger()[-1]["heat_box"]) == BOX
    ((jet,),) = go(red, save=("box",), colormap="jet", **RED)
    assert (jet.heat_box, jet.looks["box"] != line.looks["box"]) == (BOX, True)
    # Panels alone have a size: a box of another panel's size is there already.
    assert go(red, save=("box",), colormap="jet", panel_size=640, **RED) == [[]]
    ((large,),) = go(red, save=("panel",), panel_size=640, **RED)
    assert size_of(large.files["panel"])[0] >= 3 * 640
    assert large.heat_box == BOX


def test_at_one_scale_for_the_run_it_is_the_same(go: Go, red: str):
    ((line,),) = go(red, save=("box",), normalize="run", **RED)
    assert line.heat_box == BOX
    assert "red.png.box.jpg" in files()


def test_a_map_without_a_box_fails_with_the_reason_and_leaves_no_file(go: Go):
    Image.new("RGB", (32, 32), (200, 0, 0)).save("full.png")
    ((line,),) = go("full.png", save=("overlay", "box"), **RED)
    assert "above 20% of its maximum in all that the model saw" in line.error
    assert files() == []


@pytest.mark.parametrize(("saved", "what"), [("box", "box"), ("grey", "grey values")])
def test_concepts_are_refused_before_the_first_image(go: Go, red: str, saved: str, what: str):
    with pytest.raises(RequestError, match=f"concepts have no {what}"):
        go(red, save=(saved,), method="dff", options=("concepts=2",), layers=("body",))
