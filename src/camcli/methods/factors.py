"""Non-negative factorisation of a layer's cells: H W with H, W >= 0."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from camcli.methods.activation import scale_to_unit, top_eigenvectors


def _initialize_factors(rows: Float[Tensor, "n m c"], k: int) -> tuple[Float[Tensor, "n m k"], Float[Tensor, "n k c"]]:
    """Initialize a non-negative factorisation by the singular vectors' stronger sides (Boutsidis 2008, NNDSVDa).

    It depends on the rows alone, neither on random numbers nor on the order of channels or cells.
    """
    if rows.shape[1] <= rows.shape[2]:
        _, left = top_eigenvectors(rows @ rows.mT, k)
        right = rows.mT @ left
    else:
        _, right = top_eigenvectors(rows.mT @ rows, k)
        left = rows @ right
    # One side has length 1, the other that of the singular value, so only their product matters.
    up = left.clamp(min=0), right.clamp(min=0)
    down = (-left).clamp(min=0), (-right).clamp(min=0)

    def weight(side: tuple[Tensor, Tensor]) -> Tensor:
        product: Tensor = vector_norm(side[0], dim=1, keepdim=True) * vector_norm(side[1], dim=1, keepdim=True)
        return product

    upper = weight(up) >= weight(down)
    size = torch.maximum(weight(up), weight(down)).sqrt()

    def scale_side(one: Tensor, other: Tensor) -> Tensor:
        side = one.where(upper, other)
        length: Tensor = vector_norm(side, dim=1, keepdim=True)
        return side / length.where(length > 0, 1) * size

    # Zeros stay zero in multiplicative updates, so none are allowed at the start.
    floor = 0.1 * (rows.mean((1, 2), keepdim=True) / k).sqrt()
    return torch.maximum(scale_side(up[0], down[0]), floor), torch.maximum(scale_side(up[1], down[1]), floor).mT


def factorize(
    rows: Float[Tensor, "n m c"], k: int, updates: int
) -> tuple[Float[Tensor, "n m k"], Float[Tensor, "n k c"]]:
    """Factorize non-negative rows as H W with H, W >= 0, by the multiplicative updates of Lee and Seung (2001).

    The rows of W have length 1. The concept with most in H (the greatest length of its column) comes first.
    """
    rows, greatest = scale_to_unit(rows)
    maps, parts = _initialize_factors(rows, k)
    tiny = torch.finfo(rows.dtype).tiny
    for _ in range(updates):
        parts = parts * (maps.mT @ rows) / (maps.mT @ maps @ parts + tiny)
        maps = maps * (rows @ parts.mT) / (maps @ (parts @ parts.mT) + tiny)
    lengths = vector_norm(parts, dim=2)
    maps = maps * lengths[:, None] * greatest
    parts = parts / lengths.where(lengths > 0, 1)[..., None]
    order = vector_norm(maps, dim=1).argsort(dim=1, descending=True, stable=True)
    return maps.gather(2, order[:, None].expand_as(maps)), parts.gather(1, order[..., None].expand_as(parts))


def solve_weights(
    rows: Float[Tensor, "n m c"], directions: Float[Tensor, "k c"], sweeps: int
) -> Float[Tensor, "n m k"]:
    """Find H >= 0 with the least |rows - H W| for a given W, by coordinate descent over the concepts in sweeps."""
    gram = directions @ directions.mT
    products = rows @ directions.mT
    maps = torch.zeros_like(products)
    for _ in range(sweeps):
        for one in range(len(directions)):
            if gram[one, one] > 0:
                missed = products[..., one] - maps @ gram[:, one]
                maps[..., one] = (maps[..., one] + missed / gram[one, one]).clamp(min=0)
    return maps
