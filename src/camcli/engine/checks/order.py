"""Check that each row of a layer's output belongs to the image in that place of the group."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from camcli.base.errors import RequestError
from camcli.engine.forward import COPY_TOLERANCE_EPS, Forward, Plan
from camcli.engine.hooks.tensors import at_least_float32
from camcli.engine.layers.layout import to_nchw
from camcli.engine.layers.probe import noise_like
from camcli.engine.setup import Setup
from camcli.methods.rounding import reduced_precision_eps

# Least relative change of a layer's output for an image that is replaced.
ORDER_TOLERANCE = 1e-4


def check_order(setup: Setup, plan: Plan, images: Tensor) -> None:
    """Check that each row of the layers' output belongs to the image in that place of the group.

    One run per bit replaces the images whose number has that bit, so that the runs that change a row identify its
    image.
    """
    count = len(images)
    others = noise_like(images, seed=1)
    numbers = torch.arange(1, count + 1, device="cpu")
    before = _flatten_outputs(setup.runner.run(images, plan=plan), plan)
    codes_by_name = {name: torch.zeros(count, dtype=torch.long, device="cpu") for name in before}
    least = max(ORDER_TOLERANCE, COPY_TOLERANCE_EPS * reduced_precision_eps(setup.device))
    for bit in range(count.bit_length()):
        replaced = (numbers >> bit) & 1 == 1
        mixed = torch.where(replaced.to(images.device)[:, None, None, None], others, images)
        for name, rows in _flatten_outputs(setup.runner.run(mixed, plan=plan), plan).items():
            was, change = vector_norm(before[name], dim=1), vector_norm(rows - before[name], dim=1)
            # A row that is zero in both runs does not tell where it comes from.
            changed = (change > least * was).cpu() | (((was == 0) & (change == 0)).cpu() & replaced)
            codes_by_name[name] += changed.long() << bit
    for name, codes in codes_by_name.items():
        where = f"the layer {name!r}" if name in setup.layers else name
        if bool((codes & numbers != numbers).any()):
            row = int((codes != numbers).nonzero()[0])
            of = f"is of image {int(codes[row])}" if 1 <= int(codes[row]) <= count else "is not of that image"
            raise RequestError(
                f"the images of a group are in another order at {where}: row {row + 1} of {count} {of}",
                "keep their order up to there: reshape without transposing",
            )
        if bool((codes != numbers).any()):
            setup.add_note(
                f"the images of a group are mixed before {where}: its output for one depends on the others, and so do "
                "the maps"
            )


def _flatten_outputs(forward: Forward, plan: Plan) -> dict[str, Tensor]:
    """Return the output of each layer and the weights of each attention, flattened by image to ``(n, ...)``."""
    count = len(forward.images)
    found = {name: to_nchw(forward.activations[name].detach(), plan.layouts[name]) for name in forward.activations}
    attentions = forward.attention_capture.attentions if forward.attention_capture is not None else []
    found |= {f"attention {turn}": one.weights for turn, one in enumerate(attentions, start=1)}
    return {name: at_least_float32(tensor).reshape(count, -1) for name, tensor in found.items()}
