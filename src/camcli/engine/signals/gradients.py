"""Signals of one forward and one way back: activations, scores and their gradients, biases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.engine.forward import gradients_at
from camcli.engine.hooks.relu import Rule
from camcli.engine.hooks.tensors import wide
from camcli.engine.signals.scored import ScoredForward
from camcli.images.placement import at_pixels
from camcli.methods.rounding import coarse

# Of the score, how much FullGrad's parts may miss.
COMPLETE = 1e-2


def act(scored: ScoredForward, layer: str) -> Float[Tensor, "n c h w"]:
    """The layer's output A."""
    return scored.grid_of(scored.forward.taps[layer].detach(), layer)


def onto_input(scored: ScoredForward, layer: str) -> Callable[[Tensor], Tensor]:
    """What brings maps of the layer's cells to the input's pixels: bilinear between the cells' centres."""
    size = (scored.forward.image.shape[2], scored.forward.image.shape[3])
    located = scored.plan.located.get(layer)
    return partial(at_pixels, size=size, own=located.placement if located else None)


def images(scored: ScoredForward) -> Float[Tensor, "n d h w"]:
    """What the network was given."""
    return wide(scored.images())


def score(scored: ScoredForward) -> Float[Tensor, " n"]:
    """The score that is explained."""
    return wide(torch.stack([subject.score.detach() for subject in scored.subjects]))


def logits(scored: ScoredForward) -> Float[Tensor, "n classes"]:
    """The score of every class."""
    return wide(scored.scores_of_all().detach())


def index(scored: ScoredForward) -> Int[Tensor, " n"]:
    """The class, or the channel, that is explained."""
    return torch.tensor([subject.index for subject in scored.subjects], device=scored.forward.image.device)


def grad(scored: ScoredForward, layer: str) -> Float[Tensor, "n c h w"]:
    """The gradient of the score by the layer's output."""
    return scored.grid_of(scored.gradients[layer].detach(), layer)


def input_grad(scored: ScoredForward) -> Float[Tensor, "n d h w"]:
    """The gradient of the score by the images."""
    return wide(scored.select(scored.gradients[""].detach()))


def curve(scored: ScoredForward, layer: str) -> Float[Tensor, "n c h w"]:
    """H A: the gradient by A of the sum of g A, where A beside g stands still."""
    point = scored.forward.taps[layer]
    gradient = scored.gradients[layer]
    (along,) = gradients_at((gradient * point.detach()).sum(), [point], keep=True)
    return scored.grid_of(along.detach(), layer)


def grad_of(scored: ScoredForward, layer: str) -> Callable[[Tensor], Tensor]:
    """From weights of the scores to the gradient, by the layer's output, of their weighted sum."""
    point, scores = scored.forward.taps[layer], scored.scores_of_all()

    def grad_of(weights: Float[Tensor, "n classes"]) -> Float[Tensor, "n c h w"]:
        weighted = (scores * weights.to(scores)).sum(1)
        (gradient,) = gradients_at(weighted[scored.distinct].sum(), [point], keep=True)
        return scored.grid_of(gradient, layer)

    return grad_of


def ruled(scored: ScoredForward, rule: Rule, everywhere: bool = False) -> Float[Tensor, "n d h w"]:
    """The gradient by the input that follows a rule at every ReLU, or everywhere."""
    assert scored.forward.ruled is not None
    with scored.forward.ruled.following(rule, everywhere):
        (gradient,) = gradients_at(scored.total, [scored.forward.image], keep=True)
    return wide(scored.select(gradient))


def biases(scored: ScoredForward) -> list[Tensor]:
    """For each bias in the network the bias times the gradient of the score by it, ``(n, c, ...)``.

    Raises:
        PictureError: together with the input times its gradient they are not the score; or some are no image's own.
    """
    assert scored.forward.biases is not None
    _check_by_image(scored)
    count = len(scored.forward.biases.points)
    gradients = [scored.gradients[f"bias {number}"] for number in range(count)]
    everyones = [wide(term) for term in scored.forward.biases.terms(gradients)]
    terms = [scored.select(term) for term in everyones]
    alone = len(scored.distinct) == 1
    # One score is made of all images of a group; of others of a batch, which have no part in it, the sum is 0.
    given = wide(scored.forward.image.detach() * scored.gradients[""].detach())
    parts = [given, *everyones] if alone else [scored.select(given), *terms]
    sums = torch.stack([part.flatten(1).sum(1) for part in parts])
    whole = score(scored)
    if alone:
        whole, sums = whole[:1], sums.sum(1, keepdim=True)
    _check_complete(whole, sums)
    return terms


def _check_by_image(scored: ScoredForward) -> None:
    assert scored.forward.biases is not None
    images = len(scored.forward.image)
    other = next((one for one, _ in scored.forward.biases.points if not one.ndim or len(one) != images), None)
    if other is not None:
        form = "x".join(map(str, other.shape))
        raise PictureError(
            f"one of its biases is added to {form} for {images} image(s), such as regions, windows or a table of "
            "positions, which is no place of one image",
            "choose another method, such as gradcam or hirescam",
        )


def _check_complete(score: Float[Tensor, " n"], sums: Float[Tensor, "terms n"]) -> None:
    missing = score - sums.sum(0)
    # Beside the share, the rounding of what is added up.
    allowed = COMPLETE * score.abs() + max(1e-5, coarse(sums.device)) * sums.abs().sum(0)
    if bool((missing.abs() > allowed).any()):
        share = float((missing / score).abs().max())
        raise PictureError(
            f"input times gradient and biases times gradients are not the score: {share:.0%} of it is missing",
            "layer norms, attention and gates (squeeze and excitation) multiply values, which is no bias; "
            "choose another method, such as gradcam or hirescam",
        )
