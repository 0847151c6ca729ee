"""Maps joined: of several layers, of a layer's channels, and what is given of each method in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from camcli.base import signature
from camcli.base.errors import PictureError, RequestError
from camcli.engine.maps.augment import resized
from camcli.engine.maps.method import Recipe
from camcli.engine.maps.places import Prepared, placed
from camcli.engine.setup import Setup
from camcli.images.placement import Placement, moved
from camcli.methods import METHODS

# Of a map, how far the sum of its channels' parts may be from it.
ADDS_UP = 1e-4
# Stands for a method where a layer's shares are kept beside the maps.
OF_SHARES = -1
# By the number of a method and by layer the maps of several images, or why there are none.
ByMethod = dict[tuple[int, str], Tensor | PictureError]


@dataclass(frozen=True, slots=True)
class Maps:
    """Maps of several images by one method at one layer.

    Attributes:
        recipe: the method.
        layer: the layer, or several joined; empty at the input.
        map: for each image, ``(n, ...)``; a list where they are of several sizes.
        channels: for each image which channel of the layer it is of; empty if it is of all.
        weights: for each image that channel's share in the score.
        layers: for each image which of the joined layers say anything of it, where that is not all of them.
    """

    recipe: Recipe
    layer: str
    map: np.ndarray | list[np.ndarray]
    channels: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()


def join_maps(setup: Setup, prepared: Prepared, maps: ByMethod) -> list[Maps | PictureError]:
    """Method by method what is given: the map of each layer, or one of all; of channels one after another."""
    found: list[Maps | PictureError] = []
    for number, recipe in enumerate(setup.recipes):
        made = {layer: map for (method, layer), map in maps.items() if method == number}
        own = {layer: map for layer, map in made.items() if not isinstance(map, PictureError)}
        lost = [map for map in made.values() if isinstance(map, PictureError)]
        if lost and (setup.fuse != "none" or not own):
            found.append(lost[0])
            continue
        if setup.strongest:
            for layer, parts in own.items():
                shares = cast("Tensor", maps[OF_SHARES, layer])
                found += strongest_channels(recipe, layer, parts, shares, setup.strongest)
        elif setup.fuse != "none" and recipe.at_layer:
            found.append(_join_layers(setup.fuse, prepared, recipe, own))
        else:
            found += [Maps(recipe, layer, map.numpy(force=True)) for layer, map in own.items()]
        found += lost
    return found


def _join_layers(fuse: str, prepared: Prepared, recipe: Recipe, maps: Mapping[str, Tensor]) -> Maps:
    """A method's maps at all layers as one."""
    places = {layer: placed(prepared.plan, layer, map.shape) for layer, map in maps.items()}
    name, in_turn = "+".join(maps), {layer: maps[layer] for layer in prepared.plan.runs}
    if fuse == "sum":
        sums = summed(in_turn, places, prepared.size)
        arrays = [map.squeeze(0).numpy(force=True) for _, map in sums]
        return Maps(recipe, name, arrays, layers=tuple(drawn for drawn, _ in sums))
    own = [places[layer] for layer in in_turn]
    joined = fused(list(in_turn.values()), fuse, recipe.fusion, own, prepared.size)
    return Maps(recipe, name, joined.numpy(force=True))


def strongest_channels(recipe: Recipe, layer: str, parts: Tensor, shares: Tensor, count: int) -> list[Maps]:
    """The parts ``(n, c, h, w)`` of those channels that have the greatest shares in the score, greatest first."""
    weights, order = shares.sum((2, 3)).sort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(parts), device=parts.device)
    return [
        Maps(
            recipe,
            layer,
            parts[rows, order[:, rank]].numpy(force=True),
            channels=tuple(order[:, rank].tolist()),
            weights=tuple(weights[:, rank].tolist()),
        )
        for rank in range(count)
    ]


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
            return resized(map.unsqueeze(1), grid).squeeze(1)
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
