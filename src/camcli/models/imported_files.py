"""Search for the user's own files that a Python file imports, directly or indirectly."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

LIBRARY_FOLDERS = ("site-packages", "dist-packages")


def hash_imported_files(start: Path) -> dict[str, str]:
    """Compute the SHA-256 of a file and of each of the user's files that it imports, directly or indirectly.

    Imports are read from the source, including those within functions; imports by a computed name are not found.
    Libraries are left out, except the file's own package if the file is part of an installed one.

    Args:
        start: the file.

    Returns:
        Hexadecimal digests, by each file's path relative to the folder that it is imported from.
    """
    start = start.resolve()
    home = _outermost_package(start) if _is_library(start) else None
    roots = [_find_import_root(start), start.parent, Path.cwd(), *_user_search_paths()]
    found = {start: start.name}
    left = [start]
    while left:
        file = left.pop()
        for name in _iter_imported_names(file):
            path = _find_module_file(name, file, roots)
            if path is None or path in found or (_is_library(path) and (home is None or home not in path.parents)):
                continue
            found[path] = next(path.relative_to(root).as_posix() for root in _containing_folders(path, roots))
            left.append(path)
    return {name: _hash_file(path) for path, name in sorted(found.items(), key=lambda item: item[1])}


def _containing_folders(path: Path, roots: list[Path]) -> Iterator[Path]:
    yield from (root for root in roots if root in path.parents)
    yield path.parent


def _iter_imported_names(file: Path) -> Iterator[str]:
    """Yield the names of modules that a file may import, relative ones with their leading dots."""
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


def _find_module_file(name: str, file: Path, roots: list[Path]) -> Path | None:
    """Find the file of a module: the one loaded already, or the one an import would load."""
    words = name.lstrip(".")
    if dots := len(name) - len(words):
        return _file_in_folder(file.parents[dots - 1], words) if dots <= len(file.parents) else None
    if words.partition(".")[0] in sys.stdlib_module_names:
        return None
    loaded = getattr(sys.modules.get(words), "__file__", None)
    if loaded:
        return Path(loaded).resolve() if loaded.endswith(".py") else None
    return next((path for root in roots if (path := _file_in_folder(root, words))), None)


def _file_in_folder(root: Path, name: str) -> Path | None:
    if not name or "*" in name:
        return None
    base = root.joinpath(*name.split("."))
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            return path.resolve()
    return None


def _user_search_paths() -> list[Path]:
    found = (Path(path or ".").resolve() for path in sys.path)
    return [path for path in dict.fromkeys(found) if path.is_dir() and not _is_library(path / "x.py")]


def _find_import_root(file: Path) -> Path:
    """Find the folder that contains a file's outermost package; the file's own folder if it is in no package."""
    return _outermost_package(file).parent


def _outermost_package(file: Path) -> Path:
    """Find the outermost package that contains a file; the file itself if it is in no package."""
    package = file
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    return package


def _is_library(file: Path) -> bool:
    if any(part in LIBRARY_FOLDERS for part in file.parts):
        return True
    standard = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parents[1])]
    return any(Path(folder).resolve() in file.parents for folder in standard)


def _hash_file(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return "gone"
