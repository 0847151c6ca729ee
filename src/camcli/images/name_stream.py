"""Names read from a stream as they come, and the word that none comes for a while."""

import io
import select
from collections.abc import Iterator
from typing import BinaryIO

# Seconds without a name after which whoever waits for more of them is told.
PATIENCE = 0.5
BOM = b"\xef\xbb\xbf"


def entries(stream: BinaryIO | io.BufferedIOBase, end: bytes, patience: float = PATIENCE) -> Iterator[bytes | None]:
    """What stands between ends, empty names left out; None each time that nothing comes for as long as patience lasts.

    Args:
        stream: a file, a pipe or bytes; a pipe that nobody else reads.
        end: NUL, or a newline, before which a carriage return belongs to it too.
        patience: seconds.
    """
    # read1 hands over what a pipe has now, and does not wait for a full block.
    read = getattr(stream, "read1", stream.read)
    rest, began = b"", True
    while True:
        while not _comes(stream, patience):
            yield None
        block = read(1 << 16)
        *whole, rest = (rest + block).split(end)
        if not block and rest:
            whole, rest = [rest], b""
        for entry in whole:
            name = entry
            if end == b"\n":
                name = (entry.removeprefix(BOM) if began else entry).removesuffix(b"\r")
            began = False
            if name:
                yield name
        if not block:
            return


def _comes(stream: BinaryIO | io.BufferedIOBase, patience: float) -> bool:
    """Whether something can be read, or the end is there; of what cannot be asked it is taken for granted."""
    try:
        return bool(select.select([stream.fileno()], [], [], patience)[0])
    except (OSError, ValueError):  # no file at all, or one that this system cannot be asked about
        return True
