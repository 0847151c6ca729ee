"""Rules for the gradient at a ReLU, on its way from the class score to the input."""

from jaxtyping import Bool, Float
from torch import Tensor


def guided_backprop(grad: Float[Tensor, "*dims"], passes: Bool[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
    """The gradient passes where the ReLU was open and the gradient is positive (Springenberg 2015, fig. 1)."""
    return grad.where(passes & (grad > 0), 0)


def deconvnet(grad: Float[Tensor, "*dims"], passes: Bool[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:  # noqa: ARG001
    """The gradient passes where it is positive, wherever the ReLU was open (Zeiler 2014, sec. 2.1)."""
    return grad.clamp(min=0)
