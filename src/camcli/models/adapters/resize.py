"""Models at another input size than their own, verified by a trial forward pass."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence

import torch
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.devices import is_out_of_memory, reference_tensor

SAME_PATCH_COUNT = (
    "it would have as many patches in another grid, and its position embeddings would not be interpolated"
)


def resize_module(
    module: nn.Module,
    native_size: tuple[int, int],
    size: tuple[int, int],
    name: str,
    candidates: Sequence[Callable[[], nn.Module]] = (),
    channels: int = 3,
) -> nn.Module:
    """Make a module work at another input size, by the first candidate whose forward pass succeeds.

    Args:
        module: the module at its native size.
        native_size: the height and width that it is made for.
        size: the height and width requested.
        name: the model's name, for messages.
        candidates: functions that build the module for that size, with the same weights; if empty, the module itself.
        channels: number of channels of its input.

    Raises:
        RequestError: no candidate works; the message has the first one's error.
    """
    reasons = []
    # Rebuilding draws random weights that are then replaced; the generator's state must not depend on them.
    with torch.random.fork_rng(devices=[]):
        for build in candidates or [lambda: module]:
            try:
                made = build().eval()
                _try_forward(made, size, channels)
                if made is module and size != native_size:
                    _check_not_tied(made, native_size, size, channels)
            except Exception as error:  # models fail in all kinds of ways at a size they were not made for
                reasons.append(_summarize_error(error))
            else:
                return made
    raise RequestError(
        f"{name} does not take images of {size[0]}x{size[1]}: {reasons[0]}",
        "try another size, in multiples of its patches or strides; or leave --size out",
    )


def transplant_weights(state: dict[str, torch.Tensor], module: nn.Module) -> nn.Module:
    """Load all of a state dict's weights into a module.

    Raises:
        ValueError: some have another shape in the module, so they are tied to the input size.
    """
    model_state = module.state_dict()
    tied = [name for name, value in state.items() if name in model_state and model_state[name].shape != value.shape]
    if tied:
        more = f" and {len(tied) - 1} more" if len(tied) > 1 else ""
        raise ValueError(
            f"its weights are tied to its own size ({tied[0]}{more}), and its library cannot interpolate them"
        )
    module.load_state_dict(state)
    return module


def _try_forward(module: nn.Module, size: tuple[int, int], channels: int) -> None:
    with torch.no_grad():
        module(torch.zeros(1, channels, *size).to(reference_tensor(module)))


def _check_not_tied(module: nn.Module, native_size: tuple[int, int], size: tuple[int, int], channels: int) -> None:
    """Check that a network accepts a size with the native number of pixels not just because of their number.

    Raises:
        ValueError: it does not accept a larger input of the native shape, so some weights are tied to positions.
    """
    if math.prod(size) == math.prod(native_size):
        try:
            _try_forward(module, (2 * native_size[0], 2 * native_size[1]), channels)
        except Exception as error:  # models fail in all kinds of ways at a size they were not made for
            raise ValueError(SAME_PATCH_COUNT) from error


def _summarize_error(error: Exception) -> str:
    if is_out_of_memory(error):
        return "there is not enough memory for that"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}()"
