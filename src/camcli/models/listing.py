"""Lookup of model names: listing them, finding the source of one, and suggesting the nearest."""

from __future__ import annotations

import fnmatch
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from camcli.base.errors import NothingFoundError, did_you_mean
from camcli.models import CODE_SOURCES, HUB, HUB_FILE, SOURCES, SUFFIXES, names_cache
from camcli.models.check_name import (
    SEARCH_ORDER,
    TIMM_SCHEMES,
    check_is_no_file,
    check_name,
    find_source_by_suffix,
    make_unknown_error,
)

if TYPE_CHECKING:
    from camcli.models.spec import ModelSource

LIST_ORDER = ("bundled", "timm", "torchvision", "open_clip", "hf")


def import_source(name: str) -> ModelSource:
    """Import and return the module of one of our own sources."""
    from camcli.models.lazy_imports import without_compiler

    home = SOURCES.module_path(SOURCES.find(name))
    with without_compiler():
        return cast("ModelSource", importlib.import_module(home))


def runs_code(model: str) -> bool:
    """Return whether loading a model may run code that it names or holds, without looking anything up."""
    prefix, colon, name = model.partition(":")
    if source := find_source_by_suffix(model):
        return source in CODE_SOURCES
    is_ours = prefix in SOURCES.names() or prefix in TIMM_SCHEMES
    is_code = model.rpartition(":")[0].endswith(".py") or prefix in CODE_SOURCES
    return is_code or (bool(colon) and not is_ours and bool(name))


def resolve(model: str) -> tuple[str, str]:
    """Split a model string into its source and the name within that source.

    Raises:
        RequestError: no source has that model (the hint names the nearest), or it is a weights file or a folder.
    """
    check_name(model)
    if model.rpartition(":")[0].endswith(".py"):
        return "local", model
    if source := find_source_by_suffix(model):
        return source, model
    prefix, colon, name = model.partition(":")
    if not colon:
        return _search_sources(model)
    if prefix in TIMM_SCHEMES:
        return "timm", model
    if prefix in SOURCES.names():
        return prefix, name
    return "local", model  # a module, as was checked


def find_network_file(model: str) -> str:
    """Return the file of a whole network that a model string names; empty if it names none."""
    prefix, _, name = model.partition(":")
    file = name if prefix in SUFFIXES.values() else model
    return str(Path(file).expanduser()) if find_source_by_suffix(file) else ""


def find_python_file(model: str) -> tuple[str, str]:
    """Return the Python file that a model string names, and the function in it; empty if it names none.

    Of a folder of torch.hub it is its ``hubconf.py``.
    """
    prefix, _, name = model.partition(":")
    place, _, function = (name if prefix in ("local", HUB) else model).rpartition(":")
    if prefix == HUB and place:
        return (Path(place) / HUB_FILE).as_posix(), function
    return (place, function) if place.endswith(".py") else ("", "")


def find_other_library(model: str) -> str:
    """Return the full name of the model that torchvision has by the same bare name as timm; empty without one."""
    shared = ":" not in model and all(import_source(place).has(model) for place in ("timm", "torchvision"))
    return f"torchvision:{model}" if shared else ""


def _search_sources(name: str) -> tuple[str, str]:
    for place in SEARCH_ORDER:
        if import_source(place).has(name):
            return place, name
    check_is_no_file(name)
    raise make_unknown_error(name, list_all())


def list_all() -> list[str]:
    """Return the full names of all models, and leave them in the cache of names."""
    known = [f"{place}:{name}" for place in LIST_ORDER for name in import_source(place).names()]
    write_names(known)
    return known


def write_names(known: list[str]) -> None:
    """Leave the full names of all models in the cache, with those that the libraries take and do not list."""
    names_cache.write_names(known)
    names_cache.write_unlisted(
        {place: getattr(import_source(place), "list_unlisted", list[str])() for place in SEARCH_ORDER}
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
    write_names(known)
    if not found:
        names = {name for place in LIST_ORDER for name in _known_names(place)}
        of = f" like {pattern!r}" if pattern else ""
        raise NothingFoundError(
            f"there is no model{of}" + (" with weights on this machine" if only_cached else ""),
            did_you_mean(pattern, names) or "all of them: camcli models",
        )
    return found


def _matches(pattern: str, name: str) -> bool:
    pattern, name = pattern.casefold(), name.casefold()
    return fnmatch.fnmatchcase(name, pattern) if any(mark in pattern for mark in "*?[") else pattern in name
