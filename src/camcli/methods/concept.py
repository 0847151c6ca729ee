"""Concepts: a layer's output A as a few directions of channels, or kinds of cells, and what each cell has of them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcli.base.deprecated import with_old_names
from camcli.base.errors import RequestError
from camcli.base.option_checks import check_at_least
from camcli.methods.activation import flatten_cells, scale_to_unit, unflatten_cells
from camcli.methods.components import COLOURS, assign, find_members, fit_clusters, fit_components
from camcli.methods.designs import find_total_indices
from camcli.methods.factors import factorize, solve_weights

# From variants of A to the scores of every class, one after the other.
LogitsFromLayer = Callable[[Iterable[Tensor]], Iterator[Tensor]]


# Names of the last release.
OLD_NAMES = {"held": "kept_share", "negative": "negative_share", "rises": "score_gains"}


@with_old_names(OLD_NAMES, OLD_NAMES)
class Concepts(NamedTuple):
    """Result of a method of kind ``concept``.

    Attributes:
        maps: the amount of each concept in every cell, ``(n, k, h, w)``; nowhere negative, unless they are components.
        kept_share: share of the activation's positive part that the concepts hold together, ``(n,)``: 1 minus the sum
            of squares of the remainder over that of the positive part. Of components and segments: of the variance.
        negative_share: share of the activation, by sum of squares, that is negative and left out, ``(n,)``.
        classes: the classes whose scores each concept raises, strongest first, ``(n, k, m)``; m is 0 without classes.
        score_gains: the increases of their scores, ``(n, k, m)``.
        shares: each concept's share of the image, ``(n, k)``; None for the sum of its map over that of all.
        importances: each concept's total Sobol index for the score of every class, ``(n, k, classes)``, NaN where no
            concept changes it; None if it was not asked for.
    """

    maps: Float[Tensor, "n k h w"]
    kept_share: Float[Tensor, " n"]
    negative_share: Float[Tensor, " n"]
    classes: Int[Tensor, "n k m"]
    score_gains: Float[Tensor, "n k m"]
    shares: Float[Tensor, "n k"] | None = None
    importances: Float[Tensor, "n k classes"] | None = None


def find_raised_classes(
    parts: Iterable[Float[Tensor, "n c h w"]], logits_from_layer: LogitsFromLayer, count: int
) -> tuple[Int[Tensor, "n k m"], Float[Tensor, "n k m"]]:
    """Find the classes whose scores rise most from a layer output of zero to one with a single concept's part.

    Args:
        parts: each concept's part of the layer's output, one after the other.
        logits_from_layer: from variants of the layer's output to the scores of every class.
        count: number of classes to return.

    Returns:
        The classes and the increases of their scores, strongest first.
    """

    def variants() -> Iterator[Tensor]:
        for number, part in enumerate(parts):
            if not number:
                yield torch.zeros_like(part)
            yield part

    nothing, *scores = logits_from_layer(variants())
    rises = torch.stack(scores, 1) - nothing[:, None]
    # Stable, so that the first of equal classes counts on every machine.
    found = rises.sort(dim=2, descending=True, stable=True)
    return found.indices[..., :count], found.values[..., :count]


def dff_directions(
    cells: Iterable[Float[Tensor, "_ c"]], *, concepts: int = 4, iterations: int = 200
) -> Float[Tensor, "k c"]:
    """W of the cells of many images, factorised together: the concepts of :func:`dff` at ``over=set``."""
    act = torch.cat(list(cells))
    _check_counts(concepts, iterations, act.shape[1], len(act), f"{len(act)} cells")
    _, directions = factorize(act[None].clamp(min=0), concepts, iterations)
    return directions[0]


def dff(
    act: Float[Tensor, "n c h w"],
    basis: Float[Tensor, "k c"] | None,
    logits_from_layer: LogitsFromLayer | None,
    *,
    concepts: int = 4,
    over: Literal["set", "picture"] = "set",
    classes: int = 3,
    iterations: int = 200,
    importance: int = 0,
) -> Concepts:
    """A as a sum of few concepts, A ~ H W with H, W >= 0 (Collins 2018); one image shows them all, a colour each.

    A concept is a direction of channels, a row of W, of length 1; its map, a column of H, is its strength in each cell.
    As in the paper the images of a run are factorised together, so that a concept, its number and its colour mean the
    same in each; with ``over=picture`` each image is factorised by itself. The updates are those of Lee and Seung;
    where W is known already, H is the non-negative least squares fit to it. The concept with most in its map comes
    first. Negative activations are rectified before, since the paper uses layers after a ReLU. The initialisation is by
    the singular vectors of A, as in the authors' code, so the concepts do not depend on random numbers.

    The classes of a concept are not in the paper. Here they are those whose scores rise most when the layer's output is
    that concept's part alone, H_k W_k, compared with an output of zero. Where pooling and a linear layer follow, that
    is the mean of H_k times the class's weights applied to W_k; pytorch-grad-cam applies them so.

    With ``importance`` each concept has the total Sobol index by which CRAFT (Fel 2023, sec. 3.3) ranks concepts: the
    share of the variance of the explained class's score that it has a part in while the maps H_k of all concepts are
    weakened at random, each as a whole. For a class over several images, take the mean.

    Use: which parts the network distinguishes in images, and whether they are the same in each.
    Not for: why a class was chosen: concepts do not depend on it, and what they leave out may be decisive.

    Args:
        concepts: how many.
        over: what is factorised together: ``set``: the images of the run (of the call, in Python), at most 100 of them;
            ``picture``: each image separately.
        classes: maximum number of classes named for each concept.
        iterations: how many updates.
        importance: number of designs of the importance, 32 in CRAFT, with as many forwards of the part after the layer
            for each concept and once more; 0 for none.
    """
    count, channels, height, width = act.shape
    _check_counts(concepts, iterations, channels, height * width, f"{height} x {width} cells")
    if classes < 0:
        raise RequestError(f"{classes} classes cannot be named", "choose 0 or more")
    _check_importance(importance, logits_from_layer)
    rows, greatest = scale_to_unit(flatten_cells(act))
    below, rows = rows.clamp(max=0), rows.clamp(min=0)
    if over == "picture" or basis is None:
        maps, directions = factorize(rows, concepts, iterations)
    else:
        maps, directions = solve_weights(rows, basis.to(rows), iterations), basis.to(rows).expand(count, -1, -1)
    total, missed, left = ((one**2).sum((1, 2)) for one in (rows, rows - maps @ directions, below))
    kept, negative = 1 - missed / total.where(total > 0, 1), left / (total + left).where(total + left > 0, 1)
    maps = maps * greatest
    grids = unflatten_cells(maps.mT, act)
    raised = _no_classes(count, concepts)
    if logits_from_layer is not None and classes:
        parts = (grids[:, one, None] * directions[:, one, :, None, None] for one in range(concepts))
        raised = find_raised_classes(parts, logits_from_layer, classes)
    importances = None
    if logits_from_layer is not None and importance:
        rebuild = partial(_rebuild_weakened, maps, directions, act)
        importances = find_total_indices(logits_from_layer, rebuild, concepts, importance, maps, seed=0)
    return Concepts(grids, kept, negative, *raised, importances=importances)


def _rebuild_weakened(
    maps: Float[Tensor, "n m k"], directions: Float[Tensor, "n k c"], act: Float[Tensor, "n c h w"], weights: Tensor
) -> Float[Tensor, "n c h w"]:
    """Return the layer's output with each concept times its weight."""
    return unflatten_cells(((maps * weights) @ directions).mT, act)


def _check_importance(designs: int, logits_from_layer: LogitsFromLayer | None) -> None:
    if designs:
        check_at_least(4, importance=designs)
    if designs and logits_from_layer is None:
        raise RequestError(
            "the importance of concepts needs the scores of classes for changed activations, which this network lacks",
            "leave -o importance out",
        )


def _no_classes(images: int, concepts: int) -> tuple[Int[Tensor, "n k 0"], Float[Tensor, "n k 0"]]:
    size = images, concepts, 0
    return torch.empty(size, dtype=torch.long, device="cpu"), torch.empty(size, device="cpu")


def _prepare_rows(act: Float[Tensor, "n c h w"], center: str) -> Float[Tensor, "n hw c"]:
    """Return every cell's channels as a row, at least in single precision, each image centred if asked for."""
    rows = flatten_cells(act)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return rows - rows.mean(1, keepdim=True) if center == "picture" else rows


def _fit_each(
    fit: Callable[[Tensor], Tensor], rows: Float[Tensor, "n m c"], size: tuple[int, int]
) -> Float[Tensor, "n k _"]:
    """Fit each image by itself: zero where its cells are too much alike, NaN where they are not finite."""

    def fit_one(one: Tensor) -> Tensor:
        if not one.isfinite().all():
            return torch.full(size, torch.nan, device="cpu")
        try:
            return fit(one)
        except RequestError:
            return torch.zeros(size, device="cpu")

    return torch.stack([fit_one(one) for one in rows]).to(rows)


def pca_components(
    cells: Iterable[Float[Tensor, "_ c"]],
    *,
    foreground: Literal["auto", "other", "all"] = "auto",
    threshold: float = 0.0,
    center: Literal["set", "picture"] = "set",
) -> Float[Tensor, "k c+2"]:
    """Components of the cells of many images: those of :func:`pca` at ``over=set``."""
    return fit_components(cells, foreground, threshold, center == "picture")


def pca(
    act: Float[Tensor, "n c h w"],
    basis: Float[Tensor, "k c+2"] | None,
    *,
    over: Literal["set", "picture"] = "set",
    foreground: Literal["auto", "other", "all"] = "auto",
    threshold: float = 0.0,
    center: Literal["set", "picture"] = "set",
) -> Concepts:
    """The first three principal components of the cells of the foreground, as red, green and blue (Oquab 2023, fig. 1).

    As in the paper, PCA of all cells comes first: those above a threshold along its first component are the foreground,
    and PCA of these alone gives the colours. Cells of all images of a run are taken together, so that equal colours
    mean equal features in each. The map has four entries: the first component less the threshold, positive in the
    foreground, then the three components of the second PCA, whatever the sign of the first; with ``foreground=all``
    these three alone, of all cells. All are in standard deviations of the cells that they were fitted to. A component z
    is drawn as sigmoid(2 z), as the authors of DINOv3 do (Simeoni 2025), and what is not foreground is left as it is.

    The sign of a component is arbitrary, and the paper does not say which side is the foreground. Here the third moment
    of every component is positive: the side of the longer tail, mostly fewer cells that differ more.

    Use: what a self-supervised backbone (DINO) tells apart without labels: objects, and the same parts in each.
    Not for: why a class was chosen; a set of images of unlike things, whose components tell the images apart, unless
        ``center=picture``.

    Args:
        over: what is decomposed together: ``set``: the images of the run (of the call, in Python), at most 100 of them;
            ``picture``: each image separately.
        foreground: ``auto``: the side of the longer tail; ``other``: the other side; ``all``: all cells, in one PCA.
        threshold: where the foreground begins along the first component, in its standard deviations.
        center: what is subtracted before: ``set``: the mean over all images; ``picture``: each image's own mean first,
            so that only what differs within images counts.
    """
    rows = _prepare_rows(act, center)
    if min(act.shape[1], rows.shape[1] - 1) < COLOURS:
        raise RequestError(
            f"{COLOURS} components cannot be separated in a layer of {act.shape[1]} channels and {rows.shape[1]} cells",
            "try another layer, or a larger --size",
        )
    if over == "set" and basis is not None:
        bases = basis.to(rows).expand(len(act), -1, -1)
    else:
        size = (COLOURS if foreground == "all" else COLOURS + 1), act.shape[1] + 2
        bases = _fit_each(lambda one: fit_components([one], foreground, threshold, center == "picture"), rows, size)
    maps = unflatten_cells((rows @ bases[..., :-2].mT + bases[:, None, :, -2]).mT, act)
    shares = bases[..., -1].clone()
    kept = shares[:, -COLOURS:].sum(1)
    if foreground != "all":
        shares[:, 0] = (maps[:, 0] > 0).flatten(1).to(shares).mean(1)
    return Concepts(maps, kept, torch.zeros_like(kept), *_no_classes(*maps.shape[:2]), shares)


def kmeans_centres(
    cells: Iterable[Float[Tensor, "_ c"]],
    *,
    segments: int = 6,
    center: Literal["set", "picture"] = "set",
    iterations: int = 100,
) -> Float[Tensor, "k c+1"]:
    """Centres of the cells of many images: those of :func:`kmeans` at ``over=set``."""
    images = list(cells)
    _check_segments(segments, sum(map(len, images)), iterations)
    return fit_clusters(images, segments, iterations, center == "picture")


def kmeans(
    act: Float[Tensor, "n c h w"],
    basis: Float[Tensor, "k c+1"] | None,
    logits_from_layer: LogitsFromLayer | None,
    *,
    segments: int = 6,
    over: Literal["set", "picture"] = "set",
    center: Literal["set", "picture"] = "set",
    classes: int = 3,
    iterations: int = 100,
) -> Concepts:
    """Every cell in the one of few clusters whose centre is nearest (Lloyd 1982): segments, a colour each.

    The inertia, the sum of squared distances of A's cells to their centres, is minimised by Lloyd's iteration. It
    starts from the cluster of greatest inertia divided at its mean along its first principal direction, again and again
    (Su and Dy 2007), so that the segments depend neither on random numbers nor on the order of images. The segment of
    most cells comes first. The map has an entry for each segment: 1 in its cells, 0 in others.

    The classes of a segment are those whose scores rise most when the layer's output is that of its cells alone, and
    zero elsewhere, compared with an output of zero.

    Use: a segmentation without labels, of a backbone or any layer; which kinds of places a layer tells apart.
    Not for: why a class was chosen; shades within a segment, which ``pca`` and ``dff`` show.

    Args:
        segments: how many.
        over: what is clustered together: ``set``: the images of the run (of the call, in Python), at most 100 of them;
            ``picture``: each image separately.
        center: ``picture``: each image's own mean is subtracted before, so that only what differs within images counts.
        classes: maximum number of classes named for each segment.
        iterations: greatest number of updates; they end sooner where no cell changes its segment.
    """
    rows = _prepare_rows(act, center)
    _check_segments(segments, rows.shape[1], iterations, classes)
    if over == "set" and basis is not None:
        bases = basis.to(rows).expand(len(act), -1, -1)
    else:
        size = segments, act.shape[1] + 1
        bases = _fit_each(lambda one: fit_clusters([one], segments, iterations, center == "picture"), rows, size)
    nearest = torch.stack([assign(one, centres) for one, centres in zip(rows, bases[..., :-1], strict=True)])
    kept = bases[:, 0, -1]
    inside = find_members(nearest, segments).mT.float()
    # Without a fit there are no segments.
    maps = unflatten_cells(torch.where(kept[:, None, None] == 0, 0, inside + 0 * kept[:, None, None]), act)
    raised = _no_classes(len(act), segments)
    if logits_from_layer is not None and classes:
        parts = (maps[:, one, None].to(act) * act for one in range(segments))
        raised = find_raised_classes(parts, logits_from_layer, classes)
    return Concepts(maps, kept, torch.zeros_like(kept), *raised)


def _check_counts(concepts: int, iterations: int, channels: int, places: int, words: str) -> None:
    most = min(channels, places)
    if not 1 <= concepts <= most:
        raise RequestError(
            f"{concepts} concepts cannot be separated in a layer of {channels} channels and {words}",
            f"choose 1 to {most} concepts",
        )
    if iterations < 1:
        raise RequestError(f"{iterations} iterations are too few", "choose 1 or more")


def _check_segments(segments: int, cells: int, iterations: int, classes: int = 0) -> None:
    if not 2 <= segments <= cells or iterations < 1 or classes < 0:
        raise RequestError(
            f"{segments} segments of {cells} cells, in {iterations} iterations and with {classes} classes, "
            "cannot be found",
            f"choose 2 to {cells} segments, 1 or more iterations, and 0 or more classes",
        )
