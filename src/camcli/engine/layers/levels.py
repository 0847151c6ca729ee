"""Levels of a detector's feature pyramid: maps of several grids, from which the boxes are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.engine.hooks.capture import capture_activations, find_layer
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import tensors_by_name
from camcli.engine.hooks.watch import watch_outputs
from camcli.targets.readers.torchvision_boxes import unfiltered
from camcli.targets.target import Predictions


def find_pyramid_levels(
    module: nn.Module,
    image: Float[Tensor, "1 d h w"],
    read: Callable[[Any, int], Predictions],
    pyramid: str = "",
) -> tuple[str, ...]:
    """Find the names of the pyramid's levels as layers (``backbone:p3``, ``encoder:maps.0``), finest first, if any.

    The levels are the output of one module: several maps ``(n, c, h, w)``, not all of one grid, on which the boxes'
    scores depend, and which a module with weights uses, since otherwise they may be the scores themselves. Of several
    such modules the last counts.

    Args:
        module: the detector.
        image: noise; one input.
        read: from the module's output for a number of images to predictions.
        pyramid: the module whose output holds the levels, if known.
    """
    found: dict[str, list[str]] = {}
    with (
        torch.no_grad(),
        frozen(module),
        watch_outputs(module, lambda name, output: _add_pyramid(found, name, output, len(image))),
    ):
        module(image.clone())
    known = [found[pyramid]] if pyramid in found else []
    return tuple(next(iter(known or _find_used_pyramids(module, image, read, found)), ()))


def _add_pyramid(found: dict[str, list[str]], name: str, output: Any, images: int) -> None:
    maps: dict[str, Tensor] = {}
    for key, one in tensors_by_name(output).items():
        if all(one is not other for other in maps.values()):  # the last state may be returned twice
            maps[key] = one
    grids = {one.shape[2:] for one in maps.values() if one.ndim == 4 and len(one) == images and one.is_floating_point()}
    if name and len(grids) > 1 and all(one.ndim == 4 for one in maps.values()):
        order = sorted(maps, key=lambda key: -maps[key].shape[2] * maps[key].shape[3])
        found[name] = [f"{name}:{key}" for key in order]


def _find_used_pyramids(
    module: nn.Module, image: Tensor, read: Callable[[Any, int], Predictions], found: dict[str, list[str]]
) -> list[list[str]]:
    """Return those pyramids that modules with weights after them use, the last first, with the levels that are read.

    A backbone may return all its stages, of which the next module reads the last alone.
    """
    names = [name for some in found.values() for name in some]
    places = {name: find_layer(module, name) for name in names}
    weighted = {name for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))}
    turns: dict[str, int] = {}
    outputs: dict[str, Tensor] = {}

    def hook(name: str, output: Any) -> None:
        turns[name] = len(turns)
        if name in weighted and isinstance(output, Tensor) and output.requires_grad:
            outputs[name] = output

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        frozen(module),
        unfiltered(module),
        capture_activations(
            {name: one for name, (one, _) in places.items()}, tensor_names={k: part for k, (_, part) in places.items()}
        ) as activations,
        watch_outputs(module, hook),
    ):
        score = read(module(image.clone()), len(image)).sum_scores()
        points = {**activations, **{f"{name} behind": one for name, one in outputs.items()}}
        if not score.requires_grad:
            return []
        gradients = torch.autograd.grad(score, list(points.values()), allow_unused=True)
    reached = {name for name, back in zip(points, gradients, strict=True) if back is not None and bool(back.any())}
    last = max((turns[name] for name in outputs if f"{name} behind" in reached), default=-1)
    read_levels = {name for name, back in zip(points, gradients, strict=True) if back is not None}
    used = {name: [level for level in levels if level in read_levels] for name, levels in found.items()}
    good = [name for name, levels in used.items() if turns[name] < last and reached & set(levels)]
    return [used[name] for name in sorted(good, key=lambda name: -turns[name])]
