"""Input size and crop as options of a run: from the shell to run.json and back, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from commands import do
from readback import facts, ledger
from shared import BLUE, RED
from typer.testing import CliRunner

from camcli import Job
from camcli.cli import app


def test_a_model_of_ones_own_that_cannot_is_refused_before_the_first_picture(here: Path, paint) -> None:
    (here / "flat.py").write_text(
        "from torch import nn\nfrom camcli import Preprocess\n\n"
        "def make():\n    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.Linear(5 * 64, 2))\n"
        "    return net, Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3, (8, 8), 'squash')\n"
    )
    paint("a.png")
    result = do("explain", "-m", "flat.py:make", "--size", "8x16", "a.png", "--out", "out")
    assert result.exit_code == 2
    assert "flat.py:make does not take images of 8x16: " in result.stderr
    assert "mat1 and mat2 shapes cannot be multiplied" in result.stderr  # torch may name the operation before it
    assert "--size" in result.stderr
    assert not Path("out").exists()
    assert do("explain", "-m", "flat.py:make", "--size", "8", "a.png", "--out", "out").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "big"), "size cannot be 'big'"),
        (("--size", "0"), "size cannot be '0'"),
        (("--size", "224*224"), "256x384"),
        (("--crop", "middle"), "center"),
    ],
)
def test_words_that_mean_nothing_are_refused(here: Path, paint, tiny: str, words, said: str) -> None:
    paint("a.png")
    result = do("explain", "-m", tiny, "a.png", *words)
    assert result.exit_code == 2
    assert said in result.stderr


# ---- from the shell to run.json


def test_size_and_crop_from_the_shell_to_run_json_and_back(here: Path, paint, tiny: str) -> None:
    paint("a.png", RED, box=(0, 0, 16, 32))
    words = ("explain", "-m", tiny, "-l", "stem", "-t", "red", "a.png", "--save", "array")
    assert do(*words, "--size", "8x24", "--crop", "none", "--out", "one").exit_code == 0
    recorded = facts("one")
    assert (recorded["job"]["size"], recorded["job"]["crop"]) == ("8x24", "none")
    prepared = recorded["model"]["preprocessing"]
    assert (prepared["size"], prepared["resize"], prepared["fit"]) == ([8, 24], [8, 24], "longer")
    assert np.load("one/a.png.npy").shape == (8, 24)
    assert do("explain", "--config", "one/run.json", "--trust-config", "--out", "two").exit_code == 0
    assert np.array_equal(np.load("two/a.png.npy"), np.load("one/a.png.npy"))
    Path("job.toml").write_text("size = '8x24'\ncrop = 'none'\n")
    assert do(*words, "--config", "job.toml", "--out", "three").exit_code == 0
    assert facts("three")["fingerprint"] == recorded["fingerprint"]
    (row,) = ledger("one")
    assert row["peak"][0] < 16


def test_another_size_or_crop_is_another_job(here: Path, paint, tiny: str) -> None:
    paint("a.png")
    words = ("explain", "-m", tiny, "a.png", "--out", "out")
    assert do(*words).exit_code == 0
    for more in (("--size", "8"), ("--crop", "none")):
        result = do(*words, *more)
        assert result.exit_code == 2
        assert f"{more[0][2:]} was" in result.stderr


def test_a_square_can_be_said_in_two_ways() -> None:
    assert Job(size="256").fingerprint == Job(size="256x256").fingerprint != Job().fingerprint


def test_the_environment_sets_them_too(here: Path, paint, tiny: str) -> None:
    paint("a.png")
    settings = {"CAMCLI_SIZE": "8x24", "CAMCLI_CROP": "squash"}
    assert CliRunner().invoke(app, ["explain", "-m", tiny, "a.png", "--out", "out"], env=settings).exit_code == 0
    assert facts()["model"]["preprocessing"]["size"] == [8, 24]


def test_cells_that_do_not_divide_the_input_are_told_of(paint, tiny: str) -> None:
    # A 2 x 2 mean over 9 columns gives 4.
    paint("a.png", BLUE)
    assert do("explain", "-m", tiny, "a.png", "--out", "even", "--size", "8x10").stderr.count("do not divide") == 0
    said = do("explain", "-m", tiny, "a.png", "--out", "odd", "--size", "8x9").stderr
    assert "the 4x4 cells of body do not divide 8x9 evenly" in " ".join(said.split())


def test_layers_at_another_size(here: Path) -> None:
    rows = [line.split("\t") for line in do("layers", "timm:test_vit", "--size", "96x160").stdout.splitlines()]
    chosen = next(row for row in rows if row[4] == "default")
    assert (chosen[2], chosen[3]) == ("nx61x64", "tokens 6x10 after 1 prefix")
    assert do("layers", "timm:test_vit", "--size", "100").exit_code == 2
    assert do("layers", "timm:test_vit", "--size", "nonsense").exit_code == 2
