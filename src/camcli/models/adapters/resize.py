"""Models at another input size than their own: tried before they are trusted."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence

import torch
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.devices import like

SAME_COUNT = "it would have as many patches as before in another grid, and its positions are not interpolated"


def resized(
    module: nn.Module,
    own: tuple[int, int],
    size: tuple[int, int],
    name: str,
    ways: Sequence[Callable[[], nn.Module]] = (),
    channels: int = 3,
) -> nn.Module:
    """The module for input of this size, by the first of several ways that survives a forward of one picture.

    Args:
        module: as it is for its own size.
        own: the height and width that it is made for.
        size: height and width wanted.
        name: what the model is called in messages.
        ways: each gives the module for that size, with the same weights; none: as it is.
        channels: of its input.

    Raises:
        RequestError: no way works, with the first one's reason.
    """
    reasons = []
    # What is built anew draws random weights that are not kept; those of the seed go on as if it had not.
    with torch.random.fork_rng(devices=[]):
        for way in ways or [lambda: module]:
            try:
                made = way().eval()
                _try(made, size, channels)
                if made is module and size != own:
                    _check_not_tied(made, own, size, channels)
            except Exception as error:  # whatever a model says of a size that it was not made for
                reasons.append(_said(error))
            else:
                return made
    raise RequestError(
        f"{name} does not take pictures of {size[0]}x{size[1]}: {reasons[0]}",
        "try another size, in multiples of its patches or strides; or leave --size out",
    )


def transplanted(state: dict[str, torch.Tensor], into: nn.Module) -> nn.Module:
    """The module with these weights, all of them.

    Raises:
        ValueError: some have another shape there, so they are tied to the size they were made for.
    """
    own = into.state_dict()
    tied = [name for name, value in state.items() if name in own and own[name].shape != value.shape]
    if tied:
        more = f" and {len(tied) - 1} more" if len(tied) > 1 else ""
        raise ValueError(
            f"its weights are tied to its own size ({tied[0]}{more}), and its library cannot interpolate them"
        )
    into.load_state_dict(state)
    return into


def _try(module: nn.Module, size: tuple[int, int], channels: int) -> None:
    with torch.no_grad():
        module(torch.zeros(1, channels, *size).to(like(module)))


def _check_not_tied(module: nn.Module, own: tuple[int, int], size: tuple[int, int], channels: int) -> None:
    """See that a network that takes as many pixels in another shape does not do so by their number alone.

    Raises:
        ValueError: it does not take a larger input of its own shape, so something in it belongs to places.
    """
    if math.prod(size) == math.prod(own):
        try:
            _try(module, (2 * own[0], 2 * own[1]), channels)
        except Exception as error:  # whatever a model says of a size that it was not made for
            raise ValueError(SAME_COUNT) from error


def _said(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return said[0] if said else f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}()"
