"""The order of a group: each row of a layer is of the picture in that place."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.forward import ROUNDED, Forward, Plan
from camcli.engine.hooks.tensors import wide
from camcli.engine.layers.layout import canonical
from camcli.engine.layers.probe import noise_like
from camcli.engine.setup import Setup
from camcli.methods.rounding import coarse

# Of what a layer says of a picture, how much has to change where the picture is another one.
MOVED = 1e-4


def check_order(setup: Setup, plan: Plan, images: Tensor) -> None:
    """See that each row of the layers is of the picture in that place of the group.

    Pictures are changed in turns such that each has turns of its own, as the bits of its number say.
    """
    count = len(images)
    others = noise_like(images, seed=1)
    numbers = torch.arange(1, count + 1, device="cpu")
    before = _rows_of(setup.witness.forward(images, plan=plan), plan)
    seen = {name: torch.zeros(count, dtype=torch.long, device="cpu") for name in before}
    least = max(MOVED, ROUNDED * coarse(setup.device))
    for bit in range(count.bit_length()):
        turned = (numbers >> bit) & 1 == 1
        mixed = torch.where(turned.to(images.device)[:, None, None, None], others, images)
        for name, rows in _rows_of(setup.witness.forward(mixed, plan=plan), plan).items():
            was, change = before[name].norm(dim=1), (rows - before[name]).norm(dim=1)
            # What is silent either way says nothing of where it comes from.
            moved = (change > least * was).cpu() | (((was == 0) & (change == 0)).cpu() & turned)
            seen[name] += moved.long() << bit
    for name, codes in seen.items():
        where = f"the layer {name!r}" if name in setup.layers else name
        if bool((codes & numbers != numbers).any()):
            row = int((codes != numbers).nonzero()[0])
            of = f"is of picture {int(codes[row])}" if 1 <= int(codes[row]) <= count else "is not of that picture"
            raise RequestError(
                f"the pictures of a group are in another order at {where}: row {row + 1} of {count} {of}",
                "keep their order on the way there: reshape without transposing",
            )
        if bool((codes != numbers).any()):
            setup.note(
                f"the images of a group meet before {where}: its output for one depends on the others, and so "
                "do the maps"
            )


def _rows_of(forward: Forward, plan: Plan) -> dict[str, Tensor]:
    """What each layer and each attention says of each image, ``(n, ...)`` in one piece."""
    count = len(forward.image)
    found = {name: canonical(forward.taps[name].detach(), plan.layouts[name]) for name in forward.taps}
    seen = forward.attending.seen if forward.attending is not None else []
    found |= {f"attention {turn}": one.weights for turn, one in enumerate(seen, start=1)}
    return {name: wide(tensor).reshape(count, -1) for name, tensor in found.items()}
