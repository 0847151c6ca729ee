"""Position embeddings resized to the input of each forward; afterwards every module is restored."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camcli.engine.hooks.patch import replace_forward
from camcli.engine.hooks.state import preserved

# Adapts a module in place to input of this height and width; raises ValueError if that is impossible.
ResizeModule = Callable[[Any, tuple[int, int]], None]


class ResizingForward:
    """A module's forward that first adapts the module to the size of its input.

    Args:
        native_size: the height and width that the module is made for; there nothing is changed.
        resize: adapts the module to other sizes; undone when the forward ends, also by an error.
        note: a note for users on what resizing does to the positions; empty if nothing.

    Attributes:
        changed: True once an input of another size has come.
    """

    def __init__(self, native_size: tuple[int, int], resize: ResizeModule, note: str) -> None:
        self._native_size, self._resize, self.note = native_size, resize, note
        self.changed = False

    def __call__(self, module: nn.Module, given: Float[Tensor, "n c h w"], *more: Any, **named: Any) -> Any:
        """Run the forward of the module's class, adapted to the input's size."""
        forward: Callable[..., Any] = type(module).forward
        size = (given.shape[-2], given.shape[-1])
        if size == self._native_size:
            return forward(module, given, *more, **named)
        with preserved(module):
            with torch.no_grad():
                self._resize(module, size)
            self.changed = True
            return forward(module, given, *more, **named)


def adapt_to_input_size(module: nn.Module, native_size: tuple[int, int], resize: ResizeModule, note: str) -> None:
    """Make a module adapt itself to the size of its input in every forward from now on."""
    # A bound method, since deepcopy rebinds it to the copy of the module.
    replace_forward(module, MethodType(ResizingForward(native_size, resize, note), module))


def notes(model: nn.Module) -> list[str]:
    """Return the notes on positions that have been resized in any forward so far."""
    methods = (vars(part).get("forward") for part in model.modules())
    followers = (getattr(method, "__func__", None) for method in methods)
    words = (one.note for one in followers if isinstance(one, ResizingForward) and one.changed)
    return list(dict.fromkeys(filter(None, words)))


def resample_positions(
    table: Float[Tensor, "t c"], before: tuple[int, int], after: tuple[int, int], prefix: int
) -> Float[Tensor, "t2 c"]:
    """Resample position embeddings to another grid (bicubic, antialiased); those of prefix tokens are kept.

    Args:
        table: one row per token: ``prefix`` tokens, then the cells of the grid row by row.
        before: rows and columns of the table's grid.
        after: rows and columns wanted.
        prefix: the number of prefix tokens.
    """
    cells = table[prefix:].reshape(1, *before, -1).permute(0, 3, 1, 2)
    # Half precision is too coarse for this, and interpolate does not support it everywhere.
    wide = cells if cells.dtype in (torch.float32, torch.float64) else cells.float()
    resized = F.interpolate(wide, after, mode="bicubic", antialias=True, align_corners=False).to(table.dtype)
    return torch.cat([table[:prefix], resized.permute(0, 2, 3, 1).reshape(after[0] * after[1], -1)])
