"""Maps at the input from the gradient by the input."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.base.option_checks import check_at_least
from camcli.base.passes import Counted

ScoreAndGrad = Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]]


def saliency(input_grad: Float[Tensor, "n d H W"]) -> Float[Tensor, "n H W"]:
    """The maximum of |dy/dX| over the colours (Simonyan 2013, sec. 3.1).

    Use: to see which pixels, changed a little, change the score most.
    Not for: evidence for and against a class: the sign is lost. It is noisy.
    """
    return input_grad.abs().amax(1)


def input_x_gradient(
    images: Float[Tensor, "n d H W"], input_grad: Float[Tensor, "n d H W"]
) -> Float[Tensor, "n d H W"]:
    """X * dy/dX, pixel by pixel and colour by colour (Shrikumar 2016).

    X is the normalised image: a pixel of the mean colour is 0 whatever the gradient. In a network of ReLUs without
    biases the map sums to the score.

    Use: as the cheapest map whose sum has a meaning.
    Not for: pixels near the mean colour; noise.
    """
    return images * input_grad


def smoothgrad(
    images: Float[Tensor, "n d H W"],
    score_and_grad: ScoreAndGrad,
    *,
    samples: int = 50,
    sigma: float = 0.15,
    seed: int = 0,
) -> Float[Tensor, "n d H W"]:
    """The mean of dy/dX over noisy copies of the image, N(0, (sigma (max X - min X))^2) (Smilkov 2017).

    Signed; the paper draws absolute values.

    Use: where the plain gradient is a scatter of dots.
    Not for: fine details: the remaining noise depends on ``sigma``.

    Args:
        samples: how many noisy copies; the paper sees little gain beyond 50.
        sigma: standard deviation of the noise as a share of the image's range, 0.1 to 0.2 in the paper. With 0 it is
            the gradient.
        seed: of the noise.
    """
    check_at_least(1, samples=samples)
    check_at_least(0, sigma=sigma)
    total = torch.zeros_like(images)
    for _, grad in score_and_grad(Counted(iter_noisy_copies(images, samples, sigma, seed), samples)):
        total += grad
    return total / samples


def iter_noisy_copies(
    images: Float[Tensor, "n d H W"], samples: int, sigma: float, seed: int
) -> Iterator[Float[Tensor, "n d H W"]]:
    """Yield so many copies of images with noise N(0, (sigma (max X - min X))^2) (Smilkov 2017, sec. 3)."""
    source = torch.Generator().manual_seed(seed)
    std = sigma * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    for _ in range(samples):
        # All images of a batch share the noise, so that a map does not depend on the batch.
        yield images + std * torch.randn(1, *images.shape[1:], generator=source, device="cpu").to(images)


def integrated_gradients(
    images: Float[Tensor, "n d H W"],
    score_and_grad: ScoreAndGrad,
    *,
    steps: int = 50,
    rule: Literal["gauss", "midpoint", "right"] = "gauss",
    baseline: float = 0.0,
) -> Float[Tensor, "n d H W"]:
    """(X - X') times the integral of dy/dX over the straight path from X' to X (Sundararajan 2017, eq. 1).

    Complete: the map sums to y(X) - y(X'), up to the error of the quadrature. The paper's X' is a black image; here it
    is the mean colour, 0 in the normalised image.

    Use: where contributions must add up to the score.
    Not for: pixels of the baseline's colour: they get 0, whatever they mean.

    Args:
        steps: gradients along the path; the paper finds 20 to 300 enough.
        rule: the quadrature: gauss (Gauss and Legendre), midpoint, or right, the Riemann sum of the paper's eq. 3.
        baseline: value of every colour channel in X', in units of the normalised image: 0 is the mean colour, about -2
            black and 2 white.
    """
    check_at_least(1, steps=steps)
    nodes, weights = _quadrature(rule, steps)
    difference = images - baseline
    total = torch.zeros_like(images)
    way = Counted((baseline + node * difference for node in nodes), len(nodes))
    for weight, (_, grad) in zip(weights, score_and_grad(way), strict=True):
        total += weight * grad
    return difference * total


def _quadrature(rule: str, steps: int) -> tuple[Sequence[float], Sequence[float]]:
    """Return nodes and weights for an integral from 0 to 1."""
    if rule == "gauss":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return ((1 + nodes) / 2).tolist(), (weights / 2).tolist()
    shift = 0.5 if rule == "midpoint" else 1.0
    return [(step + shift) / steps for step in range(steps)], [1 / steps] * steps


def fullgrad(
    images: Float[Tensor, "n d H W"],
    input_grad: Float[Tensor, "n d H W"],
    biases: Sequence[Float[Tensor, "n ..."]],
    *,
    rescale: Literal["map", "layer", "none"] = "map",
) -> Float[Tensor, "n H W"]:
    """psi(X * dy/dX) + sum over layers and channels of psi(b * dy/db), psi = upsampled, rescaled |.| (Srinivas 2019).

    psi takes absolute values, min-maxes each map to 0..1 and upsamples it bilinearly (sec. 4). The authors' code
    min-maxes all channels of a layer together: ``rescale=layer``. Biases without a position, those of linear layers,
    contribute to the score but not to the map. What is summed is complete before psi: X * dy/dX and all b * dy/db
    together sum to y.

    Use: for sharp maps that take every layer into account.
    Not for: evidence for and against a class: the sign is lost. Nor for comparing layers: each map counts alike.

    Args:
        rescale: what is min-maxed to 0..1: each map, each layer as a whole, or none.
    """
    maps = [images * input_grad, *(part for part in biases if part.ndim == 4)]
    # Upsampling is linear, so the channels of a layer are summed first.
    return sum(
        (
            F.interpolate(_rescale(part.abs(), rescale).sum(1, keepdim=True), images.shape[2:], mode="bilinear")
            for part in maps
        ),
        images.new_zeros(len(images), 1, *images.shape[2:]),
    ).squeeze(1)


def _rescale(maps: Float[Tensor, "n c h w"], unit: str) -> Float[Tensor, "n c h w"]:
    """Rescale maps to 0..1; constant ones become 0."""
    if unit == "none":
        return maps
    over = (2, 3) if unit == "map" else (1, 2, 3)
    low = maps.amin(over, keepdim=True)
    reach = maps.amax(over, keepdim=True) - low
    return (maps - low) / reach.masked_fill(reach == 0, 1)
