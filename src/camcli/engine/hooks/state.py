"""Contexts that change the state of a model (evaluation mode, attributes, buffers) and restore it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, without gradients by its parameters, while the block runs."""
    parts = list_parts(model)
    # Modules made by torch.jit.freeze have no such flag.
    training = [part for part in parts if getattr(part, "training", False)]
    parameters = (one for part in parts for one in part._parameters.values())
    learning = [one for one in parameters if one is not None and one.requires_grad]
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


def list_parts(model: nn.Module) -> list[nn.Module]:
    """List a network and its modules, each once: for every batch, so in a sixth of the time of ``modules()``."""
    parts, seen = [model], {model}
    for part in parts:  # which grows meanwhile
        new = [child for child in part._modules.values() if child is not None and child not in seen]
        seen.update(new)
        parts += dict.fromkeys(new)
    return parts


def find_quantised_modules(model: nn.Module) -> list[str]:
    """Return the names of the quantised modules, of PyTorch's own classes."""
    return [name for name, part in model.named_modules() if ".quantized." in f"{type(part).__module__}."]


class Snapshot:
    """Snapshot of a module and all its submodules: their attributes, parameters, buffers and children, by reference.

    Hooks are not included, since they are added and removed independently.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parts = [
            (
                part,
                dict(vars(part)),
                {name: dict(held) for name, held in vars(part).items() if _is_saved_dict(name, held)},
            )
            for part in module.modules()
        ]

    def restore(self) -> None:
        """Restore the modules; the values of tensors are not restored."""
        for part, attributes, dictionaries in self._parts:
            vars(part).clear()
            vars(part).update(attributes)
            for name, held in dictionaries.items():
                attributes[name].clear()
                attributes[name].update(held)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Restore the modules to the snapshot while the block runs."""
        with preserved(self._module):
            self.restore()
            yield


def _is_saved_dict(name: str, held: object) -> bool:
    return isinstance(held, dict) and "hooks" not in name


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Restore a module after the block, except for the values of its tensors."""
    before = Snapshot(module)
    try:
        yield
    finally:
        before.restore()


@contextmanager
def swap_buffer(module: nn.Module, name: str, buffer: Tensor) -> Iterator[None]:
    """Replace a buffer of a module while the block runs."""
    original = module._buffers[name]
    module._buffers[name] = buffer
    try:
        yield
    finally:
        module._buffers[name] = original
