"""Maps by method and layer, averaged over all augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.base.passes import naming
from camcli.engine.forward import Forward, Plan
from camcli.engine.maps.fuse import CONTRIBUTIONS_KEY, MapsByMethod, eigen_smooth, split_by_channel
from camcli.engine.maps.method import BoundMethod
from camcli.engine.maps.places import PreparedPlan, find_placement, read_grids
from camcli.engine.setup import Setup
from camcli.engine.signals.lookup import Signals
from camcli.engine.signals.mixing import mixes_images
from camcli.engine.signals.scored import ScoredForward
from camcli.targets.readers.classification import GroupPredictions
from camcli.targets.target import Target

# The targets of each image; an error for a target that cannot be explained.
TargetsByImage = Sequence[Sequence[Target | PictureError]]


def keep_targets(targets: TargetsByImage) -> list[list[Target]]:
    """Return the targets of each image that can be explained."""
    return [[one for one in some if isinstance(one, Target)] for some in targets]


def compute_maps(
    setup: Setup, prepared: PreparedPlan, images: Tensor, forward: Forward, targets: TargetsByImage
) -> list[MapsByMethod]:
    """Compute for each rank of the images' targets, by method and layer, the mean map of all augmentations.

    Args:
        setup: settings of the explainer.
        prepared: facts about images of this size.
        images: preprocessed for the model.
        forward: of the images as they are.
        targets: of each image; an error for a target that cannot be explained.

    Raises:
        PictureError: one of several images has no map.
    """
    size, augmentations, explained = prepared.size, prepared.augmentations, keep_targets(targets)
    ranks = max(map(len, explained), default=0)
    sums: list[MapsByMethod] = [{} for _ in range(ranks)]
    for augmentation, plan in augmentations:
        unchanged = augmentation.is_identity(size)
        run = forward if unchanged else setup.runner.run(augmentation.apply(images), plan=plan)
        for rank in range(ranks):
            rows = [row for row, some in enumerate(explained) if rank < len(some)]
            transformed = [
                augmentation.transform_target(explained[row][rank], run.predictions, row, size) for row in rows
            ]
            maps = _compute_rank(setup, plan, run, transformed, rows, last=rank + 1 == ranks)
            for (number, layer), own in maps.items():
                before = sums[rank].get((number, layer))
                if isinstance(own, PictureError) or isinstance(before, PictureError):
                    sums[rank][number, layer] = before if isinstance(before, PictureError) else own
                    continue
                grid = size if own.shape[-2:] == augmentation.size else read_grids(prepared.plan).get(layer, size)
                there, here = find_placement(plan, layer, own.shape), find_placement(prepared.plan, layer, grid)
                part = augmentation.invert(own, grid, size, there, here) / len(augmentations)
                sums[rank][number, layer] = part if before is None else before + part
    return sums


def _compute_rank(
    setup: Setup, plan: Plan, run: Forward, targets: Sequence[Target], rows: Sequence[int], last: bool
) -> MapsByMethod:
    """Compute the maps of one target per image, together if each score depends on its own image alone.

    In a group scores may depend on other images. Then each has a backward of its own, since the gradient of the sum
    would mix an image's effect on its own score with its effect on the others'.
    """
    together = Signals(ScoredForward(setup.runner, plan, run, targets, rows, last and not setup.group))
    alone = len(rows) == 1 and not setup.group
    if not setup.group or len(rows) < 2 or isinstance(run.predictions, GroupPredictions):
        return compute_maps_by_method(setup, together, alone)
    if not plan.mixes_images and not mixes_images(together.scored):
        return compute_maps_by_method(setup, together, alone)
    if not plan.mixes_images:
        plan.mixes_images = True
        setup.add_note("the score of an image depends on others of its group; each map explains its own image's score")
    found = [
        compute_maps_by_method(setup, Signals(ScoredForward(setup.runner, plan, run, [target], [row])), is_single=False)
        for target, row in zip(targets, rows, strict=True)
    ]
    return {place: torch.cat([cast("Tensor", one[place]) for one in found]) for place in found[0]}


def compute_maps_by_method(setup: Setup, signals: Signals, is_single: bool) -> MapsByMethod:
    """Compute the maps by method and layer, ``(n, h, w)`` at the layer or the input, or ``(n, 3, H, W)`` at the input.

    Args:
        setup: settings of the explainer.
        signals: of the images.
        is_single: True for a single image; an error then takes the place of a missing map.

    Raises:
        PictureError: one of several images has no map.
    """
    maps: MapsByMethod = {}
    for number, method in enumerate(setup.bound_methods):
        if method.finds_concepts:
            continue
        for layer in setup.layers if method.uses_layer else ("",):
            try:
                map = compute_map(setup, method, signals, layer)
            except CamcliError as error:
                # Errors that concern all images were raised by the check on noise.
                reason = error if isinstance(error, PictureError) else PictureError(error.message, error.hint)
                if not is_single:
                    raise reason from error
                reason.method, reason.layer = method.row.name, layer
                maps[number, layer] = reason
                continue
            if not setup.top_channels:
                _check_shape(method, map)
            maps[number, layer] = map
    if setup.top_channels:
        for layer in setup.layers:
            maps[CONTRIBUTIONS_KEY, layer] = signals.get("act", layer) * signals.get("grad", layer)
    return maps


def compute_map(setup: Setup, method: BoundMethod, signals: Signals, layer: str) -> Tensor:
    """Compute one method's maps at one layer, or their channels' parts if the setup wants those."""
    with naming(method.row.name, method.options):
        if setup.eigen_smooth:
            return eigen_smooth(method.row.name, method.formulas, signals, layer)
        if setup.top_channels:
            return split_by_channel(method.row.name, method.formulas, signals, layer)
        return method(signals, layer)


def make_total_signals(setup: Setup, plan: Plan, forward: Forward) -> Signals:
    """Return the signals of the sum of all scores, which the checks on noise use."""
    rows, predictions = range(len(forward.images)), forward.predictions
    # A margin needs a rival; any class will do here.
    rivals = (min(1, (predictions.classes or 1) - 1),) if setup.output_spec.score.has_rivals else ()
    target = Target(0, predictions.sum_scores(), None, rivals=rivals)
    return Signals(ScoredForward(setup.runner, plan, forward, [target] * len(rows), rows))


def _check_shape(method: BoundMethod, map: Tensor) -> None:
    """Check that a method gives one map for each image."""
    if map.ndim != 3 and not (map.ndim == 4 and method.uses_input):
        form = ", ".join(str(size) for size in ("n", *map.shape[1:]))
        raise RequestError(
            f"the method {method.row.name!r} returns maps of shape ({form}), not one for each image: (n, h, w)",
            "a method that finds several concepts in an image is of kind concept, and returns Concepts",
        )
