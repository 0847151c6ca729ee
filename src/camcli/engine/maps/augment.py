"""Other sizes and mirrored images: how the network is shown them, and the way back of the maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.images.placement import Placement, moved
from camcli.targets.target import Reading, Subject

FLIPS = {"flip": -1, "flip-vertical": -2}
# Where a model does not take every size: the strides and patches that sides may have to be multiples of.
MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32)
# How far from the size asked for they may lie.
NEAR = 0.15


@dataclass(frozen=True, slots=True)
class Pass:
    """One way of showing the images to the network.

    Attributes:
        scale: the factor of their size.
        flips: the dimensions that are mirrored.
        size: rows and columns that the scale comes to; None if nobody has asked yet.
    """

    scale: float = 1.0
    flips: tuple[int, ...] = ()
    size: tuple[int, int] | None = None

    def plain(self, size: tuple[int, int]) -> bool:
        """Whether it shows images of this size as they are."""
        return not self.flips and self.size in (None, size)

    def there(self, images: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The images as the network is shown them: resized bilinearly, then mirrored."""
        return resized(images, self.size or (images.shape[2], images.shape[3])).flip(self.flips)

    def back(
        self,
        maps: Float[Tensor, "n *c h w"],
        grid: tuple[int, int],
        size: tuple[int, int] | None = None,
        own: Placement | None = None,
        onto: Placement | None = None,
    ) -> Float[Tensor, "n *c h2 w2"]:
        """Maps of the images as shown, mirrored back and brought to a grid.

        Where cells do not lie evenly, a mirrored map's lie elsewhere than an unmirrored one's: each value is brought
        to where that of the grid's cell lies.

        Args:
            maps: of the images as shown.
            grid: rows and columns wanted.
            size: of the images as they are.
            own: where the maps' cells lie in the images as shown; None: evenly.
            onto: where the grid's cells lie in the images as they are; likewise.
        """
        cells = maps.shape[-2:]
        maps = maps.flip(self.flips)
        if size is None or (own is None and onto is None):
            return resized(maps, grid) if maps.ndim == 4 else resized(maps.unsqueeze(1), grid).squeeze(1)
        shown = self.size or size
        there = own or Placement.even(cells, shown)
        there = there.mirrored(cells, shown, self.flips).scaled(shown, size)
        here = onto or Placement.even(grid, size)
        if there == here and cells == grid:
            return maps
        return moved(maps, there, here, grid) if maps.ndim == 4 else moved(maps[:, None], there, here, grid)[:, 0]

    def subject(self, subject: Subject, reading: Reading, row: int, size: tuple[int, int]) -> Subject:
        """What is explained of an image, where the network is shown it in this way."""
        if self.plain(size) or subject.of_layer:
            return subject
        if subject.inside is not None:
            subject = replace(subject, inside=subject.inside.flip(self.flips))
        return replace(subject, score=reading.answer(row, subject))


def passes(scales: Sequence[float], flips: Sequence[str]) -> list[Pass]:
    """Every scale with every choice of flips, the plainest first."""
    turned: list[tuple[int, ...]] = [()]
    for flip in dict.fromkeys(flips):
        turned += [(*one, FLIPS[flip]) for one in turned]
    order = sorted(dict.fromkeys(scales), key=lambda scale: scale != 1)
    return [Pass(scale, one) for scale in order for one in turned]


def sizes(size: tuple[int, int], scale: float) -> Iterator[tuple[int, int]]:
    """Rows and columns that a scale may come to, the nearest first: as they are, or in multiples of a stride."""
    height, width = (side * scale for side in size)
    rounded = ((max(1, round(height / by)) * by, max(1, round(width / by)) * by) for by in MULTIPLES)
    nearest, *others = dict.fromkeys(rounded)
    yield nearest
    for rows, columns in others if nearest != size else ():
        if max(abs(rows / height - 1), abs(columns / width - 1)) <= NEAR and (rows, columns) != size:
            yield rows, columns


def resized(tensor: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c h2 w2"]:
    """Maps or images of this size, bilinearly; the same tensor where they have it."""
    if tensor.shape[2:] == size:
        return tensor
    return F.interpolate(tensor, size, mode="bilinear", align_corners=False)
