"""The detector of docs/detection.md runs as it stands there."""

import re

import numpy as np
from PIL import Image
from shared import ROOT
from typer.testing import CliRunner

from camcli.cli import app


def test_the_detector_of_ones_own_works_as_it_stands(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(# detector\.py\n.*?)```", page, re.DOTALL)
    (tmp_path / "detector.py").write_text(code, encoding="utf-8")
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("image,label,x0,y0,x1,y1\na.png,cup,44,36,76,60\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for number, words in enumerate(
        (["-t", "box:1"], ["--score", "probability", "-t", "box:2"], ["--boxes", "boxes.csv"])
    ):
        asked = ["explain", "-m", "detector.py:build", "--min-score", "0.3", "-O", f"out{number}", *words, "a.png"]
        result = CliRunner().invoke(app, asked)
        assert result.exit_code == 0, result.output
        assert "odam at detector.body " in result.output
        assert len(list((tmp_path / f"out{number}").glob("a.png*overlay*"))) == 1
