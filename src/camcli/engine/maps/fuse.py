"""Fusion of the maps of several layers, selection of channels, and the list of maps that each method returns."""

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
from camcli.engine.maps.augment import resize
from camcli.engine.maps.method import BoundMethod
from camcli.engine.maps.places import PreparedPlan, find_placement
from camcli.engine.setup import Setup
from camcli.images.placement import Placement, resample
from camcli.methods import METHODS

# Greatest relative distance of a map from the sum of its channels' parts.
SUM_TOLERANCE = 1e-4
# Stored in place of a method's number for the channels' contributions to the score, beside the maps.
CONTRIBUTIONS_KEY = -1
# By number of the method and by layer, the maps of several images, or the error in their place.
MapsByMethod = dict[tuple[int, str], Tensor | PictureError]


@dataclass(frozen=True, slots=True)
class MapBatch:
    """Maps of several images by one method at one layer.

    Attributes:
        method: the method.
        layer: the layer, or several joined; empty at the input.
        map: of each image, ``(n, ...)``; a list if their sizes differ.
        channels: of each image, the channel of the layer that the map shows; empty if it shows all.
        weights: of each image, that channel's contribution to the score.
        layers: of each image, the joined layers whose maps are not zero, if these are not all of them.
    """

    method: BoundMethod
    layer: str
    map: np.ndarray | list[np.ndarray]
    channels: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()


def join_maps(setup: Setup, prepared: PreparedPlan, maps: MapsByMethod) -> list[MapBatch | PictureError]:
    """List the maps that each method returns: one per layer, one fused from all layers, or one per channel."""
    found: list[MapBatch | PictureError] = []
    for number, bound in enumerate(setup.bound_methods):
        made = {layer: map for (method, layer), map in maps.items() if method == number}
        own = {layer: map for layer, map in made.items() if not isinstance(map, PictureError)}
        lost = [map for map in made.values() if isinstance(map, PictureError)]
        if lost and (setup.fuse != "none" or not own):
            found.append(lost[0])
            continue
        if setup.top_channels:
            for layer, parts in own.items():
                shares = cast("Tensor", maps[CONTRIBUTIONS_KEY, layer])
                found += select_top_channels(bound, layer, parts, shares, setup.top_channels)
        elif setup.fuse != "none" and bound.uses_layer:
            found.append(_join_layers(setup.fuse, prepared, bound, own))
        else:
            found += [MapBatch(bound, layer, map.numpy(force=True)) for layer, map in own.items()]
        found += lost
    return found


def _join_layers(fuse: str, prepared: PreparedPlan, method: BoundMethod, maps: Mapping[str, Tensor]) -> MapBatch:
    """Fuse a method's maps at all layers."""
    placements = {layer: find_placement(prepared.plan, layer, map.shape) for layer, map in maps.items()}
    name, in_turn = "+".join(maps), {layer: maps[layer] for layer in prepared.plan.calls}
    if fuse == "sum":
        sums = sum_layers(in_turn, placements, prepared.size)
        arrays = [map.squeeze(0).numpy(force=True) for _, map in sums]
        return MapBatch(method, name, arrays, layers=tuple(layers for layers, _ in sums))
    own = [placements[layer] for layer in in_turn]
    joined = fuse_layers(list(in_turn.values()), fuse, method.fusion, own, prepared.size)
    return MapBatch(method, name, joined.numpy(force=True))


def select_top_channels(method: BoundMethod, layer: str, parts: Tensor, shares: Tensor, count: int) -> list[MapBatch]:
    """Select the parts ``(n, c, h, w)`` of the channels that contribute most to the score, greatest first."""
    weights, order = shares.sum((2, 3)).sort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(parts), device=parts.device)
    return [
        MapBatch(
            method,
            layer,
            parts[rows, order[:, rank]].numpy(force=True),
            channels=tuple(order[:, rank].tolist()),
            weights=tuple(weights[:, rank].tolist()),
        )
        for rank in range(count)
    ]


# ---- several layers


def fuse_layers(
    maps: Sequence[Tensor],
    fuse: str,
    paper_fusion: Callable[..., Tensor] | None = None,
    placements: Sequence[Placement | None] = (),
    size: tuple[int, int] = (0, 0),
) -> Float[Tensor, "n h w"]:
    """Fuse the maps of several layers, at the finest of their grids.

    Each is rectified, divided by its maximum and upsampled bilinearly; then their mean, maximum or product is taken. A
    cell of the finest grid takes from each map the value at its own place.

    For ``sum`` the maps stay signed: each is upsampled and divided by the number of the finest cells in one of its own,
    so that the maps keep their sums, which are contributions to the score.

    Args:
        maps: of the layers in running order, the shallowest first.
        fuse: ``mean``, ``max``, ``product``, ``sum``, or ``paper``.
        paper_fusion: the method's own fusion, called with the method's maps and, if it takes a second argument, with a
            function that resamples the map of a layer's number to the finest grid.
        placements: where each layer's cells lie; None for evenly.
        size: of the model's input, used if any layer's cells do not lie evenly.
    """
    if any(map.ndim != 3 for map in maps):
        raise RequestError("maps with colours at the input are not fused", "leave --fuse out, or choose another method")
    grid = find_finest_grid([tuple(map.shape[1:]) for map in maps])
    onto = next((place for map, place in zip(maps, placements, strict=False) if map.shape[1:] == grid), None)

    def to_finest_grid(map: Float[Tensor, "n h w"], number: int) -> Float[Tensor, "n h2 w2"]:
        own = placements[number] if placements else None
        if own is None and onto is None:
            return resize(map.unsqueeze(1), grid).squeeze(1)
        there, here = own or Placement.even(map.shape, size), onto or Placement.even(grid, size)
        return map if there == here and map.shape[1:] == grid else resample(map[:, None], there, here, grid)[:, 0]

    if fuse == "paper":
        assert paper_fusion is not None
        if not any(placements):
            return paper_fusion(maps)
        # A fusion that takes no resampling function gets maps that are resampled already.
        if len(signature.positional_names(paper_fusion)) > 1:
            return paper_fusion(maps, to_finest_grid)
        return paper_fusion([to_finest_grid(map, number) for number, map in enumerate(maps)])
    if fuse == "sum":
        parts = [map * (map.shape[1] * map.shape[2] / (grid[0] * grid[1])) for map in maps]
        return torch.stack([to_finest_grid(part, number) for number, part in enumerate(parts)]).sum(0)
    same = torch.stack([to_finest_grid(_rectify_to_unit(map), number) for number, map in enumerate(maps)])
    return {"mean": same.mean(0), "max": same.amax(0), "product": same.prod(0)}[fuse]


def find_finest_grid(grids: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Return rows and columns of the finest of some grids."""
    return max(grid[-2] for grid in grids), max(grid[-1] for grid in grids)


def sum_layers(
    maps: Mapping[str, Float[Tensor, "n h w"]],
    placements: Mapping[str, Placement | None] = MappingProxyType({}),
    size: tuple[int, int] = (0, 0),
) -> list[tuple[str, Float[Tensor, "1 h2 w2"]]]:
    """Return for each image the sum of the maps that are not zero, with the names of their layers joined by ``+``.

    Args:
        maps: by layer, in running order.
        placements: where each layer's cells lie, as for :func:`fuse_layers`.
        size: of the model's input, as for :func:`fuse_layers`.
    """
    nonzero = torch.stack([map.flatten(1).any(1) for map in maps.values()], 1).tolist()
    found = []
    for row, flags in enumerate(nonzero):
        names = [name for name, is_nonzero in zip(maps, flags, strict=True) if is_nonzero] or list(maps)
        own = [maps[name][row : row + 1] for name in names]
        found.append(("+".join(names), fuse_layers(own, "sum", None, [placements.get(name) for name in names], size)))
    return found


def _rectify_to_unit(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Rectify maps and scale the greatest value of each to 1; a map that is nowhere positive becomes zero."""
    positive = maps.relu()
    most = positive.amax((1, 2), keepdim=True)
    return positive / most.where(most != 0, 1)


# ---- a map's channels


def eigen_smooth(name: str, formulas: Sequence[Any], signals: Any, layer: str) -> Float[Tensor, "n h w"]:
    """Compute the first principal component of the channels' parts of a map, in place of their sum.

    Raises:
        RequestError: the map has no such parts (see :func:`split_by_channel`).
    """
    smooth: Tensor = METHODS.load("eigencam")(split_by_channel(name, formulas, signals, layer))
    return smooth


def split_by_channel(name: str, formulas: Sequence[Any], signals: Any, layer: str) -> Float[Tensor, "n c h w"]:
    """Split a map into the parts of the layer's channels.

    A channel's part is the method's map of that channel alone. It is defined for methods that combine activation and
    gradient and whose map is the sum of these parts, which is checked; for a method that shows channels, it is the
    channel.

    Raises:
        RequestError: it is not defined.
    """
    [*_, formula] = formulas
    if formula.signal_names == ("act", "channel"):
        shown: Tensor = signals.get("act", layer)
        return shown
    if len(formulas) > 1 or not formula.signal_names or not set(formula.signal_names) <= {"act", "grad", "hvp"}:
        raise RequestError(
            f"the map of {name} is not computed from activations and gradient alone, so it has no contributions of "
            "single channels",
            "choose gradcam or hirescam; or leave out options that need channels: --eigen-smooth, --target "
            "channels:top:N",
        )
    given = [signals.get(one, layer) for one in formula.signal_names]
    count, channels = given[0].shape[:2]
    alone = formula.function(*(one.flatten(0, 1).unsqueeze(1) for one in given), **formula.options)
    parts: Tensor = alone.unflatten(0, (count, channels))
    whole = formula.function(*given, **formula.options)
    if bool(((parts.sum(1) - whole).abs() > SUM_TOLERANCE * parts.abs().sum(1).amax((1, 2), keepdim=True)).any()):
        raise RequestError(
            f"the map of {name} is not a sum over the layer's channels, so it has no contributions of single channels",
            "choose gradcam or hirescam; or leave out options that need channels: --eigen-smooth, --target "
            "channels:top:N",
        )
    return parts
