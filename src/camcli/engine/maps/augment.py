"""Augmentations, i.e. other sizes and mirrored images, and the inverse transform of their maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.images.placement import Placement, resample
from camcli.targets.target import Predictions, Target

FLIPS = {"flip": -1, "flip-vertical": -2}
# Strides and patch sizes that the sides may have to be multiples of, if a model does not take every size.
MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32)
# Greatest relative distance of such a size from the requested one.
MAX_SCALE_ERROR = 0.15


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A size and flips with which images are given to the network.

    Attributes:
        scale: factor of the image size.
        flips: the dimensions that are mirrored.
        size: rows and columns that the scale comes to; None if not determined yet.
    """

    scale: float = 1.0
    flips: tuple[int, ...] = ()
    size: tuple[int, int] | None = None

    def is_identity(self, size: tuple[int, int]) -> bool:
        """Return whether images of this size stay unchanged."""
        return not self.flips and self.size in (None, size)

    def apply(self, images: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h2 w2"]:
        """Resize the images bilinearly, then mirror them."""
        return resize(images, self.size or (images.shape[2], images.shape[3])).flip(self.flips)

    def invert(
        self,
        maps: Float[Tensor, "n *c h w"],
        grid: tuple[int, int],
        size: tuple[int, int] | None = None,
        placement: Placement | None = None,
        target_placement: Placement | None = None,
    ) -> Float[Tensor, "n *c h2 w2"]:
        """Mirror maps of augmented images back, and resample them to a grid.

        Where cells do not lie evenly, those of a mirrored map have other places than those of an unmirrored one: each
        value is moved to the place of the grid's cell.

        Args:
            maps: of the augmented images.
            grid: rows and columns of the result.
            size: of the original images.
            placement: where the maps' cells lie in the augmented images; None for evenly.
            target_placement: where the grid's cells lie in the original images; None for evenly.
        """
        cells = maps.shape[-2:]
        maps = maps.flip(self.flips)
        if size is None or (placement is None and target_placement is None):
            return resize(maps, grid) if maps.ndim == 4 else resize(maps.unsqueeze(1), grid).squeeze(1)
        shown = self.size or size
        there = placement or Placement.even(cells, shown)
        there = there.mirror(cells, shown, self.flips).scale(shown, size)
        here = target_placement or Placement.even(grid, size)
        if there == here and cells == grid:
            return maps
        return resample(maps, there, here, grid) if maps.ndim == 4 else resample(maps[:, None], there, here, grid)[:, 0]

    def transform_target(self, target: Target, predictions: Predictions, row: int, size: tuple[int, int]) -> Target:
        """Return the target of an image as a target of the augmented image."""
        if self.is_identity(size) or target.is_layer_channel:
            return target
        if target.region_mask is not None:
            target = replace(target, region_mask=target.region_mask.flip(self.flips))
        return replace(target, score=predictions.score_target(row, target))


def make_augmentations(scales: Sequence[float], flips: Sequence[str]) -> list[Augmentation]:
    """List every scale with every combination of flips, the identity first."""
    combinations: list[tuple[int, ...]] = [()]
    for flip in dict.fromkeys(flips):
        combinations += [(*one, FLIPS[flip]) for one in combinations]
    order = sorted(dict.fromkeys(scales), key=lambda scale: scale != 1)
    return [Augmentation(scale, one) for scale in order for one in combinations]


def list_sizes(size: tuple[int, int], scale: float) -> Iterator[tuple[int, int]]:
    """Iterate over the sizes that a scale may come to, the nearest first: rounded, or multiples of a stride."""
    height, width = (side * scale for side in size)
    rounded = ((max(1, round(height / by)) * by, max(1, round(width / by)) * by) for by in MULTIPLES)
    nearest, *others = dict.fromkeys(rounded)
    yield nearest
    for rows, columns in others if nearest != size else ():
        if max(abs(rows / height - 1), abs(columns / width - 1)) <= MAX_SCALE_ERROR and (rows, columns) != size:
            yield rows, columns


def resize(tensor: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c h2 w2"]:
    """Resize maps or images bilinearly; the same tensor is returned if it has the size already."""
    if tensor.shape[2:] == size:
        return tensor
    return F.interpolate(tensor, size, mode="bilinear", align_corners=False)
