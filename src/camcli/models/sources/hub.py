"""Folders of ``torch.hub``: ``hub:path/to/folder:entry`` calls a function of the folder's ``hubconf.py``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.models import HUB_FILE, user_code
from camcli.models.sources import local
from camcli.models.spec import ModelSpec

USAGE = f"a folder of torch.hub has a {HUB_FILE}, whose functions are its entries: -m hub:path/to/folder:entry"


def names() -> list[str]:
    """Return an empty list, since folders are not listed."""
    return []


def has(name: str) -> bool:
    """Return whether the name is that of a folder and an entry in it."""
    return (Path(name.rpartition(":")[0]) / HUB_FILE).is_file()


def cached(name: str) -> bool:
    """Return whether the folder exists."""
    return has(name)


def load(spec: ModelSpec) -> Network:
    """Load the network that an entry returns, as ``torch.hub.load(folder, entry, source="local")`` does.

    The entry is called without arguments, and with ``pretrained=False`` if it takes that and other weights are
    requested. Nothing is downloaded.

    Raises:
        RequestError: there is no such folder or entry, it fails or wants a download, or nothing says how images are
            prepared.
    """
    folder, _, entry = spec.name.rpartition(":")
    if not folder or not Path(folder).expanduser().is_dir():
        named = folder or spec.name
        missing = "names no entry" if Path(named).expanduser().is_dir() else f"there is no folder {named!r}"
        raise RequestError(f"hub:{spec.name}: {missing}", USAGE)
    file = Path(folder).expanduser() / HUB_FILE
    if not file.is_file():
        raise RequestError(f"the folder {folder!r} has no {HUB_FILE}", USAGE)
    reference = f"{file}:{entry}"
    with user_code.neighbours_importable(reference), mock.patch("torch.hub.download_url_to_file", _refuse_download):
        function = user_code.import_callable(reference, "entry", USAGE)
        return local.call_function(_without_pretrained(function) if spec.weights else function, spec, reference)


def _without_pretrained(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the entry without its own weights, if it says how."""
    try:
        takes = "pretrained" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return function
    return partial(function, pretrained=False) if takes else function


def _refuse_download(url: str, *_given: Any, **_named: Any) -> NoReturn:
    raise RequestError(
        f"the entry downloads {url}, and camcli fetches nothing for torch.hub",
        "fetch it yourself, and name it: --weights FILE; or put it into ~/.cache/torch/hub/checkpoints",
    )
