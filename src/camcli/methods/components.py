"""Fits to the cells of images: principal components and clusters; the same whatever the order of images and cells."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.linalg import vector_norm

from camcli.base.errors import RequestError
from camcli.methods.activation import top_eigenvectors

# Number of components that are shown: red, green and blue.
COLOURS = 3
# Below this share of the greatest variance, a variance is rounding.
ROUNDING = 1e-9
# Updates of a cluster's first direction; it only says where the cluster is divided, so few are enough.
POWER_STEPS = 50


def center_cells(cells: Iterable[Float[Tensor, "_ c"]], by_image: bool) -> Float[Tensor, "m c"]:
    """Put the cells of images together in float64, each image's own mean subtracted if asked for."""
    exact = (one.cpu().double() for one in cells)
    return torch.cat([one - one.mean(0) if by_image else one for one in exact])


def principal_axes(
    rows: Float[Tensor, "m c"], count: int
) -> tuple[Float[Tensor, " c"], Float[Tensor, "count c"], Float[Tensor, " count"], Float[Tensor, ""]]:
    """Compute the first principal components of rows.

    The sign of a component is arbitrary. Here its third moment over the rows is positive: the longer tail.

    Returns:
        The mean, the axes of length 1, the variances along them (of all rows, divided by m), and the whole variance.

    Raises:
        RequestError: the rows vary along fewer directions.
    """
    mean = rows.mean(0)
    centred = rows - mean
    if len(rows) <= rows.shape[1]:
        values, left = top_eigenvectors(centred @ centred.T, min(count, len(rows)))
        axes = left.T @ centred / values.clamp(min=torch.finfo(values.dtype).tiny).sqrt()[:, None]
    else:
        values, right = top_eigenvectors(centred.T @ centred, min(count, rows.shape[1]))
        axes = right.T
    total = centred.square().sum()
    varying = int((values > ROUNDING * total).sum())
    if varying < count:
        raise RequestError(
            f"{len(rows)} cells of {rows.shape[1]} channels vary along {varying} directions, and {count} are shown",
            "try another layer, a larger --size, or all cells: -o foreground=all",
        )
    third = (centred @ axes.T).pow(3).sum(0)
    axes = torch.where(third[:, None] < 0, -axes, axes)
    return mean, axes, values / len(rows), total / len(rows)


def _make_affine(
    mean: Float[Tensor, " c"], axes: Float[Tensor, "k c"], variances: Float[Tensor, " k"], total: Float[Tensor, ""]
) -> Float[Tensor, "k c+2"]:
    """Return components in standard deviations as rows: weights of the channels, constant, share of the variance."""
    weights = axes / variances.sqrt()[:, None]
    return torch.cat([weights, -(weights @ mean)[:, None], (variances / total)[:, None]], 1)


def fit_components(
    cells: Iterable[Float[Tensor, "_ c"]], foreground: str, threshold: float, by_image: bool
) -> Float[Tensor, "k c+2"]:
    """Fit :func:`camcli.methods.concept.pca`.

    Returns:
        For each entry of the map the weights of the channels, a constant, and its share of the variance: for the
        foreground, unless all cells are shown, and the three components.
    """
    rows = center_cells(cells, by_image)
    if foreground == "all":
        return _make_affine(*principal_axes(rows, COLOURS)).float()
    first = _make_affine(*principal_axes(rows, 1))
    if foreground == "other":
        first[:, :-1] *= -1
    first[:, -2] -= threshold
    inside = rows[rows @ first[0, :-2] + first[0, -2] > 0]
    if not len(inside):
        raise RequestError(
            f"no cell is more than {threshold:g} standard deviations along the first component",
            "choose a lower threshold, or show all cells: -o foreground=all",
        )
    return torch.cat([first, _make_affine(*principal_axes(inside, COLOURS))]).float()


def _divide(rows: Float[Tensor, "m c"]) -> Float[Tensor, " m"]:
    """Return each row's place along the first principal direction of the rows, by power iteration."""
    centred = rows - rows.mean(0)
    along = centred[vector_norm(centred, dim=1).argmax()]
    for _ in range(POWER_STEPS):
        along = (centred @ along) @ centred
        along = along / vector_norm(along)
    return centred @ along


def assign(rows: Float[Tensor, "*n m c"], centres: Float[Tensor, "k c"]) -> Int[Tensor, "*n m"]:
    """Return the nearest centre of each row."""
    return (rows @ centres.T - centres.square().sum(1) / 2).argmax(-1)


def find_members(nearest: Int[Tensor, "*n m"], count: int) -> Bool[Tensor, "*n m k"]:
    """Return of which of ``count`` clusters each row is a member."""
    return nearest[..., None] == torch.arange(count, device=nearest.device)


def _start_centres(rows: Float[Tensor, "m c"], count: int) -> Float[Tensor, "k c"]:
    """Divide the cluster of greatest inertia at its mean along its first direction, until there are enough."""
    clusters = [rows]
    while len(clusters) < count:
        spreads = [float((one - one.mean(0)).square().sum()) for one in clusters]
        widest = max(range(len(clusters)), key=spreads.__getitem__)
        one = clusters.pop(widest)
        if spreads[widest] <= ROUNDING * float(one.square().sum()):
            raise RequestError(
                f"{len(rows)} cells are of {len(clusters) + 1} kinds only, and {count} segments are requested",
                f"choose at most {len(clusters) + 1} segments, another layer, or a larger --size",
            )
        upper = _divide(one) > 0
        clusters += [one[upper], one[~upper]]
    return torch.stack([one.mean(0) for one in clusters])


def fit_clusters(
    cells: Iterable[Float[Tensor, "_ c"]], segments: int, iterations: int, by_image: bool
) -> Float[Tensor, "k c+1"]:
    """Fit :func:`camcli.methods.concept.kmeans`.

    Returns:
        The centres, that of most cells first, each followed by the share of the variance that all of them hold.
    """
    rows = center_cells(cells, by_image)
    centres = _start_centres(rows, segments)
    nearest = assign(rows, centres)
    for _ in range(iterations):
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        sizes = find_members(nearest, segments).sum(0)
        # A cluster without cells stays where it is.
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
        before, nearest = nearest, assign(rows, centres)
        if torch.equal(before, nearest):
            break
    sizes = find_members(nearest, segments).sum(0)
    missed = (rows - centres[nearest]).square().sum()
    total = (rows - rows.mean(0)).square().sum()
    held = 1 - missed / total if total > 0 else torch.ones_like(total)
    order = sizes.argsort(descending=True, stable=True)
    return torch.cat([centres[order], held.expand(segments, 1)], 1).float()
