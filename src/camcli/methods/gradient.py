"""Closed forms of a layer's output A and g, the gradient of the class score by A."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.base.passes import Counted
from camcli.methods.activation import (
    first_component,
    flatten_cells,
    principal_component,
    scale_to_unit,
    unflatten_cells,
)
from camcli.methods.rounding import reduced_precision_eps

# Machine epsilons up to which a mean, relative to that of magnitudes, is a sum that vanishes.
ROUNDING_STEPS = 32


def gradcam(act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Sum over k of alpha_k A_k with alpha_k the mean of g_k, signed (Selvaraju 2017, eq. 1 and 2 before the ReLU).

    Use: first. It is quick, robust, and depends on both the model and the class.
    Not for: several small objects far apart, or early layers, where one weight per channel is too coarse; there it may
        highlight positions that do not raise the score at all (see hirescam).
    """
    return (average_gradient(grad) * act).sum(1)


def average_gradient(grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
    """Return the mean of g_k over the cells.

    Raises:
        RequestError: it is zero for every channel, apart from rounding. Then it says nothing, though the gradient does.
    """
    alpha = grad.mean((2, 3), keepdim=True)
    size = grad.abs().mean((2, 3)).amax(1)
    limit = ROUNDING_STEPS * torch.finfo(grad.dtype).eps * size
    if (alpha.abs().amax((1, 2, 3)) < limit).any():
        raise RequestError(
            "the gradient has no mean here: over the layer's cells it sums to zero in every channel, as in front of a "
            "normalization over cells (an instance norm, or a group norm of one channel a group), so the weights of "
            "Grad-CAM would be rounding errors",
            "choose hirescam or layercam, which weight cell by cell, or a layer behind that normalization",
        )
    return alpha


def hirescam(act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Sum over k of g_k A_k, cell by cell (Draelos and Carin 2020, eq. 4).

    For a network that ends in pooling and one linear layer it is exactly the contribution of each position to the
    score; there it equals Grad-CAM, and CAM up to scale.

    Use: where a map must not highlight positions that the model does not use.
    Not for: early layers, where gradients cell by cell are noisy.
    """
    return (grad * act).sum(1)


def odam(act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Relu of the sum over k of g_k A_k, cell by cell (Zhao and Chan 2023, ODAM, eq. 3).

    ``g`` is the gradient of one box's score: of two objects of a class each has a map of its own, since a cell counts
    by its own gradient and not by the mean of all. The paper may smooth g locally first; its code does not, and
    neither does this. hirescam is the same with its sign.

    Use: for the boxes of detectors, at the levels of the feature pyramid that they are read from.
    Not for: evidence against a box, which the ReLU drops: hirescam.
    """
    return (grad * act).sum(1).clamp(min=0)


def cam(
    act: Float[Tensor, "n c h w"],
    grad: Float[Tensor, "n c h w"],
    score: Float[Tensor, " n"],
    score_from_layer: Callable[[Iterable[Tensor]], Iterator[Tensor]],
) -> Float[Tensor, "n h w"]:
    """Sum over k of w_k A_k with w_k the class's weight in the head after average pooling (Zhou 2016, eq. 2).

    The weights are read from the gradient: after pooling over N cells it is w_k / N in each. That the score is affine
    in the channels' means, and depends on nothing else, is tested for every image: the gradient must be the same in all
    cells, and ``score + sum g (B - A)`` must be the score where the layer's output is B: zeros, 2A, -A, and noise.
    Otherwise the method is refused.

    Use: networks that end in average pooling and one linear layer, at the layer before the pooling.
    Not for: any other network or layer; hirescam is CAM where CAM is defined, and is defined everywhere.
    """
    tolerance = _native_eps(act) ** 0.5
    weight = grad.sum((2, 3), keepdim=True)
    uneven = (grad - weight / (grad.shape[2] * grad.shape[3])).abs().amax((1, 2, 3))
    if (uneven > tolerance * grad.abs().amax((1, 2, 3))).any():
        raise RequestError(
            "CAM is not defined here: the gradient of the score differs between cells of the layer, so what follows "
            "it is not average pooling and one linear layer",
            "choose the layer before the pooling, or the method hirescam, which is CAM wherever CAM is defined",
        )
    noise = torch.randn(
        act.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu"
    ).to(act)
    variants = {"zeroed": torch.zeros_like(act), "doubled": 2 * act, "negated": -act}
    variants["noise"] = act.square().mean((1, 2, 3), keepdim=True).sqrt() * noise
    for (name, variant), found in zip(variants.items(), score_from_layer(variants.values()), strict=True):
        steps = grad * (variant - act)
        wanted = score + steps.sum((1, 2, 3))
        size = steps.abs().sum((1, 2, 3)) + score.abs()
        if not ((found - wanted).abs() <= tolerance * size).all():
            raise RequestError(
                f"CAM is not defined here: with the layer's activations {name}, the score is not what a linear layer "
                "after average pooling gives",
                "choose the layer before the pooling, or the method hirescam, which is CAM wherever CAM is defined",
            )
    return (weight * act).sum(1)


def _native_eps(act: Tensor) -> float:
    """Return the epsilon of the network's own precision, found by the values, since half precision is widened."""
    kinds = (torch.bfloat16, torch.float16)
    kind = next((kind for kind in kinds if torch.equal(act.to(kind).to(act), act)), act.dtype)
    return max(torch.finfo(kind).eps, reduced_precision_eps(act.device))


def _infinite_to_nan(tensor: Tensor) -> Tensor:
    """Replace infinite values, from divisions by zero, by NaN."""
    return tensor.where(tensor.isfinite(), torch.nan)


def gradcam_plus_plus(
    act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"], *, normalize: bool = False
) -> Float[Tensor, "n h w"]:
    """Sum over k of w_k A_k with w_k the sum of alpha relu(g), before the ReLU (Chattopadhyay 2018, eq. 19).

    alpha = g^2 / (2 g^2 + g^3 sum A_k). Where g is not 0 that is 1 / (2 + g sum A_k), and so it is computed: g^2 is
    often below 1e-6, and a small number added to the denominator, as in other libraries, would determine the map. The
    paper's score is the exponential of y, whose factor exp(y) is the same everywhere and left out. Where A_k sums to
    less than zero, alpha has a pole, and its sign flips beyond it.

    Use: several objects of the class in one image, at a layer after a ReLU.
    Not for: layers whose activations can be negative; counterfactual maps (only positive gradients count).

    Args:
        normalize: divide each channel's alpha by its sum over the cells where g is positive, as the authors' code
            does and the paper does not.
    """
    total = act.sum((2, 3), keepdim=True)
    alpha = _infinite_to_nan((2 + grad * total).reciprocal()).where(grad > 0, 0)
    if normalize:
        whole = alpha.sum((2, 3), keepdim=True)
        alpha = alpha / whole.where(whole != 0, 1)
    weight = (alpha * grad).sum((2, 3), keepdim=True)
    return (weight * act).sum(1)


def smooth_gradcam_plus_plus(
    act: Float[Tensor, "n c h w"],
    images: Float[Tensor, "n d H W"],
    act_and_grad: Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]],
    *,
    samples: int = 5,
    sigma: float = 0.3,
    seed: int = 0,
) -> Float[Tensor, "n h w"]:
    """Grad-CAM++ with g, g^2 and g^3 averaged over noisy copies of the image, A from the clean one (Omeiza 2019).

    alpha = mean g^2 / (2 mean g^2 + mean g^3 sum A_k), w_k = sum of alpha relu(mean g). The paper prints the mean of g
    in alpha's numerator, which contradicts the Grad-CAM++ it extends; one sample without noise is Grad-CAM++ here.
    torchcam takes relu of the last copy's gradient alone, and sums g^3 A in place of g^3 sum A.

    Use: where Grad-CAM++ is noisy.
    Not for: what Grad-CAM++ is not for; when time is short: each sample costs a forward and a backward.

    Args:
        samples: how many noisy copies.
        sigma: the noise's standard deviation, in the units of the model's input (after normalisation).
        seed: which noise; it is the same for every image.
    """
    if samples < 1:
        raise RequestError(f"{samples} samples are too few", "choose 1 or more")
    draw = torch.Generator().manual_seed(seed)

    def noisy() -> Iterator[Tensor]:
        for _ in range(samples):
            yield images + sigma * torch.randn((1, *images.shape[1:]), generator=draw, device="cpu").to(images)

    first, second, third = (torch.zeros_like(act) for _ in range(3))
    for _, grad in act_and_grad(Counted(noisy(), samples)):
        first, second, third = first + grad, second + grad**2, third + grad**3
    total = act.sum((2, 3), keepdim=True)
    alpha = _infinite_to_nan(second / (2 * second + third * total)).where(first > 0, 0)
    weight = (alpha * first).sum((2, 3), keepdim=True) / samples
    return (weight * act).sum(1)


def xgradcam(act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Sum over k of w_k A_k with w_k = sum g_k A_k / sum A_k (Fu 2020), before the ReLU.

    A channel that is zero everywhere adds nothing. Where a channel that is not sums to zero, there is no map; where it
    sums to nearly zero, its weight is large and meaningless. After a ReLU neither happens.

    Use: Grad-CAM with weights that preserve the sum: at the last stage the map's sum is as close to the score as one
        weight per channel allows.
    Not for: layers whose activations can be negative.
    """
    total = act.sum((2, 3), keepdim=True)
    weight = _infinite_to_nan((grad * act).sum((2, 3), keepdim=True) / total)
    weight = weight.where(act.abs().amax((2, 3), keepdim=True) > 0, 0)
    return (weight * act).sum(1)


def layercam(act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Sum over k of relu(g_k) A_k, cell by cell (Jiang 2021, before the ReLU).

    Maps of several layers are fused by :func:`layercam_fusion`.

    Use: fine maps from layers early in the network, alone or fused with the last one's.
    Not for: evidence against a class: negative gradients do not count. Nor layers whose output can be negative, such as
        a transformer's tokens: positive gradients then also count what lowers the score.
    """
    return (grad.clamp(min=0) * act).sum(1)


def layercam_fusion(
    maps: Sequence[Float[Tensor, "n _ _"]],
    to_finest_grid: Callable[[Tensor, int], Tensor] | None = None,
    *,
    gamma: float = 2.0,
) -> Float[Tensor, "n H W"]:
    """LayerCAM's maps of several layers as one: their maximum in each cell (Jiang 2021).

    Each map is rectified and divided by its maximum; all but the deepest, whose values are weak, become
    ``tanh(gamma M / max M)`` (eq. 9). Coarser maps are upsampled to the finest grid. torchcam scales the deepest too.

    Args:
        maps: from the shallowest layer to the deepest.
        to_finest_grid: resamples the map of this number to the finest grid; None: their cells are spread evenly over
            the input.
        gamma: how much the shallow maps are amplified.
    """
    if not maps:
        raise RequestError("there is no map to fuse", "name a layer")
    size = max(map.shape[1] for map in maps), max(map.shape[2] for map in maps)
    fused: Tensor | None = None
    for depth, map in enumerate(maps, 1):
        map = map.clamp(min=0)
        most = map.amax((1, 2), keepdim=True)
        map = map / most.where(most > 0, 1)
        if depth < len(maps):
            map = (gamma * map).tanh()
        if to_finest_grid is not None:
            map = to_finest_grid(map, depth - 1)
        else:
            map = F.interpolate(map[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        fused = map if fused is None else torch.maximum(fused, map)
    assert fused is not None
    return fused


def gradcam_elementwise(act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Sum over k of relu(g_k A_k), cell by cell (Pillai and Pirsiavash 2021).

    HiResCAM without evidence against the class: the ReLU comes before the sum.

    Use: where contributions of both signs cancel in one cell, and the positive ones are of interest.
    Not for: evidence against a class, or sums: nothing is ever subtracted.
    """
    return (grad * act).clamp(min=0).sum(1)


def eigen_gradcam(
    act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"], *, center: bool = False
) -> Float[Tensor, "n h w"]:
    """The first principal component of g A, cells by channels: EigenCAM of HiResCAM's terms (pytorch-grad-cam 2021).

    It has no paper. The sign is EigenCAM's: it follows the magnitude of the cells, here |g A|. Evidence for and against
    a class can therefore both be positive.

    Use: EigenCAM that depends on the class, often cleaner than Grad-CAM.
    Not for: what raises the score against what lowers it.

    Args:
        center: subtract each channel's mean first, as pytorch-grad-cam does; the map then has both signs.
    """
    return principal_component(grad * act, center=center)


def seg_eigen_cam(
    act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"], *, center: bool = True
) -> Float[Tensor, "n h w"]:
    """The first principal component of |g| A, negated where |min| > |max| (Chung 2025, eq. 10 to 13).

    The sign is this paper's rule and not EigenCAM's.

    Use: segmentation models, whose backgrounds disturb maps of plain gradients.
    Not for: what raises the score against what lowers it: the gradient's sign is dropped.

    Args:
        center: subtract each channel's mean first, as the released code does.
    """
    rows, greatest = scale_to_unit(flatten_cells(grad.abs() * act))
    map = first_component(rows - rows.mean(1, keepdim=True) if center else rows)
    over = map.amin(1, keepdim=True).abs() > map.amax(1, keepdim=True).abs()
    return unflatten_cells(map.where(~over, -map) * greatest.squeeze(2), act)


def shapleycam(
    act: Float[Tensor, "n c h w"],
    grad: Float[Tensor, "n c h w"],
    hvp: Float[Tensor, "n c h w"],
    *,
    cellwise: bool = False,
) -> Float[Tensor, "n h w"]:
    """Sum over k of alpha_k A_k with alpha_k the mean of g - 1/2 H A, H the Hessian of the score in A (Cai 2025).

    The Shapley value of each activation, with the score to second order around A and 0 for a removed activation. Where
    the network after the layer is piecewise linear (ReLUs alone), H is 0 and the map is Grad-CAM's. The paper pairs it
    with a score of its own (ReST); here the score is the target's.

    Use: networks with smooth activations or attention after the layer, where a gradient alone misses the curvature.
    Not for: ReLU networks, where it is Grad-CAM at a higher cost.

    Args:
        cellwise: do not average over a channel's cells, as HiResCAM does.
    """
    alpha = grad - hvp / 2
    return (hirescam if cellwise else gradcam)(act, alpha)


def finer_cam(
    act: Float[Tensor, "n c h w"],
    logits: Float[Tensor, "n classes"],
    index: Int[Tensor, " n"],
    grad_of: Callable[[Tensor], Tensor],
    *,
    alpha: float = 1.0,
    references: int = 3,
    weights: Literal["softmax", "mean", "softmax-gradient"] = "softmax",
) -> Float[Tensor, "n h w"]:
    """Grad-CAM of a class against similar classes d: of the score y_c - alpha sum of q_d y_d (Zhang 2025).

    The similar classes are those whose scores are nearest to y_c. ``softmax`` weights them by their probabilities,
    scaled to sum 1; ``mean`` gives each the same; ``softmax-gradient`` also lets the gradient pass through those
    weights, which is what the authors' code and pytorch-grad-cam explain.

    Use: fine-grained classes: which detail makes it this bird and not its neighbours.
    Not for: classes unlike all others, which have no real rivals to subtract.

    Args:
        alpha: how much of the rivals is subtracted; 0 is Grad-CAM.
        references: how many rivals.
        weights: how the rivals are weighted.
    """
    if logits.shape[1] < 2:
        raise RequestError("the model has one class, so there is none to compare it with", "choose another method")
    if references < 1:
        raise RequestError(f"{references} references are too few", "choose 1 or more")
    score = logits.gather(1, index[:, None])
    distance = (logits - score).abs().scatter(1, index[:, None], torch.inf)
    similar = distance.sort(dim=1, stable=True).indices[:, : min(references, logits.shape[1] - 1)]
    rivals = logits.gather(1, similar)
    share = torch.full_like(rivals, 1 / rivals.shape[1]) if weights == "mean" else rivals.softmax(1)
    coefficient = -alpha * share
    if weights == "softmax-gradient":
        lead = score - alpha * rivals
        coefficient = coefficient + share * (lead - (share * lead).sum(1, keepdim=True))
    combination = torch.zeros_like(logits).scatter(1, similar, coefficient).scatter(1, index[:, None], 1)
    return gradcam(act, grad_of(combination))
