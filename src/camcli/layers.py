"""Layer paths: ``layer4.-1`` to the names of modules, and what to suggest when there are none."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from camcli.errors import RequestError, did_you_mean

# One dotted part: a name, index or glob, and any number of [index] or [slice] behind it.
_PART = re.compile(r"(?P<name>[^\[\]]*)(?P<brackets>(?:\[[^\[\]]+\])*)")
_SLICE = re.compile(r"(?:-?\d+)?:(?:-?\d+)?(?::(?:-?[1-9]\d*)?)?")
_INDEX = re.compile(r"-?\d+")


def resolve(model: nn.Module, paths: Sequence[str]) -> list[str]:
    """The full names of the layers that the paths name, in the order asked, each once.

    The grammar: dotted names (``layer4``, ``blocks.11.norm1``); indices from either end, as ``layer4.-1`` or
    ``layer4[-1]``; slices (``blocks[-3:].norm1``); globs within one step (``layer*``).

    Raises:
        RequestError: a step does not exist; the message names it, and the hint what exists there.
    """
    names = [name for path in paths for name in _resolve_one(model, path)]
    return list(dict.fromkeys(names))


def _resolve_one(model: nn.Module, path: str) -> list[str]:
    here = [""]
    steps = _steps(path)
    for step in steps:
        reached = [_join(name, child) for name in here for child in _children(model, name, step)]
        if not reached:
            raise _no_such_step(model, path, here, step)
        here = reached
    return here


def _steps(path: str) -> list[str]:
    """The single steps of a path; brackets keep theirs: ``a.-1[2:]`` is ``a``, ``-1``, ``[2:]``."""
    steps: list[str] = []
    for part in path.split("."):
        match = _PART.fullmatch(part)
        if match is None or not part:
            raise RequestError(
                f"the layer path {path!r} cannot be read at {part!r}",
                "join names, indices, slices and globs by dots: layer4.-1, layer4[-1], blocks[-3:].norm1, layer*",
            )
        steps += [match["name"]] if match["name"] else []
        steps += re.findall(r"\[[^\]]+\]", match["brackets"])
    return steps


def _children(model: nn.Module, parent: str, step: str) -> list[str]:
    """The names of the parent's children that one step names."""
    names = _named(model, parent)
    word = step.strip("[]")
    if step.startswith("[") and _SLICE.fullmatch(word):
        return names[slice(*(int(bound) if bound else None for bound in word.split(":")))]
    if word in names:
        return [word]
    if _INDEX.fullmatch(word):
        index = int(word)
        return [names[index]] if -len(names) <= index < len(names) else []
    if not step.startswith("[") and set(word) & set("*?"):
        return [name for name in names if fnmatchcase(name, word)]
    return []


def _named(model: nn.Module, parent: str) -> list[str]:
    """The names of the parent's children; one that stands in two places (``named_children`` skips it) has both."""
    return [name for name, child in model.get_submodule(parent)._modules.items() if child is not None]


def _join(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent else child


def _no_such_step(model: nn.Module, path: str, parents: list[str], step: str) -> RequestError:
    parent = next((one for one in parents if _named(model, one)), parents[0])
    names = _named(model, parent)
    where = f"{parent!r}" if parent else f"the model ({type(model).__name__})"
    if not names:
        return RequestError(
            f"the layer {path!r} does not exist: {where} has nothing inside, so no {step!r}", f"use {parent!r} itself"
        )
    whole = [name for name, _ in model.named_modules() if name]
    hints = [
        did_you_mean(step.strip("[]"), names) or did_you_mean(path, whole),
        f"{where} has {len(names)}: {_listing(names)}",
    ]
    return RequestError(f"the layer {path!r} does not exist: {where} has no {step!r}", "\n".join(filter(None, hints)))


def _listing(names: list[str], most: int = 12) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 3])}, ..., {', '.join(names[-2:])}"
