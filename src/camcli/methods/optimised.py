"""Maps found by optimisation, image by image: what is shown or held back so that a score becomes high."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.base.option_checks import check_above, check_at_least
from camcli.base.passes import Counted

# From variants to the score of each and its gradient by the variant.
ScoreAndGrad = Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]]
# From maps of the layer's cells (n, k, h, w) to the input's pixels (n, k, H, W).
OntoInput = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1, with its constants): from gradients, one after the other, to steps uphill.

    Attributes:
        rate: length of a step of each number, about.
    """

    rate: float
    _count: int = 0
    _mean: Tensor | float = 0.0
    _square: Tensor | float = 0.0

    def step(self, gradient: Tensor) -> Tensor:
        """Return the step that follows this gradient."""
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.999 * self._square + 0.001 * gradient.square()
        mean, square = self._mean / (1 - 0.9**self._count), self._square / (1 - 0.999**self._count)
        return self.rate * mean / (square.sqrt() + 1e-8)


def opti_cam(
    act: Float[Tensor, "n c h w"],
    images: Float[Tensor, "n d H W"],
    score_and_grad: ScoreAndGrad,
    onto_input: OntoInput | None = None,
    *,
    steps: int = 100,
    lr: float = 0.1,
) -> Float[Tensor, "n h w"]:
    """S = sum over k of softmax(u)_k A_k with the u for which y(X * n(up(S))) is greatest (Zhang 2023, eq. 4 to 7).

    n min-maxes to 0..1, up enlarges to the input bilinearly: the channels' weights are those whose map, as a mask,
    leaves the highest score. Adam looks for them from equal weights, for each image on its own. The map is n(S). Where
    all A_k are constant there is none; where the score of the masked image has no gradient it is zero. Rounding grows
    along the steps: with another batch size or device the cells of a map differ by some hundredths.

    Use: the channels that together keep the class's score, in fewer forwards than Score-CAM where there are many.
    Not for: all evidence of a class: what is not needed for a high score may be left out. Masks can find patterns that
        please the network without being evidence.

    Args:
        steps: how many steps of Adam.
        lr: their length.
    """
    check_at_least(0, steps=steps)
    check_above(0, lr=lr)
    size = images.shape[2:]
    grow = onto_input or partial(F.interpolate, size=size, mode="bilinear", align_corners=False)
    channels = act.to(images.dtype)
    weights = channels.new_zeros(channels.shape[:2], requires_grad=True)
    adam, reached = Adam(lr), torch.zeros(len(act), dtype=torch.bool, device=act.device)
    masked = images

    def weigh() -> Float[Tensor, "n 1 h w"]:
        return (weights.softmax(1)[:, :, None, None] * channels).sum(1, keepdim=True)

    def mask() -> Iterator[Tensor]:
        nonlocal masked
        for _ in range(steps):
            masked = images * _min_max(grow(weigh()))
            yield masked

    for _, gradient in score_and_grad(Counted(mask(), steps, group=1)):
        (of_weights,) = torch.autograd.grad(masked, weights, gradient.to(masked))
        reached |= (gradient != 0).flatten(1).any(1)
        weights.data += adam.step(of_weights)
    map = _min_max(weigh().detach())[:, 0]
    return map if not steps else torch.where(reached[:, None, None] | ~map.isfinite(), map, 0)


def m2ib(
    block_tokens: Callable[[int], Float[Tensor, "n t c"]],
    cosine_and_grad: Callable[[int], ScoreAndGrad],
    to_grid: Callable[[Float[Tensor, "n t"]], Float[Tensor, "n h w"]],
    *,
    depth: int = 2,
    beta: float = 0.1,
    steps: int = 10,
    lr: float = 1.0,
    samples: int = 10,
    seed: int = 0,
) -> Float[Tensor, "n h w"]:
    """Bits of each token that pass a bottleneck, KL[N(lambda h, (1 - lambda)^2) || N(0, 1)] / ln 2 (Wang 2023, sec. 4).

    The tokens h that enter the last blocks, the class token among them, become lambda h + (1 - lambda) noise. The
    lambda, one for each channel of each token, are those for which the cosine of image and prompt, less beta times the
    mean KL, is greatest: what the prompt does not need is drowned in noise. Adam looks for alpha with lambda =
    sigmoid(alpha) from alpha = 5, for each image on its own, by the mean over samples of the noise, which are the same
    for all images. The map is the sum over each token's channels; where no step has a gradient it is zero.

    It is the image's side of the paper, which treats the text's tokens in the same way. Its parent, IBA (Schulz 2020),
    takes noise with the mean and deviation of every feature in a data set, for classes.

    Use: CLIP models: how much of the image's information a prompt needs, patch by patch.
    Not for: networks without prompts. The class token has gathered much of the image before the last blocks: the fewer
        they are, the less the patches tell. The noise has a deviation of 1: among much larger tokens it hides little.

    Args:
        depth: how many blocks come after the bottleneck; the authors' demonstration has 2 of 12.
        beta: how much a bit must be worth.
        steps: how many steps of Adam.
        lr: their length.
        samples: how often noise is drawn in each step.
        seed: of the noise.
    """
    check_at_least(1, steps=steps, samples=samples)
    check_above(0, lr=lr)
    check_at_least(0, beta=beta)
    tokens = block_tokens(depth)
    alpha, adam = torch.full_like(tokens, 5.0), Adam(lr)
    source, noises = torch.Generator().manual_seed(seed), list[Tensor]()

    def blur() -> Iterator[Tensor]:
        for _ in range(steps):
            noises.clear()
            for _ in range(samples):
                noises.append(torch.randn(1, *tokens.shape[1:], generator=source, device="cpu").to(tokens))
                yield alpha.sigmoid() * tokens + (1 - alpha.sigmoid()) * noises[-1]

    slope, reached = torch.zeros_like(tokens), torch.zeros_like(tokens[:, 0, 0], dtype=torch.bool)
    answers = cosine_and_grad(depth)(Counted(blur(), steps * samples, group=samples))
    for number, (_, gradient) in enumerate(answers):
        slope += gradient * (tokens - noises[number % samples]) / samples
        reached |= (gradient != 0).flatten(1).any(1)
        if number % samples == samples - 1:
            alpha += adam.step(alpha.sigmoid() * (-alpha).sigmoid() * slope - beta * _slope_of_mean_bits(alpha, tokens))
            slope = torch.zeros_like(tokens)
    kept = alpha.sigmoid()
    divergence = ((kept * tokens).square() + (1 - kept).square() - 1) / 2 - F.logsigmoid(-alpha)
    return to_grid(torch.where(reached[:, None], divergence.sum(2) / math.log(2), 0))


def _slope_of_mean_bits(alpha: Float[Tensor, "n t c"], tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
    """Return the derivative of the mean KL, in nats, by alpha."""
    kept, lost = alpha.sigmoid(), (-alpha).sigmoid()
    return kept * (1 + lost * (kept * tokens.square() - lost)) / tokens[0].numel()


def _min_max(maps: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Scale maps to 0..1; a constant one is NaN."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    flat = high - low <= 16 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    return (maps - low) / (high - low).masked_fill(flat, math.nan)
