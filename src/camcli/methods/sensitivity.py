"""Maps from how a score depends on random masks of each part of the image: global sensitivity analysis."""

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.base.option_checks import check_at_least
from camcli.base.passes import Counted
from camcli.methods.designs import find_total_indices, greatest_grid

ScoreOf = Callable[[Iterable[Tensor]], Iterator[Tensor]]


def sobol(
    images: Float[Tensor, "n d H W"],
    score_of: ScoreOf,
    *,
    designs: int = 32,
    cells: int = 8,
) -> Float[Tensor, "n H W"]:
    """At each cell of a grid, its total Sobol index: 1 / (2 N V(y_A)) sum_j (y(A_j) - y(C_j))^2 (Fel 2021, sec. 3).

    A_j and B_j are N points each of a Sobol sequence: how far every cell of the image is open, from 0, the mean colour,
    to 1. C_j is A_j with this cell as in B_j. The index is the share of the score's variance that the cell has a part
    in, alone and together with others; Jansen's estimator needs no scores of B. Masks are enlarged by the nearest cell,
    the map bilinearly. Where the score is the same under all masks there is no map.

    Use: for black boxes, to see parts that matter only together.
    Not for: evidence for and against a class: the sign is lost. Small objects, below the size of a cell.

    Args:
        designs: N; a power of two fills the space evenly. There are N (cells^2 + 1) forwards.
        cells: number of cells along each side of the image; the authors' code takes 8.
    """
    check_at_least(4, designs=designs)  # the first two points of a sequence are the same in A and in B
    check_at_least(1, cells=cells)
    if cells > greatest_grid():
        raise RequestError(
            f"cells={cells} is out of range", f"a Sobol sequence has numbers for {greatest_grid()} at most"
        )
    indices = find_total_indices(
        score_of, lambda mask: images * _enlarge(mask, images, cells), cells**2, designs, images
    )
    return _to_map(indices, images, cells)


def hsic(
    images: Float[Tensor, "n d H W"],
    score_of: ScoreOf,
    *,
    samples: int = 500,
    cells: int = 8,
    seed: int = 0,
) -> Float[Tensor, "n H W"]:
    """At each cell of a grid, how far the score depends on it: (p - 1)^-2 tr(K H L H) (Novello 2022, sec. 3).

    The Hilbert-Schmidt independence criterion of a cell, open or closed in each of p random masks, and the score under
    them: K has the paper's kernel of a cell, 1/2 where it is alike in two masks and -1/2 where not, L a Gaussian of the
    difference of two scores, and H = 1 - 1/p centres both. It is 0 if the score does not depend on the cell by itself,
    and one set of masks serves all cells. As a Latin hypercube has it, every cell is open in half of the masks; a
    closed one has the mean colour. Masks are enlarged by the nearest cell, the map bilinearly.

    The standard deviation of the Gaussian is the median distance of two scores (Gretton 2005 and after); where it is 0,
    because most scores are the same, L is its limit, 1 for equal scores and 0 for others.

    Use: for black boxes, with fewer forwards than sobol and rise.
    Not for: evidence for and against a class: the sign is lost. Small objects, below the size of a cell; parts that
        matter only together, which sobol shows.

    Args:
        samples: p, how many masks; the authors' library takes 500.
        cells: number of cells along each side of the image.
        seed: of the masks.
    """
    check_at_least(2, samples=samples)
    check_at_least(1, cells=cells)
    masks = _halved_masks(samples, cells**2, seed).to(images)
    variants = Counted((images * _enlarge(mask, images, cells) for mask in masks), samples)
    scores = torch.stack(list(score_of(variants)), 1)
    signs = 2 * masks - 1  # K = signs signs^T / 2
    indices = torch.stack([((_center(_gaussian_of_distances(one)) @ signs) * signs).sum(0) for one in scores])
    return _to_map(indices / (2 * (samples - 1) ** 2), images, cells)


def _halved_masks(samples: int, cells: int, seed: int) -> Float[Tensor, "p k"]:
    """Draw masks of which half, rounded down, have a given cell open: a Latin hypercube, rounded."""
    source = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(samples, generator=source, device="cpu") for _ in range(cells)]
    return (torch.stack(orders, 1) < samples // 2).float()


def _gaussian_of_distances(scores: Float[Tensor, " p"]) -> Float[Tensor, "p p"]:
    """Return exp(-d^2 / 2 s^2) of the distances d of all pairs, with s their median; of s = 0 the limit."""
    distances = (scores[:, None] - scores).abs()
    rows, columns = torch.triu_indices(len(scores), len(scores), 1, device=scores.device)
    width = distances[rows, columns].median()
    # At d = s = 0 the quotient would be 0 / 0; a score that is NaN stays so.
    return torch.where(distances == 0, 1, (-(distances / width).square() / 2).exp())


def _center(kernel: Float[Tensor, "p p"]) -> Float[Tensor, "p p"]:
    """Return H L H: every row and every column has the mean 0."""
    rows = kernel - kernel.mean(1, keepdim=True)
    return rows - rows.mean(0)


def _to_map(indices: Float[Tensor, "n k"], images: Float[Tensor, "n d H W"], cells: int) -> Float[Tensor, "n H W"]:
    grid = indices.view(len(images), 1, cells, cells)
    return F.interpolate(grid, images.shape[2:], mode="bilinear").squeeze(1)


def _enlarge(mask: Float[Tensor, " k"], images: Float[Tensor, "n d H W"], cells: int) -> Float[Tensor, "1 1 H W"]:
    return F.interpolate(mask.view(1, 1, cells, cells), images.shape[2:], mode="nearest")
