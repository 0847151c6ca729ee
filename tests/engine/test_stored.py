"""What networks store has one hash, also where it is no tensor."""

import hashlib

import numpy as np
import pytest
import torch
from test_network import PREPARE
from torch import nn

import camcli
from camcli.engine.explainer import Explainer
from camcli.engine.network import Network
from camcli.engine.stored import iter_bytes
from camcli.models.weights import checkpoint, fit


def network(module: nn.Module, labels: int = 5) -> Network:
    return Network("test:it", module.eval(), PREPARE, camcli.Labels.numbered(labels), "pretrained", "made by a test")


class Extra(nn.Module):
    """A module that stores more than tensors."""

    def __init__(self, extra) -> None:
        super().__init__()
        self.extra = extra
        self.head = nn.Linear(3, 5)

    def forward(self, images):
        return self.head(images.mean((2, 3)))

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def test_extra_state_worked_by_hand():
    module = Extra({"b": 2, "a": [True, None]})
    content = b"_extra_state dict\n" + b"_extra_state['a'] list\n" + b"_extra_state['a'][0] bool\nTrue"
    content += b"_extra_state['a'][1] NoneType\nNone" + b"_extra_state['b'] int\n2"
    for name in ("head.bias", "head.weight"):
        value = module.state_dict()[name]
        content += f"{name} torch.float32 {tuple(value.shape)}\n".encode() + value.numpy().tobytes()
    assert network(module).sha256() == hashlib.sha256(content).hexdigest()


class Thing:
    def __init__(self, value) -> None:
        self.value = value
        self.itself = self


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}),
        ([1, 2], [2, 1]),
        (torch.ones(2), torch.zeros(2)),
        (np.ones(2), np.zeros(2)),
        (b"a", b"b"),
        (torch.float32, torch.qint8),
        (Thing(1), Thing(2)),
        ({"deep": [torch.ones(1)]}, {"deep": [torch.zeros(1)]}),
    ],
)
def test_what_differs_has_another_hash_and_what_does_not_has_the_same(one, other):
    def digest(value):
        torch.manual_seed(0)
        return network(Extra(value)).sha256()

    assert digest(one) == digest(one) != digest(other)


def test_the_order_in_a_dictionary_is_none():
    assert [*iter_bytes("x", {"a": 1, "b": 2})] == [*iter_bytes("x", {"b": 2, "a": 1})]
    assert [*iter_bytes("x", {"a", "b", "c"})] == [*iter_bytes("x", {"c", "b", "a"})]


def test_complex_and_sparse_tensors():
    value = torch.tensor([1 + 2j, 3 - 1j])
    [_, content] = iter_bytes("x", value.conj())
    assert bytes(content) == np.array([1 - 2j, 3 + 1j], dtype=np.complex64).tobytes()
    assert len([*iter_bytes("x", torch.eye(3).to_sparse())]) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_quantised_modules_have_a_hash_and_no_gradient(tmp_path):
    """A linear layer in whole numbers: what it stores is a type and a tuple, and no gradient passes it."""

    def made():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 11, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(11, 5))
        return torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear})

    assert any(not isinstance(value, torch.Tensor) for value in made().state_dict().values())
    assert network(made()).sha256() == network(made()).sha256()
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(camcli.RequestError, match=r"quantised at '4'") as caught:
        Explainer(network(made()), method="gradcam")(images)
    assert "eigencam" in caught.value.hint
    [[found]] = Explainer(network(made()), method="eigencam", layers=["1"])(images)
    assert np.isfinite(found.map).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_file_brings_what_is_stored_beside_tensors(tmp_path):
    """Behind a prefix too; what the network has no place for, such as an epoch, is no trouble."""

    def quantised(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 11, 3), nn.Flatten(), nn.Linear(11, 5))
        return torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear})

    for made, other in ((Extra({"scale": 3}), Extra(None)), (quantised(0), quantised(1))):
        state = {f"module.{name}": value for name, value in made.state_dict().items()}
        torch.save({**state, "epoch": 3}, tmp_path / "w.pth")
        module, _ = fit.load_weights(lambda _classes, other=other: other, checkpoint.read(tmp_path / "w.pth"), "it")
        assert network(module).sha256() == network(made).sha256()
