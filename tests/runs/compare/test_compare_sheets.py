"""Sheets of compared maps: cells as camcli explain draws them, bars whose ends are the scale's, SVG, PDF and HTML."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commands import do
from compare_runs import compare, lines, write_gradients, written
from PIL import Image
from shared import BLUE, GREEN, RED, Paint

from camcli.engine.explanation import Explanation
from camcli.images.source import Picture, PictureSource
from camcli.images.view import View
from camcli.outputs import draw
from camcli.outputs.sheet import BAR, ColourBar
from camcli.outputs.signed import draw_signed, signed_peak
from camcli.outputs.style import Style
from camcli.runs.compare import PRINT_SIDE, SIDE, CompareJob
from camcli.runs.compare.drawing import Scales
from camcli.runs.compare.grid import Arrangement, Grid
from camcli.runs.job.job import Job

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<img src=x onerror=alert(1)>\u202e&\"'.png"


def find(page: np.ndarray, part: np.ndarray) -> bool:
    """Whether a picture is somewhere on a page, pixel by pixel."""
    height, width = part.shape[:2]
    corners = np.argwhere((page[: len(page) - height + 1, : page.shape[1] - width + 1] == part[0, 0]).all(2))
    return any(np.array_equal(page[y : y + height, x : x + width], part) for y, x in corners)


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_cell_is_what_explain_draws(tiny: str, paint: Paint) -> None:
    """An image as large as a cell is drawn at its own size."""
    paint("a.png", RED, size=(SIDE, SIDE), box=(40, 40, 120, 200), ground=(60, 60, 60))
    words = ("a.png", "--layer", "body", "--method", "gradcam,saliency")
    for kind, name in (("overlay", "overlay-png"), ("heatmap", "heatmap")):
        assert compare(tiny, *words, "--draw", kind, out=kind).exit_code == 0
        made = do("explain", *words, "-m", tiny, "--device", "cpu", "--save", name, "--out", f"maps-{kind}")
        assert made.exit_code == 0, made.output
        page = pixels(f"{kind}/compare.png")
        drawn = sorted(Path(f"maps-{kind}").glob("*.png"))
        assert len(drawn) == 2
        for one in drawn:
            assert find(page, pixels(str(one)))
        assert find(page, pixels("a.png")) == (kind in ("overlay", "heatmap"))


def test_the_ends_of_a_bar_are_those_of_the_scale() -> None:
    ends = np.array([[0.0, 1.0]], np.float32)
    plain = ColourBar("viridis", "0", "2").draw(*BAR)
    assert np.array_equal(plain[0, [0, -1]], draw.apply_colormap(ends, "viridis")[0])
    signed = ColourBar("", "-2", "2").draw(97, 9)
    assert np.array_equal(signed[0, [0, -1]], draw.apply_diverging(np.array([[-1.0, 1.0]], np.float32))[0])
    assert np.array_equal(signed[0, 48], draw.apply_diverging(np.zeros((1, 1), np.float32))[0, 0])


@pytest.mark.parametrize(("mode", "expected"), [("row", [2, 4, 0.5]), ("column", [3, 4]), ("run", [4]), ("none", [1])])
def test_scales_are_shared_as_asked(mode: str, expected: list[float]) -> None:
    """Three images and two methods: the greatest of each row, column and all."""
    names = {axis: ["x"] for axis in ("models", "scales", "targets", "prompts", "layers")}
    grid = Grid({**names, "methods": ["a", "b"]})
    job = CompareJob(job=Job(), normalize=mode)
    peaks = [[1.0, 2.0], [3.0, 4.0], [float("nan"), 0.5]]
    scales = Scales.from_peaks(job, Arrangement("images", "methods", "scales"), grid, peaks)
    view = View((4, 4), (4, 4), (0.0, 0.0, 4.0, 4.0))
    cell = Explanation(np.ones((2, 2), np.float32), "a", "l", 0, "x", 1.0, None, view=view)
    for number, value in enumerate(expected):
        place = (number, 0) if mode == "row" else (0, number)
        assert scales.find(cell, *place) == value
        bar = scales.make_bar(mode if mode in ("row", "column") else "run", number)
        assert bar
        assert (bar.low, bar.high) == ("0", f"{value:g}")
    assert {one for one in ("row", "column", "run") if scales.make_bar(one)} == {mode if mode != "none" else "run"}


def test_maps_of_one_scale_are_as_strong_as_they_are(tiny: str, paint: Paint) -> None:
    """A map half as strong as another is drawn at half strength where they share a scale, and alike where not."""
    paint("in/a.png", (240, 0, 0), size=(SIDE, SIDE))
    paint("in/b.png", (120, 0, 0), size=(SIDE, SIDE))
    words = ("in", "--layer", "stem", "--target", "red", "--draw", "heatmap")
    full, half = (draw.apply_colormap(np.full((1, 1), heat, np.float32), "inferno")[0, 0] for heat in (1.0, 0.5))
    for mode, strong, weak in (("image", 2, 0), ("column", 1, 1), ("run", 1, 1), ("row", 2, 0)):
        assert compare(tiny, *words, "--normalize", mode, out=mode).exit_code == 0
        page = pixels(f"{mode}/compare.png")
        counts = [round((abs(page.astype(int) - colour) <= 2).all(2).sum() / SIDE**2, 1) for colour in (full, half)]
        assert counts == [strong, weak]


def test_signed_maps_are_blue_below_zero_and_red_above() -> None:
    view = View((8, 8), (8, 8), (0.0, 0.0, 8.0, 8.0))
    map = np.zeros((8, 8), np.float32)
    map[:, :3], map[:, 5:] = -2, 1
    explanation = Explanation(map, "m", "l", 0, "x", 1.0, None, view=view)
    picture = Picture(PictureSource("a.png", "a.png"), np.full((8, 8, 3), 128, np.uint8), view)
    assert signed_peak(map) == 2
    drawn = draw_signed(picture, explanation, Style("inferno", 1.0, "run", 2.0, "keep")).astype(int)
    assert np.array_equal(drawn[0, 0], draw.DIVERGING[0])
    red, _, blue = drawn[0, 7]
    assert red > blue
    assert (drawn[0, 4] == drawn[0, 4, 0]).all()  # the image in grey
    assert signed_peak(np.stack([map, -map, map])) == 2


def test_svg_and_pdf_hold_the_sheet(tiny: str, here: Path) -> None:
    write_gradients(HOSTILE)
    result = compare(tiny, HOSTILE, "--method", "gradcam,layercam", "--layer", "stem", "--save", "svg,pdf,png")
    assert result.exit_code == 0, result.output
    root = ElementTree.parse("out/compare.svg").getroot()
    texts = [one.text or "" for one in root.iter(f"{SVG}text")]
    assert {"gradcam", "layercam"} <= {*texts}
    assert any(text.startswith("<img") for text in texts)
    assert {one.tag.rpartition("}")[2] for one in root.iter()} == {"svg", "rect", "image", "text"}
    assert Path("out/compare.pdf").read_bytes().startswith(b"%PDF")
    # Cells have the resolution for print, which the PNG knows too.
    tiles = [base64.b64decode((one.get("href") or "").partition("base64,")[2]) for one in root.iter(f"{SVG}image")]
    sizes = [max(Image.open(io.BytesIO(one)).size) for one in tiles]
    assert sizes.count(PRINT_SIDE) == 3
    dpi = 144 * PRINT_SIDE / SIDE
    with Image.open("out/compare.png") as sheet:
        assert sheet.info["dpi"] == pytest.approx((dpi, dpi), abs=0.02)
    box = re.search(rb"/MediaBox \[ ([\d.]+) ([\d.]+) ([\d.]+)", Path("out/compare.pdf").read_bytes())
    assert box
    assert float(box[3]) == pytest.approx(float(root.get("viewBox").split()[2]) / 2, abs=0.5)  # points of units


class Reader(HTMLParser):
    """Elements of a page, their attributes, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_the_page_holds_all_and_names_are_inert(tiny: str, here: Path) -> None:
    write_gradients(f"in/{HOSTILE}")
    write_gradients("in/b.png")
    Path("in/c.png").write_bytes(b"no picture")
    result = compare(tiny, "in", "--method", "gradcam,layercam", "--layer", "stem", "--save", "html")
    assert result.exit_code == 1
    assert written() == ["compare.html", "compare.json", "compare.jsonl"]
    page = Reader(Path("out/compare.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe"} & {*page.tags}
    assert page.tags.count("img") == 2 * 3 + 1  # two images with two maps each, and the bar of colours
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(str(value).startswith("data:image/") for name, value in page.attributes if name in ("src", "href"))
    [policy] = [value for name, value in page.attributes if name == "content" and "default-src" in str(value)]
    assert str(policy).startswith("default-src 'none'; style-src 'sha256-")
    assert HOSTILE in page.texts
    assert "no map" in page.texts
    assert [text for text in page.texts if text == "+1.000"] == ["+1.000"] * 3


def write_texts(*words: str) -> list[str]:
    """Write an SVG sheet of two methods; return its texts."""
    result = compare("tiny.py:make", *words, "--layer", "stem", "--save", "svg", "--overwrite")
    assert result.exit_code == 0, result.output
    root = ElementTree.parse("out/compare.svg").getroot()
    return [one.text or "" for one in root.iter(f"{SVG}text")]


def test_a_plain_sheet_has_headings_captions_and_bars_alone(tiny_file: Path, paint: Paint) -> None:
    paint("cat-and-espresso-again.jpg", RED, size=(48, 32), box=(4, 4, 20, 20), ground=GREEN)
    Path("tiny.py").write_bytes(tiny_file.read_bytes())
    images = "cat-and-espresso-again.jpg", "--crop", "center", "--target", "red"
    full = write_texts(*images, "--method", "gradcam,layercam")
    assert any(one.startswith("Methods compared") for one in full)
    assert any(one.startswith("White frame: ") for one in full)
    assert "similarity" not in full  # two maps have it in a caption
    assert not [one for one in full if one in ("jpg", ".jpg")]  # a suffix stays with its name
    assert "similarity" in write_texts(*images, "--method", "gradcam,layercam,hirescam")
    plain = write_texts(*images, "--method", "gradcam,layercam,hirescam", "--plain")
    assert {"image", "gradcam", "layercam", "hirescam", "100%"} <= {*plain}
    assert "others are compared with this map" in plain
    assert compare("tiny.py:make", *images, "--layer", "stem,body", "--plain", "--save", "html", out="p").exit_code == 0
    page = Reader(Path("p/compare.html").read_text(encoding="utf-8"))
    assert (page.tags.count("h2"), page.tags.count("p")) == (0, 1)  # the bar of colours
    for words in ("Methods compared", "similarity", "How alike", "White frame", "sha256", "predicted"):
        assert not [one for one in plain if words in one]


def test_many_images_have_sheets_of_so_many_rows(tiny: str, paint: Paint) -> None:
    for number in range(5):
        paint(f"in/{number}.png", (BLUE, GREEN)[number % 2], box=(4, 4, 20, 20), ground=RED)
    words = ("--method", "gradcam,layercam", "--layer", "stem", "--per-sheet", "2", "--save", "png,svg")
    assert compare(tiny, "in", *words).exit_code == 0
    assert [line["files"]["png"] for line in lines()] == [
        f"compare-{number}.png" for number in ("001", "001", "002", "002", "003")
    ]
    assert compare(tiny, "in", *words, "--limit", "2", "--overwrite").exit_code == 0
    assert "compare-003.png" not in written()  # what this job's run before left


def test_texts_grow_with_larger_cells(tiny: str, here: Path) -> None:
    write_gradients()
    words = ("a.png", "--method", "gradcam,layercam", "--layer", "stem")
    assert compare(tiny, *words).exit_code == 0
    assert compare(tiny, *words, "--panel-size", str(2 * SIDE), out="large").exit_code == 0
    small, large = (pixels(f"{out}/compare.png").shape for out in ("out", "large"))
    assert large == (2 * small[0], 2 * small[1], 3)
