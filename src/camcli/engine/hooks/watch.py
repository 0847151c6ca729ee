"""Watch what modules are given and give, without a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import first_tensor, no_numbers, tensor_at


class Enough(BaseException):
    """Ends a forward whose rest nobody needs; no ``except Exception`` of a model's own stops it."""


def output_of(model: nn.Module, name: str, images: Tensor, turn: int = 0, place: int = 0) -> Tensor:
    """What a layer gives for a batch, without a graph; what lies behind it is not computed.

    Args:
        model: takes the images.
        name: of the layer.
        images: the batch, where the model is and in its precision.
        turn: which of the layer's runs counts, from 1 on, and the forward ends there; 0 for the last of a whole one.
        place: which of the tensors that it gives, from 0 on.

    Raises:
        RequestError: there is no such run, or it gives no tensor of numbers.
    """
    layer = model.get_submodule(name)
    found: list[Tensor] = []
    runs = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal runs
        runs += 1
        if turn not in (0, runs):
            return
        tensor = tensor_at(output, place)
        if tensor is None or not tensor.is_floating_point():
            raise no_numbers(name, layer, output)
        if turn:
            found[:] = [tensor]
            raise Enough
        # A copy, since what lies behind may change it in place.
        found[:] = [tensor.clone()]

    handle = layer.register_forward_hook(hook)
    try:
        with torch.inference_mode(), frozen(model):
            model(images)
    except Enough:
        pass
    finally:
        handle.remove()
    if not found:
        raise RequestError(
            f"the layer {name!r} {f'has no run {turn}' if runs else 'does not run'} on these pictures",
            "choose another layer; `camcli layers MODEL` lists them",
        )
    return found[0]


def handed(module: nn.Module, run: Callable[[], Any]) -> Tensor:
    """The first tensor that a module is handed in a run, which ends there."""
    found: list[Tensor] = []

    def hook(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensor = first_tensor([*inputs, *named.values()])
        if tensor is not None:
            found.append(tensor)
        raise Enough

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        run()
    except Enough:
        pass
    finally:
        handle.remove()
    [tensor] = found
    return tensor


@contextmanager
def listened(model: nn.Module, hear: Callable[[str, Any], Any]) -> Iterator[None]:
    """While it lasts, every module's output is told to ``hear(name, output)``, in the order of their ends.

    What that gives, if it is not None, is handed on in the output's place. What is closed (see :func:`closed_parts`)
    is not listened to.
    """
    closed = closed_parts(model)
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if any(one.hides(name) for one in closed):
                continue

            def hook(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> Any:
                return hear(name, output)

            hooks.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def at_work(model: nn.Module) -> Iterator[list[nn.Module]]:
    """While it lasts, the list holds the modules that are running, the outermost first."""
    running: list[nn.Module] = []

    def begin(module: nn.Module, _inputs: Any) -> None:
        running.append(module)

    def end(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        running.pop()

    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_pre_hook(begin).remove)
            hooks.callback(module.register_forward_hook(end).remove)
        yield running
