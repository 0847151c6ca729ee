"""Facts about images of one size, and where the cells of maps lie in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from camcli.engine.forward import Plan
from camcli.engine.maps.augment import Augmentation
from camcli.images.placement import Placement


@dataclass(frozen=True, slots=True)
class PreparedPlan:
    """Facts about images of one size, found out on noise.

    Attributes:
        size: rows and columns of the images.
        plan: for the images as they are.
        augmentations: each with the plan for its size.
        vanished_layers: the layers by which the score's gradient was zero on noise.
    """

    size: tuple[int, int]
    plan: Plan
    augmentations: Sequence[tuple[Augmentation, Plan]]
    vanished_layers: Collection[str] = ()


def read_grids(plan: Plan) -> dict[str, tuple[int, int]]:
    """Return rows and columns of each layer's maps, and (key "") of maps over tokens."""
    tokens = {"": plan.token_layout.grid} if plan.token_layout else {}
    return tokens | {name: layout.grid for name, layout in plan.layouts.items()}


def find_placement(plan: Plan, layer: str, grid: Sequence[int]) -> Placement | None:
    """Return where the cells of a layer's map with this grid lie in inputs of the plan's size; None for evenly."""
    located = plan.locations.get(layer)
    return located.placement if located and located.grid == tuple(grid[-2:]) else None


def find_map_placement(plan: Plan, layer: str, map: np.ndarray) -> Placement | None:
    """Return where the cells of a map lie, of one layer or of several joined by ``+``; None for evenly."""
    finest, of = tuple(map.shape[-2:]), layer.split("+")
    located = (plan.locations.get(name) for name in plan.calls if name in of)
    return next((one.placement for one in located if one and one.grid == finest), None)
