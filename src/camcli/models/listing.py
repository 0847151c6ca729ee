"""Lookup of model names: listing them, finding the source of one, and suggesting the nearest."""

from __future__ import annotations

import fnmatch
import importlib
import re
from typing import TYPE_CHECKING, cast

from camcli.base import weight_files
from camcli.base.errors import NothingFoundError, RequestError, did_you_mean, find_nearest
from camcli.models import SOURCES, names_cache

if TYPE_CHECKING:
    from camcli.models.spec import ModelSource

SEARCH_ORDER = ("timm", "torchvision", "open_clip", "bundled")  # for a name without a source
LIST_ORDER = ("bundled", "timm", "torchvision", "open_clip")
TIMM_SCHEMES = ("hf-hub", "hf_hub", "local-dir")  # timm's own prefixes for models outside its registry


def import_source(name: str) -> ModelSource:
    """Import and return the module of one of our own sources."""
    from camcli.models.lazy_imports import without_compiler

    home = SOURCES.module_path(SOURCES.find(name))
    with without_compiler():
        return cast("ModelSource", importlib.import_module(home))


def names_user_code(model: str) -> bool:
    """Return whether a model string names a file or module of the user's own, without looking anything up."""
    prefix, colon, name = model.partition(":")
    is_ours = prefix in SOURCES.names() or prefix in TIMM_SCHEMES
    return model.rpartition(":")[0].endswith(".py") or prefix == "local" or (bool(colon) and not is_ours and bool(name))


def resolve(model: str) -> tuple[str, str]:
    """Split a model string into its source and the name within that source.

    Raises:
        RequestError: no source has that model (the hint names the nearest), or it is a weights file or a folder.
    """
    if model.rpartition(":")[0].endswith(".py"):
        return "local", model
    if model.endswith(".py"):
        raise RequestError(f"{model!r} does not say which function makes the model", f"name it: {model}:function")
    prefix, colon, name = model.partition(":")
    if not colon:
        if weight_files.weight_suffix(model):
            _check_is_no_file(model)
        return _search_sources(model)
    if prefix in TIMM_SCHEMES:
        return "timm", model
    if prefix in SOURCES.names():
        return prefix, name
    from camcli.models import user_code as _importing

    if name.isidentifier() and _importing.is_module(prefix):
        return "local", model
    known = [*SOURCES.names(), *TIMM_SCHEMES]
    near = did_you_mean(prefix, known)
    usage = "path/to/file.py:function and package.module:function"
    raise RequestError(
        f"{model!r} begins with {prefix!r}, which is no source of models, nor a module that can be imported from here",
        "\n".join(filter(None, (near, f"there are: {', '.join(known)}, and {usage}"))),
    )


def _check_is_no_file(name: str) -> None:
    if other := weight_files.identify_non_model(name):
        raise RequestError(f"the model {name!r} is {other.description}", other.hint)


def _search_sources(name: str) -> tuple[str, str]:
    for place in SEARCH_ORDER:
        if import_source(place).has(name):
            return place, name
    _check_is_no_file(name)
    known = {known: f"{place}:{known}" for place in reversed(SEARCH_ORDER) for known in _known_names(place)}
    close = [known[near] for near in find_nearest(name, known)]
    hint = f"did you mean {' or '.join(close)}?\n" if close else ""
    raise RequestError(
        f"there is no model {name!r} in {', '.join(SEARCH_ORDER)}", hint + "list them: camcli models [PATTERN]"
    )


def _known_names(source: str) -> set[str]:
    """Return a source's model names, with and without their tags."""
    names = import_source(source).names()
    return {*names, *(re.split(r"[./]", name)[0] for name in names)}


def find_models(pattern: str = "", only_cached: bool = False) -> list[tuple[str, bool]]:
    """List the models that can be loaded by name, source by source, and whether their weights are on this machine.

    Args:
        pattern: a glob such as ``resnet*`` or a part of a name, with or without the source; empty for all.
        only_cached: leave out models whose weights would have to be downloaded.

    Returns:
        Pairs of a full name, such as ``timm:resnet50.a1_in1k``, and whether its weights are on this machine.

    Raises:
        NothingFoundError: no model matches.
    """
    found, known = [], []
    for place in LIST_ORDER:
        there = import_source(place)
        for name in there.names():
            full = f"{place}:{name}"
            known.append(full)
            if not _matches(pattern, name) and not _matches(pattern, full):
                continue
            at_hand = there.cached(name)
            if at_hand or not only_cached:
                found.append((full, at_hand))
    names_cache.write_names(known)
    if not found:
        names = {name for place in LIST_ORDER for name in _known_names(place)}
        of = f" like {pattern!r}" if pattern else ""
        raise NothingFoundError(
            f"there is no model{of}" + (" whose weights are at hand" if only_cached else ""),
            did_you_mean(pattern, names),
        )
    return found


def _matches(pattern: str, name: str) -> bool:
    pattern, name = pattern.casefold(), name.casefold()
    return fnmatch.fnmatchcase(name, pattern) if any(mark in pattern for mark in "*?[") else pattern in name
