"""The zoo: every family keeps the laws of zoo.py, and docs/architectures.md says what they found."""

import pytest
import timm
from typer.testing import CliRunner

from camcli.cli import app
from zoo import EVERYDAY, SMALLER, TABLE, TIMM, families, holds, page, rows, siblings

# Those of transformers, an extra, stand in test_hf_zoo.py, detectors in test_detector_zoo.py.
REST = [one.model for one in families() if one.model not in EVERYDAY and one.library not in ("hf", "detectors")]


@pytest.mark.filterwarnings("default")  # the libraries' own, at building
@pytest.mark.parametrize("model", EVERYDAY)
def test_a_dozen_families_keep_the_laws(model):
    holds(model)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("model", REST)
def test_every_family_keeps_the_laws(model):
    holds(model)


def test_the_table_has_every_family_and_nothing_else():
    text = TABLE.read_text()
    assert page(rows(text)) == text
    assert set(rows(text)) == {one.model for one in families()}


def test_the_zoo_names_models_that_timm_has():
    assert all(model in timm.list_models(module=module) for module, model in TIMM.items())
    assert set(TIMM) == set(timm.list_modules())


def test_every_family_of_torchvision_has_a_model_held_to_all_laws():
    whole = [one for one in families() if one.library == "torchvision" and one.model not in siblings()]
    assert {one.name for one in whole} == {one.name for one in families() if one.library == "torchvision"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("model", [one for one in [*EVERYDAY, *REST] if one not in siblings() | SMALLER.keys()])
def test_every_family_is_explained_from_the_shell_without_an_option(model, sample_images, tmp_path):
    asked = ["explain", "--model", model, "--weights", "random", "--out", str(tmp_path), "--quiet"]
    run = CliRunner().invoke(app, [*asked, str(sample_images / "chelsea.png")])
    assert run.exit_code == 0, run.output
    assert len(list(tmp_path.rglob("*.overlay.jpg"))) == 1
