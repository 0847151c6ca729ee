"""Cache of names, so that completion and messages need no library: of all models, and of a model's layers and classes.

Imports neither torch nor the libraries, whose versions it reads off the names of their folders.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcli.base import cache

if TYPE_CHECKING:
    from camcli.engine.network import Network

# Distributions whose models are listed, as their metadata folders are called.
LIBRARIES = ("timm-", "torchvision-", "open_clip_torch-")
# More classes than these are not worth completing.
MAX_CLASSES = 2000


@dataclass(frozen=True, slots=True)
class ModelNames:
    """Names in a model.

    Attributes:
        layers: paths of its layers.
        classes: names of its classes.
    """

    layers: list[str]
    classes: list[str]


def read_names() -> list[str] | None:
    """Return the full names of all models, such as ``timm:resnet50.a1_in1k``; None if they were not listed yet.

    They count as long as the libraries have the versions with which they were listed.
    """
    found: list[str] | None = cache.read(_name_list(), _find_versions())
    return found


def write_names(names: Iterable[str]) -> None:
    """Write the full names of all models."""
    cache.write(_name_list(), list(names), _find_versions())


def read_unlisted() -> dict[str, list[str]] | None:
    """Return by source the names that it takes and does not list, such as retired ones; None if not known yet."""
    found: dict[str, list[str]] | None = cache.read(_name_list("unlisted"), _find_versions())
    return found


def write_unlisted(names: dict[str, list[str]]) -> None:
    """Write by source the names that it takes and does not list."""
    cache.write(_name_list("unlisted"), names, _find_versions())


def read_installed() -> dict[str, list[str]] | None:
    """Return the names of models that the installed libraries' files have: see :mod:`installed_names`.

    None if a library is imported already, as by a process that may have added models to it; or is not found.
    """
    if "torch" in sys.modules:
        return None
    found: dict[str, list[str]] | None = cache.read(_name_list("installed"), _find_versions())
    if found is None:
        from camcli.models.installed_names import read_installed_names

        found = read_installed_names()
        cache.write(_name_list("installed"), found, _find_versions())
    return found if len(found) == len(LIBRARIES) else None


def read_model(model: str) -> ModelNames | None:
    """Return the names in a model; None if no command has loaded it yet."""
    found = cache.read(_name_model(model))
    try:
        return ModelNames(found["layers"], found["classes"]) if found else None
    except (KeyError, TypeError):  # by another version
        return None


def write_model(model: str, network: Network) -> None:
    """Write the names in a model that was loaded."""
    from camcli.targets.labels import Labels

    labels = network.labels
    layers = [name for name, _ in network.module.named_modules() if name]
    classes = map(labels.short, range(min(labels.explainable_count, MAX_CLASSES)))
    # Placeholders for unknown names, and prompts, are nothing to complete.
    named = labels.noun == "class" and labels.names != Labels.numbered(len(labels)).names
    cache.write(_name_model(model), {"layers": layers, "classes": list(dict.fromkeys(classes)) if named else []})


def _name_list(kind: str = "models") -> str:
    return f"{kind}-{_hash(sys.prefix)}"


def _name_model(model: str) -> str:
    # A file of the user's own is another one in another folder.
    return f"model-{_hash(str(Path.cwd() / model) if '.py:' in model else model)}"


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _find_versions() -> list[Any]:
    """Return the installed versions of the libraries, as the names of their metadata folders."""
    found = set()
    for folder in sys.path:
        with suppress(OSError), os.scandir(folder or ".") as entries:
            found |= {entry.name for entry in entries if entry.name.startswith(LIBRARIES)}
    return sorted(found)
