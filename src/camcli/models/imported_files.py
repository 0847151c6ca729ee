"""The user's own files that a Python file imports, and those that these import."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("site-packages", "dist-packages")


def imported(start: Path) -> dict[str, str]:
    """The SHA-256 of each file of the user's that a file imports, however far away; itself is the first.

    Imports are read from the source, those within functions too; what is imported by a name that is computed is not
    seen. What libraries hold is not the user's; but of a file within an installed package all that lies in this package
    is.

    Args:
        start: the file.

    Returns:
        By each file's path from the folder that it is imported from.
    """
    start = start.resolve()
    home = _package(start) if _is_library(start) else None
    roots = [_root(start), start.parent, Path.cwd(), *_paths()]
    found = {start: start.name}
    left = [start]
    while left:
        file = left.pop()
        for name in _named(file):
            path = _located(name, file, roots)
            if path is None or path in found or (_is_library(path) and (home is None or home not in path.parents)):
                continue
            found[path] = next(path.relative_to(root).as_posix() for root in _roots(path, roots))
            left.append(path)
    return {name: _digest(path) for path, name in sorted(found.items(), key=lambda item: item[1])}


def _roots(path: Path, roots: list[Path]) -> Iterator[Path]:
    yield from (root for root in roots if root in path.parents)
    yield path.parent


def _named(file: Path) -> Iterator[str]:
    """The modules that a file's imports may mean, those relative to it with as many dots."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names for name in _prefixes(alias.name))
        elif isinstance(node, ast.ImportFrom):
            dots, module = "." * node.level, node.module or ""
            yield from (dots + name for name in _prefixes(module))
            yield from (dots + ".".join(filter(None, (module, alias.name))) for alias in node.names)


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".") if name else []
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _located(name: str, file: Path, roots: list[Path]) -> Path | None:
    """The file of a module: the one that is loaded, or the one that would be."""
    words = name.lstrip(".")
    if dots := len(name) - len(words):
        return _file(file.parents[dots - 1], words) if dots <= len(file.parents) else None
    if words.partition(".")[0] in sys.stdlib_module_names:
        return None
    loaded = getattr(sys.modules.get(words), "__file__", None)
    if loaded:
        return Path(loaded).resolve() if loaded.endswith(".py") else None
    return next((path for root in roots if (path := _file(root, words))), None)


def _file(root: Path, words: str) -> Path | None:
    if not words or "*" in words:
        return None
    base = root.joinpath(*words.split("."))
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            return path.resolve()
    return None


def _paths() -> list[Path]:
    found = (Path(path or ".").resolve() for path in sys.path)
    return [path for path in dict.fromkeys(found) if path.is_dir() and not _is_library(path / "x.py")]


def _root(file: Path) -> Path:
    """The folder that a file's package lies in; its own folder if it is in none."""
    return _package(file).parent


def _package(file: Path) -> Path:
    """The outermost package that a file lies in; the file itself if it is in none."""
    package = file
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    return package


def _is_library(file: Path) -> bool:
    if any(part in LIBRARIES for part in file.parts):
        return True
    standard = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parents[1])]
    return any(Path(folder).resolve() in file.parents for folder in standard)


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return "gone"
