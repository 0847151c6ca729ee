"""Concepts: found in several pictures together, and what each picture holds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.engine.explanation import Concept, Explanation, Spoken
from camcli.engine.forward import Forward, Plan
from camcli.engine.maps.method import Recipe
from camcli.engine.maps.places import placement_of
from camcli.engine.maps.result import Result, scores_of
from camcli.engine.setup import Setup
from camcli.engine.signals.evidence import Evidence
from camcli.engine.signals.scored import ScoredForward
from camcli.methods.concept import Concepts
from camcli.targets.target import Subject

# In so many pictures of a run concepts are found, at most.
MOST_PICTURES = 100
# Of their cells as many are kept as hold so many values: 64 MiB in float32.
MOST_VALUES = 2**24
# A layer of which more than this is negative says much that concepts leave out.
MUCH = 0.1

T = TypeVar("T")
# By method and layer, what a method that can be fitted on several pictures is handed as ``fitted``.
Fitted = dict[tuple[str, str], Tensor]


def spread(total: int, most: int = MOST_PICTURES) -> list[int]:
    """Which of so many pictures are looked at, evenly spread."""
    count = min(total, most)
    return [number * total // count for number in range(count)]


def spread_first(pictures: Callable[[], Iterable[T]], total: int) -> Iterator[T]:
    """Those of the pictures that are looked at, then the others, in whose place they may have to stand."""
    first = set(spread(total))
    yield from (one for number, one in enumerate(pictures()) if number in first)
    yield from (one for number, one in enumerate(pictures()) if number not in first)


def sampled(act: Float[Tensor, "n c h w"], pictures: int) -> Float[Tensor, "m c"]:
    """Cells of a batch, as many of each image as there is room for where so many pictures are looked at.

    Where that is not all of them, they are the same places of every image, drawn once and for all.
    """
    rows = act.flatten(2).mT
    share = max(1, MOST_VALUES // (rows.shape[2] * max(1, pictures)))
    if share < rows.shape[1]:
        places = (
            torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(0), device="cpu")[:share]
            .sort()
            .values
        )
        rows = rows[:, places.to(rows.device)]
    return rows.flatten(0, 1).cpu()


def fitted(recipes: Sequence[Recipe], samples: Iterable[Mapping[str, Tensor]]) -> Fitted:
    """What each method makes of cells of several pictures, of each layer; nothing where no cell is a number.

    Args:
        recipes: the methods.
        samples: by layer cells ``(m, c)``, of one batch after the other.
    """
    gathered: dict[str, list[Tensor]] = {}
    for sample in samples:
        for layer, cells in sample.items():
            gathered.setdefault(layer, []).append(cells[cells.isfinite().all(1)])
    found: Fitted = {}
    for layer, some in gathered.items():
        cells = torch.cat(some)
        for recipe in recipes:
            if recipe.fit and len(cells):
                found[recipe.row.name, layer] = recipe.fit(cells)
    return found


def find_concepts(setup: Setup, plan: Plan, forward: Forward, seen: Tensor | None) -> list[list[Result]]:
    """For each image its concepts, method by method, layer by layer; none of which the network says nothing.

    Args:
        setup: what is asked.
        plan: for images of this size.
        forward: of the images.
        seen: which part of each is picture, and not padding.
    """
    results: list[list[Result]] = [[] for _ in range(len(forward.image))]
    if not any(recipe.of_concepts for recipe in setup.recipes):
        return results
    rows = [row for row in range(len(results)) if not scores_of(forward.reading, row).isnan().any()]
    for some in concepts_of(setup, plan, forward, rows, seen) if rows else ():
        for row, result in zip(rows, some, strict=True):
            if isinstance(result, Explanation):
                result = replace(result, placement=placement_of(plan, result.layer, result.map))
            results[row].append(result)
    return results


def concepts_of(
    setup: Setup, plan: Plan, forward: Forward, rows: Sequence[int], seen: Tensor | None = None
) -> list[list[Result]]:
    """Method by method, layer by layer, the concepts of some of the images."""
    # Where the scores are, so that masks are not brought there for each concept.
    images = forward.image
    all_of_it = torch.ones(images.shape[0], *images.shape[2:], dtype=torch.bool, device=images.device)
    inside = all_of_it if seen is None else seen.to(images.device)
    subjects = [Subject(0, torch.zeros((), device="cpu"), None, inside=inside[row], of_layer=True) for row in rows]
    evidence = Evidence(ScoredForward(setup.witness, plan, forward, subjects, rows))
    return [
        found(recipe, layer, evidence, setup.fitted, len(rows), setup.label)
        for recipe in setup.recipes
        if recipe.of_concepts
        for layer in setup.layers
    ]


def found(
    recipe: Recipe,
    layer: str,
    evidence: Evidence,
    known: Fitted,
    images: int,
    label: Callable[[int], str] = str,
) -> list[Result]:
    """What a method finds in each image at a layer.

    Args:
        recipe: the method.
        layer: where.
        evidence: of the images.
        known: what it was fitted to before; otherwise it is fitted to these images, if it asks for that.
        images: how many they are.
        label: of a class.
    """
    key = recipe.row.name, layer
    if recipe.fit and key not in known:
        known = fitted([recipe], [{layer: sampled(evidence.get("act", layer), images)}])
    concepts = recipe.concepts(evidence, layer, known.get(key))
    return [_explained(recipe.row.name, layer, concepts, row, label) for row in range(images)]


def _explained(method: str, layer: str, found: Concepts, row: int, label: Callable[[int], str]) -> Result:
    map = found.maps[row].float().numpy(force=True)
    if not np.isfinite(map).all():
        return PictureError(
            f"the concepts' maps at the layer {layer!r} contain NaN or infinite values",
            "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
        )
    if not map.any():
        return PictureError(
            f"the layer {layer!r} has none of the concepts here: their maps are zero everywhere",
            "try another layer, or let each picture have concepts of its own: -o over=picture",
        )
    held, sums = float(found.held[row]), map.sum((1, 2), dtype=np.float64)
    concepts = []
    for number, share in enumerate(sums / sums.sum()):
        named = zip(found.classes[row, number].tolist(), found.rises[row, number].tolist(), strict=True)
        spoken = (Spoken(index, label(index), rise) for index, rise in named if rise > 0)
        concepts.append(Concept(number + 1, round(float(share), 4), tuple(spoken)))
    negative = float(found.negative[row])
    note = (
        f"{negative:.0%} of the activations of the layer {layer!r} are negative, which concepts leave out: a "
        "layer behind a ReLU has more of it in them"
    )
    return Explanation(
        map=map,
        method=method,
        layer=layer,
        index=None,
        label=f"{len(map)} concept{'s' * (len(map) > 1)}",
        score=held,
        probability=None,
        notes=(note,) if negative > MUCH else (),
        concepts=tuple(concepts),
    )
