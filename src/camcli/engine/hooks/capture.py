"""Capture the outputs of layers as points of the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.tensors import count_tensors, no_tensor_error, replace_tensor, tensor_at, tensors_by_name
from camcli.engine.hooks.watch import StopForward


def find_layer(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Find the module of a layer's name, and the name of the tensor in its output, empty for the first tensor.

    ``backbone:p3`` is the tensor ``p3`` of the output of ``backbone``.
    """
    try:
        return model.get_submodule(name), ""
    except AttributeError:
        place, colon, part = name.rpartition(":")
        if not colon:
            raise
        return model.get_submodule(place), part


class Activations(dict[str, Tensor]):
    """Activations of layers, by the layers' names.

    Attributes:
        calls: how often each layer has run.
        tensor_counts: the number of tensors in each layer's output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.tensor_counts: dict[str, int] = {}


def _no_such_tensor(name: str, tensor_name: str, output: object) -> RequestError:
    there = ", ".join(tensors_by_name(output)) or "none by name"
    return RequestError(
        f"the layer {name!r} selects the tensor {tensor_name!r} of its module's output, which has no such tensor",
        f"there are: {there}",
    )


@contextmanager
def capture_activations(
    layers: Mapping[str, nn.Module],
    call: int = 0,
    tensor_indices: Mapping[str, int] = MappingProxyType({}),
    tensor_names: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Activations]:
    """Capture each layer's activations as a point of the graph while the block runs.

    The graph starts at the earliest layer: nothing before it is kept for the backward. The forward continues with a
    clone, so that later in-place operations cannot change the captured activations.

    Several tensors of one module that are captured by name are separate points: the gradient by one does not include
    paths through another that the module computed from it.

    Args:
        layers: the modules, by the layers' names.
        call: which run counts where a layer runs several times in one forward, from 1 on; 0 for the last.
        tensor_indices: the index of the tensor to capture in a layer's output, from 0 on; default: the first.
        tensor_names: the name of the tensor to capture in a layer's output, where it has one.

    Yields:
        The activations by layer name, filled by the forward; ``torch.autograd.grad(score, activations.values())``
        gives their gradients.
    """
    activations = Activations()

    def make_hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
            activations.calls[name] += 1
            if call not in (0, activations.calls[name]):
                return output
            part = tensor_names.get(name, "")
            tensor = tensors_by_name(output).get(part) if part else tensor_at(output, tensor_indices.get(name, 0))
            activations.tensor_counts[name] = 1 if part else count_tensors(output)
            if part and tensor is None:
                raise _no_such_tensor(name, part, output)
            if tensor is None or not tensor.is_floating_point():
                raise no_tensor_error(name, module, output)
            activations[name] = as_graph_point(tensor, is_only_tensor=activations.tensor_counts[name] == 1 and not part)
            return replace_tensor(output, tensor, activations[name].clone())

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(make_hook(name)).remove)
        yield activations


def as_graph_point(tensor: Tensor, is_only_tensor: bool = True) -> Tensor:
    """Return a tensor of a layer's output as a point to take gradients at: a leaf where there is no graph yet.

    Args:
        tensor: the tensor.
        is_only_tensor: whether it is the only tensor of the output. Otherwise the point is a clone, since others may
            have been computed from the tensor.
    """
    if not tensor.requires_grad:
        # Inference tensors cannot require a gradient, but their copies can.
        return (tensor.clone() if tensor.is_inference() else tensor).detach().requires_grad_()
    return tensor if is_only_tensor else tensor.clone()


def run_until(modules: Iterable[nn.Module], run: Callable[[], Any]) -> None:
    """Run a forward that ends as soon as all of these modules have run."""
    left = set(modules)

    def hook(module: nn.Module, _inputs: Any, _output: Any) -> None:
        left.discard(module)
        if not left:
            raise StopForward

    with ExitStack() as hooks:
        for module in set(left):
            hooks.callback(module.register_forward_hook(hook).remove)
        with suppress(StopForward):
            run()
