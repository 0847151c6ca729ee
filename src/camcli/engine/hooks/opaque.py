"""Compiled and scripted parts of a model, which hooks do not reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._script import RecursiveScriptModule


@dataclass(frozen=True, slots=True)
class OpaqueModule:
    """A module that does not run as Python code, so that hooks and function modes may miss what it computes.

    Attributes:
        name: the module's full name; empty for the model itself.
        made_by: ``torch.compile`` or ``torch.jit``.
        hides_itself: True if the module itself cannot be hooked either.
    """

    name: str
    made_by: str
    hides_itself: bool

    def hides(self, name: str) -> bool:
        """Return whether the module ``name`` cannot be hooked because of this one."""
        return self.hides_itself if name == self.name else not self.name or name.startswith(f"{self.name}.")

    @property
    def description(self) -> str:
        """The description of the module in messages."""
        done = "compiled by torch.compile" if self.made_by == "torch.compile" else "scripted or traced by torch.jit"
        return f"{f'the module {self.name!r}' if self.name else 'the model'} is {done}"

    @property
    def remedy(self) -> str:
        """The hint how the model can be explained anyway."""
        if self.made_by == "torch.compile":
            return "explain the model before torch.compile, which has the same weights (compiled._orig_mod)"
        return "explain the model as Python code, with the same weights"


def find_opaque_modules(model: nn.Module) -> list[OpaqueModule]:
    """Find the compiled, scripted and traced modules of a model, without those inside others.

    Hooks inside compiled code run or not depending on the compiler's cache, those inside scripted code never run.
    A compiled module (``torch.compile(part)``) and a traced one are called from Python and can be hooked as wholes; a
    scripted one cannot, and the hooks of one compiled in place (``part.compile()``) are compiled with it.
    """
    found: list[OpaqueModule] = []
    for name, module in model.named_modules():
        if any(not one.name or name.startswith(f"{one.name}.") for one in found):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            found.append(OpaqueModule(name, "torch.jit", isinstance(module, RecursiveScriptModule)))
        elif "_orig_mod" in module._modules or _is_compiled(module.forward):
            found.append(OpaqueModule(name, "torch.compile", False))
        elif module._compiled_call_impl is not None:
            found.append(OpaqueModule(name, "torch.compile", True))
    return found


def _is_compiled(function: Callable[..., Any]) -> bool:
    # Functions returned by torch.compiler.disable have the first attribute too.
    return hasattr(function, "_torchdynamo_orig_callable") and not hasattr(function, "_torchdynamo_disable")


def count_nodes(score: Tensor, prefixes: tuple[str, ...]) -> int:
    """Count the nodes of a score's graph whose names begin with one of these."""
    todo = [score.grad_fn]
    seen: set[torch.autograd.graph.Node] = set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [onward for onward, _ in node.next_functions]
    return sum(node.name().startswith(prefixes) for node in seen)
