"""Backbones that pool, freeze or cut the graph, and what each of their layers gives."""

import torch
from networks import Through, pictures, seeded
from torch import nn

from camcli.engine.layers.probe import probe_layers

IMAGES = pictures(2, 16)


class Body(nn.Module):
    """As a backbone of transformers: the map, and its pooled mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu())
        return x, x.square().mean((2, 3))


class Pooler(nn.Module):
    """A head that reads what is pooled; or of two maps one."""

    def __init__(self, read) -> None:
        super().__init__()
        self.body, self.fc, self.read = Body(), nn.Linear(5, 4), read
        self.two = Through(lambda x: {"coarse": x[:, :3, ::2, ::2], "fine": x})
        seeded(self)

    def forward(self, x):
        return self.fc(self.read(self, x))


class Frozen(Pooler):
    """A backbone that learns nothing, and a neck that does."""

    def __init__(self) -> None:
        super().__init__(None)
        self.neck = nn.Conv2d(5, 5, 3, padding=1)
        seeded(self)

    def forward(self, x):
        with torch.no_grad():
            x, _ = self.body(x)
        return self.fc(self.neck(x).square().mean((2, 3)))


def surveyed(model):
    return {layer.name: layer for layer in probe_layers(model, IMAGES[:1])}
