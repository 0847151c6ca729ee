"""Parts of a network, and parameters drawn anew: exactly restored afterwards, whatever happens."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

# A network is divided into its children, the largest of which are divided again until there are so many parts.
LEAST_PARTS = 12


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a network: a module with all below it, or what a divided module has of its own.

    Attributes:
        name: the module's path; ``(network)`` for the whole.
        parameters: its parameters of real numbers, by their full names.
    """

    name: str
    parameters: dict[str, nn.Parameter]

    @property
    def size(self) -> int:
        """Number of values."""
        return sum(one.numel() for one in self.parameters.values())


def find_parts(model: nn.Module, run: Callable[[], object]) -> list[Part]:
    """Return the parts of a network in the order in which they run; what is never called by itself comes first.

    Args:
        model: the network.
        run: runs one forward of it.
    """
    parts = _divide(model)
    order = _record_order(model, run)
    return sorted(parts, key=lambda part: order.get(part.name, -1))


def _divide(model: nn.Module) -> list[Part]:
    """Return a module's parts, in the order of registration; a parameter that several have is the first one's."""
    names = [""]
    while len(names) < LEAST_PARTS:
        sizes = {name: _count_modules(model.get_submodule(name)) for name in names if _has_children(model, name)}
        if not sizes:
            break
        largest = max(sizes, key=sizes.__getitem__)
        at = names.index(largest)
        children = [f"{largest}.{name}".lstrip(".") for name, _ in model.get_submodule(largest).named_children()]
        # The module itself stays for the parameters of its own; its children are taken out of it below.
        names[at : at + 1] = [f"{largest} ", *children]
    parts, taken = list[Part](), set[int]()
    for name in names:
        module = model.get_submodule(name.strip())
        own = module.named_parameters(name.strip(), recurse=not name.endswith(" "))
        found = {key: one for key, one in own if id(one) not in taken and one.is_floating_point()}
        taken.update(map(id, found.values()))
        if found:
            parts.append(Part(name.strip() or "(network)", found))
    return parts


def _has_children(model: nn.Module, name: str) -> bool:
    if name.endswith(" "):
        return False
    return any(_count_modules(child) for child in model.get_submodule(name).children())


def _count_modules(module: nn.Module) -> int:
    """Count the modules that have parameters of their own."""
    return sum(any(True for _ in one.parameters(recurse=False)) for one in module.modules())


def _record_order(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Return the place of each module in the order of first calls in a forward."""
    order: dict[str, int] = {}

    def note(name: str) -> None:
        order.setdefault(name, len(order))

    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: note(name))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return order


class Redrawing:
    """Redrawing of a network's parameters, as a ``with`` block, at whose end all are exactly as before.

    Each is drawn from the normal distribution with its own mean and standard deviation, so that activations keep their
    size; buffers, such as the statistics of batch norms, stay. A parameter gets the same values in whatever order parts
    are drawn.

    Args:
        parts: the parts that may be drawn anew.
        seed: random seed.
    """

    def __init__(self, parts: Sequence[Part], seed: int) -> None:
        self._seed = seed
        self._saved = {name: (one, one.detach().clone()) for part in parts for name, one in part.parameters.items()}

    def __enter__(self) -> Redrawing:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    @torch.no_grad()
    def restore(self) -> None:
        """Restore all parameters, to the bit."""
        for parameter, before in self._saved.values():
            parameter.copy_(before)

    @torch.no_grad()
    def draw(self, part: Part) -> bool:
        """Draw the parameters of a part anew; return whether any changed: one of equal values does not."""
        changed = False
        for name, parameter in part.parameters.items():
            before = self._saved[name][1].float().cpu()
            if before.numel() < 2 or not (spread := float(before.std())):
                continue
            source = torch.Generator("cpu").manual_seed(self._seed + zlib.crc32(name.encode()))
            drawn = torch.randn(before.shape, generator=source, device="cpu") * spread + before.mean()
            parameter.copy_(drawn.to(parameter))
            changed = True
        return changed


@contextmanager
def shifted(model: nn.Module, by: float) -> Iterator[None]:
    """Take a constant off the network's input while the block runs, as if its first layer had another bias.

    Kindermans et al. 2017, arXiv:1711.00867, sec. 2: of an input to which the constant is added, the network then makes
    exactly what it makes of the input without.
    """
    hook = model.register_forward_pre_hook(lambda _, given: (given[0] - by, *given[1:]))
    try:
        yield
    finally:
        hook.remove()
