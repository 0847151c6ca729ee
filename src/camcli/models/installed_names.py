"""Names of the models of installed libraries, read from their source files: importing these takes seconds."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

# A model's function behind its decorator, in timm and torchvision; a decorator may give it another name.
REGISTERED = re.compile(r"^@register_model\b(?:\(\s*name=[\"'](\w+)[\"'])?.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
# timm's table of earlier names.
RETIRED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"^\s*[\"']([\w.]+)[\"']\s*:", re.MULTILINE)


def read_installed_names() -> dict[str, list[str]]:
    """Return the names of models without their tags, by source: all that a source takes, also retired ones.

    A source whose package is not found, or is built in another way, is left out.
    """
    found = {}
    for source in ("timm", "torchvision"):
        texts = [file.read_text("utf-8", errors="replace") for file in _list_files(source, "models", "*.py")]
        registered = {own or function for text in texts for own, function in REGISTERED.findall(text)}
        retired = {
            name.partition(".")[0] for text in texts for table in RETIRED.findall(text) for name in KEY.findall(table)
        }
        found[source] = sorted(registered | retired)
    found["open_clip"] = sorted(file.stem for file in _list_files("open_clip", "model_configs", "*.json"))
    return {source: names for source, names in found.items() if names}


def _list_files(package: str, folder: str, pattern: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)  # of a package without a parent, which imports nothing
    for place in (spec and spec.submodule_search_locations) or ():
        yield from Path(place, folder).rglob(pattern)
