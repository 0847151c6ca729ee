"""Gradients that reach the layers, and scores that depend on them."""

from __future__ import annotations

from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.layouts import survey_layers
from camcli.engine.forward import Plan
from camcli.engine.layers.nan import depends
from camcli.engine.layers.probe import Layer
from camcli.engine.layers.refusals import cut_off, no_gradient
from camcli.engine.setup import Setup
from camcli.engine.signals.evidence import Evidence


def check_gradient(setup: Setup, findings: Findings, evidence: Evidence, image: Tensor) -> None:
    """See that the score's gradient reaches the layers.

    Raises:
        LayerError: it does not.
    """
    if setup.wants & {"grad", "curve"}:
        reached = [name for name in setup.layers if evidence.get("grad", name).any()]
        # Where maps are summed up a layer may say nothing, as levels do that no box is read from.
        for name in () if reached and setup.fuse == "sum" else setup.layers:
            if name not in reached:
                _check_zero(setup, findings, name, image)


def check_behind(setup: Setup, plan: Plan, image: Tensor) -> None:
    """See that the score depends on the layers behind which the network is to run again.

    Raises:
        LayerError: it does not.
    """
    images = setup.witness.leaf(image).detach()
    for name in setup.layers if "rest" in setup.wants else ():
        here = Layer(name, "", layout=plan.layouts[name], part=setup.witness.places.get(name, 0))
        if not depends(setup.module, here, images, setup.read):
            raise cut_off(setup.module, survey_layers(setup, image), name, gradient=False)


def _check_zero(setup: Setup, findings: Findings, name: str, image: Tensor) -> None:
    """See whether a gradient that is zero on noise may be another on pictures, which decide then.

    Raises:
        LayerError: it is cut.
    """
    layers = survey_layers(setup, image)
    owner, _, part = name.partition(":")
    here = next(layer for layer in layers if layer.name == owner)
    images = setup.witness.leaf(image).detach()
    if part or not here.vanished or not depends(setup.module, here, images, setup.read):
        raise no_gradient(setup.module, layers, owner)
    findings.vanished.add(name)
    setup.note(
        f"on noise the score's gradient by the layer {name!r} is zero everywhere, though the score is made of it: "
        "by weights that are zero, a ReLU that is shut, or a sigmoid or softmax that is sure; each picture decides "
        "whether it has a map"
    )


def check_complete(setup: Setup, evidence: Evidence) -> None:
    """See that the score is the sum of what its biases and the input have in it.

    Raises:
        RequestError: it is not.
    """
    try:
        evidence.get("biases", "")
    except PictureError as error:
        named = " and ".join(recipe.row.name for recipe in setup.recipes if "biases" in recipe.wants)
        raise RequestError(f"{named} cannot be had of this network: {error.message}", error.hint) from None
