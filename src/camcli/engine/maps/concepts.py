"""Concepts found in several images together, and the share of each concept in an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.engine.explanation import Concept, ConceptClass, ConceptImportance, Explanation
from camcli.engine.forward import Forward, Plan
from camcli.engine.maps.method import BoundMethod
from camcli.engine.maps.places import find_map_placement
from camcli.engine.maps.result import Result, read_scores
from camcli.engine.setup import Setup
from camcli.engine.signals.lookup import Signals
from camcli.engine.signals.scored import ScoredForward
from camcli.methods import MethodRow
from camcli.methods.components import COLOURS
from camcli.methods.concept import Concepts
from camcli.targets.target import Target

# Greatest number of images that concepts are fitted to.
MAX_PICTURES = 100
# Greatest number of values in the sampled cells: 64 MiB in float32.
MAX_VALUES = 2**24
# Negative share of a layer's activations from which on concepts, which are not negative, miss much of them.
LARGE_NEGATIVE_SHARE = 0.1

T = TypeVar("T")
# By method and layer, the ``basis`` of a method that can be fitted on several images.
FittedConcepts = dict[tuple[str, str], Tensor]


def pick_evenly(total: int, limit: int = MAX_PICTURES) -> list[int]:
    """Return the numbers of at most ``limit`` of ``total`` images, evenly spaced."""
    count = min(total, limit)
    return [number * total // count for number in range(count)]


def put_even_sample_first(pictures: Callable[[], Iterable[T]], total: int) -> Iterator[T]:
    """Iterate over an evenly spaced sample of the images, then over the others, which replace those that fail."""
    first = set(pick_evenly(total))
    yield from (one for number, one in enumerate(pictures()) if number in first)
    yield from (one for number, one in enumerate(pictures()) if number not in first)


def sample_cells(act: Float[Tensor, "n c h w"], pictures: int) -> Float[Tensor, "n m c"]:
    """Sample cells of each image of a batch, as many per image as fit into memory for this number of images.

    If not all cells fit, the same random positions are used for every image.
    """
    rows = act.flatten(2).mT
    if (positions := sample_positions(rows.shape[1], rows.shape[2], pictures)) is not None:
        rows = rows[:, positions.to(rows.device)]
    return rows.cpu()


def sample_positions(cells: int, channels: int, pictures: int) -> Int[Tensor, " m"] | None:
    """Return the numbers of the cells that are sampled of each of this number of images; None for all of them."""
    share = max(1, MAX_VALUES // (channels * max(1, pictures)))
    if share >= cells:
        return None
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(cells, generator=generator, device="cpu")[:share].sort().values


def fit_concepts(methods: Sequence[BoundMethod], samples: Iterable[Mapping[str, Tensor]]) -> FittedConcepts:
    """Fit each method to cells of several images, layer by layer; skip layers whose cells are all NaN or infinite.

    Args:
        methods: the methods.
        samples: cells ``(n, m, c)`` of n images by layer, batch by batch.
    """
    gathered: dict[str, list[Tensor]] = {}
    for sample in samples:
        for layer, cells in sample.items():
            usable = (image[image.isfinite().all(1)] for image in cells)
            gathered.setdefault(layer, []).extend(image for image in usable if len(image))
    found: FittedConcepts = {}
    for layer, images in gathered.items():
        for method in methods:
            if method.fit and images:
                found[method.row.name, layer] = method.fit(images)
    return found


def find_concepts(
    setup: Setup,
    plan: Plan,
    forward: Forward,
    picture_mask: Tensor | None,
    choose_classes: Callable[[], Sequence[list[int] | PictureError]],
) -> list[list[Result]]:
    """Find the concepts of each image, method by method, layer by layer; none for images whose scores are NaN.

    Args:
        setup: settings of the explainer.
        plan: for images of this size.
        forward: of the images.
        picture_mask: True where the input shows the image and not padding.
        choose_classes: returns the classes of each image to which concepts may matter, if a method is asked for that.
    """
    results: list[list[Result]] = [[] for _ in range(len(forward.images))]
    if not any(method.finds_concepts for method in setup.bound_methods):
        return results
    rows = [row for row in range(len(results)) if not read_scores(forward.predictions, row).isnan().any()]
    explained: list[list[int]] = []
    if any(method.ranks_concepts for method in setup.bound_methods):
        classes = choose_classes()
        for row in rows:
            if isinstance(error := classes[row], PictureError):
                results[row].append(error)
        rows = [row for row in rows if not results[row]]
        explained = [one for row in rows if isinstance(one := classes[row], list)]
    for some in find_concepts_in_rows(setup, plan, forward, rows, picture_mask, explained) if rows else ():
        for row, result in zip(rows, some, strict=True):
            if isinstance(result, Explanation):
                result = replace(result, placement=find_map_placement(plan, result.layer, result.map))
            results[row].append(result)
    return results


def find_concepts_in_rows(
    setup: Setup,
    plan: Plan,
    forward: Forward,
    rows: Sequence[int],
    picture_mask: Tensor | None = None,
    explained: Sequence[Sequence[int]] = (),
) -> list[list[Result]]:
    """Find the concepts of some of the images, method by method, layer by layer."""
    # On the network's device, so that masks are not copied there for each concept.
    images = forward.images
    everywhere = torch.ones(images.shape[0], *images.shape[2:], dtype=torch.bool, device=images.device)
    mask = everywhere if picture_mask is None else picture_mask.to(images.device)
    targets = [
        Target(0, torch.zeros((), device="cpu"), None, region_mask=mask[row], is_layer_channel=True) for row in rows
    ]
    signals = Signals(ScoredForward(setup.runner, plan, forward, targets, rows))
    return [
        find_layer_concepts(method, layer, signals, setup.fitted_concepts, len(rows), setup.label, explained)
        for method in setup.bound_methods
        if method.finds_concepts
        for layer in setup.layers
    ]


def find_layer_concepts(
    method: BoundMethod,
    layer: str,
    signals: Signals,
    fitted: FittedConcepts,
    images: int,
    label: Callable[[int], str] = str,
    explained: Sequence[Sequence[int]] = (),
) -> list[Result]:
    """Find the concepts of each image by one method at one layer.

    Args:
        method: the method.
        layer: full name of the layer.
        signals: of the images.
        fitted: what methods were fitted to, by method and layer; if this method is missing, it is fitted to these
            images.
        images: number of images.
        label: from a class to its name.
        explained: the classes of each image to which concepts may matter; empty for none.
    """
    key = method.row.name, layer
    if method.fit and key not in fitted:
        fitted = fit_concepts([method], [{layer: sample_cells(signals.get("act", layer), images)}])
    concepts = method.find_concepts(signals, layer, fitted.get(key))
    classes = explained or [()] * images
    return [_to_result(method.row, layer, concepts, row, label, classes[row]) for row in range(images)]


def _to_result(
    method: MethodRow,
    layer: str,
    concepts: Concepts,
    row: int,
    label: Callable[[int], str],
    explained: Sequence[int] = (),
) -> Result:
    map = concepts.maps[row].float().numpy(force=True)
    if not np.isfinite(map).all():
        return PictureError(
            f"the maps of the {method.finds} at the layer {layer!r} contain NaN or infinite values",
            "the weights contain such values, or half precision overflows (then --precision fp32 helps)",
        )
    if not map.any():
        return PictureError(
            f"none of the {method.finds} occurs at the layer {layer!r} here: their maps are zero everywhere",
            f"try another layer, or find the {method.finds} of each image separately: -o over=picture",
        )
    if concepts.shares is None:
        sums = map.sum((1, 2), dtype=np.float64)
        shares = (sums / sums.sum()).tolist()
    else:
        shares = concepts.shares[row].tolist()
        if method.finds == "components" and len(shares) > COLOURS and not shares[0]:
            return PictureError(
                f"no cell at the layer {layer!r} is foreground here, by the first component of all images",
                "-o foreground=other takes the other side, -o foreground=all every cell; -o center=picture finds what "
                "differs within images",
            )
    found = []
    for number, share in enumerate(shares):
        named = zip(concepts.classes[row, number].tolist(), concepts.score_gains[row, number].tolist(), strict=True)
        raised = (ConceptClass(index, label(index), rise) for index, rise in named if rise > 0)
        important = _list_importances(concepts, row, number, explained, label)
        found.append(Concept(number + 1, round(share, 4), tuple(raised), tuple(important)))
    return Explanation(
        map=map,
        method=method.name,
        layer=layer,
        index=None,
        label=_count(len(map), method.finds),
        score=float(concepts.kept_share[row]),
        probability=None,
        notes=tuple(_list_notes(layer, float(concepts.negative_share[row]))),
        concepts=tuple(found),
    )


def _list_importances(
    concepts: Concepts, row: int, number: int, explained: Sequence[int], label: Callable[[int], str]
) -> Iterator[ConceptImportance]:
    if concepts.importances is not None:
        for index in explained:
            total = float(concepts.importances[row, number, index])
            yield ConceptImportance(index, label(index), round(total, 4) if math.isfinite(total) else None)


def _count(maps: int, finds: str) -> str:
    """Return ``4 concepts``; a map of the foreground besides the components is none."""
    count = min(maps, COLOURS) if finds == "components" else maps
    return f"{count} {finds if count > 1 else finds.removesuffix('s')}"


def _list_notes(layer: str, negative: float) -> Iterator[str]:
    if negative > LARGE_NEGATIVE_SHARE:
        yield (
            f"{negative:.0%} of the activations of the layer {layer!r} are negative, which the factorisation ignores: "
            "a layer after a ReLU suits it better"
        )
