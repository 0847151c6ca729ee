"""DICOM images (PS3.3): stored values become those of the modality, and their window black and white."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any

import numpy as np
from PIL import Image

from camcli.base.errors import PictureError
from camcli.base.words import first_line
from camcli.images.decoded import DecodedPicture
from camcli.images.depth import find_window, to_levels, to_shares

# The preamble of 128 bytes, of any content, and what follows it.
PREAMBLE, SIGNATURE = 128, b"DICM"
DICOM_HINT = "pip install 'camcli-vision[dicom]'"
# Prefixes of notes.
WINDOW_NOTE, BITS_NOTE, INVERTED_NOTE = "has black and white by its own window", "has no window", "is MONOCHROME1"


def is_dicom(file: IO[bytes] | io.BufferedIOBase) -> bool:
    """Return whether a file is a DICOM file, by its beginning."""
    file.seek(0)
    return file.read(PREAMBLE + len(SIGNATURE))[PREAMBLE:] == SIGNATURE


def count_frames(file: IO[bytes] | io.BufferedIOBase) -> int:
    """Return the number of frames of a DICOM file.

    Raises:
        PictureError: pydicom is not installed.
        Exception: whatever pydicom raises for a damaged file.
    """
    return _count_frames(_read(file, stop_before_pixels=True))


def read_dicom(
    file: IO[bytes] | io.BufferedIOBase, value_range: str, page: int, admit: Callable[[int, int], object]
) -> DecodedPicture:
    """Read a frame of a DICOM file.

    Stored values are first those of the modality (rescaled, or by its table: Hounsfield units of CT). Then
    ``value_range`` says what is black and white; without it the file's own first window does, by the function that it
    names (PS3.3 C.11.2.1), or its table of values of interest; without these, the least and greatest value of its
    stored bits. MONOCHROME1, whose least value is white, is inverted. Colours are left as they are.

    Args:
        file: the file.
        value_range: see :func:`camcli.images.depth.scale_values`; percentiles are of all but padding.
        page: number of the frame, from 1; 0 for the first.
        admit: called with the width and height before pixels are read.

    Raises:
        PictureError: pydicom is not installed, or the file has no such image, or one that cannot be decoded.
        Exception: whatever pydicom raises for a damaged file.
    """
    header = _read(file)
    frames, at = _count_frames(header), max(page - 1, 0)
    if at >= frames:
        raise PictureError(f"has no page {page}")
    if "PixelData" not in header:
        raise PictureError(f"is a DICOM file without an image: {header.get('Modality', 'of no modality')}")
    admit(int(header.Columns), int(header.Rows))
    stored = _decode_frame(header, at)
    pages = (f"page 1 of {frames}: --pages all for each",) if frames > 1 and not page else ()
    if stored.ndim == 3 or header.PhotometricInterpretation == "PALETTE COLOR":
        return _show_colours(header, stored, pages)
    shares, levels, notes = _scale(header, stored, at, value_range)
    if header.PhotometricInterpretation == "MONOCHROME1":
        shares, levels = 1 - shares, 255 - levels
        notes = (*notes, f"{INVERTED_NOTE}, whose least value is white: it is inverted")
    decoded = DecodedPicture.at_full_size(Image.fromarray(levels).convert("RGB"), (*pages, *notes))
    return replace(decoded, planes=shares[..., np.newaxis])


def _read(file: IO[bytes] | io.BufferedIOBase, stop_before_pixels: bool = False) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise PictureError("DICOM images need pydicom, which is not installed", DICOM_HINT) from error

    file.seek(0)
    stream: Any = file
    return pydicom.dcmread(stream, stop_before_pixels=stop_before_pixels)


def _count_frames(header: Any) -> int:
    return int(header.get("NumberOfFrames") or 1)


def _decode_frame(header: Any, at: int) -> np.ndarray:
    from pydicom.pixels import pixel_array

    try:
        return np.asarray(pixel_array(header, index=at))
    except Exception as error:  # of a plug-in that is missing, or any of a decoder
        name = getattr(header.file_meta.get("TransferSyntaxUID"), "name", "an unknown encoding")
        raise PictureError(
            f"its pixels cannot be decoded ({name}): {first_line(error)}",
            "pydicom decodes compressed pixels by plug-ins: pip install python-gdcm, or pylibjpeg with its own",
        ) from error


def _scale(
    header: Any, stored: np.ndarray, at: int, value_range: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return values in 0..1 and levels of stored grey values, and notes."""
    from pydicom.pixels import apply_modality_lut

    modality = _find_group(header, "PixelValueTransformationSequence", at)
    values = np.asarray(apply_modality_lut(stored, modality), np.float64)
    if value_range:
        window = find_window(_drop_padding(header, stored, values), value_range)
        assert window is not None
        return to_shares(values, *window), to_levels(values, *window), ()
    shares, notes = _apply_own_window(header, values, at)
    if shares is None:
        bits = int(header.BitsStored)
        least = -(2 ** (bits - 1)) if header.PixelRepresentation else 0
        possible = np.arange(least, least + 2**bits, 1 if bits <= 16 else 2**bits - 1, dtype=np.int64)
        ends = np.asarray(apply_modality_lut(possible, modality), np.float64)
        low, high = float(ends.min()), float(ends.max())
        shares = to_shares(values, low, high)
        notes = (f"{BITS_NOTE}: black and white are of its {bits} bits, {low:g} to {high:g}; --range sets others",)
    return shares, np.rint(255 * shares).astype(np.uint8), notes


def _apply_own_window(header: Any, values: np.ndarray, at: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return values in 0..1 by a file's own first window or table of values; None if it has neither."""
    own = _find_group(header, "FrameVOILUTSequence", at)
    if own.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi_lut

        table = own.VOILUTSequence[0]
        own.PixelRepresentation = header.get("PixelRepresentation", 0)
        looked_up = np.asarray(apply_voi_lut(values.astype(np.int64), own, prefer_lut=True), np.float64)
        return to_shares(looked_up, 0.0, float(2 ** int(table.LUTDescriptor[2]) - 1)), (f"{WINDOW_NOTE}: a table",)
    if own.get("WindowCenter") is None or own.get("WindowWidth") is None:
        return None, ()
    centre, width = (float(np.atleast_1d(one)[0]) for one in (own.WindowCenter, own.WindowWidth))
    function = str(own.get("VOILUTFunction") or "LINEAR").upper()
    notes = (f"{WINDOW_NOTE}: centre {centre:g}, width {width:g}, {function}",)
    if function == "SIGMOID":
        return (0.5 + 0.5 * np.tanh(2 * (values - centre) / width)).astype(np.float32), notes  # which cannot overflow
    if function == "LINEAR":  # of width 1, a step
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        return (to_shares(values, low, high) if width > 1 else (values > low).astype(np.float32)), notes
    return to_shares(values, centre - width / 2, centre + width / 2), notes


def _drop_padding(header: Any, stored: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values of pixels that are no padding; all of them if all are."""
    if (first := header.get("PixelPaddingValue")) is None:
        return values
    last = header.get("PixelPaddingRangeLimit", first)
    known = (stored < min(first, last)) | (stored > max(first, last))
    return values[known] if known.any() else values


def _find_group(header: Any, name: str, at: int) -> Any:
    """Return the part of a file's header that holds for a frame: of the frame, of all of them, or the header itself."""
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    for group in (*groups[at : at + 1], *shared[:1]):
        if name in group:
            return group[name].value[0]
    return header


def _show_colours(header: Any, values: np.ndarray, notes: tuple[str, ...]) -> DecodedPicture:
    """Return colours of 8 bits as they are, and those of more by all their bits."""
    from pydicom.pixels import apply_color_lut

    most = float(2 ** int(header.BitsStored) - 1)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        values = np.asarray(apply_color_lut(values, header))
        most = float(np.iinfo(values.dtype).max)
    if values.ndim != 3 or values.shape[2] != 3:
        raise PictureError(f"has pixels of {'x'.join(map(str, values.shape))}, which are neither grey nor RGB")
    decoded = DecodedPicture.at_full_size(Image.fromarray(to_levels(values, 0.0, most)), notes)
    return decoded if values.dtype == np.uint8 else replace(decoded, planes=to_shares(values, 0.0, most))
