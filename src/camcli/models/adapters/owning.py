"""A module that a function of the user's hands out, made camcli's own, which may be changed: folded, rounded, cut."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from camcli.engine.devices import like
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.watch import listened
from camcli.engine.network import Network
from camcli.images.transform import Prepare
from camcli.models.adapters.headless import said

# Channels and sides of the input to try a copy with, where nothing says them.
USUAL = (3, 224, 224)


def owned(made: Any, again: Callable[[], Any], *, deep: bool) -> tuple[Any, str]:
    """What a function made, with a copy of its module, which whoever holds the module itself will not see changed.

    The copy has the same weights in memory, since nothing of camcli's changes them in place. A module that cannot be
    copied, or whose copy still runs the module itself, is taken as it is if the function makes a new one each time.

    Args:
        made: a module, a tuple that begins with one, a :class:`Network`, or anything else, which stays.
        again: makes it once more.
        deep: whether weights will be written into the copy, so that it needs memory of its own.

    Returns:
        It, and why the module is not camcli's own; empty if it is.
    """
    module = _module(made)
    if module is None:
        return made, ""
    try:
        copied = deepcopy(module, {} if deep else _lent(module))
        reason = _tied(module, copied, _input(made))
    except Exception as error:  # whatever a module says that cannot be copied
        copied, reason = module, f"it cannot be copied: {said(error)}"
    if not reason:
        return _with(made, module, copied), ""
    other = _module(again())
    if other is not None and _held(module).isdisjoint(_held(other)):
        return made, ""
    return made, reason


def _module(made: Any) -> nn.Module | None:
    one = made.module if isinstance(made, Network) else made[0] if isinstance(made, tuple) and made else made
    return one if isinstance(one, nn.Module) else None


def _with(made: Any, module: nn.Module, copied: nn.Module) -> Any:
    if isinstance(made, Network):
        names = {id(part): name for name, part in module.named_modules()}
        inner = made.wrapped
        if inner is not None and id(inner) in names:
            inner = copied.get_submodule(names[id(inner)])
        return replace(made, module=copied, wrapped=inner)
    return (copied, *made[1:]) if isinstance(made, tuple) else copied


def _lent(module: nn.Module) -> dict[int, Any]:
    """What stands for the parameters in a copy: others with the same memory."""
    plain = (one for one in module.parameters() if type(one) is nn.Parameter)
    return {id(one): nn.Parameter(one.detach(), requires_grad=one.requires_grad) for one in plain}


def _held(module: nn.Module) -> set[int]:
    return {id(one) for one in (*module.modules(), *module.parameters(), *module.buffers())}


def _input(made: Any) -> tuple[int, ...]:
    """Channels, height and width of the input, if what was made says them."""
    prepare = made.prepare if isinstance(made, Network) else made[1] if isinstance(made, tuple) and made[1:] else None
    if isinstance(prepare, Prepare):
        return (prepare.channels, *prepare.size)
    return tuple((getattr(made, "pretrained_cfg", None) or {}).get("input_size", USUAL))


def _tied(module: nn.Module, copied: nn.Module, shape: tuple[int, ...]) -> str:
    """How a copy still hangs on what it was copied from: by running it, or by failing where that does not."""
    ran: list[str] = []
    # The module itself may run, and would learn of it in training.
    with frozen(module), listened(module, lambda name, _output: ran.append(name)):
        failed = _fails(copied, shape)
    if ran:
        return f"a copy of it still runs its own {ran[0]!r}"
    # What fails either way takes other images, or is told so when it is tried.
    return f"a copy of it fails: {failed}" if failed and not _fails(module, shape) else ""


def _fails(module: nn.Module, shape: tuple[int, ...]) -> str:
    images = torch.zeros(1, *shape).to(like(module))
    try:
        with torch.no_grad(), frozen(module):
            module(images)
    except Exception as error:
        return said(error)
    return ""
