"""What docs/interchange.md does with a run is run, and gives what other tools read."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readback import ledger
from shared import ROOT

PAGE = (ROOT / "docs" / "interchange.md").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"<!-- test: (\w+) -->\n```python\n(.*?)```", PAGE, re.S))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_images: Path) -> Path:
    """A folder with the run that the page is about, whose overlays are there too."""
    folder = tmp_path_factory.mktemp("interchange")
    (folder / "photos").mkdir()
    for name in ("coffee.png", "chelsea.png"):
        shutil.copy(sample_images / name, folder / "photos")
    words = ["explain", "photos", "--out", "maps", "--save", "grey,box,overlay", "--quiet"]
    subprocess.run([sys.executable, "-m", "camcli", *words], cwd=folder, check=True)
    return folder


@pytest.fixture
def there(folder, monkeypatch) -> list[dict]:
    monkeypatch.chdir(folder)
    return ledger("maps")


def run(name: str) -> dict:
    found: dict = {}
    exec(SNIPPETS["lines"] + SNIPPETS[name], found)
    return found


def test_scoremaps_are_what_wsolevaluation_checks(there):
    run("wsol")
    for line in there:
        score = np.load(Path("scoremaps", line["name"] + ".npy"))
        assert (score.shape, score.dtype, score.min(), score.max()) == ((224, 224), np.float64, 0, 1)
        width, height = line["image_size"]
        x, y = line["peak"]
        assert score[int(y * 224 / height), int(x * 224 / width)] > 0.9


def test_boxes_are_detections_of_coco(there, tmp_path):
    coco = {
        "images": [{"id": 7 + n, "file_name": one["name"]} for n, one in enumerate(there)],
        "categories": [{"id": 3, "name": there[0]["label"]}],
        "annotations": [],
    }
    Path("annotations.json").write_text(json.dumps(coco))
    run("coco")
    [found] = json.loads(Path("results.json").read_text())
    wanted = {"image_id": 7, "category_id": 3, "bbox": there[0]["heat_box"], "score": there[0]["probability"]}
    assert found == wanted
    x, y, width, height = found["bbox"]
    assert 0 <= x < x + width <= there[0]["image_size"][0]
    assert 0 <= y < y + height <= there[0]["image_size"][1]


def test_grey_values_are_of_the_images_own_size(there):
    for line in there:
        with Image.open(Path("maps", line["files"]["grey"])) as image:
            assert (image.mode, list(image.size)) == ("L", line["image_size"])
            assert image.getextrema() == (0, 255)


def test_overlays_go_to_tensorboard(there):
    pytest.importorskip("tensorboard", reason="the page's readers have it, the project does not need it")
    run("tensorboard")
    assert list(Path("logs").iterdir())
