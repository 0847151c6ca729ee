"""Decoding of image files to upright RGB pixels."""

import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from camcli.base import weight_files
from camcli.base.errors import PictureError, RequestError
from camcli.images import Bands, archives, arrays, dicom, jpeg, opening
from camcli.images.address import to_url
from camcli.images.decoded import DecodedPicture
from camcli.images.depth import read_depth, scale_values
from camcli.images.file_info import read_file_info
from camcli.images.files import open_file, read_stamp
from camcli.images.formats import FORMATS, explain_unreadable, suffix_of
from camcli.images.frames import seek_page
from camcli.images.source import ByteStream
from camcli.images.videos import index_video, is_video, read_frame

# Pillow refuses above this many pixels and warns above half of it; photographs of that size are real, so only the
# refusal is kept.
MAX_PIXELS = 2 * 89_478_485

TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations that swap width and height, and those stored with the right edge to the left or the bottom at the top.
SWAPS_SIDES, FLIPS_X, FLIPS_Y = frozenset({5, 6, 7, 8}), frozenset({2, 3, 6, 7}), frozenset({3, 4, 7, 8})

# Formats that can be decoded at a fraction of their size (MPO is a JPEG followed by others), and the fractions.
REDUCIBLE_FORMATS, DIVISORS = frozenset({"JPEG", "MPO"}), (8, 4, 2)


# --- decode -------------------------------------------------------------------------------------------------------


def decode(
    path: Path, background: str = "#ffffff", value_range: str = "", page: int = 0, bands: Bands | None = None
) -> Image.Image:
    """Decode an image file to an upright 8-bit RGB image.

    EXIF orientation is applied. Values of more than 8 bits are scaled by the full range of their type (65535 becomes
    255). Transparent pixels are composited onto ``background``.

    Args:
        path: an image of one of ``FORMATS``, whatever its suffix.
        background: a colour such as ``#ffffff``.
        value_range: for images of more than 8 bits, the values that become 0 and 255: ``LOW,HIGH``, or ``auto``; see
            :func:`camcli.images.depth.scale_values`.
        page: number of the page, from 1; 0 for the first.
        bands: the bands to take and to show, of an image that need not be of colours; None for a picture.

    Raises:
        PictureError: the file holds no complete image; the message gives the reason without the path.
        RequestError: ``background`` is not a colour.
    """
    return decode_reduced(path, never_reduce, background, value_range, page, bands=bands).image


def decode_reduced(
    path: Path,
    max_divisor: Callable[[int, int], float],
    background: str = "#ffffff",
    value_range: str = "",
    page: int = 0,
    bands: Bands | None = None,
    admit: Callable[[int], object] = lambda pixels: None,
) -> DecodedPicture:
    """Decode an image file as :func:`decode` does, a JPEG perhaps at a half, a quarter or an eighth of its size.

    The JPEG decoder then transforms fewer frequencies, so that each pixel is about the mean of those it stands for.

    Args:
        path, background, value_range, page, bands: see :func:`decode`.
        max_divisor: from the width and height of the upright image to the greatest divisor allowed.
        admit: called with the number of pixels before they are decoded; may wait until there is memory for them.

    Raises:
        PictureError, RequestError: see :func:`decode`.
    """
    behind = parse_colour(background)
    _check_file(path)
    if page and is_video(path.name):
        return _decode_frame(path, page, admit)
    try:
        with open_file(path) as file:
            return _decode_stream(
                file, max_divisor if bands is None else never_reduce, behind, value_range, admit, path, page, bands
            )
    except OSError as error:
        raise as_picture_error(error) from error


def _decode_frame(path: Path, page: int, admit: Callable[[int], object]) -> DecodedPicture:
    stamp = read_stamp(path)
    try:
        width, height = index_video(path, stamp).shown_size
        check_pixels(width, height)
        admit(width * height)
        return DecodedPicture.at_full_size(read_frame(path, stamp, page))
    except PictureError:
        raise
    except Exception as error:  # a damaged video can make a decoder raise anything
        raise as_picture_error(error, path) from error


def _decode_stream(
    file: ByteStream,
    max_divisor: Callable[[int, int], float],
    behind: tuple[int, int, int],
    value_range: str,
    admit: Callable[[int], object] = lambda pixels: None,
    path: Path | None = None,
    page: int = 0,
    bands: Bands | None = None,
) -> DecodedPicture:
    """Decode a picture from a stream; any error of a decoder becomes the picture's."""
    read = partial(
        _decode_file, spare=max_divisor, behind=behind, admit=admit, levels=value_range, page=page, bands=bands
    )
    try:
        try:
            if found := _decode_array_file(file, value_range, page, bands, admit):
                return found
            file.seek(0)
            return read(file)
        except ValueError:
            bare = opening.strip_text_chunks(file)
            if bare is None:
                raise
            return read(bare)
    except PictureError:
        raise
    except Exception as error:
        raise as_picture_error(error, path) from error


def _decode_file(
    file: ByteStream,
    spare: Callable[[int, int], float],
    behind: tuple[int, int, int],
    admit: Callable[[int], object],
    levels: str,
    page: int,
    bands: Bands | None,
) -> DecodedPicture:
    with opening.open_image(file, FORMATS) as image:
        about_pages = seek_page(image, page)
        _check_size(image)
        opening.check_scans(image, file)
        width, height = image.size
        orientation, _ = opening.read_orientation(image) if image.format in REDUCIBLE_FORMATS else (1, "")
        turned = orientation in SWAPS_SIDES
        parts = _reduce_jpeg(image, spare(*((height, width) if turned else (width, height))))
        admit(image.width * image.height)
        damage = jpeg.load(image, file) if parts == 1 else ""
        upright = _load_upright(image, behind, levels, file, page, bands)
        whole, notes, info = upright.image, (*about_pages, *upright.notes, *filter(None, [damage])), upright.info
        if parts == 1:
            return replace(upright, notes=notes)
        # The part of the last pixels that lies beyond the image is on the side that the orientation moved them to.
        across, down = (height, width) if turned else (width, height)
        left = whole.width - across / parts if orientation in FLIPS_X else 0.0
        top = whole.height - down / parts if orientation in FLIPS_Y else 0.0
        box = (left, top, left + across / parts, top + down / parts)
        return DecodedPicture(whole, (across, down), box, notes, info=info)


def _decode_array_file(
    file: ByteStream, value_range: str, page: int, bands: Bands | None, admit: Callable[[int], object]
) -> DecodedPicture | None:
    """Decode a file of numbers; None for one that is a picture."""

    def check(width: int, height: int) -> None:
        check_pixels(width, height)
        admit(width * height)

    if dicom.is_dicom(file):
        decoded = dicom.read_dicom(file, value_range, page, check)
        return decoded if bands is None else arrays.take_bands(decoded, bands)
    file.seek(0)
    start = file.read(len(arrays.NPY_SIGNATURE))
    if start == arrays.NPY_SIGNATURE:
        return arrays.from_array(arrays.read_npy(file, check), value_range, bands)
    count = arrays.count_tiff_bands(file)
    if count and (bands or count > arrays.PILLOW_BANDS or not _is_picture(file)):
        values, orientation = arrays.read_tiff(file, page, check)
        return arrays.from_array(arrays.turn_upright(values, orientation), value_range, bands)
    return None


def _is_picture(file: ByteStream) -> bool:
    file.seek(0)
    try:
        with opening.open_image(file, FORMATS):
            return True
    except UnidentifiedImageError:
        return False


def never_reduce(_width: int, _height: int) -> float:
    """Return the divisor 1, as the ``max_divisor`` of :func:`decode_reduced` for decoding at full size."""
    return 1.0


def count_pixels(path: Path) -> int:
    """Return the number of pixels given in a file's header; 0 if it cannot be read, or only over a network.

    There it would have to be read as a whole, and could hang, which decoding has a time limit for.
    """
    if to_url(path):
        return 0
    try:
        _check_file(path)
        with open_file(path) as file, opening.open_image(file, FORMATS) as image:
            return image.width * image.height
    except Exception:  # decoding reports the error
        return 0


def from_image(image: Image.Image, background: str = "#ffffff", value_range: str = "") -> DecodedPicture:
    """Return a Pillow image as an upright 8-bit RGB image, with notes.

    Raises:
        PictureError: the image cannot be loaded or understood.
        RequestError: ``background`` is not a colour.
    """
    behind = parse_colour(background)
    try:
        upright = _load_upright(image, behind, value_range)
        return replace(upright, image=image.copy()) if upright.image is image else upright
    except PictureError:
        raise
    except Exception as error:
        raise as_picture_error(error) from error


def from_file(
    file: ByteStream, background: str = "#ffffff", value_range: str = "", bands: Bands | None = None
) -> DecodedPicture:
    """Decode a picture from a binary stream that can seek, as :func:`decode` does from a file.

    Raises:
        PictureError, RequestError: see :func:`decode`.
    """
    return _decode_stream(file, never_reduce, parse_colour(background), value_range, bands=bands)


def parse_colour(text: str) -> tuple[int, int, int]:
    """Return red, green and blue of a colour such as ``#ffffff`` or ``white``.

    Raises:
        RequestError: the text is not a colour.
    """
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        raise RequestError(f"{text!r} is not a colour", "give it as #rrggbb, such as #ffffff") from None


def _load_upright(
    image: Image.Image,
    behind: tuple[int, int, int],
    value_range: str,
    file: ByteStream | None = None,
    page: int = 0,
    bands: Bands | None = None,
) -> DecodedPicture:
    """Load an image and return it as upright 8-bit RGB, with all the bits of its values if these are more."""
    depth = read_depth(image)
    image.load()
    orientation, note = opening.read_orientation(image)
    levelled, planes, about_levels = scale_values(image, depth, value_range, file, page)
    notes = (*about_levels, *((note,) if note else ()))
    if planes is not None:
        planes = arrays.turn_upright(_put_before(planes, levelled, behind), orientation)
    whole = _apply_orientation(to_rgb(levelled, behind), orientation)
    decoded = DecodedPicture.at_full_size(whole, notes, read_file_info(image, orientation in SWAPS_SIDES))
    decoded = replace(decoded, planes=planes)
    return decoded if bands is None else arrays.take_bands(decoded, bands)


def _put_before(planes: np.ndarray, image: Image.Image, behind: tuple[int, int, int]) -> np.ndarray:
    """Return values in 0..1 with those of a colour where an image is transparent."""
    if not image.has_transparency_data:
        return planes
    opacity = np.asarray(image.convert("RGBA").getchannel("A"), np.float32)[..., np.newaxis] / 255
    return np.asarray(planes * opacity + np.array(behind, np.float32) / 255 * (1 - opacity), np.float32)


def _reduce_jpeg(image: Image.Image, max_divisor: float) -> int:
    """Have a JPEG decoded at an eighth, a quarter or a half of its size if allowed, and return the divisor, or 1."""
    parts = next((parts for parts in DIVISORS if parts <= min(max_divisor, *image.size)), 1)
    if parts == 1 or image.format not in REDUCIBLE_FORMATS:
        return 1
    return parts if image.draft(None, (image.width // parts, image.height // parts)) else 1


def as_picture_error(error: Exception, path: Path | None = None) -> PictureError:
    """Turn any decoder error into a PictureError: a damaged file can raise anything, and must not end the run."""
    if isinstance(error, UnidentifiedImageError):
        return _describe_unidentified(path)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return PictureError(f"is too large: {error}")
    if isinstance(error, MemoryError):
        return PictureError("does not fit into memory")
    return PictureError(_describe_error(error))


def _describe_unidentified(path: Path | None) -> PictureError:
    """Return the error for a file in none of the formats, by its suffix, or by its first bytes."""
    way = explain_unreadable(path.name) if path else ""
    if path and way:
        return PictureError(f"{suffix_of(path.name)} files are not read", way)
    other = weight_files.identify_file(path) if path and path.is_file() else None
    if other and not other.description.startswith("an image ("):
        return PictureError(f"is not an image: {other.description}")
    formats = f"formats: {', '.join(FORMATS)}"
    return PictureError("is not an image that can be read, or an incomplete one", formats)


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        if to_url(path):  # opening it says what is wrong
            return
        reason = "is a link to a file that does not exist" if path.is_symlink() else "there is no such file (any more)"
        raise PictureError(reason) from None
    except NotADirectoryError as error:
        if archives.split_path(path):  # opening it says what is wrong
            return
        raise PictureError(_describe_error(error)) from error
    except (OSError, ValueError) as error:
        raise PictureError(_describe_error(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise PictureError("is a folder")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
        raise PictureError("is not a regular file")
    if not status.st_size:
        raise PictureError("the file is empty")


def _check_size(image: Image.Image) -> None:
    check_pixels(image.width, image.height)


def check_pixels(width: int, height: int) -> None:
    """Check that an image has pixels, and no more than are decoded.

    Raises:
        PictureError: it has none, or more than ``MAX_PIXELS``.
    """
    if not width * height:
        raise PictureError("has no pixels")
    if width * height > MAX_PIXELS:
        raise PictureError(f"is too large: {width} x {height} is more than {MAX_PIXELS:,} pixels")


def _describe_error(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"is damaged or cut short: {error or type(error).__name__}"


def to_rgb(image: Image.Image, behind: tuple[int, int, int]) -> Image.Image:
    """Convert an image to RGB, with the colour ``behind`` where it is transparent."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    canvas = Image.new("RGBA", image.size, behind)
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TRANSPOSE_BY_ORIENTATION[orientation]) if orientation in TRANSPOSE_BY_ORIENTATION else image
