"""A network made faster, and copied to other devices."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine import devices
from camcli.engine.checks.dry_run import prepare
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.images import feeding
from camcli.engine.checks.layer_choice import choose_layer
from camcli.engine.checks.scores import try_scores
from camcli.engine.forward import ATTENTION, ROUNDED, SAME, alike
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.watch import listened
from camcli.engine.layers.probe import noise_like
from camcli.engine.setup import Setup
from camcli.engine.speed.compiling import Compilation, compiled
from camcli.engine.speed.folding import Pair, fold, pairs
from camcli.images.features import Features
from camcli.methods.rounding import rounding
from camcli.targets.readers.find import parts


def rearrange(setup: Setup, findings: Findings, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> int:
    """Make the network faster and its numbers the same to rounding: of no use to anyone else who holds it.

    Convolutions and the batch norms behind them are folded into one, but for those at or in a layer that is looked
    at, and not where a method wants every bias. On a CPU the weights of convolutions get the order in memory that
    their input will have.

    Args:
        setup: what is asked.
        findings: what is known so far; what is found out is added.
        image: noise to try it with.
        extras: features of these images, or of others, of which the first count.

    Returns:
        How many batch norms are left out from now on.

    Raises:
        RequestError: the layer cannot be chosen.
    """
    try_scores(setup, findings, image, extras)
    with feeding(setup, image, extras):
        choose_layer(setup, findings, image)
        with torch.inference_mode(False), torch.no_grad(), frozen(setup.module):
            return _fold(setup, findings, image)


def _fold(setup: Setup, findings: Findings, image: Tensor) -> int:
    """Settle the weights, and fold what can be; taken back if what is said moves by more than rounding."""
    norms = any(isinstance(one, nn.BatchNorm2d) for one in setup.module.modules())
    folds = norms and "biases" not in setup.wants
    said: list[Any] = []
    found: list[Pair] = []

    def run() -> None:
        said[:] = [setup.module(setup.witness.leaf(image))]

    def look() -> None:
        if folds:
            found[:] = pairs(setup.module, run)
        else:
            run()

    setup.witness.settle(look, always=folds)
    found = [one for one in found if not any(map(one.touches, setup.layers))]
    if not found:
        return 0
    [before] = said
    unfold = fold(setup.module, found)
    with setup.witness.tapping(setup.layers) as taps:
        run()
    findings.taps[setup.key(image)] = taps
    if not _same(before, *said):
        unfold()
        return 0
    return len(found)


def compile_prefix(
    setup: Setup, findings: Findings, images: Float[Tensor, "n d h w"], least: float = 0.0
) -> Compilation:
    """Compile the part of the network that no gradient passes, for batches of this size, where that is faster.

    Of no use to anyone else who holds the network.

    Args:
        setup: what is asked.
        findings: what is known so far; what is found out is added.
        images: noise, as many as a batch will have.
        least: seconds that a forward of them must take, or nothing is compiled.

    Raises:
        RequestError: no map can be made.
    """
    if why := _why_not_compiled(setup):
        return Compilation(reason=why)
    plan = prepare(setup, findings, noise_like(images, count=1)).plan
    first, turn = next(iter(plan.runs.items()))
    given = setup.witness.leaf(images)

    def run() -> Tensor:
        # No inference tensors: a compiled part would be compiled once more for tensors that are none.
        reading = setup.witness.read(setup.module(given.clone()), len(given))
        return torch.stack([reading.scores(row) for row in range(len(given))])

    with torch.inference_mode(False), frozen(setup.module):
        return compiled(setup.module, first, turn, run, least)


def _why_not_compiled(setup: Setup) -> str:
    """Why nothing of the network can be compiled; empty if something can."""
    wants = setup.wants
    if not setup.at_layer:
        return "no layer is looked at, so no part of the network lies before it"
    if setup.witness.from_input or wants & {"slopes"}:
        return "a method takes the gradient by the images, so it passes every part of the network"
    if wants & ATTENTION:
        return "a method follows attention through every operation"
    if setup.recompute:
        return "parts of the network are computed again on the way back"
    if setup.group:
        return "groups may be of several sizes"
    return "a detector's boxes are no scores to compare" if setup.outlet.task == "detect" else ""


def copy_to(
    setup: Setup,
    findings: Findings,
    device: torch.device,
    image: Float[Tensor, "n d h w"],
    extras: Features | None = None,
) -> tuple[Setup, Findings]:
    """Copy the network to a device; gives what is asked of the copy, and what was found out about it anew.

    Args:
        setup: what is asked.
        findings: what is known so far.
        device: where the copy is.
        image: noise to try it with.
        extras: features of these images, or of others, of which the first count.

    Raises:
        RequestError: the copy runs modules of the network that it was made of, or says something else than it; or
            no map can be made with it.
        Exception: whatever a network says that cannot be copied, or has no place on the device.
    """
    # What stands for these is left out of the copy.
    memo = {id(findings.plans): {}, id(findings.passes): {}, **devices.moved(setup.module, device)}
    other, anew = deepcopy((setup, findings), memo)
    anew.checked = None
    other.module.to(device)
    ran: list[str] = []
    with listened(setup.module, lambda name, _output: ran.append(name)):
        prepare(other, anew, image, extras)
    if ran:
        raise RequestError(f"copied, the network still runs modules of the one that it was copied from: {ran[0]!r}")
    # Of another image than that of the check, since the copy may remember what was said of that.
    own, again, copied = (_outputs(one, image.flip(3), extras) for one in (setup, setup, other))
    if _same(own, again) and not _same(own, copied):
        raise RequestError(
            "copied, the network gives another output: what it remembers of an image is not copied with it, such as "
            "by a hook that is a function within a function"
        )
    return other, anew


def _outputs(setup: Setup, images: Tensor, extras: Features | None) -> Any:
    """What the network returns for images."""
    with feeding(setup, images, extras), torch.inference_mode(False), torch.no_grad(), frozen(setup.module):
        return setup.module(setup.witness.leaf(images))


def _same(one: Any, other: Any) -> bool:
    """Whether two answers of a network to the same images differ by rounding alone."""
    pairs = zip(parts(one), parts(other), strict=False)
    return all(_alike(first.tensor, second.tensor) for first, second in pairs)


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return alike(one.cpu(), other.cpu(), max(SAME, ROUNDED * rounding(one)))
