"""Copies of modules that a user's function returns, so that camcli may fold, round or cut them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from camcli.engine.devices import reference_tensor
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.watch import watch_outputs
from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.models.adapters.headless import summarize_error

# Shape of the trial image, if what the function returned has no shape of its own.
DEFAULT_INPUT_SHAPE = (3, 224, 224)


def copy_module(made: Any, remake: Callable[[], Any], *, deep: bool) -> tuple[Any, str]:
    """Replace the module in a function's result by a copy, so that changes to it do not affect other holders.

    The copy shares the weights' memory, since camcli does not change them in place. A module that cannot be copied,
    or whose copy still runs the original, is kept if the function makes a new one in each call.

    Args:
        made: a module, a tuple that begins with one, a :class:`Network`, or anything else, which is returned as it is.
        remake: calls the function once more.
        deep: True if weights will be written into the copy, so that it needs memory of its own.

    Returns:
        The result, and the reason why its module is still shared; empty if it is not.
    """
    module = _find_module(made)
    if module is None:
        return made, ""
    try:
        copied = deepcopy(module, {} if deep else _share_parameters(module))
        reason = _why_not_independent(module, copied, _find_input_shape(made))
    except Exception as error:  # modules that cannot be copied raise all kinds of errors
        copied, reason = module, f"it cannot be copied: {summarize_error(error)}"
    if not reason:
        return _replace_module(made, module, copied), ""
    other = _find_module(remake())
    if other is not None and _part_ids(module).isdisjoint(_part_ids(other)):
        return made, ""
    return made, reason


def _find_module(made: Any) -> nn.Module | None:
    one = made.module if isinstance(made, Network) else made[0] if isinstance(made, tuple) and made else made
    return one if isinstance(one, nn.Module) else None


def _replace_module(made: Any, module: nn.Module, copied: nn.Module) -> Any:
    if isinstance(made, Network):
        names = {id(part): name for name, part in module.named_modules()}
        inner = made.wrapped_module
        if inner is not None and id(inner) in names:
            inner = copied.get_submodule(names[id(inner)])
        return replace(made, module=copied, wrapped_module=inner)
    return (copied, *made[1:]) if isinstance(made, tuple) else copied


def _share_parameters(module: nn.Module) -> dict[int, Any]:
    """Map parameters' ids to new parameters with the same memory, as a memo for ``deepcopy``."""
    plain = (one for one in module.parameters() if type(one) is nn.Parameter)
    return {id(one): nn.Parameter(one.detach(), requires_grad=one.requires_grad) for one in plain}


def _part_ids(module: nn.Module) -> set[int]:
    return {id(one) for one in (*module.modules(), *module.parameters(), *module.buffers())}


def _find_input_shape(made: Any) -> tuple[int, ...]:
    """Return channels, height and width of the input, by default :data:`DEFAULT_INPUT_SHAPE`."""
    preprocess = (
        made.preprocess if isinstance(made, Network) else made[1] if isinstance(made, tuple) and made[1:] else None
    )
    if isinstance(preprocess, Preprocess):
        return (preprocess.channels, *preprocess.size)
    return tuple((getattr(made, "pretrained_cfg", None) or {}).get("input_size", DEFAULT_INPUT_SHAPE))


def _why_not_independent(module: nn.Module, copied: nn.Module, shape: tuple[int, ...]) -> str:
    """Explain how a copy depends on its original: it runs part of it, or fails where the original does not."""
    ran: list[str] = []
    # The original may run, and would update its statistics in training mode.
    with frozen(module), watch_outputs(module, lambda name, _output: ran.append(name)):
        failed = _forward_error(copied, shape)
    if ran:
        return f"a copy of it still runs its own {ran[0]!r}"
    # If the original fails too, it takes other images, or its own trial reports the error.
    return f"a copy of it fails: {failed}" if failed and not _forward_error(module, shape) else ""


def _forward_error(module: nn.Module, shape: tuple[int, ...]) -> str:
    images = torch.zeros(1, *shape).to(reference_tensor(module))
    try:
        with torch.no_grad(), frozen(module):
            module(images)
    except Exception as error:
        return summarize_error(error)
    return ""
