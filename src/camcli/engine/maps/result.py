"""One image's map, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.engine.forward import ATTENTION, Forward
from camcli.engine.layers.nan import first_not_finite
from camcli.engine.maps.compute import Targets, subjects_of
from camcli.engine.maps.fuse import ByMethod, Maps, join_maps
from camcli.engine.maps.method import Recipe
from camcli.engine.maps.places import Prepared, placement_of
from camcli.engine.setup import GOES_BACK, NEEDS_GRAPH, Setup
from camcli.targets.target import Reading, Subject

# One map, or why there is none.
Result = Explanation | PictureError

# What only methods ask for whose papers rectify what they make of it.
RECTIFIED = frozenset({"attn_grad", "told_grad", "stopped"})
# A map whose least value is above this part of its greatest is mostly ground.
MOSTLY_GROUND = 0.5
# A map whose values differ by less than this part of them is constant: what differs is rounding.
FLAT = 1e-6
# A probability from which on a softmax leaves hardly any gradient.
SATURATED = 0.999
# Or so near to 0 or 1 that there is none left.
SURE = 1e-6


def to_results(
    setup: Setup,
    prepared: Prepared,
    images: Tensor,
    forward: Forward,
    targets: Targets,
    maps: Sequence[ByMethod],
    concepts: Sequence[Sequence[Result]],
) -> list[list[Result]]:
    """For each image its concepts, then of each class asked for its maps, or the reasons that stand in their place.

    Args:
        setup: what is asked.
        prepared: what was found out for images of this size.
        images: prepared as the model wants them.
        forward: of them.
        targets: of each image what is explained, or why it cannot be.
        maps: for each rank of those that can be.
        concepts: of each image, which come first.
    """
    places: list[list[list[Result]]] = [
        [[one] if isinstance(one, PictureError) else [] for one in some] for some in targets
    ]
    subjects = subjects_of(targets)
    of_subjects = [[place for place in some if not place] for some in places]
    said = [scores_of(forward.reading, row) for row in range(len(images))]
    for rank, made in enumerate(maps):
        rows = [row for row, some in enumerate(subjects) if rank < len(some)]
        for some in join_maps(setup, prepared, made):
            for at, row in enumerate(rows):
                place = of_subjects[row][rank]
                if isinstance(some, PictureError):
                    place.append(some)
                else:
                    place.append(to_result(setup, prepared, some, at, subjects[row][rank], said[row], images, row))
    return [[*own, *chain.from_iterable(some)] for own, some in zip(concepts, places, strict=True)]


def to_result(
    setup: Setup,
    prepared: Prepared,
    maps: Maps,
    at: int,
    subject: Subject,
    scores: Tensor,
    images: Tensor,
    row: int,
) -> Result:
    """One image's map of several, or why it is none.

    Args:
        setup: what is asked.
        prepared: what was found out for images of this size.
        maps: of several images.
        at: the place of this one's map among them.
        subject: what is explained of it.
        scores: of all its classes.
        images: the batch.
        row: its place in the batch.
    """
    recipe, map, index = maps.recipe, maps.map[at], subject.index
    layer = maps.layers[at] if maps.layers else maps.layer
    network = setup.network
    alone = subject.of_layer or (recipe.of_channel and not setup.strongest)
    label = f"channel {index}" if alone else setup.label(index)
    noun = network.labels.noun if network else "class"
    of = label if label == f"channel {index}" else f"{noun} {index} ({label})"
    if not np.isfinite(map).all():
        return _not_finite(recipe, of, where_not_finite(setup, images, row))
    channel = maps.channels[at] if maps.channels else None
    if alone or (network and network.headless and channel is None):
        channel = index
    # A part of nothing, or of what the score owes nothing to, is a result: that the channel says nothing here.
    silent = (
        channel is not None and not map.any() and (recipe.of_channel or bool(maps.weights) or not subject.score.any())
    )
    if not map.any() and not silent:
        return _zero(setup, prepared, recipe, layer, subject, of)
    return Explanation(
        map=map.astype(np.float32),
        method=recipe.row.name,
        layer=layer,
        index=index,
        label=label,
        score=float(map.mean() if alone else subject.score.detach()),
        probability=None if alone else subject.probability,
        notes=(
            *([f"channel {channel} is silent here: it is zero everywhere, and so is its map"] if silent else ()),
            *(() if silent else remarks(map, _where(recipe, layer), scores)),
            *((subject.note,) if subject.note else ()),
        ),
        number=subject.number,
        box=subject.box,
        versus="" if alone else ", ".join(setup.label(rival) for rival in subject.rivals),
        channel=channel,
        weight=maps.weights[at] if maps.weights else None,
        placement=placement_of(prepared.plan, layer, map) if map.ndim == 2 else None,
    )


def _where(recipe: Recipe, layer: str) -> str:
    """The place of a method's maps, in words."""
    if layer:
        return f"the layer{'s' * ('+' in layer)} {layer!r}"
    return "the attention" if recipe.wants & ATTENTION else "the input"


def _not_finite(recipe: Recipe, of: str, culprit: str) -> PictureError:
    """Why a map holds NaN or infinite values; ``culprit`` is where they come up in the forward, if they do there."""
    back = recipe.ruled or (recipe.wants & GOES_BACK and not recipe.wants & {"ask", "rest"})
    cause = "they come up on the way back from the score" if back else "what it divides by is nothing here"
    return PictureError(
        f"the map of {of} contains NaN or infinite values" + (culprit or f"; {recipe.row.caveat or cause}"),
        "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
    )


def _zero(setup: Setup, prepared: Prepared, recipe: Recipe, layer: str, subject: Subject, of: str) -> PictureError:
    """Why a map is zero everywhere, and what can be done, as far as that is known."""
    rectified = len(recipe.formulas) > 1 or setup.fuse not in ("none", "sum") or recipe.wants & RECTIFIED
    why = "nothing at {} speaks for it here" if rectified else "{} has no part in its score here"
    hint = "try an earlier layer" if layer else "try a method that works at a layer"
    sure = subject.probability
    if not (recipe.wants & NEEDS_GRAPH or recipe.ruled):
        pass
    elif setup.activation == "probabilities" and sure is not None and not SURE < sure < 1 - SURE:
        why = f"its probability is {sure:.7g}, where the gradient of a sigmoid or softmax vanishes"
        hint = "explain the model without its last sigmoid or softmax, or choose a method that needs no gradient"
    elif layer in prepared.vanished:
        why = f"{why}, nor on noise"
        hint = "see what makes the score: a head that is not trained, or a ReLU that is shut"
    return PictureError(f"the map of {of} is zero everywhere: {why.format(_where(recipe, layer))}", hint)


def where_not_finite(setup: Setup, images: Tensor, row: int) -> str:
    """Where NaN or infinite values come up in a forward of an image of a batch, as the end of a message."""
    if not images[row].isfinite().all():
        return "; the image itself contains some"
    # The images of a group are seen together.
    given = images if setup.group else images[row : row + 1]
    with setup.witness.feed.about(None if setup.group else [row]):
        first = first_not_finite(setup.module, setup.witness.leaf(given).detach())
    return f"; they come up at {first}" if first else ""


def scores_of(reading: Reading, row: int) -> Tensor:
    """The scores of an image; NaN where they cannot be read, which is told as that image's failure."""
    try:
        return reading.scores(row)
    except PictureError:
        return torch.full((1,), torch.nan)


def remarks(map: np.ndarray, where: str, scores: Tensor) -> tuple[str, ...]:
    """What a reader of one map must know."""
    remarks = []
    if map.ndim == 2 and map.max() <= 0:
        remarks.append(f"nothing at {where} speaks for it: the whole map is negative (--save array keeps its values)")
    if np.ptp(map) <= FLAT * np.abs(map).max():
        remarks.append(f"the map is the same everywhere at {where}, so it names no place")
    elif map.ndim == 2 and map.min() > MOSTLY_GROUND * map.max():
        remarks.append(
            f"every value is above {MOSTLY_GROUND:.0%} of the greatest, so the drawing is nearly one colour: "
            "--normalize range draws it from its least value on"
        )
    if len(scores) > 1 and scores.min() >= 0 and abs(float(scores.sum()) - 1) < 1e-3 and scores.max() > SATURATED:
        remarks.append(
            "the model's scores are probabilities and one is nearly 1, where their gradient vanishes: "
            "the map may be mostly rounding; a model that ends before its softmax is explained better"
        )
    return tuple(remarks)
