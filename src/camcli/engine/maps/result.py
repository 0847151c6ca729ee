"""The result for one image: a map with its notes, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.engine.forward import Forward
from camcli.engine.layers.nan import find_first_non_finite
from camcli.engine.maps.compute import TargetsByImage, keep_targets
from camcli.engine.maps.fuse import MapBatch, MapsByMethod, join_maps
from camcli.engine.maps.method import BoundMethod
from camcli.engine.maps.places import PreparedPlan, find_map_placement
from camcli.engine.needs import NEEDS_ATTENTION
from camcli.engine.setup import GRADIENT_SIGNALS, NEEDS_GRAPH, Setup
from camcli.targets.target import Predictions, Target, mask_competing

# One map, or the error in its place.
Result = Explanation | PictureError

# Signals of methods whose papers rectify the map.
RECTIFIED_SIGNALS = frozenset({"attn_grad", "attn_out_grad", "early_exit_grads"})
# Methods whose formula rectifies it.
RECTIFIED_METHODS = frozenset({"odam", "gradcam-elementwise"})
# Least value of a map, relative to its greatest, from which on it is mostly background.
HIGH_FLOOR_RATIO = 0.5
# Relative range of a map up to which it is constant, apart from rounding.
CONSTANT_TOLERANCE = 1e-6
# Probability from which on a softmax passes hardly any gradient.
SATURATED_PROBABILITY = 0.999
# Distance of a probability from 0 or 1 up to which no gradient is left.
CERTAIN_TOLERANCE = 1e-6


def to_results(
    setup: Setup,
    prepared: PreparedPlan,
    images: Tensor,
    forward: Forward,
    targets: TargetsByImage,
    maps: Sequence[MapsByMethod],
    concepts: Sequence[Sequence[Result]],
) -> list[list[Result]]:
    """Collect for each image its concepts, then the maps of each of its targets; errors take the place of missing maps.

    Args:
        setup: settings of the explainer.
        prepared: facts about images of this size.
        images: preprocessed for the model.
        forward: of the images.
        targets: of each image; an error for a target that cannot be explained.
        maps: for each rank of the targets that can be explained.
        concepts: of each image, which come first.
    """
    places: list[list[list[Result]]] = [
        [[one] if isinstance(one, PictureError) else [] for one in some] for some in targets
    ]
    explained = keep_targets(targets)
    by_target = [[place for place in some if not place] for some in places]
    scores = [read_scores(forward.predictions, row) for row in range(len(images))]
    for rank, made in enumerate(maps):
        rows = [row for row, some in enumerate(explained) if rank < len(some)]
        for some in join_maps(setup, prepared, made):
            for position, row in enumerate(rows):
                place, target = by_target[row][rank], explained[row][rank]
                if isinstance(some, PictureError):
                    place.append(some)
                else:
                    place.append(to_result(setup, prepared, some, position, target, scores[row], images, row))
    for by_target_place in (one for one in places if len(one) > 1):
        for number, place in enumerate(by_target_place):
            for error in place:
                if isinstance(error, PictureError):
                    error.target = number
    return [[*own, *chain.from_iterable(some)] for own, some in zip(concepts, places, strict=True)]


def to_result(
    setup: Setup,
    prepared: PreparedPlan,
    maps: MapBatch,
    position: int,
    target: Target,
    scores: Tensor,
    images: Tensor,
    row: int,
) -> Result:
    """Build the result for one of several images from its map.

    Args:
        setup: settings of the explainer.
        prepared: facts about images of this size.
        maps: of several images.
        position: index of this image's map among them.
        target: the target that the map explains.
        scores: of all classes in this image.
        images: the batch.
        row: index of the image in the batch.
    """
    method, map, index = maps.method, maps.map[position], target.index
    layer = maps.layers[position] if maps.layers else maps.layer
    network = setup.network
    alone = target.is_layer_channel or (method.explains_channel and not setup.top_channels)
    label = f"channel {index}" if alone else setup.label(index)
    noun = network.labels.noun if network else "class"
    target_name = label if label == f"channel {index}" else f"{noun} {index} ({label})"
    if not np.isfinite(map).all():
        return _name_map(_not_finite_error(method, target_name, locate_not_finite(setup, images, row)), method, layer)
    channel = maps.channels[position] if maps.channels else None
    if alone or (network and network.headless and channel is None):
        channel = index
    # A zero map of a channel is a result: the channel is not active here.
    silent = (
        channel is not None
        and not map.any()
        and (method.explains_channel or bool(maps.weights) or not target.score.any())
    )
    if not map.any() and not silent:
        return _name_map(_zero_map_error(setup, prepared, method, layer, target, target_name), method, layer)
    predicted = None if alone else find_predicted(setup, scores, target.competing)
    return Explanation(
        map=map.astype(np.float32),
        method=method.row.name,
        layer=layer,
        index=index,
        label=label,
        score=float(map.mean() if alone else target.score.detach()),
        probability=None if alone else target.probability,
        predicted=predicted,
        predicted_label=None if predicted is None else setup.label(predicted),
        notes=(
            *([f"channel {channel} is inactive here: it is zero everywhere, and so is its map"] if silent else ()),
            *(() if silent else list_map_notes(map, _describe_place(method, layer), scores)),
            *((target.note,) if target.note else ()),
        ),
        number=target.box_number,
        box=target.box,
        true_box=target.true_box,
        versus="" if alone else ", ".join(setup.label(rival) for rival in target.rivals),
        channel=channel,
        weight=maps.weights[position] if maps.weights else None,
        placement=find_map_placement(prepared.plan, layer, map) if map.ndim == 2 else None,
    )


def find_predicted(setup: Setup, scores: Tensor, competing: Sequence[int]) -> int | None:
    """Return the class with the highest score, of those that compete; None if it is no prediction.

    Args:
        setup: settings of the explainer.
        scores: of all classes in the image.
        competing: the classes that compete in it; empty for all.
    """
    if setup.output_spec.task != "classify" or len(scores) < 2 or not bool(scores.isfinite().all()):
        return None
    return int(mask_competing(scores, competing).argmax())


def _name_map(error: PictureError, method: BoundMethod, layer: str) -> PictureError:
    """Say in an error which map is missing."""
    error.method, error.layer = method.row.name, layer
    return error


def _describe_place(method: BoundMethod, layer: str) -> str:
    """Describe in words where a method's maps are made."""
    if layer:
        return f"the layer{'s' * ('+' in layer)} {layer!r}"
    return "the attention" if method.signal_names & NEEDS_ATTENTION else "the input"


def _not_finite_error(method: BoundMethod, target_name: str, culprit: str) -> PictureError:
    """Build the error for a map with NaN or infinite values; ``culprit`` names where they arise in the forward."""
    # Methods that mask by a layer's channels are undefined where these are flat.
    masks = method.signal_names & {"score_of", "score_from_layer"} or {"act", "score_and_grad"} <= method.signal_names
    back = method.has_rule or (method.signal_names & GRADIENT_SIGNALS and not masks)
    cause = "they arise in the backward pass" if back else "it divides by zero here"
    return PictureError(
        f"the map of {target_name} contains NaN or infinite values" + (culprit or f"; {method.row.caveat or cause}"),
        "the weights contain such values, or half precision overflows (then --precision fp32 helps)",
    )


def _zero_map_error(
    setup: Setup, prepared: PreparedPlan, method: BoundMethod, layer: str, target: Target, target_name: str
) -> PictureError:
    """Build the error for a map that is zero everywhere, with a hint if the cause is known."""
    by_paper = method.row.name in RECTIFIED_METHODS or method.signal_names & RECTIFIED_SIGNALS
    rectified = len(method.formulas) > 1 or setup.fuse not in ("none", "sum") or by_paper
    why = "nothing at {} raises its score here" if rectified else "{} does not contribute to its score here"
    hint = "try an earlier layer" if layer else "try a method that works at a layer"
    sure = target.probability
    if not (method.signal_names & NEEDS_GRAPH or method.has_rule):
        pass
    elif (
        setup.activation == "probabilities"
        and sure is not None
        and not CERTAIN_TOLERANCE < sure < 1 - CERTAIN_TOLERANCE
    ):
        why = f"its probability is {sure:.7g}, where the gradient of a sigmoid or softmax vanishes"
        hint = "explain the model without its last sigmoid or softmax, or choose a method that needs no gradient"
    elif layer in prepared.vanished_layers:
        why = f"{why}, nor on noise"
        hint = "check the head of the model: it may be untrained, or end in an inactive ReLU"
    return PictureError(
        f"the map of {target_name} is zero everywhere: {why.format(_describe_place(method, layer))}", hint
    )


def locate_not_finite(setup: Setup, images: Tensor, row: int) -> str:
    """Find where NaN or infinite values arise in the forward of an image; returns the end of an error message."""
    if not images[row].isfinite().all():
        return "; the image itself contains some"
    # The images of a group go through the network together.
    given = images if setup.group else images[row : row + 1]
    with setup.runner.extra_inputs.restricted_to(None if setup.group else [row]):
        first = find_first_non_finite(setup.module, setup.runner.make_leaf(given).detach())
    return f"; they first occur at {first}" if first else ""


def read_scores(predictions: Predictions, row: int) -> Tensor:
    """Return the scores of an image; NaN where they cannot be read, for which the image's error gives the reason."""
    try:
        return predictions.scores(row)
    except PictureError:
        return torch.full((1,), torch.nan)


def list_map_notes(map: np.ndarray, where: str, scores: Tensor) -> tuple[str, ...]:
    """List remarks that help to read one map."""
    remarks = []
    if map.ndim == 2 and map.max() <= 0:
        remarks.append(
            f"nothing at {where} raises its score: the whole map is negative (--save array keeps its values)"
        )
    if np.ptp(map) <= CONSTANT_TOLERANCE * np.abs(map).max():
        remarks.append(f"the map is constant at {where}, so it locates nothing")
    elif map.ndim == 2 and map.min() > HIGH_FLOOR_RATIO * map.max():
        remarks.append(
            f"every value is above {HIGH_FLOOR_RATIO:.0%} of the maximum, so the heatmap is nearly one colour: "
            "--normalize range starts the scale at the minimum"
        )
    if (
        len(scores) > 1
        and scores.min() >= 0
        and abs(float(scores.sum()) - 1) < 1e-3
        and scores.max() > SATURATED_PROBABILITY
    ):
        remarks.append(
            "the model's scores are probabilities and one is nearly 1, where their gradient vanishes: the map may be "
            "mostly rounding errors; a model without its final softmax is explained better"
        )
    return tuple(remarks)
