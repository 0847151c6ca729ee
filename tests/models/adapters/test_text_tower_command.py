"""A text tower named in the shell."""

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from readback import facts, ledger
from text_towers import COFFEE, SAMPLES, TOWERS, cosines, drawn
from typer.testing import CliRunner

from camcli.cli import app


def do(*words: Any) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, words), "--root", str(SAMPLES), "--out", "out"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text-tower", "tower.py:plain"), "tower.py:plain has nothing to embed"),
        (("--text", "a", "--text-tower", "nowhere.py:f"), "there is no file 'nowhere.py'"),
        (("--text", "a", "--text-tower", "tower.py"), "text_tower cannot be 'tower.py'"),
        (("--text", "a", "--text-tower", "tower.py:plain", "--head", "keep"), "--head keep keeps the classifier"),
        (("--text", "a", "--text-tower", "tower.py:plain", "-t", "channel:1"), "'channel:1' is a feature"),
        (("--text", "a", "--text-tower", "tower.py:small"), "12 features for an image"),
        (("--text", "a"), "prompts are for models with a text encoder"),
    ],
)
@pytest.mark.usefixtures("tower")
def test_what_cannot_be_asked_writes_nothing(words: tuple[str, ...], message: str) -> None:
    result = do(COFFEE, "-m", "own.py:make", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()


@pytest.mark.usefixtures("tower")
def test_from_the_shell() -> None:
    words = (
        "--text",
        "a cup",
        "--text",
        "a cat",
        "--versus",
        "a wall",
        "--text-tower",
        "tower.py:scaled",
        "-m",
        "own.py:make",
    )
    result = do(COFFEE, *words)
    assert result.exit_code == 0, result.stderr
    assert "prompts: 'a cup', 'a cat'; for contrast 'a wall', embedded by tower.py:scaled" in result.stderr
    sure = (20 * cosines(torch.stack([drawn(one) for one in ("a cup", "a cat", "a wall")]))).softmax(0)
    assert [one["score"] for one in ledger()] == pytest.approx(sure[:2].tolist(), rel=1e-3)
    assert facts()["prompts"]["contrast"] == ["a wall"]
    # Another tower in the same place is another job.
    Path("tower.py").write_text(TOWERS.replace('"scale": 20', '"scale": 30'))
    assert "another job" in do(COFFEE, *words).stderr
