"""Images in the terminal: --show and camcli show."""

import io
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from rich.console import Console as RichConsole
from shared import GREEN, RED, Paint
from typer.testing import CliRunner, Result

from camcli.cli import app
from camcli.cli.console import Console


def run(*words: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, int, int], int]]:
    """A terminal, and a stand-in for the library: the colour in the middle of each image, and its width in cells."""
    found = []

    class Drawn:
        def __init__(self, image: Image.Image, width: int, height: str) -> None:
            assert height == "auto"
            found.append((image.getpixel((image.width // 2, image.height // 2)), width))

        def __str__(self) -> str:
            return "<image>"

    library = ModuleType("textual_image.renderable")
    library.Image = Drawn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "textual_image", ModuleType("textual_image"))
    monkeypatch.setitem(sys.modules, "textual_image.renderable", library)
    monkeypatch.setattr(Console, "is_terminal", True)
    return found


def test_overlays_are_shown_as_they_are_written_and_again_later(paint: Paint, here: Path, tiny: str, shown) -> None:
    for name in "abc":
        paint(f"in/{name}.png", RED, size=(16, 64))
    explained = run("explain", "in", "-m", tiny, "-O", "out", "--show", "--quiet")
    assert explained.exit_code == 0, explained.output
    assert "in/a.png: 0 red 1.000 at body" in explained.stderr
    assert len(shown) == 3
    assert all(width == 12 for _, width in shown)  # 24 rows, each twice as high as a column is wide
    again = run("show", "out", "-n", "2")
    assert again.exit_code == 0, again.output
    assert shown[3:] == shown[:2]
    assert "these are the first 2; --limit 0 shows all" in again.stderr
    assert run("show", "out/in/a.png.overlay.jpg", "in/b.png").exit_code == 0
    assert len(shown) == 7
    run("show", "out", "--limit", "0")
    assert len(shown) == 10


def test_what_is_drawn_after_the_last_image_is_shown_then(paint: Paint, here: Path, tiny: str, shown) -> None:
    paint("in/a.png", GREEN)
    assert run("explain", "in", "-m", tiny, "-O", "out", "--show", "--normalize", "run").exit_code == 0
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("show", "nowhere"), 3, "there is no 'nowhere'"),
        (("show", "in"), 3, "'in' is not the output folder of a run"),
        (("show", "in/a.png"), 2, "images are shown in a terminal, and standard error is none"),
        (("explain", "in", "--show", "-O", "out"), 2, "images are shown in a terminal"),
    ],
)
def test_refused(paint: Paint, here: Path, words: tuple[str, ...], code: int, message: str) -> None:
    paint("in/a.png", RED)
    result = run(*words)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert not (here / "out").exists()


def test_without_the_library_it_says_how_to_get_it(paint: Paint, here: Path, monkeypatch, shown) -> None:
    paint("a.png", RED)
    monkeypatch.setitem(sys.modules, "textual_image", None)
    monkeypatch.delitem(sys.modules, "textual_image.renderable")
    result = run("show", "a.png")
    assert result.exit_code == 2
    assert "pip install 'camcli-vision[show]'" in result.stderr


def test_a_file_that_is_no_image_is_passed_over(paint: Paint, here: Path, shown) -> None:
    paint("a.png", RED)
    (here / "b.png").write_text("no image")
    result = run("show", "b.png", "a.png")
    assert result.exit_code == 0
    assert "b.png cannot be shown" in result.stderr
    assert len(shown) == 1


def test_the_library_draws_half_blocks() -> None:
    drawing = pytest.importorskip("textual_image.renderable")
    stream = io.StringIO()
    console = RichConsole(file=stream, force_terminal=True, color_system="truecolor", width=80)
    console.print(drawing.HalfcellImage(Image.new("RGB", (40, 40), (200, 0, 0)), width=8, height="auto"))
    assert stream.getvalue().count("▀") == 32
