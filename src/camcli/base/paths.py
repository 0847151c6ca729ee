"""Where a path leads, when `..` stands in it."""

import os
from pathlib import Path


def absolute(path: str | Path) -> str:
    """A path from the root, without ``.`` and ``..``, that leads to the same file.

    Links stay as they are, since a link is a picture of its own in a folder of its own; but what stands before ``..``
    and is a link is followed, as the system does it: behind ``link/..`` lies the folder around what it leads to.
    """
    steps = Path(path).parts
    if ".." not in steps:
        return os.path.abspath(path)  # noqa: PTH100  a string, and quick
    where = os.path.abspath("")  # noqa: PTH100
    for step in steps:
        if step == "..":
            # Of what is no link `..` is the folder that it lies in.
            where = os.path.dirname(os.path.realpath(where) if os.path.islink(where) else where)  # noqa: PTH114, PTH120
        else:
            where = os.path.join(where, step)  # noqa: PTH118
    return where
