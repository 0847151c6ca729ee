"""The levels of a detector's pyramid: maps of several grids, from one or some of which each box is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.engine.hooks.capture import at_layer, tapped
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import tensors_by_name
from camcli.engine.hooks.watch import listened
from camcli.targets.readers.detection import unfiltered
from camcli.targets.target import Reading


def levels(
    module: nn.Module,
    image: Float[Tensor, "1 d h w"],
    read: Callable[[Any, int], Reading],
    pyramid: str = "",
) -> tuple[str, ...]:
    """What the levels are called, as layers (``backbone:p3``), the finest first; empty where there are none.

    They are what one module gives: several maps ``(n, c, h, w)``, not all of one grid, on which the boxes' scores
    depend, and at which a module with weights still looks, since else they may be the scores themselves. Of several
    such modules it is the last.

    Args:
        module: the detector.
        image: noise; one input.
        read: from what the module returns for a number of images to what can be explained.
        pyramid: the module that gives them, if it is known.
    """
    found: dict[str, list[str]] = {}
    with torch.no_grad(), frozen(module), listened(module, lambda name, output: _hear(found, name, output, len(image))):
        module(image.clone())
    known = [found[pyramid]] if pyramid in found else []
    return tuple(next(iter(known or _looked_at(module, image, read, found)), ()))


def _hear(found: dict[str, list[str]], name: str, output: Any, images: int) -> None:
    maps = tensors_by_name(output)
    grids = {one.shape[2:] for one in maps.values() if one.ndim == 4 and len(one) == images and one.is_floating_point()}
    if name and len(grids) > 1 and all(one.ndim == 4 for one in maps.values()):
        order = sorted(maps, key=lambda key: -maps[key].shape[2] * maps[key].shape[3])
        found[name] = [f"{name}:{key}" for key in order]


def _looked_at(
    module: nn.Module, image: Tensor, read: Callable[[Any, int], Reading], found: dict[str, list[str]]
) -> list[list[str]]:
    """Of modules that give maps of several grids those that weights behind them still look at, the last first."""
    names = [name for some in found.values() for name in some]
    places = {name: at_layer(module, name) for name in names}
    weighted = {name for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))}
    turns: dict[str, int] = {}
    heard: dict[str, Tensor] = {}

    def hear(name: str, output: Any) -> None:
        turns[name] = len(turns)
        if name in weighted and isinstance(output, Tensor) and output.requires_grad:
            heard[name] = output

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        frozen(module),
        unfiltered(module),
        tapped(
            {name: one for name, (one, _) in places.items()}, parts={k: part for k, (_, part) in places.items()}
        ) as taps,
        listened(module, hear),
    ):
        score = read(module(image.clone()), len(image)).total()
        points = {**taps, **{f"{name} behind": one for name, one in heard.items()}}
        if not score.requires_grad:
            return []
        gradients = torch.autograd.grad(score, list(points.values()), allow_unused=True)
    reached = {name for name, back in zip(points, gradients, strict=True) if back is not None and bool(back.any())}
    last = max((turns[name] for name in heard if f"{name} behind" in reached), default=-1)
    good = [name for name in found if turns[name] < last and reached & set(found[name])]
    return [found[name] for name in sorted(good, key=lambda name: -turns[name])]
