"""Signals of one forward and one backward: activations, scores and their gradients, biases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.base.words import count_of
from camcli.engine.forward import compute_gradients
from camcli.engine.hooks.relu import BackwardRule
from camcli.engine.hooks.tensors import at_least_float32
from camcli.engine.signals.scored import ScoredForward
from camcli.images.placement import upsample
from camcli.methods.rounding import reduced_precision_eps

# Greatest share of the score that FullGrad's parts may miss.
COMPLETENESS_TOLERANCE = 1e-2


def act(scored: ScoredForward, layer: str) -> Float[Tensor, "n c h w"]:
    """Return the layer's output A."""
    return scored.to_cells(scored.forward.activations[layer].detach(), layer)


def onto_input(scored: ScoredForward, layer: str) -> Callable[[Tensor], Tensor]:
    """Return a function that upsamples the layer's maps to the input, bilinearly between the cells' centres."""
    size = (scored.forward.images.shape[2], scored.forward.images.shape[3])
    located = scored.plan.locations.get(layer)
    return partial(upsample, size=size, placement=located.placement if located else None)


def images(scored: ScoredForward) -> Float[Tensor, "n d h w"]:
    """Return the input of the network."""
    return at_least_float32(scored.images())


def score(scored: ScoredForward) -> Float[Tensor, " n"]:
    """Return the score that is explained."""
    return at_least_float32(torch.stack([target.score.detach() for target in scored.targets]))


def logits(scored: ScoredForward) -> Float[Tensor, "n classes"]:
    """Return the scores of all classes."""
    return at_least_float32(scored.score_classes().detach())


def index(scored: ScoredForward) -> Int[Tensor, " n"]:
    """Return the index of the class, or of the channel, that is explained."""
    return torch.tensor([target.index for target in scored.targets], device=scored.forward.images.device)


def grad(scored: ScoredForward, layer: str) -> Float[Tensor, "n c h w"]:
    """Return the gradient of the score by the layer's output."""
    return scored.to_cells(scored.gradients[layer].detach(), layer)


def input_grad(scored: ScoredForward) -> Float[Tensor, "n d h w"]:
    """Return the gradient of the score by the images."""
    return at_least_float32(scored.select(scored.gradients[""].detach()))


def hvp(scored: ScoredForward, layer: str) -> Float[Tensor, "n c h w"]:
    """Return the Hessian-vector product H A: the gradient by A of the sum of g A, with the factor A held constant."""
    point = scored.forward.activations[layer]
    gradient = scored.gradients[layer]
    (product,) = compute_gradients((gradient * point.detach()).sum(), [point], retain_graph=True)
    return scored.to_cells(product.detach(), layer)


def grad_of(scored: ScoredForward, layer: str) -> Callable[[Tensor], Tensor]:
    """Return a function from weights of the scores to the gradient of their weighted sum by the layer's output."""
    point, scores = scored.forward.activations[layer], scored.score_classes()

    def grad_of(weights: Float[Tensor, "n classes"]) -> Float[Tensor, "n c h w"]:
        weighted = (scores * weights.to(scores)).sum(1)
        (gradient,) = compute_gradients(weighted[scored.distinct_indices].sum(), [point], retain_graph=True)
        return scored.to_cells(gradient, layer)

    return grad_of


def gradient_by_rule(scored: ScoredForward, rule: BackwardRule, everywhere: bool = False) -> Float[Tensor, "n d h w"]:
    """Return the gradient by the input, with a rule at every ReLU, or everywhere."""
    assert scored.forward.backward_rules is not None
    with scored.forward.backward_rules.using(rule, everywhere):
        (gradient,) = compute_gradients(scored.total, [scored.forward.images], retain_graph=True)
    return at_least_float32(scored.select(gradient))


def biases(scored: ScoredForward) -> list[Tensor]:
    """Return for each bias in the network the bias times the gradient of the score by it, ``(n, c, ...)``.

    Raises:
        PictureError: input times gradient and these terms do not sum up to the score, or a bias's term does not split
            by image.
    """
    assert scored.forward.bias_capture is not None
    _check_by_image(scored)
    count = len(scored.forward.bias_capture.points)
    gradients = [scored.gradients[f"bias {number}"] for number in range(count)]
    all_terms = [at_least_float32(term) for term in scored.forward.bias_capture.compute_terms(gradients)]
    terms = [scored.select(term) for term in all_terms]
    is_single = len(scored.distinct_indices) == 1
    # A single score depends on all images of a group; images of a batch that it does not depend on add 0.
    input_term = at_least_float32(scored.forward.images.detach() * scored.gradients[""].detach())
    parts = [input_term, *all_terms] if is_single else [scored.select(input_term), *terms]
    sums = torch.stack([part.flatten(1).sum(1) for part in parts])
    whole = score(scored)
    if is_single:
        whole, sums = whole[:1], sums.sum(1, keepdim=True)
    _check_complete(whole, sums)
    return terms


def _check_by_image(scored: ScoredForward) -> None:
    assert scored.forward.bias_capture is not None
    images = len(scored.forward.images)
    other = next((one for one, _ in scored.forward.bias_capture.points if not one.ndim or len(one) != images), None)
    if other is not None:
        form = "x".join(map(str, other.shape))
        raise PictureError(
            f"one of its biases is added to a tensor {form} for {count_of(images, 'image')}, such as windows or a "
            "position table, and has no position in one image",
            "choose another method, such as gradcam or hirescam",
        )


def _check_complete(score: Float[Tensor, " n"], sums: Float[Tensor, "terms n"]) -> None:
    missing = score - sums.sum(0)
    # The share, and the rounding of the sum.
    allowed = COMPLETENESS_TOLERANCE * score.abs() + max(1e-5, reduced_precision_eps(sums.device)) * sums.abs().sum(0)
    if bool((missing.abs() > allowed).any()):
        share = float((missing / score).abs().max())
        raise PictureError(
            f"input times gradient and bias times gradient do not sum to the score: {share:.0%} of it is missing",
            "layer norms, attention and gates (squeeze and excitation) multiply values and have no bias; choose "
            "another method, such as gradcam or hirescam",
        )
