"""A network's weights have one hash, however and wherever they lie."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.targets.labels import Labels

PREPARE = Preprocess(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize=(8, 8))


def network(module: nn.Module, weights: str = "pretrained") -> Network:
    return Network("test:it", module, PREPARE, Labels.numbered(2), weights, "made by a test")


def linear() -> nn.Linear:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.copy_(torch.tensor([3.0]))
    return layer


def test_the_hash_worked_by_hand():
    content = b"bias torch.float32 (1,)\n" + np.float32([3]).tobytes()
    content += b"weight torch.float32 (1, 2)\n" + np.float32([1, 2]).tobytes()
    assert network(linear()).sha256() == hashlib.sha256(content).hexdigest()


def test_the_same_weights_have_the_same_hash_in_any_memory_layout():
    module = nn.Conv2d(3, 4, 3)
    before = network(module).sha256()
    assert network(module.to(memory_format=torch.channels_last)).sha256() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module[0].weight.data.view(-1)[0].add_(1),
        lambda module: module[1].running_mean.add_(1),
        lambda module: module.to(torch.bfloat16),
        lambda module: setattr(module[0], "bias", None),
    ],
    ids=["a weight", "a buffer", "the type", "a parameter less"],
)
def test_any_change_changes_the_hash(change):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = network(module).sha256()
    change(module)
    assert network(module).sha256() != before


def test_only_random_weights_are_untrained():
    assert [network(linear(), weights).untrained for weights in ("pretrained", "file", "random")] == [
        False,
        False,
        True,
    ]


def test_a_network_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        network(linear()).name = "another"
