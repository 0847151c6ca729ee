"""Compiled and scripted parts of a model, which hooks do not reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.jit._script import RecursiveScriptModule


@dataclass(frozen=True, slots=True)
class Closed:
    """A module that does not run as Python, so that neither hooks nor function modes are sure to see what it does.

    Attributes:
        name: its full name; empty for the model itself.
        how: what made it so: ``torch.compile`` or ``torch.jit``.
        itself: whether the module itself cannot be hooked either.
    """

    name: str
    how: str
    itself: bool

    def hides(self, name: str) -> bool:
        """Whether a module of this name cannot be hooked, because of this one."""
        return self.itself if name == self.name else not self.name or name.startswith(f"{self.name}.")

    @property
    def words(self) -> str:
        """It, in words for people."""
        done = "compiled by torch.compile" if self.how == "torch.compile" else "scripted or traced by torch.jit"
        return f"{f'the module {self.name!r}' if self.name else 'the model'} is {done}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.how == "torch.compile":
            return "explain the model before torch.compile, which has the same weights (compiled._orig_mod)"
        return "explain the model as Python code, with the same weights"


def closed_parts(model: nn.Module) -> list[Closed]:
    """The compiled, scripted and traced modules of a model, without those inside others.

    Hooks inside compiled code run or not as its cache has it, those inside scripted code never. A compiled module by
    itself (``torch.compile(part)``) and a traced one are called from Python and can be hooked as wholes; a scripted one
    cannot, and of one compiled in place (``part.compile()``) the hooks are compiled with it.
    """
    found: list[Closed] = []
    for name, module in model.named_modules():
        if any(not one.name or name.startswith(f"{one.name}.") for one in found):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            found.append(Closed(name, "torch.jit", isinstance(module, RecursiveScriptModule)))
        elif "_orig_mod" in module._modules or _is_compiled(module.forward):
            found.append(Closed(name, "torch.compile", False))
        elif module._compiled_call_impl is not None:
            found.append(Closed(name, "torch.compile", True))
    return found


def _is_compiled(function: Callable[..., Any]) -> bool:
    # What torch.compiler.disable returns bears the first mark too.
    return hasattr(function, "_torchdynamo_orig_callable") and not hasattr(function, "_torchdynamo_disable")
