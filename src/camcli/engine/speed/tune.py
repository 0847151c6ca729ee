"""Optimisation of a network's speed, and copies of it on other devices."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy as shallow_copy
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine import devices
from camcli.engine.checks.dry_run import prepare
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.images import providing_extras
from camcli.engine.checks.layer_choice import choose_layer
from camcli.engine.checks.scores import try_scores
from camcli.engine.forward import COPY_TOLERANCE_EPS
from camcli.engine.hooks.capture import Activations
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import REPLAY_TOLERANCE, are_close
from camcli.engine.hooks.watch import watch_outputs
from camcli.engine.layers.probe import noise_like
from camcli.engine.needs import NEEDS_ATTENTION
from camcli.engine.setup import Setup
from camcli.engine.speed.compiling import CompileReport, compile_modules
from camcli.engine.speed.convolutions import find_same_convolutions, pad_inside
from camcli.engine.speed.folding import ConvNormPair, find_conv_bn_pairs, fold_batch_norms
from camcli.images.features import Features
from camcli.methods.rounding import unit_roundoff
from camcli.targets.readers.find import named_tensors

if TYPE_CHECKING:
    from camcli.engine.explainer import Explainer


def optimize_weights(explainer: Explainer, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> int:
    """Optimise the network's weights in place for speed, with the same output up to rounding.

    Batch norms are folded into the convolutions before them, except where an explained layer's output would be another
    one. On a CPU the weights of convolutions get the memory format of their input, and timm's "same" convolutions pad
    it without a copy. Where a method needs every bias, only the memory format changes.

    Args:
        explainer: the explainer of the network.
        image: noise to try the network on.
        extras: features of these images, or of others, of which the first are used.

    Returns:
        The number of folded batch norms.

    Raises:
        RequestError: the layer cannot be chosen.
    """
    setup, findings = explainer.setup, explainer.findings
    try_scores(setup, findings, image, extras)
    with providing_extras(setup, image, extras):
        choose_layer(setup, findings, image)
        with torch.inference_mode(False), torch.no_grad(), frozen(setup.module):
            return _fold_and_check(setup, findings, image)


def _fold_and_check(setup: Setup, findings: Findings, image: Tensor) -> int:
    """Settle the weights' memory format, fold the pairs and pad inside; return the number of folded pairs.

    What changes the output by more than rounding is undone.
    """
    found: list[tuple[Any, Activations]] = []  # the last output of the network, and those of the layers

    def run() -> None:
        # A layer's output is captured also while pairs are found, so that it counts as used.
        with setup.runner.capturing(setup.layers) as activations:
            found[:] = [(setup.module(setup.runner.make_leaf(image)), activations)]

    def change(undo: Callable[[], None]) -> bool:
        """Keep a change of the network, which has been made, unless it changes the output by more than rounding."""
        [kept] = found
        run()
        [(after, activations)] = found
        if not _have_same_tensors(kept[0], after):
            undo()
            found[:] = [kept]
            return False
        findings.activations[setup.size_key(image)] = activations
        return True

    pairs: list[ConvNormPair] = []
    # A method that needs every bias needs the layers as they are.
    may_change = "biases" not in setup.signal_names
    folds = may_change and any(isinstance(one, nn.BatchNorm2d) for one in setup.module.modules())
    same = find_same_convolutions(setup.module) if may_change and setup.device.type == "cpu" else []

    def find_pairs() -> None:
        if folds:
            pairs[:] = find_conv_bn_pairs(setup.module, run)
        else:
            run()

    setup.runner.settle_memory_format(find_pairs, always=folds or bool(same))
    pairs = [one for one in pairs if not any(map(one.touches, setup.layers))]
    if pairs and not change(fold_batch_norms(setup.module, pairs)):
        pairs = []
    if same:
        change(pad_inside(same))
    return len(pairs)


def compile_prefix(explainer: Explainer, images: Float[Tensor, "n d h w"], min_seconds: float = 0.0) -> CompileReport:
    """Compile the part of the network that no gradient passes, in place, for batches of this size, if that is faster.

    Args:
        explainer: the explainer of the network.
        images: noise of the batch size to compile for.
        min_seconds: nothing is compiled if a forward of the batch takes less.

    Raises:
        RequestError: no map can be made.
    """
    setup = explainer.setup
    if why := _why_not_compiled(setup):
        return CompileReport(reason=why)
    plan = prepare(setup, explainer.findings, noise_like(images, count=1)).plan
    first, turn = next(iter(plan.calls.items()))
    given = setup.runner.make_leaf(images)

    def run() -> Tensor:
        # No inference tensors, since a part compiled for them would be compiled again for ordinary ones.
        predictions = setup.runner.read_predictions(setup.module(given.clone()), len(given))
        return torch.stack([predictions.scores(row) for row in range(len(given))])

    with torch.inference_mode(False), frozen(setup.module):
        return compile_modules(setup.module, first, turn, run, min_seconds)


def _why_not_compiled(setup: Setup) -> str:
    """Return the reason why no part of the network can be compiled; empty if one can."""
    signal_names = setup.signal_names
    if not setup.uses_layer:
        return "no layer is explained, so no part of the network lies before it"
    if setup.runner.starts_at_input or signal_names & {"score_and_grad"}:
        return "a method needs the gradient with respect to the input, which passes every part of the network"
    if signal_names & NEEDS_ATTENTION:
        return "a method follows attention through every operation"
    if setup.recompute:
        return "parts of the network are recomputed in the backward pass"
    if setup.group:
        return "groups may differ in size"
    return "a detector's boxes cannot be compared like scores" if setup.output_spec.task == "detect" else ""


def copy_to(
    explainer: Explainer, device: torch.device, image: Float[Tensor, "n d h w"], extras: Features | None = None
) -> Explainer:
    """Copy an explainer with its network to a device; the two may work at the same time.

    Args:
        explainer: the explainer to copy.
        device: the device of the copy.
        image: noise to try the copy on.
        extras: features of these images, or of others, of which the first are used.

    Raises:
        RequestError: the copy runs modules of the original network, or gives another output; or no map can be made.
        Exception: any error of a network that cannot be copied, or does not fit on the device.
    """
    setup, findings = explainer.setup, explainer.findings
    # These caches are left out of the copy.
    memo = {id(findings.plans): {}, id(findings.augmentations): {}, **devices.copy_tensors_to(setup.module, device)}
    other, anew = deepcopy((setup, findings), memo)
    anew.last_key = None
    other.module.to(device)
    ran: list[str] = []
    with watch_outputs(setup.module, lambda name, _output: ran.append(name)):
        prepare(other, anew, image, extras)
    if ran:
        raise RequestError(f"the copied network still runs modules of the original: {ran[0]!r}")
    # Compared on another image than that of the check, whose output the copy may have stored.
    first, second, copied = (_run_network(one, image.flip(3), extras) for one in (setup, setup, other))
    if _have_same_tensors(first, second) and not _have_same_tensors(first, copied):
        raise RequestError(
            "the copied network gives a different output: state that it keeps of an image is not copied, such as in "
            "the closure of a hook"
        )
    copy = shallow_copy(explainer)
    copy.setup, copy.findings = other, anew
    return copy


def _run_network(setup: Setup, images: Tensor, extras: Features | None) -> Any:
    """Run the network, and return its output."""
    with providing_extras(setup, images, extras), torch.inference_mode(False), torch.no_grad(), frozen(setup.module):
        return setup.module(setup.runner.make_leaf(images))


def _have_same_tensors(one: Any, other: Any) -> bool:
    """Return whether two outputs of a network for the same images differ by rounding only."""
    pairs = zip(named_tensors(one), named_tensors(other), strict=False)
    return all(_are_close(first.tensor, second.tensor) for first, second in pairs)


def _are_close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return are_close(one.cpu(), other.cpu(), max(REPLAY_TOLERANCE, COPY_TOLERANCE_EPS * unit_roundoff(one)))
