"""What was found out for images of one size, and where the cells of maps lie in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from camcli.engine.forward import Plan
from camcli.engine.maps.augment import Pass
from camcli.images.placement import Placement


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was found out on noise for images of one size.

    Attributes:
        size: their rows and columns.
        plan: for them as they are.
        turns: how they are shown to the network, each way with the plan for its own size.
        vanished: the layers by which the score's gradient was zero on noise.
    """

    size: tuple[int, int]
    plan: Plan
    turns: Sequence[tuple[Pass, Plan]]
    vanished: Collection[str] = ()


def grids_of(plan: Plan) -> dict[str, tuple[int, int]]:
    """Rows and columns of each layer's maps, and ("") of those over tokens."""
    tokens = {"": plan.tokens.grid} if plan.tokens else {}
    return tokens | {name: layout.grid for name, layout in plan.layouts.items()}


def placed(plan: Plan, layer: str, grid: Sequence[int]) -> Placement | None:
    """Where the cells of a map of this grid at a layer lie in inputs of a plan's size; None: evenly."""
    located = plan.located.get(layer)
    return located.placement if located and located.grid == tuple(grid[-2:]) else None


def placement_of(plan: Plan, layer: str, map: np.ndarray) -> Placement | None:
    """Where the cells of a map at a layer lie, or of several layers joined by ``+``; None: evenly."""
    finest, of = tuple(map.shape[-2:]), layer.split("+")
    located = (plan.located.get(name) for name in plan.runs if name in of)
    return next((one.placement for one in located if one and one.grid == finest), None)
