"""Tiny networks for the tests, and the whole state of one, to see that nothing touched it."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from camcli import Explainer, Explanation, Labels, Network, Preprocess
from camcli.methods import METHODS, works_at


def seeded(module: nn.Module, seed: int = 1, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The module in evaluation mode, every parameter drawn anew: N(0, 0.3), so that gradients of both signs occur."""
    noise = torch.Generator().manual_seed(seed)
    module.to(dtype).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=noise, dtype=torch.float64) * 0.3)
    return module


def pictures(count: int, size: int | tuple[int, int] = 8, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def calibrated(module: nn.Module, images: Tensor) -> nn.Module:
    """The module with each batch norm's statistics taken from these images, as training would leave them."""
    norms = [part for part in module.modules() if isinstance(part, BatchNorm) and part.track_running_stats]
    if not norms:
        return module
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean, and not a moving one
        norm.training = True
    with torch.no_grad():
        module(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.training = False
    return module


class Small(nn.Module):
    """Two convolutions with batch norm and an in-place ReLU behind each, max pooling between, and a linear head.

    The kernels can be made symmetric from left to right; the head then sees only column sums, so a mirrored image has
    the same scores.
    """

    def __init__(self, classes: int = 4, symmetric: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(5)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(5, 6, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, classes)
        seeded(self)
        if symmetric:
            with torch.no_grad():
                for conv in (self.conv1, self.conv2):
                    conv.weight.copy_((conv.weight + conv.weight.flip(-1)) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.norm1(self.conv1(x))))
        # Not linear in the mean, or every gradient would be the same in all cells.
        return self.fc(self.relu2(self.conv2(x)).square().mean((2, 3)))


def replaced_activations(model: nn.Module, activation: Any) -> nn.Module:
    """The model with another activation in place of every ReLU module."""
    for module in list(model.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.ReLU):
                setattr(module, name, activation())
    return model


class Looking(Small):
    """The same, and behind the second convolution its cells look at one another, twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.norm1(self.conv1(x))))
        tokens = self.relu2(self.conv2(x)).flatten(2).transpose(1, 2).unsqueeze(1)
        for _ in range(2):
            tokens = tokens + F.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.fc(tokens.squeeze(1).square().mean(1))


class Block(nn.Module):
    """Tokens look at one another, then each at itself. It has no weights, so that channels have no order."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Tanh()

    def forward(self, tokens: Tensor) -> Tensor:
        seen = tokens.unsqueeze(1)
        tokens = tokens + F.scaled_dot_product_attention(seen, seen, seen).squeeze(1)
        return tokens + self.mlp(tokens)


class Stacked(Small):
    """The same with two blocks over the cells behind the second convolution; the scores read one of the greatest."""

    def __init__(self, classes: int = 4, symmetric: bool = False) -> None:
        super().__init__(classes, symmetric)
        self.blocks = nn.Sequential(Block(), Block())

    def feature(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.norm1(self.conv1(x))))
        cells = self.relu2(self.conv2(x)).flatten(2).transpose(1, 2)
        # Of both signs, or what speaks against a class would do so everywhere.
        cells = cells - cells.mean(1, keepdim=True)
        return self.blocks(torch.cat([cells.amax(1, keepdim=True), cells], 1))[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.feature(x))


class Compared(Stacked):
    """The same, its scores ten times the cosines of its feature and the rows of the head, and 3."""

    COSINE = (10.0, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        scale, bias = self.COSINE
        return scale * F.normalize(self.feature(x), dim=1) @ F.normalize(self.fc.weight, dim=1).T + bias


class Plain(Small):
    """The same, its scores linear in the mean of what the second convolution says: sums and ReLUs, no products."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.pool(self.relu1(self.norm1(self.conv1(x)))))
        return self.fc(self.conv2(x).mean((2, 3)))


def small(method: str, **options: Any) -> Small:
    """The small network that a method can explain."""
    if method in ("cam", "fullgrad"):
        return Plain(**options)
    row = METHODS.find(method)
    if method in ("clip-surgery", "m2ib"):
        return Compared(**options)
    if works_at(row) == "attention":
        return Looking(**options) if method in ("rollout", "gae", "attention") else Stacked(**options)
    return Small(**options)


class Pooled(nn.Module):
    """Features, global average pooling, a linear head: the network for which CAM was defined (Zhou 2016)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.last = nn.Conv2d(5, 4, 3, padding=1)
        self.fc = nn.Linear(4, classes)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.features(x)).mean((2, 3)))


class ByHand(nn.Module):
    """On a 2x2 image: a layer that hands on red and green, and scores whose gradients by it are the head's weights.

    The gradient of class 0 by the layer: red [[1, 0], [0, 1]], green [[-1, -1], [-1, 1]]. Class 1 is its opposite;
    class 2 has none. Three channels that are always zero follow, or it might be rows and columns that come first.
    """

    WEIGHTS = ((1.0, 0.0, 0.0, 1.0), (-1.0, -1.0, -1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 1, bias=False)
        self.fc = nn.Linear(20, 3, bias=False)
        self.eval()
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(5, 3)[:, :, None, None])
            self.layer.weight[2] = 0
            wanted = torch.cat([torch.tensor(self.WEIGHTS).reshape(8), torch.ones(12)])
            self.fc.weight.copy_(torch.stack([wanted, -wanted, 0 * wanted]))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x).flatten(1))


class Through(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def named(module: nn.Module, classes: int, size: int = 8, **facts: Any) -> Network:
    """A network of camcli's around a module."""
    preprocess = Preprocess((size, size), (0.5,) * 3, (0.5,) * 3, (size, size), "squash", "bilinear")
    labels = Labels(tuple(f"thing {index}, synonym" for index in range(classes)))
    return Network("tests:tiny", module, preprocess, labels, weights="random", origin="drawn in a test", **facts)


# Options with which a method says what it says, and sooner.
FEW: dict[str, dict[str, Any]] = {
    "dff": {"concepts": 1, "over": "picture"},
    "pca": {"over": "picture"},
    "kmeans": {"segments": 2, "over": "picture"},
    "rise": {"samples": 400},
    "sobol": {"designs": 8, "cells": 3},
    "hsic": {"samples": 40, "cells": 3},
    "opti-cam": {"steps": 5},
}


def explainer(
    model: nn.Module | Network, method: str = "gradcam", layers: Sequence[str] = ("conv2",), **more: Any
) -> Explainer:
    """An explainer whose layers are named where the method works at one; it gives one map a class."""
    if isinstance(model, Compared):
        model = replace(named(model, 1, cosine=model.COSINE), labels=Labels.numbered(model.fc.out_features))
    named_layers = layers if "layer" in works_at(METHODS.find(method)) else []
    return Explainer(model, layers=named_layers, method=method, options=FEW.get(method, {}) | more)


def same(one: Explanation, other: Explanation) -> None:
    """Equal but for float32's rounding of what was computed in float64."""
    assert (one.layer, one.index, one.label) == (other.layer, other.index, other.label)
    assert abs(one.score - other.score) <= 1e-6 * abs(one.score)
    assert np.abs(one.map - other.map).max() <= 1e-6 * np.abs(one.map).max()


def content(tensor: Tensor) -> str:
    """The hash of a tensor's bytes: lists of a large model's numbers would take minutes."""
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(values.data).hexdigest()


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that a careless tool could leave changed, by a name that says what it is."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[f"{name}.training"] = module.training
        found[f"{name}.attributes"] = sorted(vars(module))
        found[f"{name}.children"] = [(child, id(part)) for child, part in module.named_children()]
        for attribute, value in vars(module).items():
            if "hooks" in attribute and isinstance(value, dict):
                found[f"{name}.{attribute}"] = list(value.items())
    for name, parameter in model.named_parameters():
        found[f"{name}.same"] = (id(parameter), parameter.data_ptr(), parameter.dtype, parameter.device)
        found[f"{name}.requires_grad"] = parameter.requires_grad
        found[f"{name}.hooks"] = list((parameter._backward_hooks or {}).items())
        found[f"{name}.grad"] = None if parameter.grad is None else (id(parameter.grad), content(parameter.grad))
        found[f"{name}.value"] = content(parameter)
    for name, buffer in model.named_buffers():
        found[f"{name}.buffer"] = (id(buffer), buffer.data_ptr(), buffer.requires_grad, content(buffer))
    return found


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """What happens inside must leave the model as it was, also if it raises."""
    before = state(model)
    try:
        yield
    finally:
        after = state(model)
        changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        assert not changed, f"changed: {sorted(changed)}"


def unruly(model: nn.Module) -> nn.Module:
    """The model with flags, gradients and hooks of all sorts, as its owner may have left it."""
    model.train()
    parts = [part for part in model.modules() if part is not model]
    parts[0].eval()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    for parameter in parameters[1:3]:
        parameter.grad = torch.full_like(parameter, 0.25)
    parts[1].register_forward_hook(lambda module, inputs, output: None)
    parameters[2].register_hook(lambda gradient: None)
    return model
