"""Maps from how a score's spread depends on each part of the image: global sensitivity analysis."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from camcli.base.errors import RequestError
from camcli.base.option_checks import check_at_least
from camcli.base.passes import Counted

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
    count = cells**2
    if 2 * count > SobolEngine.MAXDIM:
        most = math.isqrt(SobolEngine.MAXDIM // 2)
        raise RequestError(f"cells={cells} is out of range", f"a Sobol sequence has numbers for {most} at most")
    with torch.device("cpu"):  # whatever the caller's default device is
        points = SobolEngine(2 * count).draw(designs).to(images)  # type: ignore[no-untyped-call]
    first, second = points[:, :count], points[:, count:]
    masks = itertools.chain(first, _replace_one_by_one(first, second))
    variants = Counted((images * _enlarge(mask, images, cells) for mask in masks), designs * (count + 1))
    scores = torch.stack(list(score_of(variants)), 1)
    of_first, of_replaced = scores[:, None, :designs], scores[:, designs:].view(-1, count, designs)
    indices = (of_first - of_replaced).square().mean(2) / (2 * of_first.var(2))
    grid = indices.view(len(images), 1, cells, cells)
    return F.interpolate(grid, images.shape[2:], mode="bilinear").squeeze(1)


def _replace_one_by_one(first: Float[Tensor, "N k"], second: Float[Tensor, "N k"]) -> Iterator[Float[Tensor, " k"]]:
    """Iterate over the points of ``first``, cell by cell, with this cell as in ``second``."""
    for cell in range(first.shape[1]):
        replaced = first.clone()
        replaced[:, cell] = second[:, cell]
        yield from replaced


def _enlarge(mask: Float[Tensor, " k"], images: Float[Tensor, "n d H W"], cells: int) -> Float[Tensor, "1 1 H W"]:
    return F.interpolate(mask.view(1, 1, cells, cells), images.shape[2:], mode="nearest")
