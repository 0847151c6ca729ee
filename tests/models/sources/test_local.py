"""Models from a user's own file or module."""

import sys
from pathlib import Path

import pytest
import timm
import timm.data
import torch

from camcli.base.errors import RequestError
from camcli.models.load import load
from camcli.models.sources import local

pytestmark = pytest.mark.usefixtures("empty_caches")

LOCAL = """
import torch
from torch import nn
from camcli.images.transform import Preprocess
from beside_timm import CLASSES

PREPARE = Preprocess(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=(8, 8))

class Net(nn.Module):
    def __init__(self, classes=CLASSES):
        super().__init__()
        self.head = nn.Linear(3, classes)
    def forward(self, x):
        return self.head(x.mean((2, 3)))

def named(): return Net(), PREPARE, ["cat", "dog"]
def unnamed(): return Net(), PREPARE
def bare(): return Net()
def wrong_names(): return Net(), PREPARE, ["cat"]
def no_names(): return Net(), PREPARE, "cat dog"
def number(): return 3
def pieces(): return Net(), "cat"
def fails(): return 1 / 0
def two_outputs():
    class Two(Net):
        def forward(self, x):
            return {"first": super().forward(x), "second": super().forward(x)}
    return Two(), PREPARE
def wrong_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), PREPARE
def own_parameter():
    net = Net()
    net.scale = nn.Parameter(torch.ones(1))
    return net, PREPARE
def of_timm():
    import timm
    return timm.create_model("test_resnet", num_classes=4)
def network():
    from camcli.targets.labels import Labels
    from camcli.engine.network import Network
    return Network("mine", Net(), PREPARE, Labels(("a", "b")), "random", "my own")
"""


class TestLocal:
    @pytest.fixture
    def file(self, tmp_path) -> Path:
        (tmp_path / "beside_timm.py").write_text("CLASSES = 2\n")
        (tmp_path / "timm.py").write_text(LOCAL)  # a name that must hide nothing
        yield tmp_path / "timm.py"
        sys.modules.pop("beside_timm", None)

    def test_a_module_its_preparation_and_its_names(self, file):
        network = load(f"{file}:named")
        assert network.labels.names == ("cat", "dog")
        assert network.preprocess.size == (8, 8)
        assert network.weights == "pretrained"
        assert network.origin == f"as built by {file}:named"
        assert sys.modules["timm"] is timm
        assert str(file.parent) not in sys.path

    def test_names_are_numbers_where_none_are_given(self, file):
        network = load(f"{file}:unnamed")
        assert network.labels.names == ("class 0", "class 1")
        assert any("--labels FILE" in note for note in network.notes)

    def test_a_model_that_carries_timms_configuration(self, file):
        network = load(f"{file}:of_timm")
        assert network.preprocess.size == (160, 160)
        assert len(network.labels) == 4
        assert network.name == f"{file}:of_timm"

    def test_a_network_is_taken_as_it_is(self, file):
        network = load(f"{file}:network")
        assert (network.name, network.origin, network.untrained) == ("mine", "my own", True)

    def test_an_output_is_named(self, file):
        assert load(f"{file}:two_outputs", output="second").output_spec.path == "second"

    def test_weights_from_a_file(self, file, tmp_path):
        state = {"head.weight": torch.ones(2, 3), "head.bias": torch.zeros(2)}
        torch.save({"model": state}, tmp_path / "w.pth")
        network = load(f"{file}:named", weights=str(tmp_path / "w.pth"))
        assert torch.equal(network.module.head.weight, torch.ones(2, 3))
        assert network.weights == "file"

    def test_random_weights_are_drawn_anew_from_the_seed(self, file):
        first, again, other = (load(f"{file}:named", weights="random", seed=seed) for seed in (1, 1, 2))
        assert first.sha256() == again.sha256() != other.sha256()
        assert first.untrained

    def test_parameters_that_cannot_be_drawn_anew_are_not_passed_off_as_random(self, file):
        with pytest.raises(RequestError, match="cannot be given random weights"):
            load(f"{file}:own_parameter", weights="random")

    @pytest.mark.parametrize(
        ("function", "said", "hinted"),
        [
            ("bare", "returned a model without its preprocessing", "camcli.Preprocess("),
            ("number", "returned a int", "camcli.Network"),
            ("pieces", "returned a tuple of Net, str", "camcli.Network"),
            ("no_names", "are a str", "list of strings"),
            ("wrong_names", "returns 2 scores, and names 1", "one name for each"),
            ("fails", "failed: ZeroDivisionError: division by zero", "return 1 / 0"),
            ("two_outputs", "returns 2 tensors that could be its scores", "--output first"),
            ("wrong_size", r"fails on an image of \(1, 3, 8, 8\)", "size"),
            ("namd", "has no function 'namd'", "did you mean 'named'"),
            ("PREPARE.size", "has no function", ""),
        ],
    )
    def test_what_goes_wrong_is_said(self, file, function, said, hinted):
        with pytest.raises(RequestError, match=said) as caught:
            load(f"{file}:{function}")
        assert hinted in caught.value.hint

    @pytest.mark.parametrize(
        ("content", "said"),
        [("import nothing_of_this_name", "ModuleNotFoundError"), ("def f(:", "SyntaxError"), ("1 / 0", "ZeroDivision")],
    )
    def test_a_file_that_cannot_be_imported(self, tmp_path, content, said):
        (tmp_path / "net.py").write_text(content)
        with pytest.raises(RequestError, match=f"failed: {said}"):
            load(f"{tmp_path / 'net.py'}:f")

    def test_a_file_that_is_not_there(self):
        with pytest.raises(RequestError, match="there is no file"):
            load("/does/not/exist.py:f")
        assert not local.cached("/does/not/exist.py:f")
        assert local.has("/does/not/exist.py:f")
