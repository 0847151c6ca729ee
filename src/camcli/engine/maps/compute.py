"""Maps method by method, layer by layer, of every way of showing the images to the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.engine.forward import Forward, Plan
from camcli.engine.maps.fuse import OF_SHARES, ByMethod, channel_parts, smoothed
from camcli.engine.maps.method import Recipe
from camcli.engine.maps.places import Prepared, grids_of, placed
from camcli.engine.setup import Setup
from camcli.engine.signals.evidence import Evidence
from camcli.engine.signals.mixing import mixes
from camcli.engine.signals.scored import ScoredForward
from camcli.targets.readers.classification import GroupPredictions
from camcli.targets.target import Subject

# Of each image what is explained, or why it cannot be.
Targets = Sequence[Sequence[Subject | PictureError]]


def subjects_of(targets: Targets) -> list[list[Subject]]:
    """Of each image what can be explained."""
    return [[one for one in some if isinstance(one, Subject)] for some in targets]


def compute_maps(
    setup: Setup, prepared: Prepared, images: Tensor, forward: Forward, targets: Targets
) -> list[ByMethod]:
    """For each rank of the images' subjects, by method and layer the mean of the maps of all passes.

    Args:
        setup: what is asked.
        prepared: what was found out for images of this size.
        images: prepared as the model wants them.
        forward: of the images as they are.
        targets: of each what is explained, or why it cannot be.

    Raises:
        PictureError: one of several images has none.
    """
    size, turns, subjects = prepared.size, prepared.turns, subjects_of(targets)
    ranks = max(map(len, subjects), default=0)
    sums: list[ByMethod] = [{} for _ in range(ranks)]
    for one, plan in turns:
        run = forward if one.plain(size) else setup.witness.forward(one.there(images), plan=plan)
        for rank in range(ranks):
            rows = [row for row, some in enumerate(subjects) if rank < len(some)]
            meant = [one.subject(subjects[row][rank], run.reading, row, size) for row in rows]
            for place, own in _maps_of_rank(setup, plan, run, meant, rows, last=rank + 1 == ranks).items():
                before = sums[rank].get(place)
                if isinstance(own, PictureError) or isinstance(before, PictureError):
                    sums[rank][place] = before if isinstance(before, PictureError) else own
                    continue
                grid = size if own.shape[-2:] == one.size else grids_of(prepared.plan).get(place[1], size)
                shown, here = placed(plan, place[1], own.shape), placed(prepared.plan, place[1], grid)
                part = one.back(own, grid, size, shown, here) / len(turns)
                sums[rank][place] = part if before is None else before + part
    return sums


def _maps_of_rank(
    setup: Setup, plan: Plan, run: Forward, subjects: Sequence[Subject], rows: Sequence[int], last: bool
) -> ByMethod:
    """The maps of these images' subjects: of all at once where the score of each is its image's own affair.

    In a group it may depend on the others. Then each has a backward to itself, since the gradient of the sum would
    mix what one image does for its own score with what it does for the others'.
    """
    together = Evidence(ScoredForward(setup.witness, plan, run, subjects, rows, last and not setup.group))
    alone = len(rows) == 1 and not setup.group
    if not setup.group or len(rows) < 2 or isinstance(run.reading, GroupPredictions):
        return maps_by_method(setup, together, alone)
    if not plan.mixes and not mixes(together.scored):
        return maps_by_method(setup, together, alone)
    if not plan.mixes:
        plan.mixes = True
        setup.note("the score of a picture depends on others of its group; each map explains its own picture's score")
    found = [
        maps_by_method(setup, Evidence(ScoredForward(setup.witness, plan, run, [subject], [row])), alone=False)
        for subject, row in zip(subjects, rows, strict=True)
    ]
    return {place: torch.cat([cast("Tensor", one[place]) for one in found]) for place in found[0]}


def maps_by_method(setup: Setup, evidence: Evidence, alone: bool) -> ByMethod:
    """By method and layer the maps, ``(n, h, w)`` at the layer or the input, or ``(n, 3, H, W)`` at the input.

    Args:
        setup: what is asked.
        evidence: of the images.
        alone: they are one, so that where a method has no map of it the reason stands in its place.

    Raises:
        PictureError: they are several, and one has none.
    """
    maps: ByMethod = {}
    for number, recipe in enumerate(setup.recipes):
        if recipe.of_concepts:
            continue
        for layer in setup.layers if recipe.at_layer else ("",):
            try:
                map = compute_map(setup, recipe, evidence, layer)
            except CamcliError as error:
                # What holds for all pictures was found out on noise.
                reason = error if isinstance(error, PictureError) else PictureError(error.message, error.hint)
                if not alone:
                    raise reason from error
                maps[number, layer] = reason
                continue
            if not setup.strongest:
                _check_shape(recipe, map)
            maps[number, layer] = map
    if setup.strongest:
        for layer in setup.layers:
            maps[OF_SHARES, layer] = evidence.get("act", layer) * evidence.get("grad", layer)
    return maps


def compute_map(setup: Setup, recipe: Recipe, evidence: Evidence, layer: str) -> Tensor:
    """One method's maps at one layer; of its channels, if those are asked for."""
    if setup.smooth:
        return smoothed(recipe.row.name, recipe.formulas, evidence, layer)
    if setup.strongest:
        return channel_parts(recipe.row.name, recipe.formulas, evidence, layer)
    return recipe(evidence, layer)


def evidence_of_total(setup: Setup, plan: Plan, forward: Forward) -> Evidence:
    """Evidence for all that the network says of one image, to try things with."""
    rows, reading = range(len(forward.image)), forward.reading
    # A margin needs a rival, whoever that is.
    rivals = (min(1, (reading.classes or 1) - 1),) if setup.outlet.score.against else ()
    subject = Subject(0, reading.total(), None, rivals=rivals)
    return Evidence(ScoredForward(setup.witness, plan, forward, [subject] * len(rows), rows))


def _check_shape(recipe: Recipe, map: Tensor) -> None:
    """See that a method gives one map for each image."""
    if map.ndim != 3 and not (map.ndim == 4 and recipe.at_input):
        form = ", ".join(str(size) for size in ("n", *map.shape[1:]))
        raise RequestError(
            f"the method {recipe.row.name!r} gives maps of shape ({form}), and not one for each image: (n, h, w)",
            "a method that finds several concepts in a picture is of kind concept, and returns Concepts",
        )
