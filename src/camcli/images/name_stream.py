"""Reading of names from a stream as they arrive, with a signal while none arrives."""

import io
import select
from collections.abc import Iterator
from typing import BinaryIO
from weakref import WeakSet

# Seconds without a name after which None is yielded.
DEFAULT_TIMEOUT = 0.5
BOM = b"\xef\xbb\xbf"
# First bytes of image files: JPEG, PNG, GIF, TIFF.
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")

# Streams whose first bytes were looked at, and lie in Python's buffer, which the system's select does not see.
_peeked: WeakSet[BinaryIO | io.BufferedIOBase] = WeakSet()


def is_image(start: bytes) -> bool:
    """Return whether what should be names begins like a file of an image."""
    return start.startswith(IMAGE_STARTS) or (start[:4] == b"RIFF" and b"WEBP" in start[:16]) or start[4:8] == b"ftyp"


def peek(stream: BinaryIO | io.BufferedIOBase) -> bytes:
    """Return the first bytes of a stream, if some are there already, and leave them in it."""
    look = getattr(stream, "peek", None)
    if not look or not (stream in _peeked or _wait_for_input(stream, 0.0)):
        return b""
    _peeked.add(stream)
    return bytes(look(16))


def read_entries(
    stream: BinaryIO | io.BufferedIOBase, end: bytes, timeout: float = DEFAULT_TIMEOUT
) -> Iterator[bytes | None]:
    """Iterate over the non-empty names in a stream; None each time that nothing arrives for ``timeout`` seconds.

    Args:
        stream: a file, a pipe that nothing else reads, or bytes.
        end: the separator: NUL, or a newline, which may follow a carriage return.
        timeout: seconds to wait.
    """
    # read1 returns what a pipe has now, and does not wait for a full block.
    read = getattr(stream, "read1", stream.read)
    rest, began = b"", True
    while True:
        while stream not in _peeked and not _wait_for_input(stream, timeout):
            yield None
        if stream in _peeked:
            _peeked.discard(stream)
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


def _wait_for_input(stream: BinaryIO | io.BufferedIOBase, timeout: float) -> bool:
    """Return whether there is input, or the end, within the timeout; True where that cannot be known."""
    try:
        return bool(select.select([stream.fileno()], [], [], timeout)[0])
    except (OSError, ValueError):  # not a file, or one that this system cannot select on
        return True
