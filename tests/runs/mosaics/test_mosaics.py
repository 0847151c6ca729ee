"""``camcli mosaics``: which images it takes, what it writes, and the grid pointing game that is played with that."""

import csv
import json
import shlex
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import do
from PIL import Image
from shared import BLUE, GREEN, RED, Paint

from camcli.images.source import PictureSource
from camcli.metrics import CONTROLS
from camcli.runs.evaluate import Evaluation
from camcli.runs.mosaics.judge import Judged, choose_parts

WHITE = (250, 250, 250)
COLOURS = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}
# Scores are ten times the mean of red, green, blue, and 0.4 times all three.
MODEL = """
import torch
from torch import nn

from camcli import Labels, Preprocess


class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, images):
        return 10 * self.stem(images).mean((2, 3))


def make():
    module = Colours()
    with torch.no_grad():
        module.stem.weight.copy_(torch.cat([torch.eye(3), torch.full((1, 3), 0.4)]).reshape(4, 3, 1, 1))
    prepare = Preprocess(
        size=(16, 16), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=(16, 16), fit="squash",
        interpolation="nearest",
    )
    return module, prepare, Labels(("red", "green", "blue", "white"))
"""


@pytest.fixture
def model(here: Path) -> str:
    Path("colours.py").write_text(MODEL)
    return "colours.py:make"


@pytest.fixture
def pictures(paint: Paint) -> None:
    """Three images of each colour below ``in``, in folders of the colours' names."""
    for name, colour in COLOURS.items():
        for number in range(3):
            paint(f"in/{name}/{number}.png", colour)


def read_rows(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return [*csv.DictReader(file)]


def test_mosaics_of_all_classes_and_the_game(model: str, pictures: None) -> None:
    result = do("mosaics", "in", "--model", model, "--out", "made", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "3 mosaics in made" in result.stderr
    boxes, targets = read_rows("made/boxes.csv"), read_rows("made/targets.csv")
    assert [(one["image"], one["label"]) for one in boxes] == [(one["image"], one["target"]) for one in targets]
    for name in ("0001.png", "0002.png", "0003.png"):
        pixels = np.asarray(Image.open(f"made/{name}"))
        assert pixels.shape == (32, 32, 3)
        own = [one for one in boxes if one["image"] == name]
        assert {one["label"] for one in own} == {f"index:{index}" for index in range(4)}
        for one in own:
            x0, y0, x1, y1 = (int(one[edge]) for edge in ("x0", "y0", "x1", "y1"))
            assert (pixels[y0:y1, x0:x1] == [*COLOURS.values()][int(one["label"][-1])]).all()
    facts = json.loads(Path("made/mosaics.json").read_text())
    sources = [part["source"] for one in facts["mosaics"] for part in one["parts"]]
    assert len({*sources}) == 12
    # The command that it prints plays the game.
    words = shlex.split(result.stdout)
    assert words[:2] == ["camcli", "evaluate"]
    played = do(*words[1:], "--method", "gradcam", "--out", "out", "--device", "cpu", "--size", "32x32")
    assert played.exit_code == 0, played.output
    lines = [Evaluation.read(json.loads(one)) for one in Path("out/evaluation.jsonl").read_text().splitlines()]
    # The map of red is 1 where it is red, and where it is white; that of white 1.2 there, and three times 0.4.
    assert [one.value for one in lines if one.kind == "method"] == pytest.approx([0.5] * 12, abs=1e-3)
    for name in CONTROLS.names():
        values = [one.value for one in lines if one.map == name]
        if values[0] is not None:  # one of these colours has no edges in it
            assert np.mean(values) == pytest.approx(1 / 4, abs=1e-6), name


def test_the_command_is_of_the_same_network(model: str, pictures: None) -> None:
    """Another checkpoint, class names and activation are passed on; what the mosaics replace is not."""
    Path("names.txt").write_text("r\ng\nb\nw\n")
    stem = torch.cat([torch.eye(3)[[1, 0, 2]], torch.full((1, 3), 0.4)])
    torch.save({"stem.weight": stem.reshape(4, 3, 1, 1)}, "mine.pth")
    words = ("--weights", "mine.pth", "--labels", "names.txt", "--activation", "softmax", "--limit", "12")
    result = do("mosaics", "in", "--model", model, "--out", "made", "--device", "cpu", "--confidence", "0.1", *words)
    assert result.exit_code == 0, result.output
    printed = shlex.split(result.stdout)
    assert printed[3:11] == ["--model", model, *words[:6]]
    assert "--limit" not in printed
    played = do(*printed[1:], "--method", "gradcam", "--out", "out", "--device", "cpu", "--size", "32x32")
    assert played.exit_code == 0, played.output
    labels = {json.loads(one)["label"] for one in Path("out/evaluation.jsonl").read_text().splitlines()}
    assert labels == {"r", "g", "b", "w"}


def test_only_what_is_predicted_with_confidence(model: str, pictures: None, paint: Paint) -> None:
    paint("in/white/red.png", RED)  # its folder says white
    Path("in/white/none.png").write_bytes(b"no image")
    sure = ("mosaics", "in", "--model", model, "--target", "folder", "--device", "cpu")
    result = do(*sure, "--out", "made")
    assert result.exit_code == 1
    assert "failed: in/white/none.png" in result.stderr
    parts = [part for one in json.loads(Path("made/mosaics.json").read_text())["mosaics"] for part in one["parts"]]
    assert Counter(part["label"] for part in parts) == dict.fromkeys(COLOURS, 3)
    assert not [part for part in parts if part["source"].endswith("white/red.png")]
    # White has e^12 of e^12 + 3 e^10: 0.71.
    few = do(*sure, "--out", "few", "--confidence", "0.8")
    assert few.exit_code == 3
    assert "a mosaic takes 4 classes, and 3 are predicted with a probability of at least 0.8" in " ".join(
        few.stderr.split()
    )
    assert not Path("few").exists()


def test_a_folder_that_holds_something_is_refused(model: str, pictures: None) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    result = do("mosaics", "in", "--model", model, "--out", "full")
    assert result.exit_code == 2
    assert "is there already, and not empty" in " ".join(result.stderr.split())


def test_an_image_that_is_gone_at_the_end_leaves_no_half_a_folder(
    model: str, pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_one(judged, *given):
        chosen = choose_parts(judged, *given)
        Path(chosen[-1][-1].source.path).unlink()
        return chosen

    Path("made").mkdir()  # an empty folder is as good as none
    with monkeypatch.context() as losing:
        losing.setattr("camcli.runs.mosaics.run.choose_parts", lose_one)
        result = do("mosaics", "in", "--model", model, "--out", "made", "--device", "cpu")
    assert result.exit_code == 1, result.output
    assert not any(Path("made").iterdir())
    assert not [*Path().glob(".camcli-*")]
    again = do("mosaics", "in", "--model", model, "--out", "made", "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert len([*Path("made").glob("*.png")]) == 2


@pytest.mark.parametrize(
    ("counts", "side", "mosaics"), [((9, 3, 2, 2), 2, 2), ((4, 4, 4, 2, 2), 2, 4), ((5, 5, 5), 2, 0)]
)
def test_as_many_mosaics_as_the_classes_allow(counts: tuple[int, ...], side: int, mosaics: int) -> None:
    judged = [
        Judged(PictureSource(f"{index}-{number}", ""), index, 1.0, True)
        for index, count in enumerate(counts)
        for number in range(count)
    ]
    chosen = choose_parts(judged, side, 100, seed=0)
    assert len(chosen) == mosaics
    assert all(len({part.index for part in parts}) == side**2 for parts in chosen)
    used = [part.source.path for parts in chosen for part in parts]
    assert len(used) == len({*used})
    assert chosen == choose_parts(judged, side, 100, seed=0)
    if mosaics:
        assert chosen != choose_parts(judged, side, 100, seed=1)
    assert len(choose_parts(judged, side, 1, seed=0)) == min(1, mosaics)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux alone")
def test_names_need_not_be_utf8_and_progress_is_seen(
    model: str, pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in Path("in/red").iterdir():
        path.rename(path.with_name(f"\udcff{path.name}"))
    monkeypatch.setattr("camcli.cli.progress.LINE_INTERVAL", 0)
    result = do("mosaics", "in", "--model", model, "--out", "made", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "12/12 images" in result.stderr
    parts = [part for one in json.loads(Path("made/mosaics.json").read_text())["mosaics"] for part in one["parts"]]
    assert {Path(part["source"]).exists() for part in parts} == {True}
