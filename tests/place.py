"""The law of place: what changes in one part of the input changes a layer most in the same part of its grid.

It catches a grid that is read transposed, mirrored, shifted or wrongly reshaped, whatever the weights are. What counts
is which quadrant a cell listens to most, compared with the other cells, since a squeeze-and-excitation or a global
attention spreads some of every change evenly over all of them. The change is small enough to be linear.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camcli.capture import frozen, tapped
from camcli.layout import Layout, canonical

STEP = 0.03
# A change of less than this part of the activation is rounding in float32.
ROUNDING = 1e-4


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
        heard = self.shares.argmax(0)
        # The borders show a grid that is shifted by a cell, whose rows then begin with the end of the row before.
        halves = {
            "left": (heard[:, 0], (0, 2)),
            "right": (heard[:, -1], (1, 3)),
            "top": (heard[0], (0, 1)),
            "bottom": (heard[-1], (2, 3)),
        }
        for name, (border, own) in halves.items():
            right = torch.isin(border, torch.tensor(own)).float().mean().item()
            if right < 0.7:
                return f"of the {name} border's cells only {right:.0%} hear that side of the input most"
        return ""


def place(module: nn.Module, layer: str, layout: Layout, size: tuple[int, int], copies: int = 1) -> Place:
    """Change each quadrant of the input, and see where the layer changes.

    Args:
        module: its precision may grow to float64.
        layer: its name.
        layout: how its output is read.
        size: of the input.
        copies: images of noise; more of them even out what is random.
    """
    kind = next(module.parameters()).dtype
    images = _noise((copies, 3, *size), 1).to(kind)
    change = _noise((copies, 3, *size), 2).to(kind) * STEP
    said, answers = _answers(module, layer, layout, images, change)
    if answers.max() < ROUNDING * said and kind == torch.float32:
        module.double()
        _, answers = _answers(module, layer, layout, images.double(), change.double())
    shares = answers / answers.sum(0, keepdim=True)
    return Place(shares / shares.mean((1, 2), keepdim=True))


def _answers(module: nn.Module, layer: str, layout: Layout, images: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """The size of what the layer says, and how much each cell changes with each quadrant, ``(4, h, w)``."""
    size = (images.shape[2], images.shape[3])
    with torch.no_grad(), frozen(module), tapped({layer: module.get_submodule(layer)}) as taps:

        def say(batch: Tensor) -> Tensor:
            module(batch)
            return canonical(taps[layer].detach(), layout).double()

        still = say(images)
        answers = []
        for quadrant in range(4):
            moved = images.clone()
            part = (..., *_part(size, quadrant))
            moved[part] += change[part]
            answers.append((say(moved) - still).square().sum((0, 1)).sqrt())
    return still.square().mean().sqrt(), torch.stack(answers)


def _part(shape: tuple[int, ...], quadrant: int) -> tuple[slice, slice]:
    """The rows and columns of a quadrant; of an odd number the middle one belongs to none."""
    height, width = shape
    rows = slice(0, height // 2) if quadrant < 2 else slice(height - height // 2, height)
    columns = slice(0, width // 2) if quadrant % 2 == 0 else slice(width - width // 2, width)
    return rows, columns


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
