"""What a person sees on the bundled model and the sample pictures: the list of the issue, point by point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readback import facts, files, ledger
from typer.testing import CliRunner, Result

from camcli.cli import app

# Measured on the bundled model; the table is in sample_images/README.md's source.
FOUND = {
    "camera.png": ("tripod", 0.94),
    "cat-and-espresso.jpg": ("Egyptian cat", 0.33),
    "chelsea.png": ("tiger cat", 0.39),
    "cincinnati-bridge.jpg": ("suspension bridge", 0.61),
    "citrus-fruits.jpg": ("lemon", 0.72),
    "coffee.png": ("espresso", 0.95),
    "european-honey-bee.jpg": ("bee", 0.99),
}
# By eye: where the thing is, as fractions x0, y0, x1, y1.
BOXES = {
    "coffee.png": (0.29, 0.04, 0.68, 0.77),
    "camera.png": (0.42, 0.33, 0.88, 1.0),
    "european-honey-bee.jpg": (0.08, 0.22, 0.51, 0.78),
}


def explain(*words: str) -> Result:
    return CliRunner().invoke(app, ["explain", *words])


@pytest.fixture
def samples(here: Path, sample_images: Path) -> Path:
    (here / "sample_images").symlink_to(sample_images)
    return here


def test_the_first_line_of_the_readme_explains_every_sample_picture(samples: Path) -> None:
    result = explain("sample_images")
    assert result.exit_code == 0, result.stderr
    assert "model: the bundled EfficientNet-Lite0" in result.stderr
    rows = {Path(row["source"]).name: row for row in ledger("camcli-out")}
    assert {name: row["label"] for name, row in rows.items()} == {name: label for name, (label, _) in FOUND.items()}
    for name, (label, probability) in FOUND.items():
        assert rows[name]["probability"] == pytest.approx(probability, abs=0.01), name
        assert label in result.stderr
        with (
            Image.open(samples / "sample_images" / name) as picture,
            Image.open(samples / "camcli-out" / rows[name]["files"]["overlay"]) as overlay,
        ):
            assert overlay.size == picture.size
    for name, (x0, y0, x1, y1) in BOXES.items():
        with Image.open(samples / "sample_images" / name) as picture:
            width, height = picture.size
        x, y = rows[name]["peak"]
        assert x0 * width <= x <= x1 * width, name
        assert y0 * height <= y <= y1 * height, name
    # The same line again does nothing, and says so.
    again = explain("sample_images")
    assert again.exit_code == 0
    assert "0 done, 7 done before" in again.stderr


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "guided-gradcam"])
def test_the_map_follows_the_class_asked_for(samples: Path, method: str) -> None:
    picture = "sample_images/cat-and-espresso.jpg"
    result = explain(picture, "-t", "Egyptian cat", "-t", "tabby", "-t", "espresso", "--method", method)
    assert result.exit_code == 0, result.stderr
    with Image.open(picture) as image:
        middle = image.width / 2
    peaks = {row["label"]: row["peak"][0] for row in ledger("camcli-out")}
    assert peaks["Egyptian cat"] < middle
    assert peaks["tabby"] < middle
    assert peaks["espresso"] > middle


@pytest.fixture
def nasty(here: Path) -> Path:
    """Good pictures and bad ones; the good ones' left half is red."""
    folder = here / "in"
    folder.mkdir()
    picture = Image.new("RGB", (64, 48), (0, 0, 200))
    picture.paste((200, 0, 0), (0, 0, 32, 48))
    picture.save(folder / "a.jpg")
    picture.save(folder / "a.png")
    picture.save(folder / "sp ace [1] (x)*?\n\u00fc\u732b.png")
    picture.save(folder / os.fsdecode(b"caf\xe9.png"))
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side; upright it is 48 wide and 64 high
    picture.save(folder / "rotated.jpg", exif=exif)
    whole = (folder / "a.jpg").read_bytes()
    (folder / "bad-cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "bad-empty.jpg").write_bytes(b"")
    (folder / "bad-text.jpg").write_text("Dear diary,\n")
    (folder / "bad-link.png").symlink_to("nowhere.png")
    if os.geteuid():
        picture.save(folder / "bad-secret.png")
        (folder / "bad-secret.png").chmod(0)
        (folder / "bad-closed").mkdir(mode=0)
    (folder / "loop").symlink_to(".")
    return folder


GOOD = {
    "a.jpg",
    "a.png",
    "sp ace [1] (x)*?\n\u00fc\u732b.png",
    os.fsdecode(b"caf\xe9.png"),
    "cmyk.jpg",
    "deep.png",
    "rotated.jpg",
}
BAD = {
    "bad-cut.jpg": "cut short",
    "bad-empty.jpg": "the file is empty",
    "bad-text.jpg": "not an image",
    "bad-link.png": "a link to a file that does not exist",
    "bad-secret.png": "permission denied",
    "bad-closed": "permission denied",
}


def test_a_nasty_folder_every_good_one_done_every_bad_one_named(nasty: Path) -> None:
    result = explain("in", "--save", "overlay,heatmap,array,panel", "--json")
    assert result.exit_code == 1, result.stderr
    rows = {row["name"].removeprefix("in/").rstrip("/"): row for row in ledger("camcli-out")}
    bad = {name for name in BAD if (nasty / name).is_symlink() or (nasty / name).exists()}
    assert {name for name, row in rows.items() if row["error"] is None} == GOOD
    assert {name for name, row in rows.items() if row["error"]} == bad
    for name in bad:
        assert BAD[name] in rows[name]["error"].lower(), name
        assert f"failed: in/{name}" in result.stderr
    assert f"{len(GOOD)} done, {len(bad)} failed" in result.stderr
    # Nobody's outputs are anybody else's.
    assert len(files("camcli-out")) == 4 * len(GOOD)
    assert [json.loads(line) for line in result.stdout.splitlines()] == ledger("camcli-out")
    # Upright, and of the picture's own size.
    for name, size in {"rotated.jpg": (48, 64), "a.jpg": (64, 48), "deep.png": (64, 48)}.items():
        with Image.open(Path("camcli-out", rows[name]["files"]["overlay"])) as overlay:
            assert overlay.size == size, name
    # The same again tries only the bad ones.
    before = {name: Path("camcli-out", name).stat().st_mtime_ns for name in files("camcli-out")}
    again = explain("in", "--save", "overlay,heatmap,array,panel")
    assert again.exit_code == 1
    assert f"0 done, {len(bad)} failed, {len(GOOD)} done before" in again.stderr
    assert {name: Path("camcli-out", name).stat().st_mtime_ns for name in files("camcli-out")} == before


def offline(home: Path, **settings: str) -> dict[str, str]:
    """An environment in which no weights are at hand."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TORCH_HOME", "CAMCLI_"))}
    return {**kept, "HF_HOME": str(home), "TORCH_HOME": str(home / "torch"), **settings}


@pytest.mark.parametrize(
    "settings", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=["offline", "unreachable"]
)
def test_weights_that_cannot_be_had_end_it_with_2_and_the_ways_out(
    samples: Path, tmp_path: Path, command: list[str], settings: dict[str, str]
) -> None:
    # The imports take what they take; what comes after them is measured in the process itself.
    code = (
        "import sys, time, torch, timm\nimport camcli.runs.explain.run\nfrom camcli.cli import main\n"
        "import atexit; began = time.monotonic()\n"
        "atexit.register(lambda: print('took', time.monotonic() - began, file=sys.stderr))\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "explain", "--model", "resnet50", "--layer", "layer4", "sample_images"],
        env=offline(tmp_path / "home", **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    said, _, took = done.stderr.rpartition("took ")
    assert float(took) < 5
    assert "Traceback" not in said
    assert said.startswith("error: ")
    for way in ("--weights", "--weights random", "HF_HOME", "bundled"):
        assert way in said, way
    assert not Path("camcli-out").exists()


def test_random_weights_work_without_network_and_mark_every_output(samples: Path, tmp_path: Path, monkeypatch) -> None:
    for name, value in offline(tmp_path / "home", HF_HUB_OFFLINE="1").items():
        monkeypatch.setenv(name, value)
    pictures = ("sample_images/chelsea.png", "sample_images/coffee.png")
    result = explain(
        "--model",
        "resnet50",
        "--layer",
        "layer4",
        "--weights",
        "random",
        *pictures,
        "--save",
        "overlay,heatmap,array,panel",
    )
    assert result.exit_code == 0, result.stderr
    assert "the weights are random: these maps mean nothing" in result.stderr
    assert len(files("camcli-out")) == 8
    assert all(".untrained." in file for file in files("camcli-out"))
    assert all(row["untrained"] for row in ledger("camcli-out"))
    assert facts("camcli-out")["model"]["weights"] == "random"
    for row in ledger("camcli-out"):
        for kind in ("overlay", "heatmap", "panel"):
            with Image.open(Path("camcli-out", row["files"][kind])) as drawn:
                off = np.abs(np.asarray(drawn.convert("RGB"), int) - (255, 196, 0))
            banner = (off <= (12 if kind == "overlay" else 0)).all(2)  # JPEG moves colours by a few levels
            assert banner.mean() > 0.005, row["files"][kind]
