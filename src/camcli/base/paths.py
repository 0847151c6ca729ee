"""Absolute paths that keep links and resolve ``..``."""

import os
from pathlib import Path


def absolute(path: str | Path) -> str:
    """Return an absolute path without ``.`` and ``..`` to the same file.

    Links are kept, since a link is an image of its own in a folder of its own; but a link before ``..`` is followed,
    as the system does: ``link/..`` is the parent of the link's target.
    """
    steps = Path(path).parts
    if ".." not in steps:
        return os.path.abspath(path)  # noqa: PTH100  a string, and quick
    where = os.path.abspath("")  # noqa: PTH100
    for step in steps:
        if step == "..":
            # Only the `..` of a link differs from its parent in the path.
            where = os.path.dirname(os.path.realpath(where) if os.path.islink(where) else where)  # noqa: PTH114, PTH120
        else:
            where = os.path.join(where, step)  # noqa: PTH118
    return where
