"""Import and calls of the user's own Python code, from a file or an installed module, with its errors reported."""

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

# Names that mark the topmost folder of a project.
PROJECT_MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
RELATIVE_IMPORT = re.compile(r"^\s*from\s+(\.+)", re.MULTILINE)
LIBRARY_FOLDERS = ("site-packages", "dist-packages")
# Number of names that a message lists.
MAX_NAMES = 30


def import_callable(reference: str, what: str, usage: str) -> Callable[..., Any]:
    """Import the function or class named by ``path/to/file.py:name`` or ``package.module:name``.

    Args:
        reference: the name as the user gave it.
        what: the kind of object, for messages: ``function``.
        usage: how to name such an object, for messages.

    Raises:
        RequestError: there is no such file or module, it does not define the name, or importing it fails.
    """
    place, _, name = reference.rpartition(":")
    module = _import_file(Path(place), usage) if place.endswith(".py") else _import_module(place, usage)
    function = getattr(module, name, None)
    if not callable(function):
        there = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise RequestError(
            f"{place!r} has no {what} {name!r}",
            "\n".join(filter(None, (did_you_mean(name, there), f"there are: {_shorten(there)}"))),
        )
    made: Callable[..., Any] = function
    return made


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"{', '.join(names[:MAX_NAMES])}{more}" if names else "none"


def call_user_code(function: Callable[..., Any], reference: str, *given: Any) -> Any:
    """Call a function of the user's and return its result.

    Raises:
        RequestError: the function raises; the hint is the end of the traceback in the user's own files.
    """
    try:
        return function(*given)
    except (Exception, SystemExit) as error:
        raise RequestError(
            f"{reference} failed: {format_error(error)}", format_user_traceback(error, source_file(reference))
        ) from error


@contextmanager
def neighbours_importable(reference: str) -> Iterator[None]:
    """Make modules in a file's folder, its project's root (and ``src`` there) and the current folder importable."""
    place = reference.rpartition(":")[0]
    file = Path(place).resolve() if place.endswith(".py") else None
    roots = [root for start in (file or Path.cwd(), Path.cwd()) if (root := _find_project_root(start))]
    others = [
        *([_find_import_root(file)] if file else []),
        *(one for root in roots for one in (root, root / "src")),
        Path.cwd(),
    ]
    added = [str(one) for one in dict.fromkeys(others) if str(one) not in sys.path and one.is_dir()]
    # After Python's own modules, which a project's must not shadow, and before libraries.
    index = next((at for at, one in enumerate(sys.path) if Path(one).name in LIBRARY_FOLDERS), len(sys.path))
    sys.path[index:index] = added
    if file:
        added.append(str(file.parent))
        sys.path.insert(0, added[-1])
    importlib.invalidate_caches()  # a file may be newer than the import system's caches
    try:
        yield
    finally:
        for one in added:  # what the user's code has added itself stays
            if one in sys.path:
                sys.path.remove(one)


def _find_project_root(folder: Path) -> Path | None:
    """Find the nearest project root among a folder and its parents."""
    return next(
        (one for one in (folder, *folder.parents) if any((one / mark).exists() for mark in PROJECT_MARKERS)), None
    )


def is_module(name: str) -> bool:
    """Return whether ``package.module`` can be imported; only the packages that contain it are run."""
    if not _is_dotted_name(name):
        return False
    with neighbours_importable(""):
        try:
            return importlib.util.find_spec(name) is not None
        except Exception:  # a parent package fails, so it exists; importing it will report the error
            return importlib.util.find_spec(name.partition(".")[0]) is not None


def _is_dotted_name(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def source_file(reference: str) -> Path:
    """Return the file that defines a function or class."""
    place = reference.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place)
    return Path(getattr(sys.modules.get(place), "__file__", None) or place)


def format_error(error: BaseException) -> str:
    """Return the last line of Python's own message for an error."""
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


def format_user_traceback(error: BaseException, path: Path) -> str:
    """Format the frames of a traceback in the user's files, and the last one; empty if none are the user's."""
    if isinstance(error, SyntaxError) and error.filename:
        return "".join(traceback.format_exception_only(error)[:-1]).rstrip()
    frames = traceback.extract_tb(error.__traceback__)
    user_frames = [
        frame for frame in frames if Path(frame.filename) in (path, path.absolute()) or _is_user_file(frame.filename)
    ]
    if not user_frames:
        return ""
    last = frames[-1:] if frames[-1] != user_frames[-1] else []
    return "".join(traceback.format_list([*user_frames[-4:], *last])).rstrip()


def _is_user_file(name: str) -> bool:
    """Return whether a file belongs neither to Python, nor to a library, nor to camcli."""
    if name.startswith("<") or any(part in LIBRARY_FOLDERS for part in Path(name).parts):
        return False
    ours = str(Path(__file__).resolve().parents[1])
    homes = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), ours]
    return not any(Path(name).resolve().is_relative_to(Path(home).resolve()) for home in homes)


def _import_file(path: Path, usage: str) -> Any:
    """Import a file as a module, or as a member of its package if it has relative imports."""
    if not path.is_file():
        raise RequestError(f"there is no file {str(path)!r}", usage)
    if name := _name_in_package(path):
        module = _run_import(lambda: importlib.import_module(name), path)
        if Path(getattr(module, "__file__", None) or "").resolve() == path.resolve():
            return module
    # A unique name, so that a file called timm.py shadows nothing; always the same, so that pickles find it.
    name = f"camcli_local_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    # Imported as a package of its folder, so that it can import its neighbours relatively too.
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.resolve().parent)])
    if spec is None or spec.loader is None:
        raise RequestError(f"{str(path)!r} cannot be imported")
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.modules[name] = module
    try:
        _run_import(lambda: loader.exec_module(module), path)
    except RequestError:
        del sys.modules[name]
        raise
    return module


def _run_import(import_it: Callable[[], Any], path: Path) -> Any:
    try:
        return import_it()
    except (Exception, SystemExit) as error:
        raise RequestError(
            f"importing {str(path)!r} failed: {format_error(error)}", format_user_traceback(error, path)
        ) from error


def _name_in_package(path: Path) -> str:
    """Return the dotted name of a file with relative imports; empty if its own folder is enough for them."""
    path, top = path.resolve(), _find_import_root(path.resolve())
    name = ".".join(path.relative_to(top).with_suffix("").parts)
    return name if top != path.parent and _count_import_dots(path) and _is_dotted_name(name) else ""


def _find_import_root(path: Path) -> Path:
    """Find the folder that contains the outermost package of a file."""
    top = path.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    if top == path.parent and (dots := _count_import_dots(path)) > 1:  # namespace packages, without an __init__.py
        return _find_project_root(top) or path.parents[min(dots, len(path.parents) - 1)]
    return top


def _count_import_dots(path: Path) -> int:
    """Return the largest number of leading dots in a file's relative imports."""
    try:
        return max(map(len, RELATIVE_IMPORT.findall(path.read_text(encoding="utf-8"))), default=0)
    except (OSError, UnicodeDecodeError):
        return 0


def _import_module(name: str, usage: str) -> Any:
    missing = RequestError(f"there is no module {name!r}", usage)
    if not _is_dotted_name(name):
        raise missing
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        gone = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
        if gone:
            raise missing from error
        hint = format_user_traceback(error, Path()) or "".join(traceback.format_tb(error.__traceback__)[-2:]).rstrip()
        raise RequestError(f"importing {name!r} failed: {format_error(error)}", hint) from error
