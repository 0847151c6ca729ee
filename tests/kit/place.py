"""The law of place: what changes in one part of the input changes a layer most in the same part of its grid.

It catches a grid that is read transposed, mirrored, shifted or wrongly reshaped. It holds for untrained networks too
if two things are seen to: batch norms get the statistics of what they are given, or signals die or explode on their
way; and the change is so small that the answer is linear, which needs double precision. What counts is from which
quadrant a cell hears more than other cells do, since squeeze-and-excitation or global attention spread some of every
change over all of them.
"""

from dataclasses import dataclass

import torch
from networks import calibrated
from torch import Tensor, nn

from camcli.engine.hooks.capture import capture_activations, find_layer
from camcli.engine.hooks.state import frozen
from camcli.engine.layers.layout import Layout, to_nchw

STEP = 1e-3
# Images of noise: what an untrained network does to a change is partly chance, which more of them even out.
COPIES = (1, 4, 16)
CALIBRATION = 4


@dataclass(frozen=True)
class Place:
    """How a layer answers changes of the four quadrants (upper left, upper right, lower left, lower right).

    Attributes:
        shares: ``(4, h, w)``: which part of each cell's change comes from each quadrant, in units of its mean.
    """

    shares: Tensor

    def broken(self) -> str:
        """What breaks the law, or nothing."""
        shape = tuple(self.shares.shape[1:])
        if not self.shares.isfinite().all():
            return "some cells answer no change at all"
        for quadrant in range(4):
            means = [self.shares[quadrant][_part(shape, other)].mean().item() for other in range(4)]
            if max(range(4), key=lambda other: means[other]) != quadrant:
                return f"quadrant {quadrant} is heard most in another: {means}"
        # The borders show a grid that is shifted by a cell, whose rows then begin with the end of the row before.
        left, right, top, bottom = (0, 2), (1, 3), (0, 1), (2, 3)
        borders = {
            "left": (self.shares[:, :, 0], left, right),
            "right": (self.shares[:, :, -1], right, left),
            "top": (self.shares[:, 0], top, bottom),
            "bottom": (self.shares[:, -1], bottom, top),
        }
        for name, (border, near, far) in borders.items():
            if border[list(near)].mean() <= border[list(far)].mean():
                return f"the {name} border hears the other side of the input more than its own"
        return ""


def broken_law(module: nn.Module, layer: str, layout: Layout, size: tuple[int, int]) -> str:
    """What breaks the law, or nothing; what one image leaves in doubt is asked of more."""
    broken = ""
    for copies in COPIES:
        broken = place(module, layer, layout, size, copies).broken()
        if not broken:
            break
    return broken


def place(module: nn.Module, layer: str, layout: Layout, size: tuple[int, int], copies: int) -> Place:
    """Change each quadrant of the input, and see where the layer changes.

    Args:
        module: is left in double precision, its batch norms with other statistics.
        layer: its name.
        layout: how its output is read.
        size: of the input.
        copies: images that are changed.
    """
    module.double()
    shape = (copies, 3, *size)
    calibrated(module, _noise((CALIBRATION, 3, *size), 3))
    images, change = _noise(shape, 1), _noise(shape, 2) * STEP
    part, tensor = find_layer(module, layer)
    captured = capture_activations({layer: part}, tensor_names={layer: tensor})
    with torch.no_grad(), frozen(module), captured as activations:

        def say(batch: Tensor) -> Tensor:
            module(batch)
            return to_nchw(activations[layer].detach(), layout)

        still = say(images)
        answers = []
        for quadrant in range(4):
            moved = images.clone()
            where = (..., *_part(size, quadrant))
            moved[where] += change[where]
            answers.append((say(moved) - still).abs())
    heard = torch.stack(answers)
    # Each number of each copy counts alike: by size, one that has nearly died and is divided by itself would drown all.
    shares = (heard / heard.sum(0)).nanmean((1, 2))
    return Place(shares / shares.mean((1, 2), keepdim=True))


def _part(shape: tuple[int, ...], quadrant: int) -> tuple[slice, slice]:
    """The rows and columns of a quadrant; of an odd number the middle one belongs to none."""
    height, width = shape
    rows = slice(0, height // 2) if quadrant < 2 else slice(height - height // 2, height)
    columns = slice(0, width // 2) if quadrant % 2 == 0 else slice(width - width // 2, width)
    return rows, columns


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
