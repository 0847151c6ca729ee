"""The state of a model that is put back: evaluation mode, attributes, borrowed buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, its parameters outside the graph; flags as they were afterwards."""
    # What torch.jit.freeze gives has no such flag.
    training = [module for module in model.modules() if getattr(module, "training", False)]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module in training:
            module.training = False
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in learning:
            parameter.requires_grad_(True)


def quantised(model: nn.Module) -> list[str]:
    """The names of the modules that compute in whole numbers, by PyTorch's own kinds of them."""
    return [name for name, part in model.named_modules() if ".quantized." in f"{type(part).__module__}."]


class Snapshot:
    """What modules are: their attributes, parameters, buffers and children, each by reference.

    Hooks are not among it, since they come and go with those who want to know something.

    Args:
        module: of it and all within.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parts = [
            (part, dict(vars(part)), {name: dict(held) for name, held in vars(part).items() if _holds(name, held)})
            for part in module.modules()
        ]

    def put_back(self) -> None:
        """Make the modules what they were; the values of tensors are as they are."""
        for part, attributes, dictionaries in self._parts:
            vars(part).clear()
            vars(part).update(attributes)
            for name, held in dictionaries.items():
                attributes[name].clear()
                attributes[name].update(held)

    @contextmanager
    def again(self) -> Iterator[None]:
        """While it lasts, the modules are what they were when this was taken."""
        with as_before(self._module):
            self.put_back()
            yield


def _holds(name: str, held: object) -> bool:
    return isinstance(held, dict) and "hooks" not in name


@contextmanager
def as_before(module: nn.Module) -> Iterator[None]:
    """While it lasts, anything but the values of its tensors may be changed; afterwards it is what it was."""
    before = Snapshot(module)
    try:
        yield
    finally:
        before.put_back()


@contextmanager
def lent(module: nn.Module, name: str, buffer: Tensor) -> Iterator[None]:
    """While it lasts, a buffer of a module is another tensor."""
    own = module._buffers[name]
    module._buffers[name] = buffer
    try:
        yield
    finally:
        module._buffers[name] = own
