"""The zoo of transformers: every architecture with an image-classification head keeps the laws of zoo.py."""

import pytest
from typer.testing import CliRunner

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_zoo import FAMILIES, LEFT_OUT, write  # noqa: E402

from camcli.cli import app  # noqa: E402
from zoo import holds  # noqa: E402

# Transformers that read a class token, with registers, that average their patches; a CNN; one that merges patches.
EVERYDAY = ("vit", "dinov2_with_registers", "siglip", "resnet", "focalnet")
REST = [name for name in FAMILIES if name not in EVERYDAY]


@pytest.mark.parametrize("name", EVERYDAY)
def test_a_few_architectures_keep_the_laws(name):
    holds(f"hf:{name}")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the library's own, at building
@pytest.mark.parametrize("name", REST)
def test_every_architecture_keeps_the_laws(name):
    holds(f"hf:{name}")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_architecture_is_explained_from_the_shell_without_an_option(name, sample_images, tmp_path):
    run = CliRunner().invoke(
        app,
        ["explain", "-m", f"hf:{write(name)}", "--out", str(tmp_path), "--quiet", str(sample_images / "chelsea.png")],
    )
    assert run.exit_code == 0, run.output
    assert len(list(tmp_path.rglob("*.overlay.jpg"))) == 1


def test_every_architecture_of_the_library_is_in_the_table_or_left_out_with_a_reason():
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    listed = {*FAMILIES, *LEFT_OUT}
    assert listed <= set(KNOWN)
    if transformers.__version__.startswith("5.24."):
        assert listed == set(KNOWN)
