"""Bytes and stamps of image files, whatever holds them: a folder, an archive or table named as one, or a store."""

import os
from pathlib import Path

from camcli.images import archives, remote, tables
from camcli.images.address import to_url
from camcli.images.source import ByteStream


def open_file(path: Path) -> ByteStream:
    """Open an image's file, which may lie in an archive, a table or a store.

    Raises:
        OSError: it cannot be opened.
        PictureError: it cannot be read from its archive, table or store.
    """
    try:
        return path.open("rb")
    except FileNotFoundError:
        if not (url := to_url(path)):
            raise
        return remote.read_url(url)
    except NotADirectoryError:
        place = archives.split_path(path)
        if place is None:
            raise
    return tables.open_row(*place) if tables.is_table(place[0]) else archives.open_member(*place)


def read_stamp(path: str | Path) -> str:
    """Return a file's size and time of change, to detect changes later; empty if the file is missing."""
    try:
        status = os.stat(path)  # noqa: PTH116  quicker
    except NotADirectoryError:
        place = archives.split_path(path)
        if place is None:
            return ""
        return tables.read_row_stamp(*place) if tables.is_table(place[0]) else archives.read_member_stamp(*place)
    except FileNotFoundError:
        url = to_url(Path(path))
        return remote.read_url_stamp(url) if url else ""
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def exists(path: Path) -> bool:
    """Return whether there is such a file, in a folder or in an archive; False where that cannot be known."""
    try:
        path.stat()
    except NotADirectoryError:
        return bool(read_stamp(path))
    except (OSError, ValueError):
        return False
    return True
