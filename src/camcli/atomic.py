"""Write a file whole or not at all."""

import secrets
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write ``content`` under a temporary name beside ``path``, then move it there in one step.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, and not derived from the name, so that a name of the greatest length still has a temporary one.
    temporary = path.with_name(f".camcli-{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
