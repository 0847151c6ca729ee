"""Hooks that observe the inputs and outputs of modules, without a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import first_tensor, no_tensor_error, tensor_at


class StopForward(BaseException):
    """Ends a forward early; a BaseException, so that no ``except Exception`` in the model's code catches it."""


def layer_output(model: nn.Module, name: str, images: Tensor, call: int = 0, tensor_index: int = 0) -> Tensor:
    """Return a layer's output for a batch, without a graph; the forward ends there.

    Args:
        model: the network.
        name: the layer's name.
        images: the batch, on the model's device and in its precision.
        call: which of the layer's runs counts, from 1 on; 0 for the last, for which the whole forward runs.
        tensor_index: which tensor of its output, from 0 on.

    Raises:
        RequestError: there is no such run, or it gives no floating-point tensor.
    """
    layer = model.get_submodule(name)
    found: list[Tensor] = []
    runs = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal runs
        runs += 1
        if call not in (0, runs):
            return
        tensor = tensor_at(output, tensor_index)
        if tensor is None or not tensor.is_floating_point():
            raise no_tensor_error(name, layer, output)
        if call:
            found[:] = [tensor]
            raise StopForward
        # A copy, since later operations may change it in place.
        found[:] = [tensor.clone()]

    handle = layer.register_forward_hook(hook)
    try:
        with torch.inference_mode(), frozen(model):
            model(images)
    except StopForward:
        pass
    finally:
        handle.remove()
    if not found:
        raise RequestError(
            f"the layer {name!r} {f'has no call {call}' if runs else 'is not called'} for these images",
            "choose another layer; `camcli layers MODEL` lists them",
        )
    return found[0]


def capture_input(module: nn.Module, run: Callable[[], Any]) -> Tensor:
    """Return the first tensor among a module's inputs in a run, which ends there."""
    found: list[Tensor] = []

    def hook(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensor = first_tensor([*inputs, *named.values()])
        if tensor is not None:
            found.append(tensor)
        raise StopForward

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        run()
    except StopForward:
        pass
    finally:
        handle.remove()
    [tensor] = found
    return tensor


@contextmanager
def watch_outputs(model: nn.Module, callback: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call ``callback(name, output)`` after every module's run while the block runs.

    A result other than None replaces the module's output. Modules hidden in opaque ones (see
    :func:`~camcli.engine.hooks.opaque.find_opaque_modules`) are left out.
    """
    opaque = find_opaque_modules(model)
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if any(one.hides(name) for one in opaque):
                continue

            def hook(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> Any:
                return callback(name, output)

            hooks.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def module_stack(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Keep, while the block runs, a list of the modules that are running, the outermost first."""
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
