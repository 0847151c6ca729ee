"""The examples of docs/models.md: each loads what it is for, and a map comes out."""

import re

import numpy as np
import pytest
import torch
from shared import ROOT
from torch import nn

import camcli

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
EXAMPLES = {code.split("\n")[0][2:]: code for code in re.findall(r"```python\n(# .*?)```", PAGE, re.S)}

HUB = """
from torch import nn

def entry():
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
        (tmp_path / name).write_text(code.replace("path/to/repository", "hub"), encoding="utf-8")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(HUB, encoding="utf-8")
    return tmp_path


def image(network):
    channels, size = network.preprocess.channels, network.preprocess.size
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


def test_every_example_is_tried_here():
    assert set(EXAMPLES) == {"from_hub.py", "from_pt2.py", "from_onnx.py", "from_smp.py", "from_monai.py"}


def test_a_folder_of_torch_hub(folder):
    network = camcli.load("from_hub.py:make")
    [[one]] = camcli.Explainer(network, layers=["0"])(image(network), 1)
    assert one.map.shape == (14, 14)
    assert one.label == "cup"


def test_an_exported_program_has_the_maps_of_its_network(folder):
    torch.manual_seed(0)
    net = Stages().eval()
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(net, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: batch},)), "net.pt2")
    network = camcli.load("from_pt2.py:make")
    images = torch.cat([image(network), -image(network)])
    for method in ("gradcam", "layercam", "saliency", "ablation-cam"):
        layers = () if method == "saliency" else ("body",)
        found = camcli.Explainer(network, layers=layers, method=method)(images, 1)
        wanted = camcli.Explainer(net, layers=layers, method=method)(images, 1)
        for [one], [other] in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one.map, other.map, rtol=1e-4, atol=1e-6)


def test_an_onnx_file_has_the_maps_of_its_network(folder):
    onnx = pytest.importorskip("onnx", reason="it writes the file")
    pytest.importorskip("onnxruntime", reason="it runs the file")
    helper, weight = onnx.helper, torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    sizes = [["n", 3, 224, 224], ["n", 3]]
    given, scores = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size)
        for name, size in zip(("images", "scores"), sizes, strict=True)
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "net", [given], [scores], [onnx.numpy_helper.from_array(weight.numpy(), "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "net.onnx")
    network = camcli.load("from_onnx.py:make")
    [[one]] = camcli.Explainer(network, method="occlusion")(image(network), 1)
    assert one.map.any()
    with pytest.raises(camcli.RequestError) as caught:
        camcli.Explainer(network)(image(network), 1)
    assert "--method occlusion or rise" in str(caught.value.hint)


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
