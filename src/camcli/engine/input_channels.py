"""The number of input channels of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Modules whose attributes give the number of channels of their input.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def find_input_channels(
    module: nn.Module, size: tuple[int, int], expected: int, run: Callable[[Tensor], Any] | None = None
) -> int | None:
    """Find the number of channels of a network's images, by trying it on noise.

    Where the network fails on images of ``expected`` channels, it is tried with the number that the failing layer (a
    convolution, a norm, or a linear layer over patches or whole images) requires.

    Args:
        module: the network.
        size: height and width of its input.
        expected: the number of channels to try first.
        run: the function to call with the noise; default: the module.

    Returns:
        The number of channels; None where both fail.
    """
    wanted = _try_channels(module, size, expected, run or module)
    if wanted is None:
        return expected
    return (
        wanted if wanted and wanted != expected and _try_channels(module, size, wanted, run or module) is None else None
    )


def _try_channels(module: nn.Module, size: tuple[int, int], channels: int, run: Callable[[Tensor], Any]) -> int | None:
    """Return None if the network takes this many channels; else the number the failing layer requires, 0 if unknown."""
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
    except Exception:  # reported when the network runs on real images
        return _channels_wanted_by(*at[-1], channels) if at else 0
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _channels_wanted_by(part: nn.Module, shape: tuple[int, ...], channels: int) -> int:
    if isinstance(part, CONVOLUTIONS):
        return part.in_channels
    if isinstance(part, NORMS):
        return part.num_features
    # A linear layer's input features are the channels times the values of each channel.
    wanted, given = int(part.in_features), shape[-1]  # type: ignore[arg-type]
    return wanted * channels // given if given and not wanted * channels % given else 0


def format_channels(count: int) -> str:
    """Format a number of channels: ``1 channel``, ``4 channels``."""
    return f"{count} channel{'s' * (count != 1)}"
