"""Capture the outputs of layers as points of the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.tensors import count_tensors, no_numbers, replaced, tensor_at, tensors_by_name
from camcli.engine.hooks.watch import Enough


def at_layer(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a layer's name stands for, and which of the tensors that it gives.

    ``backbone:p3`` is the tensor ``p3`` among those of ``backbone``; other names say nothing of that: the first.
    """
    try:
        return model.get_submodule(name), ""
    except AttributeError:
        place, colon, part = name.rpartition(":")
        if not colon:
            raise
        return model.get_submodule(place), part


class Taps(dict[str, Tensor]):
    """The outputs of layers, by their names.

    Attributes:
        calls: how often each layer has run.
        parts: how many tensors each one's output holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.parts: dict[str, int] = {}


def _no_part(name: str, part: str, output: object) -> RequestError:
    there = ", ".join(tensors_by_name(output)) or "none by name"
    return RequestError(
        f"the layer {name!r} names the tensor {part!r} of what its module gives, and there is none of that name",
        f"there are: {there}",
    )


@contextmanager
def tapped(
    layers: Mapping[str, nn.Module],
    call: int = 0,
    places: Mapping[str, int] = MappingProxyType({}),
    parts: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Taps]:
    """While it lasts, each forward leaves every layer's output in the dictionary, as a point of the graph.

    The graph starts at the earliest layer: nothing before it is kept for the backward. What the layer hands on is a
    clone, so that an in-place operation behind it cannot change what it said.

    Of a module's several tensors that are tapped by name each is a point to itself: the gradient by one holds nothing
    of the way through another that was made of it within the module.

    Args:
        layers: by name.
        call: which of its runs counts where a layer runs several times in one forward, from 1 on; 0 for the last.
        places: of a layer that gives several tensors, which of them is kept, from 0 on; the first where none is named.
        parts: by a layer's name which of its module's tensors it is, where it is not the first.

    Yields:
        The outputs by layer name, filled by the forward. With ``torch.autograd.grad(score, outputs)`` their
        gradients follow.
    """
    taps = Taps()

    def tap(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
            taps.calls[name] += 1
            if call not in (0, taps.calls[name]):
                return output
            part = parts.get(name, "")
            tensor = tensors_by_name(output).get(part) if part else tensor_at(output, places.get(name, 0))
            taps.parts[name] = 1 if part else count_tensors(output)
            if part and tensor is None:
                raise _no_part(name, part, output)
            if tensor is None or not tensor.is_floating_point():
                raise no_numbers(name, module, output)
            taps[name] = point_of(tensor, alone=taps.parts[name] == 1 and not part)
            return replaced(output, tensor, taps[name].clone())

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(tap(name)).remove)
        yield taps


def point_of(tensor: Tensor, alone: bool = True) -> Tensor:
    """Where the gradient by what a layer hands on can be taken: a leaf where there is no graph yet.

    Args:
        tensor: what it says.
        alone: whether it is all that it says. Else others may be made of it, on a way around what is handed on.
    """
    if not tensor.requires_grad:
        # What torch.inference_mode gives takes no gradient outside of it; its copy does.
        return (tensor.clone() if tensor.is_inference() else tensor).detach().requires_grad_()
    return tensor if alone else tensor.clone()


def run_until(modules: Iterable[nn.Module], run: Callable[[], Any]) -> None:
    """Run a forward, which ends as soon as all of these modules have run."""
    left = set(modules)

    def hook(module: nn.Module, _inputs: Any, _output: Any) -> None:
        left.discard(module)
        if not left:
            raise Enough

    with ExitStack() as hooks:
        for module in set(left):
            hooks.callback(module.register_forward_hook(hook).remove)
        with suppress(Enough):
            run()
