"""Networks of volumes and videos, run on images whose slices stand one above the other."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class VolumeModule(nn.Module):
    """A network of inputs ``(n, c, d, h, w)`` as one of images ``(n, c, d * h, w)``.

    Methods that treat all positions alike are the same on both, so that nothing else of the engine has to know of
    volumes; those that do not are refused for it.

    Attributes:
        volumes: the network itself.
        slices: number of slices ``d``, or of frames.
    """

    def __init__(self, volumes: nn.Module, slices: int) -> None:
        super().__init__()
        self.volumes = volumes
        self.slices = slices

    def forward(self, images: Float[Tensor, "n c dh w"], *more: Any, **named: Any) -> Any:
        """Run the network on the slices."""
        count, channels, rows, columns = images.shape
        return self.volumes(images.reshape(count, channels, self.slices, rows // self.slices, columns), *more, **named)


def find_slices(module: nn.Module) -> int:
    """Return the number of slices that a network takes; 0 if it takes images."""
    return module.slices if isinstance(module, VolumeModule) else 0
