"""Check that gradients reach the layers and that the scores depend on them."""

from __future__ import annotations

from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.layouts import probe_network
from camcli.engine.forward import Plan
from camcli.engine.layers.nan import score_depends_on
from camcli.engine.layers.probe import LayerInfo
from camcli.engine.layers.refusals import cut_off_error, no_gradient_error
from camcli.engine.setup import Setup
from camcli.engine.signals.lookup import Signals


def check_gradient(setup: Setup, findings: Findings, signals: Signals, image: Tensor) -> None:
    """Check that the score's gradient reaches the layers.

    Raises:
        LayerError: it does not.
    """
    if setup.signal_names & {"grad", "hvp"}:
        reached = [name for name in setup.layers if signals.get("grad", name).any()]
        # In a sum of maps a layer may be zero, as a pyramid level is that no box comes from.
        for name in () if reached and setup.fuse == "sum" else setup.layers:
            if name not in reached:
                _check_zero_gradient(setup, findings, name, image)


def check_score_depends(setup: Setup, plan: Plan, image: Tensor) -> None:
    """Check that the score depends on the layers whose following part is rerun.

    Raises:
        LayerError: it does not.
    """
    images = setup.runner.make_leaf(image).detach()
    for name in setup.layers if "score_from_layer" in setup.signal_names else ():
        here = LayerInfo(name, "", layout=plan.layouts[name], tensor_index=setup.runner.tensor_indices.get(name, 0))
        if not score_depends_on(setup.module, here, images, setup.read_predictions):
            raise cut_off_error(setup.module, probe_network(setup, image), name, gradient=False)


def _check_zero_gradient(setup: Setup, findings: Findings, name: str, image: Tensor) -> None:
    """Check whether a gradient that is zero on noise may be non-zero on images; if so, add a note.

    Raises:
        LayerError: the gradient is cut off.
    """
    layers = probe_network(setup, image)
    owner, _, part = name.partition(":")
    here = next(layer for layer in layers if layer.name == owner)
    images = setup.runner.make_leaf(image).detach()
    if part or not here.vanished or not score_depends_on(setup.module, here, images, setup.read_predictions):
        raise no_gradient_error(setup.module, layers, owner)
    findings.vanished_layers.add(name)
    setup.add_note(
        f"on noise, the gradient of the score at the layer {name!r} is zero everywhere, though the score depends on "
        "it: weights of zero, inactive ReLUs, or a saturated sigmoid or softmax; images may still have maps"
    )


def check_completeness(setup: Setup, signals: Signals) -> None:
    """Check that the score is the sum of the contributions of biases and input.

    Raises:
        RequestError: it is not.
    """
    try:
        signals.get("biases", "")
    except PictureError as error:
        named = " and ".join(method.row.name for method in setup.bound_methods if "biases" in method.signal_names)
        raise RequestError(f"{named} cannot be computed for this network: {error.message}", error.hint) from None
