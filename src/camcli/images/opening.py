"""A picture's file opened by camcli's own limits: those of Pillow are one for the process, which may be another's."""

import io
import struct
from collections.abc import Sequence
from typing import IO, cast

from PIL import Image, UnidentifiedImageError

from camcli.base.errors import PictureError

# The scans of a progressive JPEG: encoders make about ten. Each goes over the whole picture, so that some kilobytes can
# ask for minutes; libjpeg-turbo's own limit against that (TJPARAM_SCANLIMIT in its tools) is as high.
MOST_SCANS = 500
START_OF_SCAN = b"\xff\xda"

PNG = b"\x89PNG\r\n\x1a\n"
# Chunks of a PNG that say nothing of its pixels, as camcli shows them, and that Pillow unpacks.
TEXTS = frozenset({b"iCCP", b"iTXt", b"tEXt", b"zTXt"})

ORIENTATION = 0x0112


def opened(file: IO[bytes] | io.BufferedIOBase, formats: Sequence[str]) -> Image.Image:
    """The picture in a file, its pixels not yet read: as ``Image.open`` does it, but whatever the picture's size.

    ``Image.open`` warns or refuses by ``Image.MAX_IMAGE_PIXELS``, which is one for the whole process: changing it would
    change what other code in it gets, and keeping it would make that code's choice ours.

    Args:
        file: from its beginning on; it stays the caller's.
        formats: names of Pillow's formats, tried in this order; one that Pillow was built without is passed over.

    Raises:
        UnidentifiedImageError: it is a picture of none of these formats.
        Exception: whatever a damaged file makes Pillow raise.
    """
    Image.preinit()
    start = file.read(16)
    for name in formats:
        if name not in Image.OPEN:
            Image.init()
        make, accept = Image.OPEN.get(name, (None, None))
        if make is None:
            continue
        try:
            # A text instead of a yes says why Pillow cannot read what it knows.
            if accept is None or accept(start) is True:
                file.seek(0)
                return make(cast("IO[bytes]", file), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # as Pillow has it: not of this format
            continue
    raise UnidentifiedImageError("no format fits")


def check_scans(image: Image.Image, file: IO[bytes] | io.BufferedIOBase) -> None:
    """See that a progressive JPEG has no more scans than can be decoded in reasonable time.

    Raises:
        PictureError: it has.
    """
    if not image.info.get("progressive"):
        return
    place = file.tell()
    file.seek(0)
    # In the data of a scan these two bytes cannot follow one another.
    scans = file.read().count(START_OF_SCAN)
    file.seek(place)
    if scans > MOST_SCANS:
        raise PictureError(
            f"is a JPEG of {scans:,} scans, each of which goes over the whole picture; real ones have about ten, and "
            f"more than {MOST_SCANS} are refused",
            "save it anew if you trust it",
        )


def orientation(image: Image.Image) -> tuple[int, str]:
    """The EXIF orientation, 1 if there is none; and what is to be said where EXIF is there and cannot be read."""
    try:
        exif = image.getexif()
        # Of a JPEG Pillow has tried it before, and kept quiet.
        if not exif and (given := image.info.get("exif")):
            Image.Exif().load(given)
        turned = exif.get(ORIENTATION, 1)
    except Exception as error:  # what a writer got wrong there can fail in any way
        said = (str(error) or type(error).__name__).splitlines()[0]
        return 1, f"the file's EXIF cannot be read ({said}): the picture is shown as it is stored, perhaps not upright"
    return (turned, "") if isinstance(turned, int) else (1, "")


def without_texts(file: IO[bytes] | io.BufferedIOBase) -> io.BytesIO | None:
    """A PNG without its texts and colour profile, which Pillow refuses above a megabyte; None of any other file."""
    file.seek(0)
    content = file.read()
    if not content.startswith(PNG):
        return None
    kept, place = [PNG], len(PNG)
    while place < len(content):
        # Length, name, data, checksum; of a file that is cut short the rest, whatever it is.
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] not in TEXTS:
            kept.append(content[place:end])
        place = end
    return io.BytesIO(b"".join(kept))
