"""Points at which a score is asked for to see what it depends on, and total Sobol indices (Jansen 1999)."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from camcli.base.errors import RequestError
from camcli.base.passes import Counted

# From variants to the scores of each, (n,) or (n, classes).
Answers = Callable[[Iterable[Tensor]], Iterator[Tensor]]


def find_total_indices(
    answers: Answers,
    make_variant: Callable[[Float[Tensor, " k"]], Tensor],
    count: int,
    designs: int,
    like: Tensor,
    seed: int | None = None,
) -> Float[Tensor, "n k *classes"]:
    """Estimate the total Sobol index of each of ``count`` factors: 1 / (2 N V(y_A)) sum_j (y(A_j) - y(C_j))^2.

    A_j and B_j are N = ``designs`` points each of a Sobol sequence in 0..1, and C_j is A_j with one factor as in B_j.
    The index is NaN where all scores of A are the same.

    Args:
        answers: from variants to their scores.
        make_variant: from a point to the variant that is scored.
        count: number of factors.
        designs: number of points, from 4 on: the first two of a sequence are the same in A and in B.
        like: a tensor with the dtype and the device of the points.
        seed: of a scrambled sequence (Owen 1998), whose first points are even in many dimensions too; None for a plain
            one, of whose 32 first points some dimensions hardly differ where there are more than a few.

    Raises:
        RequestError: a Sobol sequence has no numbers for so many factors.
    """
    if 2 * count > SobolEngine.MAXDIM:
        raise RequestError(
            f"{count} factors are out of range", f"a Sobol sequence has numbers for {SobolEngine.MAXDIM // 2} at most"
        )
    with torch.device("cpu"):  # whatever the caller's default device is
        engine = SobolEngine(2 * count, scramble=seed is not None, seed=seed)  # type: ignore[no-untyped-call]
        points = engine.draw(designs).to(like)
    first, second = points[:, :count], points[:, count:]
    all_points = itertools.chain(first, _replace_one_by_one(first, second))
    scores = answers(Counted(map(make_variant, all_points), designs * (count + 1)))
    of_first = torch.stack(list(itertools.islice(scores, designs)), 1)
    squares = []
    for _ in range(count):
        of_replaced = torch.stack(list(itertools.islice(scores, designs)), 1)
        squares.append((of_first - of_replaced).square().mean(1))
    # An answer that is not read to its end stays among those that run.
    assert next(scores, None) is None
    return torch.stack(squares, 1) / (2 * of_first.var(1)[:, None])


def _replace_one_by_one(first: Float[Tensor, "N k"], second: Float[Tensor, "N k"]) -> Iterator[Float[Tensor, " k"]]:
    """Iterate over the points of ``first``, factor by factor, with this factor as in ``second``."""
    for factor in range(first.shape[1]):
        replaced = first.clone()
        replaced[:, factor] = second[:, factor]
        yield from replaced


def greatest_grid() -> int:
    """Return the side of the greatest square of factors that a Sobol sequence has numbers for."""
    return math.isqrt(SobolEngine.MAXDIM // 2)
