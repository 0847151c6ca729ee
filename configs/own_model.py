"""A model of your own for `camcli explain --model configs/own_model.py:make`: ImageNet's classes, grouped.

A function without arguments returns the module, how images are prepared for it, and the names of its classes.
"""

import torch
from torch import Tensor, nn

import camcli

GROUPS = {
    "cat": range(281, 286),
    "dog": range(151, 269),
    "insect": range(300, 327),
    "citrus fruit": range(950, 952),
    "cup of something": (504, 967),
    "bridge": (718, 821, 839, 888),
    "camera or tripod": (732, 759, 872),
}


class Grouped(nn.Module):
    """One score a group: the log of the sum of its classes' exponentials, so that softmax adds probabilities up."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(n, 3, h, w)`` to scores ``(n, groups)``."""
        scores = self.network(images)
        return torch.stack([scores[:, list(classes)].logsumexp(1) for classes in GROUPS.values()], 1)


def make() -> tuple[nn.Module, camcli.Preprocess, list[str]]:
    """What `--model` asks for."""
    bundled = camcli.load("bundled:efficientnet-lite0")
    return Grouped(bundled.module), bundled.preprocess, list(GROUPS)
