"""What can be done around any method: other sizes, mirrored images, fused layers, smoothed channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.base import signature
from camcli.base.errors import RequestError
from camcli.images.placement import Placement, moved
from camcli.methods import METHODS
from camcli.targets.target import Reading, Subject

FLIPS = {"flip": -1, "flip-vertical": -2}
# Where a model does not take every size: the strides and patches that sides may have to be multiples of.
MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32)
# How far from the size asked for they may lie.
NEAR = 0.15
# Of a map, how far the sum of its channels' parts may be from it.
ADDS_UP = 1e-4


# ---- other sizes and mirrored images


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
        return _resized(images, self.size or (images.shape[2], images.shape[3])).flip(self.flips)

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
            return _resized(maps, grid) if maps.ndim == 4 else _resized(maps.unsqueeze(1), grid).squeeze(1)
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


def _resized(tensor: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c h2 w2"]:
    if tensor.shape[2:] == size:
        return tensor
    return F.interpolate(tensor, size, mode="bilinear", align_corners=False)


# ---- several layers


def fused(
    maps: Sequence[Tensor],
    how: str,
    paper: Callable[..., Tensor] | None = None,
    places: Sequence[Placement | None] = (),
    size: tuple[int, int] = (0, 0),
) -> Float[Tensor, "n h w"]:
    """The maps of several layers as one, at the finest of their grids.

    Each is rectified, divided by its maximum and upsampled bilinearly; then their mean, maximum or product is taken.
    A cell of the finest grid has of each what lies at its own place.

    For ``sum`` they are taken as they are, signed: each is upsampled and divided by how many of the finest cells lie in
    one of its own, so that a cell has what it has of the score, and all of them what all had before.

    Args:
        maps: of the layers in running order, the shallowest first.
        how: ``mean``, ``max``, ``product``, ``sum``, or ``paper``.
        paper: the method's own way, which is handed the maps as the method gave them, and, if it takes that, what
            brings the map of the layer of this number to the finest grid.
        places: where each layer's cells lie; None: evenly.
        size: of the model's input, if any lies otherwise.
    """
    if any(map.ndim != 3 for map in maps):
        raise RequestError("maps with colours at the input are not fused", "leave --fuse out, or choose another method")
    grid = finest_of([tuple(map.shape[1:]) for map in maps])
    onto = next((place for map, place in zip(maps, places, strict=False) if map.shape[1:] == grid), None)

    def grown(map: Float[Tensor, "n h w"], number: int) -> Float[Tensor, "n h2 w2"]:
        own = places[number] if places else None
        if own is None and onto is None:
            return _resized(map.unsqueeze(1), grid).squeeze(1)
        there, here = own or Placement.even(map.shape, size), onto or Placement.even(grid, size)
        return map if there == here and map.shape[1:] == grid else moved(map[:, None], there, here, grid)[:, 0]

    if how == "paper":
        assert paper is not None
        if not any(places):
            return paper(maps)
        # One that cannot bring them to the finest grid by their places is handed what has been brought there.
        knows = len(signature.evidence(paper)) > 1
        return paper(maps, grown) if knows else paper([grown(map, number) for number, map in enumerate(maps)])
    if how == "sum":
        parts = [map * (map.shape[1] * map.shape[2] / (grid[0] * grid[1])) for map in maps]
        return torch.stack([grown(part, number) for number, part in enumerate(parts)]).sum(0)
    same = torch.stack([grown(_unit(map), number) for number, map in enumerate(maps)])
    return {"mean": same.mean(0), "max": same.amax(0), "product": same.prod(0)}[how]


def finest_of(grids: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Rows and columns of the finest of some grids."""
    return max(grid[-2] for grid in grids), max(grid[-1] for grid in grids)


def summed(
    maps: Mapping[str, Float[Tensor, "n h w"]],
    places: Mapping[str, Placement | None] = MappingProxyType({}),
    size: tuple[int, int] = (0, 0),
) -> list[tuple[str, Float[Tensor, "1 h2 w2"]]]:
    """For each image the sum of the maps of those layers that say anything of it, and their names joined by ``+``.

    Args:
        maps: by layer, in running order.
        places: where each layer's cells lie, as for :func:`fused`.
        size: likewise.
    """
    says = torch.stack([map.flatten(1).any(1) for map in maps.values()], 1).tolist()
    found = []
    for row, some in enumerate(says):
        drawn = [name for name, any_of_it in zip(maps, some, strict=True) if any_of_it] or list(maps)
        own = [maps[name][row : row + 1] for name in drawn]
        found.append(("+".join(drawn), fused(own, "sum", None, [places.get(name) for name in drawn], size)))
    return found


def _unit(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Rectified, the greatest value of each 1; a map that is nowhere positive is zero."""
    positive = maps.relu()
    most = positive.amax((1, 2), keepdim=True)
    return positive / most.where(most != 0, 1)


# ---- a map's channels


def smoothed(name: str, formulas: Sequence[Any], evidence: Any, layer: str) -> Float[Tensor, "n h w"]:
    """The first principal component of the parts that the channels have in a map, instead of their sum.

    Raises:
        RequestError: they have none (see :func:`channel_parts`).
    """
    smooth: Tensor = METHODS.load("eigencam")(channel_parts(name, formulas, evidence, layer))
    return smooth


def channel_parts(name: str, formulas: Sequence[Any], evidence: Any, layer: str) -> Float[Tensor, "n c h w"]:
    """What each of the layer's channels has in a map.

    A channel's part is what the method makes of it alone. That is defined for methods that are made of activation and
    gradient and whose map is the sum of these parts, which is tried; of a method that shows channels, the channel.

    Raises:
        RequestError: it is not.
    """
    [*_, formula] = formulas
    if formula.wants == ("act", "channel"):
        shown: Tensor = evidence.get("act", layer)
        return shown
    if len(formulas) > 1 or not formula.wants or not set(formula.wants) <= {"act", "grad", "curve"}:
        raise RequestError(
            f"the map of {name} is not made of activation and gradient alone, so the layer's channels have no parts in "
            "it",
            "choose gradcam or hirescam; or leave out what asks for channels: --eigen-smooth, --target channels:top:N",
        )
    given = [evidence.get(one, layer) for one in formula.wants]
    count, channels = given[0].shape[:2]
    alone = formula.function(*(one.flatten(0, 1).unsqueeze(1) for one in given), **formula.options)
    parts: Tensor = alone.unflatten(0, (count, channels))
    whole = formula.function(*given, **formula.options)
    if bool(((parts.sum(1) - whole).abs() > ADDS_UP * parts.abs().sum(1).amax((1, 2), keepdim=True)).any()):
        raise RequestError(
            f"the map of {name} is not the sum of what it makes of each of the layer's channels, so they have no parts "
            "in it",
            "choose gradcam or hirescam; or leave out what asks for channels: --eigen-smooth, --target channels:top:N",
        )
    return parts
