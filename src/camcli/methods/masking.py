"""Maps from scores of changed inputs: the image under masks, or the layer without a part.

No function here holds all its variants. ``score_of`` and ``score_from_layer`` take them from a generator as far ahead
as they like; variants never depend on earlier scores.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import length_hint
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vector_norm

from camcli.base.option_checks import check_above, check_at_least
from camcli.base.passes import Counted

ScoreOf = Callable[[Iterable[Tensor]], Iterator[Tensor]]
# From maps of the layer's cells (n, k, h, w) to the input's pixels (n, k, H, W).
OntoInput = Callable[[Tensor], Tensor]
# From a mask (n, 1, H, W) to the images under it (n, d, H, W).
ApplyMask = Callable[[Tensor], Tensor]

# Number of masks of the input's size made at once, to balance speed and memory.
MASKS_AT_ONCE = 32


# ---- Score-CAM and its relatives


def scorecam(
    act: Float[Tensor, "n c h w"],
    images: Float[Tensor, "n d H W"],
    score_of: ScoreOf,
    onto_input: OntoInput | None = None,
    *,
    softmax: bool = True,
) -> Float[Tensor, "n h w"]:
    """sum_k w_k A_k with w = softmax over k of S_k = y(X * H_k) - y(0) (Wang 2020, definitions 2 and 3, algorithm 1).

    H_k is A_k, upsampled bilinearly to the input and then min-maxed to 0..1; the baseline X_b is the mean colour, 0 in
    the normalised image. A channel that has one value everywhere has no H_k: it is left out of the sum and the softmax;
    where all are constant, there is no map. Scores are those before the network's softmax, as in the paper; the
    authors' code takes the probability of the class as w_k, without a softmax over channels.

    Use: where gradients are noisy or not available.
    Not for: quick results. Where scores are large, the softmax leaves only a few channels; then use ``softmax=false``.

    Args:
        softmax: whether the weights are softmaxed over the channels; else they are S_k itself (definition 3).
    """
    return _weight_by_confidence(act, images, score_of, onto_input, [lambda mask: images * mask], 1, softmax)


def gscorecam(
    act: Float[Tensor, "n c h w"],
    grad: Float[Tensor, "n c h w"],
    images: Float[Tensor, "n d H W"],
    score_of: ScoreOf,
    onto_input: OntoInput | None = None,
    *,
    top: int = 300,
    softmax: bool = True,
) -> Float[Tensor, "n h w"]:
    """Score-CAM of the channels whose mean gradient is greatest (Chen 2022).

    The gradient counts with its sign. Channels that are not selected are left out; in the authors' code they stay in
    the softmax with a score of 0. With ``top`` at or above the number of channels it is Score-CAM.

    Use: for layers of many noisy channels, as in CLIP's ResNets, for which it was made.
    Not for: layers of few channels, where it saves nothing.

    Args:
        top: how many channels.
        softmax: as in scorecam.
    """
    check_at_least(1, top=top)
    chosen = grad.mean((2, 3)).topk(min(top, act.shape[1]), dim=1).indices
    return scorecam(act.take_along_dim(chosen[:, :, None, None], 1), images, score_of, onto_input, softmax=softmax)


def ss_cam(
    act: Float[Tensor, "n c h w"],
    images: Float[Tensor, "n d H W"],
    score_of: ScoreOf,
    onto_input: OntoInput | None = None,
    *,
    samples: int = 35,
    sigma: float = 2.0,
    on: Literal["mask", "image"] = "mask",
    softmax: bool = True,
    seed: int = 0,
) -> Float[Tensor, "n h w"]:
    """Score-CAM with S_k averaged over noise: mean of y(X * (H_k + noise)) - y(0) (Wang 2020b, types 1 and 2).

    The same noise is used for every channel, so that channels do not differ by random numbers. In the authors' code
    sigma is first divided by the range of the map and then squared.

    Use: to see whether Score-CAM's channels are stable under noise.
    Not for: quick results: it costs ``samples`` times as much as Score-CAM.

    Args:
        samples: number of noise samples.
        sigma: standard deviation of the noise; masks run from 0 to 1. With 0 it is Score-CAM.
        on: where the noise is added: mask, H_k + noise (type 1), or image, X * H_k + noise (type 2).
        softmax: as in scorecam.
        seed: of the noise.
    """
    check_at_least(1, samples=samples)
    check_at_least(0, sigma=sigma)
    source = torch.Generator().manual_seed(seed)

    def draw() -> ApplyMask:
        shape = 1, images.shape[1] if on == "image" else 1, *images.shape[2:]
        noise = sigma * torch.randn(shape, generator=source, device="cpu").to(images)
        return lambda mask: images * mask + noise if on == "image" else images * (mask + noise)

    return _weight_by_confidence(act, images, score_of, onto_input, (draw() for _ in range(samples)), samples, softmax)


def is_cam(
    act: Float[Tensor, "n c h w"],
    images: Float[Tensor, "n d H W"],
    score_of: ScoreOf,
    onto_input: OntoInput | None = None,
    *,
    samples: int = 10,
    path: Literal["summed", "straight"] = "summed",
    softmax: bool = True,
) -> Float[Tensor, "n h w"]:
    """Score-CAM with S_k averaged along a path: 1/N sum_i y(M_i) - y(0), M_i = i (i-1)/2N X * H_k (Naidu 2020).

    As the paper has it, M_i sums the steps j/N below i, so the path runs past the image, to (N-1)/2 times X * H_k: with
    its N = 10 through 0, 0.1, 0.3, 0.6, 1, ... to 4.5. ``path=straight`` is the integral from 0 to 1 that the name
    suggests: M_i = i/N X * H_k.

    Use: to see whether Score-CAM's channels are stable while the image fades in.
    Not for: quick results: it costs ``samples`` times as much as Score-CAM.

    Args:
        samples: N, how many steps.
        path: summed, the paper's, or straight, from 0 to the masked image itself; then ``samples=1`` is Score-CAM.
        softmax: as in scorecam.
    """
    check_at_least(2 if path == "summed" else 1, samples=samples)
    steps = [step * (step - 1) / 2 if path == "summed" else step for step in range(1, samples + 1)]

    def fade(share: float) -> ApplyMask:
        return lambda mask: images * (share * mask)

    # At 0 there is no increase to compute.
    rounds = [fade(step / samples) for step in steps if step]
    return _weight_by_confidence(act, images, score_of, onto_input, rounds, samples, softmax)


def _weight_by_confidence(
    act: Float[Tensor, "n c h w"],
    images: Float[Tensor, "n d H W"],
    score_of: ScoreOf,
    onto_input: OntoInput | None,
    rounds: Iterable[ApplyMask],
    count: int,
    softmax: bool,
) -> Float[Tensor, "n h w"]:
    """Sum the channels weighted by their increase of confidence, which is summed over rounds and divided by count.

    Each round scores every channel, so that its random numbers need not be kept for the next channel.
    """
    varied = _find_varying(act)
    if not varied.any():
        return act.new_full((len(act), *act.shape[2:]), math.nan)
    # Channels that are constant in every image need no score.
    some = varied.any(0)
    act, varied = act[:, some], varied[:, some]
    variants = (masked(mask) for masked in rounds for mask in _make_masks(act, images, onto_input))
    total = 1 + length_hint(rounds, count) * act.shape[1]
    scores = score_of(Counted(itertools.chain([torch.zeros_like(images)], variants), total))
    blank = next(scores)
    increases = torch.stack([score - blank for score in scores], 1)
    increase = increases.reshape(len(act), -1, act.shape[1]).sum(1) / count
    if softmax:
        weights = increase.masked_fill(~varied, -math.inf).softmax(1)
    else:
        weights = increase.masked_fill(~varied, 0).masked_fill(~varied.any(1, keepdim=True), math.nan)
    return _weighted_sum(weights, act)


def _weighted_sum(weights: Float[Tensor, "n c"], act: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    return (weights[:, :, None, None] * act).sum(1)


def _find_varying(act: Float[Tensor, "n c h w"]) -> Bool[Tensor, "n c"]:
    """Return a mask of the channels that are not constant up to rounding, and so can be min-maxed."""
    low, high = act.amin((2, 3)), act.amax((2, 3))
    return high - low > 16 * torch.finfo(act.dtype).eps * torch.maximum(low.abs(), high.abs())


def _make_masks(
    act: Float[Tensor, "n c h w"], images: Float[Tensor, "n d H W"], onto_input: OntoInput | None = None
) -> Iterator[Float[Tensor, "n 1 H W"]]:
    """Iterate over the masks H_k: channels upsampled, then min-maxed; a constant one is all 0."""
    size = images.shape[2:]
    grow = onto_input or partial(F.interpolate, size=size, mode="bilinear", align_corners=False)
    for some in torch.split(act.to(images.dtype).contiguous(), max(1, MASKS_AT_ONCE // len(act)), 1):
        maps = grow(some)
        low = maps.amin((2, 3), keepdim=True)
        reach = maps.amax((2, 3), keepdim=True) - low
        yield from torch.split(maps.sub(low).div_(reach.masked_fill(reach == 0, 1)), 1, 1)


# ---- Ablation-CAM


def ablation_cam(
    act: Float[Tensor, "n c h w"],
    score: Float[Tensor, " n"],
    score_from_layer: ScoreOf,
    *,
    per: Literal["score", "norm"] = "score",
) -> Float[Tensor, "n h w"]:
    """sum_k w_k A_k with w_k = (y - y_k) / y, y_k the score when channel k is 0 (Desai 2020, before its ReLU).

    Where y is 0 there is no map; where it is negative the weights, and with them the whole map, change sign. The paper
    derives the weight as a slope, (y - y_k) / |A_k|, and then replaces the norm by y: ``per=norm`` keeps it.

    Use: where gradients are noisy, saturated or not available.
    Not for: classes whose score is near 0 or negative.

    Args:
        per: what the drop of the score is divided by: score, or norm, the channel's Euclidean norm.
    """
    # A channel that is 0 already does not change the score.
    channels = (act != 0).any(3).any(2).any(0).nonzero().flatten().tolist()
    drop = act.new_zeros(act.shape[:2])
    ablated = Counted((_ablate_channel(act, channel) for channel in channels), len(channels))
    for channel, left in zip(channels, score_from_layer(ablated), strict=True):
        drop[:, channel] = score - left
    if per == "norm":
        norm = vector_norm(act.flatten(2), dim=2)
        weights = drop / norm.masked_fill(norm == 0, 1)
    else:
        weights = drop / score[:, None]
    return _weighted_sum(weights, act)


def _ablate_channel(act: Float[Tensor, "n c h w"], channel: int) -> Float[Tensor, "n c h w"]:
    ablated = act.clone()
    ablated[:, channel] = 0
    return ablated


# ---- Occlusion


def occlusion(
    images: Float[Tensor, "n d H W"],
    score: Float[Tensor, " n"],
    score_of: ScoreOf,
    *,
    window: int = 0,
    stride: int = 0,
    value: float = 0.0,
) -> Float[Tensor, "n H W"]:
    """At each pixel, y - y' averaged over the windows that cover it; y' is the score when one is grey (Zeiler 2014).

    The paper plots the score against the position of a grey square, sec. 4.2; here the drop is assigned to the pixels
    of the square, so that the map has the input's size and evidence for the class is positive. The windows reach from
    edge to edge and lie symmetrically, at most a stride apart: where the stride does not fit, they are a little closer.

    Use: to check another map by a direct test: what happens without this part?
    Not for: redundant evidence: with two sufficient parts, occluding either changes little.

    Args:
        window: side of the square in pixels of the input; 0 for a seventh of the shorter side, 32 of 224.
        stride: pixels from one square to the next; 0 for half the window.
        value: fill value of the square, in units of the normalised image: 0 is the mean colour.
    """
    check_at_least(0, window=window, stride=stride)
    size = images.shape[2:]
    window = min(window or max(1, min(size) // 7), *size)
    stride = stride or max(1, window // 2)
    down, across = (place_windows(side, window, stride) for side in size)
    places = list(itertools.product(down, across))
    total, count = images.new_zeros(len(images), *size), images.new_zeros(size)
    occluded = Counted(_occlude(images, places, window, value), len(places))
    for (top, left), hidden in zip(places, score_of(occluded), strict=True):
        square = (..., slice(top, top + window), slice(left, left + window))
        total[square] += (score - hidden)[:, None, None]
        count[square] += 1
    # A stride above the window leaves gaps without scores.
    return total / count.clamp(min=1)


def _occlude(
    images: Float[Tensor, "n d H W"], places: Iterable[tuple[int, int]], window: int, value: float
) -> Iterator[Float[Tensor, "n d H W"]]:
    for top, left in places:
        variant = images.clone()
        variant[:, :, top : top + window, left : left + window] = value
        yield variant


def place_windows(side: int, window: int, stride: int) -> list[int]:
    """Return the starts of windows from edge to edge, at most a stride apart, and symmetric."""
    span = side - window
    steps = math.ceil(span / stride)
    if steps % 2 == 0 and span % 2:
        # An odd span has no middle for a window.
        steps += 1
    half = steps // 2
    middle = (span - stride + 1) // 2 if steps % 2 else span // 2
    left = [step * middle // half for step in range(1, half + 1)]
    right = [span - start for start in (left if steps % 2 else left[:-1])]
    return [0, *left, *reversed(right), *([span] if span else [])]


# ---- RISE


def rise(
    images: Float[Tensor, "n d H W"],
    score_of: ScoreOf,
    *,
    samples: int = 4000,
    cells: int = 7,
    p: float = 0.5,
    center: bool = False,
    seed: int = 0,
) -> Float[Tensor, "n H W"]:
    """1 / (N p) sum_i y(X * M_i) M_i over N random masks (Petsiuk 2018, sec. 3).

    A mask is a grid of cells, each open with probability p, upsampled bilinearly to one cell more than the input and
    cut out at a random shift. The paper takes 4000 masks for VGG16 and 8000 for ResNet50, and y is its probability;
    here it is the score explained. The map's mean is about the mean score of masked images and carries no information:
    only differences do, and their noise shrinks with the root of N. The plain map is therefore nearly one colour;
    ``center=true`` subtracts that part, and positive values raise the score.

    Use: for black boxes, where even the layers are not accessible, if time allows.
    Not for: small objects, below the size of a cell; quick results.

    Args:
        samples: N, how many masks.
        cells: number of cells along each side of the image.
        p: the probability that a cell is open.
        center: subtract the mean of all scores, y - mean y.
        seed: of the masks.
    """
    check_at_least(1, samples=samples, cells=cells)
    check_above(0, p=p)
    drawn, masks = itertools.tee(itertools.islice(_random_masks(images, cells, p, seed), samples))
    total = images.new_zeros(len(images), *images.shape[2:])
    opened, scores = torch.zeros_like(total), images.new_zeros(len(images), 1, 1)
    for score, mask in zip(score_of(Counted((images * mask for mask in drawn), samples)), masks, strict=True):
        total += score[:, None, None] * mask[0]
        opened += mask[0]
        scores += score[:, None, None]
    if center:
        total -= scores / samples * opened
    return total / (samples * p)


def _random_masks(
    images: Float[Tensor, "n d H W"], cells: int, p: float, seed: int
) -> Iterator[Float[Tensor, "1 1 H W"]]:
    """Generate masks without end; the first ones do not depend on how many are taken."""
    source = torch.Generator().manual_seed(seed)
    height, width = images.shape[2:]
    cell = math.ceil(height / cells), math.ceil(width / cells)
    size = [(cells + 1) * side for side in cell]
    while True:
        grids = (torch.rand(MASKS_AT_ONCE, 1, cells, cells, generator=source, device="cpu") < p).to(images)
        shifts = zip(
            *(torch.randint(side, (MASKS_AT_ONCE,), generator=source, device="cpu").tolist() for side in cell),
            strict=True,
        )
        grown = F.interpolate(grids, size, mode="bilinear", align_corners=False)
        for mask, (top, left) in zip(torch.split(grown, 1), shifts, strict=True):
            yield mask[:, :, top : top + height, left : left + width]
