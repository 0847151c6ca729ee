"""Positions that follow the size of what a network is given; after each forward every module is what it was before."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camcli.engine.hooks.state import as_before

# Makes a module, in place, what it must be for input of this height and width; ValueError if that cannot be.
Change = Callable[[Any, tuple[int, int]], None]


class Following:
    """A module's forward that first makes the module what it must be for the size of its input.

    Args:
        own: the height and width that the module is made for, for which nothing is changed.
        change: what is done for others; it is undone when the forward ends, also by an error.
        words: what that does to the positions, for people; empty if nothing.

    Attributes:
        changed: whether anything had to be changed so far.
    """

    def __init__(self, own: tuple[int, int], change: Change, words: str) -> None:
        self._own, self._change, self.words = own, change, words
        self.changed = False

    def __call__(self, module: nn.Module, given: Float[Tensor, "n c h w"], *more: Any, **named: Any) -> Any:
        """What the module's class makes of its input."""
        forward: Callable[..., Any] = type(module).forward
        size = (given.shape[-2], given.shape[-1])
        if size == self._own:
            return forward(module, given, *more, **named)
        with as_before(module):
            with torch.no_grad():
                self._change(module, size)
            self.changed = True
            return forward(module, given, *more, **named)


def follow(module: nn.Module, own: tuple[int, int], change: Change, words: str) -> None:
    """Have a module follow the size of its input from now on, wherever it is called."""
    # A bound method, since a copy of the module has its own then.
    vars(module)["forward"] = MethodType(Following(own, change, words), module)


def told(model: nn.Module) -> list[str]:
    """What is to be said of positions that had to be changed in any forward so far."""
    methods = (vars(part).get("forward") for part in model.modules())
    followers = (getattr(method, "__func__", None) for method in methods)
    words = (one.words for one in followers if isinstance(one, Following) and one.changed)
    return list(dict.fromkeys(filter(None, words)))


def interpolated(
    table: Float[Tensor, "t c"], before: tuple[int, int], after: tuple[int, int], prefix: int
) -> Float[Tensor, "t2 c"]:
    """Positions of the cells of one grid for those of another: bicubic, antialiased; those in front are kept.

    Args:
        table: a row for each token: ``prefix`` that are no cells, then the cells row by row.
        before: rows and columns of the table.
        after: rows and columns wanted.
        prefix: how many tokens in front are no cells.
    """
    cells = table[prefix:].reshape(1, *before, -1).permute(0, 3, 1, 2)
    # Half precision is too narrow for it, and not known to it everywhere.
    wide = cells if cells.dtype in (torch.float32, torch.float64) else cells.float()
    resized = F.interpolate(wide, after, mode="bicubic", antialias=True, align_corners=False).to(table.dtype)
    return torch.cat([table[:prefix], resized.permute(0, 2, 3, 1).reshape(after[0] * after[1], -1)])
