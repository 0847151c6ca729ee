"""Signals of a small network for the methods that ask again, without the explainer: plainly written, unbatched."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from networks import seeded
from torch import Tensor, nn


class Two(nn.Module):
    """Features, and a head that is not linear in them; the layer is what lies between.

    Args:
        pool: by how much the layer is smaller than the input.
        classes: how many scores.
    """

    def __init__(self, pool: int = 2, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.AvgPool2d(pool),
            nn.Conv2d(5, 6, 3, padding=1),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, classes))
        seeded(self)
        # Not the mean 0 and variance 1 that it starts with, or its implicit bias would be its bias.
        self.features[1].running_mean.copy_(torch.linspace(-0.5, 0.5, 5))
        self.features[1].running_var.copy_(torch.linspace(0.5, 2, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Asked:
    """The signals by their names, for images and the class explained of each."""

    def __init__(self, model: Two, images: Tensor, index: list[int]) -> None:
        self.model, self.images, self.index = model, images, torch.tensor(index)
        leaf = images.clone().requires_grad_()
        act = model.features(leaf)
        score = self.chosen(model.head(act))
        self.grad, self.input_grad = torch.autograd.grad(score.sum(), [act, leaf])
        self.act, self.score = act.detach(), score.detach()

    def chosen(self, logits: Tensor) -> Tensor:
        return logits.gather(1, self.index[:, None])[:, 0]

    def score_of(self, variants: Iterable[Tensor]) -> Iterator[Tensor]:
        for variant in variants:
            yield self.chosen(self.model(variant)).detach()

    def score_from_layer(self, variants: Iterable[Tensor]) -> Iterator[Tensor]:
        for variant in variants:
            yield self.chosen(self.model.head(variant)).detach()

    def score_and_grad(self, variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for variant in variants:
            leaf = variant.detach().requires_grad_()
            score = self.chosen(self.model(leaf))
            yield score.detach(), torch.autograd.grad(score.sum(), leaf)[0]

    @property
    def biases(self) -> list[Tensor]:
        """Each bias times the score's gradient by it, the implicit one of the batch norm among them."""
        outputs: list[Tensor] = []
        parts = [part for part in self.model.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
        hooks = [part.register_forward_hook(lambda part, inputs, output: outputs.append(output)) for part in parts]
        grads = torch.autograd.grad(self.chosen(self.model(self.images)).sum(), outputs)
        for hook in hooks:
            hook.remove()
        found = []
        for part, grad in zip(parts, grads, strict=True):
            bias = part.bias
            if isinstance(part, nn.BatchNorm2d):
                bias = bias - part.running_mean * part.weight / (part.running_var + part.eps).sqrt()
            found.append((bias.reshape(1, -1, *[1] * (grad.ndim - 2)) * grad).detach())
        return found


def asking(score: Callable[[Tensor], Tensor], ahead: int = 1) -> Callable[[Iterable[Tensor]], Iterator[Tensor]]:
    """The signal ``score_of`` of a function (n, 3, H, W) -> (n,), answered in batches of ``ahead`` variants."""

    def ask(variants: Iterable[Tensor]) -> Iterator[Tensor]:
        variants = iter(variants)
        while batch := list(itertools.islice(variants, ahead)):
            yield from map(score, batch)

    return ask


def sloping(score: Callable[[Tensor], Tensor]) -> Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]]:
    """The signal ``score_and_grad`` of a function (n, 3, H, W) -> (n,)."""

    def slopes(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for variant in variants:
            leaf = variant.detach().requires_grad_()
            given = score(leaf)
            yield given.detach(), torch.autograd.grad(given.sum(), leaf)[0]

    return slopes
