"""Programs of torch.export as networks."""

import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import camcli
from camcli.models import listing

SIDE = 16


class Stages(nn.Module):
    """Two stages, a batch norm and a dropout, whose mode a program has written in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1))
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(self.drop(self.body(images).relu().mean((2, 3))))
        return scores


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(net, batch=2, dynamic=True, name="net.pt2"):
    given = torch.zeros(batch, 3, SIDE, SIDE)
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(net, (given,), dynamic_shapes=shapes), name)


def load(**given):
    return camcli.load("net.pt2", **{"preprocess": "0..1", **given})


@pytest.mark.parametrize("dynamic", [True, False])
def test_maps_are_those_of_the_network(folder, dynamic):
    net = Stages().eval()
    save(net, 2 if dynamic else 1, dynamic)
    network = load()
    assert not any("Fake" in note for note in network.notes)
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for method in ("gradcam", "layercam", "saliency", "eigencam"):
        layers = () if method == "saliency" else ("body.3",)
        found = camcli.Explainer(network, layers=layers, method=method)(images, 1)
        wanted = camcli.Explainer(net, layers=layers, method=method)(images, 1)
        for [one], [other] in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one.map, other.map, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["body.1", "drop"])
def test_a_program_exported_for_training_is_refused(folder, part):
    net = Stages().eval()
    net.get_submodule(part).train()
    save(net)
    with pytest.raises(camcli.RequestError, match="exported in training mode") as caught:
        load()
    assert "network.eval()" in str(caught.value.hint)


def test_what_it_takes_is_said_by_the_program(folder):
    save(Stages().eval())
    assert load().preprocess.size == (SIDE, SIDE)
    with pytest.raises(camcli.RequestError, match=r"how images are prepared for net\.pt2"):
        load(preprocess="")
    with pytest.raises(camcli.RequestError, match="16x16 only"):
        load(size="32")
    save(Stages().eval(), 3, dynamic=False)
    with pytest.raises(camcli.RequestError, match="batches of 3 images only"):
        load()


def test_files_that_are_no_program_of_images(folder):
    with pytest.raises(camcli.RequestError, match="there is no file"):
        load()
    (folder / "net.pt2").write_bytes(b"nothing")
    with pytest.raises(camcli.RequestError, match="is no program"):
        load()
    with zipfile.ZipFile("net.pt2", "w") as archive:
        archive.writestr("net/data/aotinductor/model/net.so", b"")
    with pytest.raises(camcli.RequestError, match="compiled by AOTInductor"):
        load()
    with zipfile.ZipFile("net.pt2", "w") as archive:
        archive.writestr("net/other", b"")
    with pytest.raises(camcli.RequestError, match="cannot be read"):
        load()
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),)), "net.pt2")
    with pytest.raises(camcli.RequestError, match="takes 2x3"):
        load()


def test_a_program_counts_as_code_and_a_graph_does_not():
    """PyTorch unpickles what it cannot read otherwise; an ONNX file is data."""
    assert listing.runs_code("net.pt2")
    assert listing.runs_code("pt2:net.pt2")
    assert listing.runs_code("hub:folder:entry")
    assert not listing.runs_code("folder/net.onnx")
    assert not listing.runs_code("onnx:net.onnx")
