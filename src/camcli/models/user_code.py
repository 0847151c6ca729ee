"""The user's own Python: a file or an installed module, what it defines, and what it says when it fails."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from camcli.base.errors import RequestError, did_you_mean

# What the topmost folder of a project has in it.
ROOT_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
RELATIVE = re.compile(r"^\s*from\s+(\.+)", re.MULTILINE)
LIBRARIES = ("site-packages", "dist-packages")
# How many names a message lists.
MOST_NAMES = 30


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
            "\n".join(filter(None, (did_you_mean(name, there), f"there are: {_listing(there)}"))),
        )
    made: Callable[..., Any] = function
    return made


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}" if names else "none"


def called(function: Callable[..., Any], words: str, *given: Any) -> Any:
    """What the function gives.

    Raises:
        RequestError: it raises, with the end of the traceback in the user's own files.
    """
    try:
        return function(*given)
    except (Exception, SystemExit) as error:
        raise RequestError(f"{words} failed: {said(error)}", tail(error, file(words))) from error


@contextmanager
def neighbours(words: str) -> Iterator[None]:
    """What lies beside a file, in its project's root (or ``src`` there) and in the current folder can be imported."""
    place = words.rpartition(":")[0]
    own = Path(place).resolve() if place.endswith(".py") else None
    roots = [root for start in (own or Path.cwd(), Path.cwd()) if (root := _root(start))]
    others = [*([_top(own)] if own else []), *(one for root in roots for one in (root, root / "src")), Path.cwd()]
    added = [str(one) for one in dict.fromkeys(others) if str(one) not in sys.path and one.is_dir()]
    # Behind Python's own modules, which a project's do not hide, and before libraries.
    turn = next((at for at, one in enumerate(sys.path) if Path(one).name in LIBRARIES), len(sys.path))
    sys.path[turn:turn] = added
    if own:
        added.append(str(own.parent))
        sys.path.insert(0, added[-1])
    importlib.invalidate_caches()  # a file may be younger than the last look
    try:
        yield
    finally:
        for one in added:  # whatever the user's code has put there stays
            if one in sys.path:
                sys.path.remove(one)


def _root(folder: Path) -> Path | None:
    """The nearest folder from here upwards that is the root of a project."""
    return next((one for one in (folder, *folder.parents) if any((one / mark).exists() for mark in ROOT_MARKS)), None)


def is_module(name: str) -> bool:
    """Whether a module of this name, ``package.module``, can be imported; nothing but the packages around it is run."""
    if not _is_dotted(name):
        return False
    with neighbours(""):
        try:
            return importlib.util.find_spec(name) is not None
        except Exception:  # a package around it fails: then it is one, and importing it will tell how
            return importlib.util.find_spec(name.partition(".")[0]) is not None


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


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
    """Where in the user's files it was, and where it came up; empty if it was not in them."""
    if isinstance(error, SyntaxError) and error.filename:
        return "".join(traceback.format_exception_only(error)[:-1]).rstrip()
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) in (path, path.absolute()) or _is_users(frame.filename)]
    if not own:
        return ""
    return "".join(traceback.format_list([*own[-4:], *(frames[-1:] if frames[-1] != own[-1] else [])])).rstrip()


def _is_users(name: str) -> bool:
    """Whether a file is neither Python's, nor a library's, nor ours."""
    if name.startswith("<") or any(part in LIBRARIES for part in Path(name).parts):
        return False
    ours = str(Path(__file__).resolve().parents[1])
    homes = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), ours]
    return not any(Path(name).resolve().is_relative_to(Path(home).resolve()) for home in homes)


def _imported(path: Path, usage: str) -> Any:
    """The file as a module; where it imports relatively, as the part of its package that it is."""
    if not path.is_file():
        raise RequestError(f"there is no file {str(path)!r}", usage)
    if name := _name_in_package(path):
        module = _run(lambda: importlib.import_module(name), path)
        if Path(getattr(module, "__file__", None) or "").resolve() == path.resolve():
            return module
    # A name of its own, so that a file called timm.py hides nothing; the same each time, so that pickles find it.
    name = f"camcli_local_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    # As the package of its folder it can import its neighbours relatively too.
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.resolve().parent)])
    if spec is None or spec.loader is None:
        raise RequestError(f"{str(path)!r} cannot be imported")
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.modules[name] = module
    try:
        _run(lambda: loader.exec_module(module), path)
    except RequestError:
        del sys.modules[name]
        raise
    return module


def _run(imports: Callable[[], Any], path: Path) -> Any:
    try:
        return imports()
    except (Exception, SystemExit) as error:
        raise RequestError(f"importing {str(path)!r} failed: {said(error)}", tail(error, path)) from error


def _name_in_package(path: Path) -> str:
    """Of a file that imports relatively, its dotted name; empty where its own folder is all that it needs."""
    path, top = path.resolve(), _top(path.resolve())
    name = ".".join(path.relative_to(top).with_suffix("").parts)
    return name if top != path.parent and _dots(path) and _is_dotted(name) else ""


def _top(path: Path) -> Path:
    """The folder that holds the outermost package that a file is in."""
    top = path.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    if top == path.parent and (dots := _dots(path)) > 1:  # packages without an __init__.py
        return _root(top) or path.parents[min(dots, len(path.parents) - 1)]
    return top


def _dots(path: Path) -> int:
    """With how many dots a file imports at most."""
    try:
        return max(map(len, RELATIVE.findall(path.read_text(encoding="utf-8"))), default=0)
    except (OSError, UnicodeDecodeError):
        return 0


def _installed(name: str, usage: str) -> Any:
    missing = RequestError(f"there is no module {name!r}", usage)
    if not _is_dotted(name):
        raise missing
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        gone = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
        if gone:
            raise missing from error
        own = tail(error, Path()) or "".join(traceback.format_tb(error.__traceback__)[-2:]).rstrip()
        raise RequestError(f"importing {name!r} failed: {said(error)}", own) from error
