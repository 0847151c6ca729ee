"""Cache: small JSON files in the user's cache folder, each valid as long as its key stays the same."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any


def find_folder() -> Path:
    """Return the folder of camcli's cache files, by the custom of the system; it may not exist yet."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given, "camcli")
    home = Path("~").expanduser()
    if sys.platform == "darwin":
        return home / "Library/Caches/camcli"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local", "camcli", "cache")
    return home / ".cache/camcli"


def read(name: str, key: Any = None) -> Any:
    """Return what was written under this name with the same key; None if there is nothing."""
    try:
        content = json.loads((find_folder() / f"{name}.json").read_text(encoding="utf-8"))
        return content["value"] if content["key"] == key else None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # missing, half written, or by another version
        return None


def write(name: str, value: Any, key: Any = None) -> None:
    """Write a value under a name, where the system allows it: without a cache everything works, but slower."""
    from camcli.base import atomic

    with suppress(OSError, RuntimeError):
        path = find_folder() / f"{name}.json"
        atomic.write(path, json.dumps({"key": key, "value": value}).encode())
