"""Closed forms over a layer's output A and g, the gradient of the class score by it."""

from jaxtyping import Float
from torch import Tensor


def gradcam(act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Sum over k of alpha_k A_k with alpha_k the mean of g_k, signed (Selvaraju 2017, eq. 1 and 2 before the ReLU)."""
    alpha = grad.mean((2, 3), keepdim=True)
    return (alpha * act).sum(1)


def hirescam(act: Float[Tensor, "n c h w"], grad: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Sum over k of g_k A_k, cell by cell (Draelos and Carin 2020, eq. 4)."""
    return (grad * act).sum(1)
