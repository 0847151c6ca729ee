"""How many channels the images have that a network takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# What is told of a layer by its own numbers, and where in its input its channels are.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def taken(
    module: nn.Module, size: tuple[int, int], given: int, run: Callable[[Tensor], Any] | None = None
) -> int | None:
    """How many channels a network takes images of: tried on noise, never guessed.

    Where it fails on images of ``given`` channels, it is tried with those that the layer wants that it failed at: a
    convolution, a linear layer (over patches or whole images) or a norm.

    Args:
        module: the network.
        size: height and width of its input.
        given: what is tried first.
        run: what is called with the noise; default: the module.

    Returns:
        The number, or None where it takes neither.
    """
    wanted = _fails(module, size, given, run or module)
    if wanted is None:
        return given
    return wanted if wanted and wanted != given and _fails(module, size, wanted, run or module) is None else None


def _fails(module: nn.Module, size: tuple[int, int], channels: int, run: Callable[[Tensor], Any]) -> int | None:
    """None if it takes so many channels, else how many the layer wants that it fails at; 0 if that says nothing."""
    at: list[tuple[nn.Module, tuple[int, ...]]] = []

    def enter(part: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(part, (*CONVOLUTIONS, *NORMS, nn.Linear)) and given and isinstance(given[0], Tensor):
            at.append((part, tuple(given[0].shape)))

    hooks = [part.register_forward_pre_hook(enter) for part in module.modules()]
    like = next((one for one in module.parameters() if one.is_floating_point()), torch.zeros(0))
    noise = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0), device="cpu")
    try:
        with torch.no_grad():
            run(noise.to(like.device, like.dtype))
    except Exception:  # what it says is told by whoever calls it in earnest
        return _wanted(*at[-1], channels) if at else 0
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _wanted(part: nn.Module, shape: tuple[int, ...], channels: int) -> int:
    if isinstance(part, CONVOLUTIONS):
        return part.in_channels
    if isinstance(part, NORMS):
        return part.num_features
    # Its input's values are the channels times whatever it takes of each.
    wanted, given = int(part.in_features), shape[-1]  # type: ignore[arg-type]
    return wanted * channels // given if given and not wanted * channels % given else 0


def channels_in_words(count: int) -> str:
    """``1 channel``, ``4 channels``."""
    return f"{count} channel{'s' * (count != 1)}"
