"""The scores: what they are, and whether the network says the same twice."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine import devices
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.images import feeding
from camcli.engine.checks.layer_choice import is_searched
from camcli.engine.checks.layouts import survey_layers
from camcli.engine.checks.trial import drawn, tried
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.hooks.state import quantised
from camcli.engine.layers.even_steps import EvenSteps
from camcli.engine.layers.probe import noise_like
from camcli.engine.network import tells_apart, two_sided
from camcli.engine.setup import Setup, score_of
from camcli.images.features import Features, count_of
from camcli.targets.readers import probabilities
from camcli.targets.readers.spec import of_boxes, table_of
from camcli.targets.target import Reading


def try_scores(setup: Setup, findings: Findings, image: Tensor, extras: Features | None) -> None:
    """Find out, once, what the scores are, and whether the network says the same twice and beside other images."""
    if findings.tried or setup.outlet.task == "detect":
        return

    def table(output: Any, images: int) -> Tensor:
        # What the model gives, and not what is made of one score for two classes.
        outlet, names = replace(setup.outlet, two_sided=False), setup.network.labels.names if setup.network else ()
        found = table_of(outlet.read(output, images, names, setup.activation))
        assert found is not None
        return found

    def run(images: Tensor) -> Tensor:
        with feeding(setup, images, extras), nullcontext() if closed else EvenSteps() as steps:
            # As the survey had it, which the network took.
            own = devices.copied_to(setup.module, images) if first is None else setup.witness.leaf(images).detach()
            output = setup.module(own)
        if steps is not None:
            findings.even[setup.key(images)] = steps.even
        return table(output, len(images))

    closed = closed_parts(setup.module)
    first: Tensor | None = None
    if is_searched(setup) and not closed and not quantised(setup.module):
        heard: list[Any] = []
        with feeding(setup, image, extras), suppress(Exception):  # said where the layer is chosen
            findings.surveyed[setup.key(image)] = survey_layers(setup, image, heard)
            first = table(heard[0], len(image))

    alone = setup.group or (extras is not None and count_of(extras) < len(image) + 1)
    other = None if alone else noise_like(image, seed=1)
    with setup.witness.ready():
        pair = None if other is None else torch.cat([image, other])
        trial = tried(setup.module, run, image, pair, first)
    findings.tried = True
    asked = setup.network is not None and setup.network.activation_asked
    if trial.probabilities and not asked and setup.activation in ("softmax", "sigmoid"):
        setup.activation = "probabilities"
        if setup.network is not None:
            setup.network = replace(setup.network, activation="probabilities")
        score = score_of(*setup.score, setup.network, setup.activation)
        setup.outlet = replace(setup.outlet, score=score)
    elif setup.activation == "probabilities" and not trial.within:
        raise RequestError(
            "the model's outputs are declared as probabilities, and on noise some lie outside of 0 to 1",
            probabilities.INSTEAD,
        )
    if trial.mixed or trial.single:
        setup.one_by_one, setup.witness.rows = True, 1
    for words in trial.notes(setup.activation, asked):
        setup.note(words)


def try_boxes(setup: Setup, findings: Findings, reading: Reading, image: Tensor) -> None:
    """Find out, once, whether a detector finds the same boxes in the same image."""
    before = of_boxes(reading)
    if findings.tried or before is None or not before.isfinite().all():
        return

    def run(_boxes: Tensor) -> Tensor:
        output = setup.module(setup.witness.leaf(image).detach().clone())
        found = of_boxes(setup.read(output, len(image)))
        assert found is not None
        return found

    findings.tried = True
    for words in drawn(setup.module, run, before).notes(setup.activation, asked=True):
        setup.note(words)


def turn_two_sided(setup: Setup, classes: int | None) -> bool:
    """Read one score for two classes as both of them; whether the network gives that."""
    if classes != 1 or setup.network is None or not tells_apart(setup.network, setup.network.labels):
        return False
    setup.network = two_sided(setup.network, setup.network.labels)
    setup.outlet, setup.activation = replace(setup.outlet, two_sided=True), setup.network.activation
    setup.note(setup.network.notes[-1])
    return True


def check_labels(setup: Setup, classes: int | None) -> None:
    """See that as many classes are named as the network has scores.

    Raises:
        RequestError: they are not.
    """
    if classes is not None and setup.network and len(setup.network.labels) != classes:
        raise RequestError(
            f"the model gives {classes} scores, but {len(setup.network.labels)} classes are named",
            "give the names of all its classes: --labels FILE, one name a line",
        )
