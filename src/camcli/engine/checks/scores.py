"""Check of the scores: their kind, and whether a second run gives the same."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine import devices
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.images import providing_extras
from camcli.engine.checks.layer_choice import needs_layer_search
from camcli.engine.checks.layouts import probe_network
from camcli.engine.checks.trial import try_boxes_on_noise, try_scores_on_noise
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.hooks.state import find_quantised_modules
from camcli.engine.layers.even_steps import EvenSteps
from camcli.engine.layers.probe import noise_like
from camcli.engine.network import is_two_sided, make_two_sided
from camcli.engine.setup import Setup, make_score
from camcli.images.features import Features, count_images
from camcli.targets.readers import probabilities
from camcli.targets.readers.detection import BoxPredictions
from camcli.targets.readers.spec import get_boxes, get_score_tensor
from camcli.targets.target import Predictions


def try_scores(setup: Setup, findings: Findings, image: Tensor, extras: Features | None) -> None:
    """Find out, once, the kind of the scores, and whether a second run or other images in the batch change them."""
    if findings.scores_tried or setup.output_spec.task == "detect":
        return

    def read_scores(output: Any, images: int) -> Tensor:
        # The model's own scores, also where one score stands for two classes.
        output_spec, names = (
            replace(setup.output_spec, two_sided=False),
            setup.network.labels.names if setup.network else (),
        )
        found = get_score_tensor(output_spec.read(output, images, names, setup.activation))
        assert found is not None
        return found

    def run(images: Tensor) -> Tensor:
        with providing_extras(setup, images, extras), nullcontext() if closed else EvenSteps() as steps:
            # In the memory format of the probe, if that ran.
            own = (
                devices.copy_to_module(setup.module, images)
                if first is None
                else setup.runner.make_leaf(images).detach()
            )
            output = setup.module(own)
        if steps is not None:
            findings.even_steps[setup.size_key(images)] = steps.even
        return read_scores(output, len(images))

    closed = find_opaque_modules(setup.module)
    first: Tensor | None = None
    if needs_layer_search(setup) and not closed and not find_quantised_modules(setup.module):
        outputs: list[Any] = []
        with providing_extras(setup, image, extras), suppress(Exception):  # raised again by the layer's choice
            findings.layer_infos[setup.size_key(image)] = probe_network(setup, image, outputs)
            first = read_scores(outputs[0], len(image))

    is_single = setup.group or (extras is not None and count_images(extras) < len(image) + 1)
    other = None if is_single else noise_like(image, seed=1)
    with setup.runner.ready():
        pair = None if other is None else torch.cat([image, other])
        trial = try_scores_on_noise(setup.module, run, image, pair, first)
    findings.scores_tried = True
    asked = setup.network is not None and setup.network.activation_asked
    if trial.gives_probabilities and not asked and setup.activation in ("softmax", "sigmoid"):
        setup.activation = "probabilities"
        if setup.network is not None:
            setup.network = replace(setup.network, activation="probabilities")
        score = make_score(*setup.score_args, setup.network, setup.activation)
        setup.output_spec = replace(setup.output_spec, score=score)
    elif setup.activation == "probabilities" and not trial.in_unit_range:
        raise RequestError(
            "the model's outputs are declared as probabilities, and on noise some lie outside of 0 to 1",
            probabilities.ACTIVATION_HINT,
        )
    if trial.change_in_batch or trial.batch_error:
        setup.one_by_one, setup.runner.batch_size = True, 1
    for words in trial.list_notes(setup.activation, asked):
        setup.add_note(words)


def try_boxes(setup: Setup, findings: Findings, predictions: Predictions, image: Tensor) -> None:
    """Find out, once, whether a detector finds the same boxes in the same image again."""
    before = get_boxes(predictions)
    if findings.scores_tried or before is None or not before.isfinite().all():
        return

    def run(_boxes: Tensor) -> Tensor:
        output = setup.module(setup.runner.make_leaf(image).detach().clone())
        found = get_boxes(setup.read_predictions(output, len(image)))
        assert found is not None
        return found

    findings.scores_tried = True
    for words in try_boxes_on_noise(setup.module, run, before).list_notes(setup.activation, asked=True):
        setup.add_note(words)


def check_box_scores(setup: Setup, predictions: Predictions) -> None:
    """Find out whether a detector's boxes have logits, and check that they have the score that is explained.

    Raises:
        RequestError: they have a single score as returned, since their candidates are unknown; or an edge is
            explained, and the boxes have no gradient.
    """
    score = setup.output_spec.score
    if not isinstance(predictions, BoxPredictions):
        return
    setup.output_spec = replace(setup.output_spec, has_candidates=predictions.has_candidates)
    if score.of_box:
        _check_corners(predictions)
    elif score.name != "logit" and not predictions.has_candidates:
        raise RequestError(
            f"a box has a single score here, as the model returns it: there is no {score.name} of it",
            "leave --score out, or let the model return its candidates: docs/detection.md",
        )


def _check_corners(predictions: BoxPredictions) -> None:
    """Check that boxes are in the graph, if there is one.

    Raises:
        RequestError: only their scores are.
    """
    for one in predictions.detections:
        corners, scores = one.boxes, one.scores
        if one.candidates is not None:
            corners, scores = one.candidates.boxes, one.candidates.logits
        if scores.requires_grad and not corners.requires_grad:
            raise RequestError(
                "the model gives its boxes without a gradient, so an edge of a box cannot be explained",
                "leave --score out; a detector of your own can return boxes in the graph: docs/detection.md",
            )


def read_as_two_sided(setup: Setup, classes: int | None) -> bool:
    """Read one score for two classes as both of them; return whether the network has such a score."""
    if classes != 1 or setup.network is None or not is_two_sided(setup.network, setup.network.labels):
        return False
    setup.network = make_two_sided(setup.network, setup.network.labels)
    setup.output_spec, setup.activation = replace(setup.output_spec, two_sided=True), setup.network.activation
    setup.add_note(setup.network.notes[-1])
    return True


def check_labels(setup: Setup, classes: int | None) -> None:
    """Check that the number of labels is the number of scores.

    Raises:
        RequestError: it is not.
    """
    if classes is not None and setup.network and len(setup.network.labels) != classes:
        raise RequestError(
            f"the model returns {classes} scores, but {len(setup.network.labels)} classes are named",
            "give the names of all its classes: --labels FILE, one name a line",
        )
