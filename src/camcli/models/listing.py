"""Names of models: which there are, which source has one, and what was meant."""

from __future__ import annotations

import fnmatch
import importlib
import re
from typing import TYPE_CHECKING, cast

from camcli.base import weight_files
from camcli.base.errors import NothingFoundError, RequestError, did_you_mean, nearest
from camcli.models import SOURCES

if TYPE_CHECKING:
    from camcli.models.spec import Source

SEARCHED = ("timm", "torchvision", "open_clip", "bundled")  # for a name without a source, in this order
LISTED = ("bundled", "timm", "torchvision", "open_clip")
TIMM_SCHEMES = ("hf-hub", "hf_hub", "local-dir")  # timm's own words for a model elsewhere


def source(name: str) -> Source:
    """The file of one of our own sources, imported now."""
    from camcli.models.lazy_imports import light

    home = SOURCES.home(SOURCES.find(name))
    with light():
        return cast("Source", importlib.import_module(home))


def runs_code(model: str) -> bool:
    """Whether a model string names Python code of somebody's own, by a file or a module; nothing is looked up."""
    prefix, colon, name = model.partition(":")
    own = prefix in SOURCES.names() or prefix in TIMM_SCHEMES
    return model.rpartition(":")[0].endswith(".py") or prefix == "local" or (bool(colon) and not own and bool(name))


def resolve(model: str) -> tuple[str, str]:
    """The source of a model string, and the name within it.

    Raises:
        RequestError: no source has that model; the hint names the nearest. Or it is a file of weights, or a folder.
    """
    if model.rpartition(":")[0].endswith(".py"):
        return "local", model
    if model.endswith(".py"):
        raise RequestError(f"{model!r} does not say which function makes the model", f"name it: {model}:function")
    prefix, colon, name = model.partition(":")
    if not colon:
        if weight_files.suffix(model):
            _check_is_no_file(model)
        return _searched(model)
    if prefix in TIMM_SCHEMES:
        return "timm", model
    if prefix in SOURCES.names():
        return prefix, name
    from camcli.models import user_code as _importing

    if name.isidentifier() and _importing.is_module(prefix):
        return "local", model
    known = [*SOURCES.names(), *TIMM_SCHEMES]
    near = did_you_mean(prefix, known)
    own = "path/to/file.py:function and package.module:function"
    raise RequestError(
        f"{model!r} begins with {prefix!r}, which is no source of models, nor a module that can be imported from here",
        "\n".join(filter(None, (near, f"there are: {', '.join(known)}, and {own}"))),
    )


def _check_is_no_file(name: str) -> None:
    if other := weight_files.not_a_model(name):
        raise RequestError(f"the model {name!r} is {other.what}", other.hint)


def _searched(name: str) -> tuple[str, str]:
    for place in SEARCHED:
        if source(place).has(name):
            return place, name
    _check_is_no_file(name)
    known = {known: f"{place}:{known}" for place in reversed(SEARCHED) for known in _spellings(place)}
    close = [known[near] for near in nearest(name, known)]
    hint = f"did you mean {' or '.join(close)}?\n" if close else ""
    raise RequestError(
        f"there is no model {name!r} in {', '.join(SEARCHED)}", hint + "list them: camcli models [PATTERN]"
    )


def _spellings(place: str) -> set[str]:
    """A source's names, with tags and without."""
    names = source(place).names()
    return {*names, *(re.split(r"[./]", name)[0] for name in names)}


def listing(pattern: str = "", cached: bool = False) -> list[tuple[str, bool]]:
    """Every model that can be loaded by name, source by source, and whether its weights are at hand.

    Args:
        pattern: a glob such as ``resnet*`` or a part of a name, with or without the source; empty for all.
        cached: only those whose weights are at hand.

    Returns:
        Full names such as ``timm:resnet50.a1_in1k``, each with whether its weights are on this machine.

    Raises:
        NothingFoundError: there is none.
    """
    found = []
    for place in LISTED:
        there = source(place)
        for name in there.names():
            full = f"{place}:{name}"
            if not _matches(pattern, name) and not _matches(pattern, full):
                continue
            at_hand = there.cached(name)
            if at_hand or not cached:
                found.append((full, at_hand))
    if not found:
        names = {name for place in LISTED for name in _spellings(place)}
        of = f" like {pattern!r}" if pattern else ""
        raise NothingFoundError(
            f"there is no model{of}" + (" whose weights are at hand" if cached else ""), did_you_mean(pattern, names)
        )
    return found


def _matches(pattern: str, name: str) -> bool:
    pattern, name = pattern.casefold(), name.casefold()
    return fnmatch.fnmatchcase(name, pattern) if any(mark in pattern for mark in "*?[") else pattern in name
