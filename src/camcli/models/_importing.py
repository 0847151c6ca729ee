"""The user's own Python: a file or an installed module, what it defines, and what it says when it fails."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from camcli.errors import RequestError, did_you_mean


def found(words: str, what: str, usage: str) -> Callable[..., Any]:
    """The function or class that ``path/to/file.py:name`` or ``package.module:name`` names.

    Args:
        words: what the user gave.
        what: what is looked for, for messages: ``function``.
        usage: how such a thing is named, for messages.

    Raises:
        RequestError: there is no such file, module or name in it, or importing it fails.
    """
    place, _, name = words.rpartition(":")
    module = _imported(Path(place), usage) if place.endswith(".py") else _installed(place, usage)
    function = getattr(module, name, None)
    if not callable(function):
        there = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise RequestError(
            f"{place!r} has no {what} {name!r}",
            "\n".join(filter(None, (did_you_mean(name, there), f"there are: {', '.join(there) or 'none'}"))),
        )
    made: Callable[..., Any] = function
    return made


def called(function: Callable[..., Any], words: str, *given: Any) -> Any:
    """What the function gives.

    Raises:
        RequestError: it raises, with the end of the traceback in the user's own file.
    """
    try:
        return function(*given)
    except Exception as error:
        raise RequestError(f"{words} failed: {said(error)}", tail(error, file(words))) from error


@contextmanager
def neighbours(words: str) -> Iterator[None]:
    """The files beside a file can be imported, as if it were run."""
    place = words.rpartition(":")[0]
    if not place.endswith(".py"):
        yield
        return
    folder = str(Path(place).resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def file(words: str) -> Path:
    """The file that a function or class stands in."""
    place = words.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place)
    return Path(getattr(sys.modules.get(place), "__file__", None) or place)


def said(error: BaseException) -> str:
    """The last line of what Python says of an error."""
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


def tail(error: BaseException, path: Path) -> str:
    """Where in the user's file it was, and where it came up; empty if it was not in it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) in (path, path.absolute())]
    if not own:
        return ""
    return "".join(traceback.format_list([*own[-4:], *(frames[-1:] if frames[-1] != own[-1] else [])])).rstrip()


def _imported(path: Path, usage: str) -> Any:
    """The file as a module."""
    if not path.is_file():
        raise RequestError(f"there is no file {str(path)!r}", usage)
    # A name of its own, so that a file called timm.py hides nothing; the same each time, so that pickles find it.
    name = f"camcli_local_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RequestError(f"{str(path)!r} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RequestError(f"importing {str(path)!r} failed: {said(error)}", tail(error, path)) from error
    return module


def _installed(name: str, usage: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
        if missing or isinstance(error, ValueError | TypeError) or not name:
            raise RequestError(f"there is no module {name!r}", usage) from error
        own = "".join(traceback.format_tb(error.__traceback__)[-2:]).rstrip()
        raise RequestError(f"importing {name!r} failed: {said(error)}", own) from error
