"""Picture files to pixels: upright, whole, RGB; or the reason why not."""

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from camcli.base.errors import PictureError, RequestError
from camcli.images import jpeg, opening
from camcli.images.depth import depth_of, eight_bits, unit_values
from camcli.images.formats import FORMATS
from camcli.images.frames import turn_to
from camcli.images.source import Bytes

T = TypeVar("T")

# Pillow refuses above this many pixels and warns above half of it; photographs of that size are real, so only the
# refusal is kept.
MOST_PIXELS = 2 * 89_478_485

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Of these orientations: width and height change places; the picture's right edge lies left, its lower one above.
TURNED, FROM_RIGHT, FROM_BELOW = frozenset({5, 6, 7, 8}), frozenset({2, 3, 6, 7}), frozenset({3, 4, 7, 8})

# What can be decoded at a part of its size (MPO is a JPEG with more of them behind it), and at which.
SCALABLE, PARTS = frozenset({"JPEG", "MPO"}), (8, 4, 2)


@dataclass(frozen=True, slots=True)
class Reduced:
    """A picture that was perhaps decoded at a part of its size.

    Attributes:
        image: upright, RGB.
        size: width and height of the whole upright picture, in the file's pixels.
        box: x0, y0, x1, y1 of where the whole picture lies in ``image``, whose last pixels stand for fewer of the
            file's where its size is no multiple.
        notes: what whoever sees it must know of how it was read.
        planes: of an array that is no picture its values in 0..1, ``(h, w, channels)``; then ``image`` shows the first.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    notes: tuple[str, ...] = ()
    planes: np.ndarray | None = None

    @classmethod
    def none(cls, image: Image.Image, notes: tuple[str, ...] = ()) -> "Reduced":
        """A picture as it is."""
        return cls(image, image.size, (0.0, 0.0, float(image.width), float(image.height)), notes)


# --- decode -------------------------------------------------------------------------------------------------------


def decode(path: Path, background: str = "#ffffff", levels: str = "", page: int = 0) -> Image.Image:
    """The picture in a file: whole, upright, 8-bit RGB.

    EXIF orientation is applied. Values of more than 8 bits are scaled by the full range of their type (65535 becomes
    255). What is transparent is laid onto ``background``.

    Args:
        path: a picture of one of ``FORMATS``, whatever its suffix.
        background: a colour such as ``#ffffff``.
        levels: of pictures of more than 8 bits, which values become 0 and 255: ``LOW,HIGH``, or ``auto``; see
            :func:`camcli.images.depth.eight_bits`.
        page: which of several in the file, from 1 on; 0 for the first.

    Raises:
        PictureError: there is no whole picture in the file; says why, without repeating the path.
        RequestError: ``background`` is not a colour.
    """
    return decode_reduced(path, undivided, background, levels, page).image


def decode_reduced(
    path: Path,
    spare: Callable[[int, int], float],
    background: str = "#ffffff",
    levels: str = "",
    page: int = 0,
    admit: Callable[[int], object] = lambda pixels: None,
) -> Reduced:
    """Likewise, but of a JPEG perhaps only a half, a quarter or an eighth of its size, as the decoder can give it.

    The decoder does it by transforming fewer frequencies, so that each pixel is about the mean of those it stands for.

    Args:
        path, background, levels, page: likewise.
        spare: given width and height of the upright picture, by how much it may be divided at most.
        admit: told how many pixels will be decoded, before they are; may wait until there is memory for them.

    Raises:
        PictureError, RequestError: likewise.
    """
    behind = colour(background)
    _check_file(path)
    try:
        with path.open("rb") as file:
            read = partial(_read, spare=spare, behind=behind, admit=admit, levels=levels, path=path, page=page)
            try:
                return read(file)
            except ValueError:
                bare = opening.without_texts(file)
                if bare is None:
                    raise
                return read(bare)
    except PictureError:
        raise
    except Exception as error:
        raise _told(error) from error


def _read(
    file: Bytes,
    spare: Callable[[int, int], float],
    behind: tuple[int, int, int],
    admit: Callable[[int], object],
    levels: str,
    path: Path,
    page: int,
) -> Reduced:
    with opening.opened(file, FORMATS) as image:
        about_pages = turn_to(image, page)
        _check_size(image)
        opening.check_scans(image, file)
        width, height = image.size
        orientation, _ = opening.orientation(image) if image.format in SCALABLE else (1, "")
        turned = orientation in TURNED
        parts = _divide(image, spare(*((height, width) if turned else (width, height))))
        admit(image.width * image.height)
        damage = jpeg.load(image, file) if parts == 1 else ""
        whole, notes = _whole(image, behind, levels, path, page)
        notes = (*about_pages, *notes, *filter(None, [damage]))
        if parts == 1:
            return Reduced.none(whole, notes)
        # What the last pixels stand for beyond the picture lies on the side that they were brought to.
        across, down = (height, width) if turned else (width, height)
        left = whole.width - across / parts if orientation in FROM_RIGHT else 0.0
        top = whole.height - down / parts if orientation in FROM_BELOW else 0.0
        return Reduced(whole, (across, down), (left, top, left + across / parts, top + down / parts), notes)


def undivided(_width: int, _height: int) -> float:
    """That a picture is not to be reduced, for :func:`decode_reduced`."""
    return 1.0


def pixels_of(path: Path) -> int:
    """How many pixels a file's header says that its picture has; 0 if it says nothing."""
    try:
        _check_file(path)
        with path.open("rb") as file, opening.opened(file, FORMATS) as image:
            return image.width * image.height
    except Exception:  # what is wrong with it is told when it is decoded
        return 0


def upright(image: Image.Image, background: str = "#ffffff", levels: str = "") -> Image.Image:
    """A picture of Pillow's as :func:`decode` would give it: whole, upright, 8-bit RGB; one of its own.

    Raises:
        PictureError, RequestError: likewise.
    """
    return in_memory(image, background, levels).image


def in_memory(image: Image.Image, background: str = "#ffffff", levels: str = "") -> Reduced:
    """Likewise, with what is to be said of it.

    Raises:
        PictureError: it cannot be loaded or understood.
        RequestError: ``background`` is not a colour.
    """
    behind = colour(background)
    try:
        whole, notes = _whole(image, behind, levels)
        return Reduced.none(whole.copy() if whole is image else whole, notes)
    except PictureError:
        raise
    except Exception as error:
        raise _told(error) from error


def from_array(values: np.ndarray, background: str = "#ffffff", levels: str = "") -> Reduced:
    """An array as a picture: ``(h, w)``, or ``(h, w, channels)``.

    What Pillow can hold is handled as a picture in memory: grey of any type, and red, green and blue of 8 bits. Other
    channels, or finer ones, are left as they are.

    Raises:
        PictureError: it is no image, or nothing says what its values mean.
        RequestError: ``background`` is not a colour.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or not values.size:
        form = "x".join(map(str, values.shape))
        raise PictureError(f"an array of {form} is no image", "give (height, width), or (height, width, channels)")
    known = {"u": np.uint8 if values.dtype == np.uint8 else np.uint16, "i": np.int32, "f": np.float32}
    kind = known.get(values.dtype.kind)
    if values.ndim == 2 and kind and values.dtype.itemsize <= np.dtype(kind).itemsize:
        return in_memory(Image.fromarray(np.ascontiguousarray(values, kind)), background, levels)
    if values.shape[2:] == (3,) and values.dtype == np.uint8:
        return in_memory(Image.fromarray(np.ascontiguousarray(values)), background, levels)
    planes, notes = unit_values(values if values.ndim == 3 else values[..., np.newaxis], levels)
    shown = planes[..., :3] if planes.shape[2] >= 3 else planes[..., [0, 0, 0]]
    image = Image.fromarray(np.rint(shown * 255).astype(np.uint8))
    return replace(Reduced.none(image, notes), planes=planes)


def colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour such as ``#ffffff`` or ``white``.

    Raises:
        RequestError: it is not a colour.
    """
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        raise RequestError(f"{text!r} is not a colour", "give it as #rrggbb, such as #ffffff") from None


def _whole(
    image: Image.Image, behind: tuple[int, int, int], levels: str, path: Path | None = None, page: int = 0
) -> tuple[Image.Image, tuple[str, ...]]:
    """Loaded, upright, of eight bits, RGB; and what is to be said of it."""
    depth = depth_of(image)
    image.load()
    levelled, about_levels = eight_bits(image, depth, levels, path, page)
    orientation, note = opening.orientation(image)
    return _upright(_rgb(levelled, behind), orientation), (*about_levels, *((note,) if note else ()))


def _divide(image: Image.Image, spare: float) -> int:
    """Have a JPEG decoded at an eighth, a quarter or a half of its size, if that may be; gives the divisor, or 1."""
    parts = next((parts for parts in PARTS if parts <= min(spare, *image.size)), 1)
    if parts == 1 or image.format not in SCALABLE:
        return 1
    return parts if image.draft(None, (image.width // parts, image.height // parts)) else 1


def _told(error: Exception) -> PictureError:
    """A damaged file can make a decoder stumble in any way; each is this picture's fault, never the run's."""
    if isinstance(error, UnidentifiedImageError):
        formats = f"formats: {', '.join(FORMATS)}"
        return PictureError("is not a picture that can be read, or only the beginning of one", formats)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return PictureError(f"is too large: {error}")
    if isinstance(error, MemoryError):
        return PictureError("does not fit into memory")
    return PictureError(_reason(error))


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        reason = "is a link to a file that does not exist" if path.is_symlink() else "there is no such file (any more)"
        raise PictureError(reason) from None
    except (OSError, ValueError) as error:
        raise PictureError(_reason(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise PictureError("is a folder")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
        raise PictureError("is not a regular file")
    if not status.st_size:
        raise PictureError("the file is empty")


def _check_size(image: Image.Image) -> None:
    if not image.width * image.height:
        raise PictureError("has no pixels")
    if image.width * image.height > MOST_PIXELS:
        raise PictureError(f"is too large: {image.width} x {image.height} is more than {MOST_PIXELS:,} pixels")


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"is damaged or cut short: {error or type(error).__name__}"


def _rgb(image: Image.Image, behind: tuple[int, int, int]) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    canvas = Image.new("RGBA", image.size, behind)
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
