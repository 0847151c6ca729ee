"""Opening of image files under camcli's own limits, since Pillow's hold for the whole process."""

import io
import struct
from collections.abc import Sequence
from typing import IO, cast

from PIL import Image, UnidentifiedImageError

from camcli.base.errors import PictureError

# Encoders write about ten scans of a progressive JPEG. Each covers the whole image, so that a few kilobytes can take
# minutes; libjpeg-turbo's tools have the same limit against that (TJPARAM_SCANLIMIT).
MAX_SCANS = 500
START_OF_SCAN = b"\xff\xda"

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Compressed chunks of a PNG that do not affect the pixels that camcli shows.
TEXT_CHUNKS = frozenset({b"iCCP", b"iTXt", b"tEXt", b"zTXt"})

ORIENTATION_TAG = 0x0112


def open_image(file: IO[bytes] | io.BufferedIOBase, formats: Sequence[str]) -> Image.Image:
    """Open an image of any size without reading its pixels, as ``Image.open`` does.

    ``Image.open`` warns or fails above ``Image.MAX_IMAGE_PIXELS``, which holds for the whole process: camcli neither
    changes it for other code nor depends on what other code sets.

    Args:
        file: a file at its beginning; closing it is left to the caller.
        formats: names of Pillow's formats in the order to try; those that Pillow was built without are skipped.

    Raises:
        UnidentifiedImageError: the file is of none of these formats.
        Exception: whatever Pillow raises for a damaged file.
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
            # A text instead of True is the reason why Pillow cannot read a format that it knows.
            if accept is None or accept(start) is True:
                file.seek(0)
                return make(cast("IO[bytes]", file), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # what Pillow itself takes for "not this format"
            continue
    raise UnidentifiedImageError("no format fits")


def check_scans(image: Image.Image, file: IO[bytes] | io.BufferedIOBase) -> None:
    """Check that a progressive JPEG has no more scans than can be decoded in reasonable time.

    Raises:
        PictureError: it has more.
    """
    if not image.info.get("progressive"):
        return
    place = file.tell()
    file.seek(0)
    # These two bytes cannot occur in the data of a scan.
    scans = file.read().count(START_OF_SCAN)
    file.seek(place)
    if scans > MAX_SCANS:
        raise PictureError(
            f"is a JPEG of {scans:,} scans; real ones have about ten, and more than {MAX_SCANS} are refused",
            "if you trust it, save it again in another program",
        )


def read_orientation(image: Image.Image) -> tuple[int, str]:
    """Return the EXIF orientation (1 if there is none) and a note if EXIF cannot be read."""
    try:
        exif = image.getexif()
        # For a JPEG Pillow has already tried it and hidden the error.
        if not exif and (given := image.info.get("exif")):
            Image.Exif().load(given)
        turned = exif.get(ORIENTATION_TAG, 1)
    except Exception as error:  # malformed EXIF can raise anything
        said = (str(error) or type(error).__name__).splitlines()[0]
        return 1, f"the file's EXIF cannot be read ({said}): the image is shown as it is stored, perhaps not upright"
    return (turned, "") if isinstance(turned, int) else (1, "")


def strip_text_chunks(file: IO[bytes] | io.BufferedIOBase) -> io.BytesIO | None:
    """Return a PNG without texts and colour profile, which Pillow limits to a megabyte; None for other files."""
    file.seek(0)
    content = file.read()
    if not content.startswith(PNG_SIGNATURE):
        return None
    kept, place = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while place < len(content):
        # Length, name, data, checksum; the rest of the file where it is cut short.
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] not in TEXT_CHUNKS:
            kept.append(content[place:end])
        place = end
    return io.BytesIO(b"".join(kept))
