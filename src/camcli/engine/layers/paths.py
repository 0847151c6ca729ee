"""Layer paths such as ``layer4.-1``, resolved to the names of modules, with suggestions where there are none."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from torch import nn

from camcli.base.errors import RequestError, did_you_mean, find_nearest, suggest

# One dotted part: a name, index or glob, and any number of [index] or [slice] after it.
_PART = re.compile(r"(?P<name>[^\[\]]*)(?P<brackets>(?:\[[^\[\]]+\])*)")
_SLICE = re.compile(r"(?:-?\d+)?:(?:-?\d+)?(?::(?:-?[1-9]\d*)?)?")
_INDEX = re.compile(r"-?\d+")
# A path and the name of a tensor in the module's output.
_TENSOR = re.compile(r"(?P<path>.+):(?P<name>[^\[\]:]+)")


def resolve(model: nn.Module, paths: Sequence[str], wrapped: nn.Module | None = None) -> list[str]:
    """Resolve layer paths to full names, in the order given, each once.

    The grammar: dotted names (``layer4``, ``blocks.11.norm1``); indices from either end, as ``layer4.-1`` or
    ``layer4[-1]``; slices (``blocks[-3:].norm1``); globs within one step (``layer*``). Of a module that gives several
    tensors ``backbone:p3`` is the one called ``p3``; without that the first is meant.

    Args:
        model: the model whose names are returned.
        paths: paths of layers in ``model`` or in ``wrapped``.
        wrapped: a model that ``model`` wraps, whose paths are valid too.

    Raises:
        RequestError: a step does not exist; the message names it, and the hint what exists there.
    """
    names = [name for path in paths for name in _resolve_tensor(model, path, wrapped)]
    return list(dict.fromkeys(names))


def name_modules(model: nn.Module, layers: object) -> tuple[str, ...]:
    """Return layers as paths: a path or several, or modules of the model, which are found by identity.

    Raises:
        RequestError: a layer is neither, or no part of the model.
    """
    given = [layers] if isinstance(layers, str | nn.Module) or not isinstance(layers, Iterable) else layers
    return tuple(one if isinstance(one, str) else _name_module(model, one) for one in given)


def _name_module(model: nn.Module, layer: object) -> str:
    if not isinstance(layer, nn.Module):
        raise RequestError(
            f"a layer cannot be a {type(layer).__name__}", "give its path, such as 'layer4', or a module"
        )
    name: str | None = next((name for name, one in model.named_modules() if one is layer), None)
    if name:
        return name
    what = "the whole model" if layer is model else f"no part of the model ({type(model).__name__})"
    raise RequestError(
        f"the {type(layer).__name__} given as a layer is {what}",
        "give a module inside it, or its path; a camcli.Network that was loaded from a module holds a copy: "
        "network.module.layer4",
    )


def canonicalize_names(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Replace full names by the first name that each layer has, each once.

    A search by module finds the first name, so all parts of a run must use it.
    """
    return list(dict.fromkeys(_canonical_name(model, name) for name in names))


def _canonical_name(model: nn.Module, name: str) -> str:
    match = _TENSOR.fullmatch(name)
    if match is None or any(one == name for one, _ in model.named_modules(remove_duplicate=False)):
        return find_outer_name(model, model, name) or name
    return f"{_canonical_name(model, match['path'])}:{match['name']}"


def _resolve_tensor(model: nn.Module, path: str, wrapped: nn.Module | None) -> list[str]:
    match = _TENSOR.fullmatch(path)
    if match is None or any(name == path for name, _ in model.named_modules()):
        return _resolve_either(model, path, wrapped)
    return [f"{name}:{match['name']}" for name in _resolve_either(model, match["path"], wrapped)]


def find_outer_name(model: nn.Module, wrapped: nn.Module, name: str) -> str | None:
    """Return the name that a layer of ``wrapped`` has in the model wrapping it; None if it has none."""
    part = wrapped.get_submodule(name)
    return next((full for full, one in model.named_modules() if one is part), None)


def _resolve_either(model: nn.Module, path: str, wrapped: nn.Module | None) -> list[str]:
    if wrapped is None or wrapped is model:
        return _resolve_one(model, path)
    try:
        return _resolve_one(model, path)
    except RequestError as outer:
        try:
            inner = _resolve_one(wrapped, path)
        except RequestError as error:
            # The wrapped model's error helps more, unless the path begins in the wrapper.
            step = _split_path(path)[0].strip("[]")
            if step in _child_names(model, ""):
                raise outer from None
            around = f"; nor has the wrapper ({type(model).__name__}): {_shorten(_child_names(model, ''))}"
            raise RequestError(error.message + around, error.hint) from None
    found = [(name, find_outer_name(model, wrapped, name)) for name in inner]
    lost = [name for name, full in found if full is None]
    if lost:
        raise RequestError(
            f"the layer {lost[0]!r} belongs to the wrapped model, which the wrapper ({type(model).__name__}) does not "
            "contain",
            f"it has: {_shorten(_child_names(model, ''))}",
        )
    return [full for _, full in found if full]


def _resolve_one(model: nn.Module, path: str) -> list[str]:
    here = [""]
    steps = _split_path(path)
    for place, step in enumerate(steps):
        reached = [_join(name, child) for name in here for child in _match_children(model, name, step)]
        if not reached:
            raise _no_such_step(model, path, here, steps[place:])
        here = reached
    return here


def _split_path(path: str) -> list[str]:
    """Split a path into its steps; brackets are kept: ``a.-1[2:]`` gives ``a``, ``-1``, ``[2:]``."""
    steps: list[str] = []
    for part in path.split("."):
        match = _PART.fullmatch(part)
        if match is None or not part:
            raise RequestError(
                f"the layer path {path!r} cannot be parsed at {part!r}",
                "join names, indices, slices and globs by dots: layer4.-1, layer4[-1], blocks[-3:].norm1, layer*",
            )
        steps += [match["name"]] if match["name"] else []
        steps += re.findall(r"\[[^\]]+\]", match["brackets"])
    return steps


def _match_children(model: nn.Module, parent: str, step: str) -> list[str]:
    """Return the names of the parent's children that one step matches."""
    names = _child_names(model, parent)
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


def _child_names(model: nn.Module, parent: str) -> list[str]:
    """Return the names of the parent's children, with duplicates, which ``named_children`` skips."""
    return [name for name, child in model.get_submodule(parent)._modules.items() if child is not None]


def _join(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent else child


def _find_near_paths(model: nn.Module, parent: str, steps: Sequence[str]) -> list[str]:
    """Return paths to layers with another name for the first of these steps, or its nearest names alone."""
    near = [_join(parent, name) for name in find_nearest(steps[0].strip("[]"), _child_names(model, parent))]
    rest = "".join(step if step.startswith("[") else f".{step}" for step in steps[1:])
    found = []
    for name in near if rest else ():
        with suppress(RequestError):
            _resolve_one(model, name + rest)
            found.append(name + rest)
    return found or near


def _no_such_step(model: nn.Module, path: str, parents: list[str], steps: Sequence[str]) -> RequestError:
    step = steps[0]
    parent = next((one for one in parents if _child_names(model, one)), parents[0])
    names = _child_names(model, parent)
    where = f"{parent!r}" if parent else f"the model ({type(model).__name__})"
    if not names:
        return RequestError(
            f"the layer {path!r} does not exist: {where} has no submodules, so no {step!r}", f"use {parent!r} itself"
        )
    whole = [name for name, _ in model.named_modules() if name]
    behind = path.partition(".")[2]  # of a wrapper's prefix, such as `model.` or `module.`
    prefixed = re.split(r"[.\[]", behind)[0] in names and path.partition(".")[0] == step
    hints = [
        f"did you mean {behind!r}?"
        if prefixed
        else suggest(_find_near_paths(model, parent, steps)) or did_you_mean(path, whole),
        f"{where} has {len(names)}: {_shorten(names)}",
    ]
    return RequestError(f"the layer {path!r} does not exist: {where} has no {step!r}", "\n".join(filter(None, hints)))


def _shorten(names: list[str], limit: int = 12) -> str:
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[: limit - 3])}, ..., {', '.join(names[-2:])}"
