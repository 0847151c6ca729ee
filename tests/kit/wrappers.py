"""Wrappers around models, and runs with them."""

from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job

WRAPPERS = '''
import torch
from torch import nn


class Plain(nn.Module):
    """The same scores."""

    def __init__(self, network):
        super().__init__()
        self.inside = nn.Sequential(network)

    def forward(self, images):
        return self.inside(images)


class Two(Plain):
    """Red against the rest."""

    def forward(self, images):
        scores = self.inside(images)
        return torch.stack([scores[:, 0], scores[:, 1:].sum(1)], 1)


class Body(nn.Module):
    """A part of the model alone."""

    def __init__(self, network):
        super().__init__()
        self.part = network.stem

    def forward(self, images):
        return self.part(images).mean((2, 3))


class Scaled(Plain):
    """The scores times a feature, and another added."""

    def forward(self, images, features):
        assert len(features) == len(images)
        return self.inside(images) * features[:, :1] + features[:, 1:]


class Named(Plain):
    def forward(self, images, features):
        return self.inside(images) * features["weight"][:, None] + features["kind"][:, None]


class Listing(Plain):
    """A model that takes a list of (image, number) pairs."""

    def pairs(self, pairs):
        return torch.cat([self.inside(image[None]) * number for image, number in pairs])

    def forward(self, images):
        return self.pairs([(image, 1.0) for image in images])


class Raises(nn.Module):
    def __init__(self, network):
        super().__init__()
        raise ValueError("I do not like this model")


class Fails(Plain):
    def forward(self, images):
        return self.inside(images.flatten(1))


class First(Plain):
    def forward(self, images):
        return self.inside(images)[:1]


class Words(Plain):
    def forward(self, images):
        return "red"


class Map(Plain):
    def forward(self, images):
        return self.inside[0].stem(images)


class Empty(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.line = nn.Linear(3, 2)
        self.held = [network]

    def forward(self, images):
        return self.line(images.mean((2, 3)))


def function(network):
    return Plain(network)


def no_module(network):
    return lambda images: network(images)


number = 3
'''


def run(tiny: str, *inputs: str, **options) -> list:
    given = {"model": tiny, "inputs": inputs, "out": "out", "device": "cpu", "save": ("array",)}
    with Run(Job(**(given | options))) as under_way:
        return list(under_way)
