"""DICOM images: values of the modality, windows as pydicom has them, inversion, frames, colours."""

import io
from pathlib import Path

import numpy as np
import pytest

from camcli.base.errors import PictureError
from camcli.images.decode import decode_reduced, never_reduce
from camcli.images.pages import expand_pages
from camcli.images.source import PictureSource

pydicom = pytest.importorskip("pydicom", reason="DICOM images need the extra dicom")

# Stored values of a CT: 12 bits, from which 1024 is subtracted.
STORED = np.arange(0, 4096, 32, dtype=np.uint16).reshape(8, 16)


def write(values=STORED, name="a.dcm", **more):
    """Write a DICOM file with these stored values."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    colours = values.ndim == 3 and values.shape[2] == 3
    one.Rows, one.Columns = values.shape[:2] if colours or values.ndim == 2 else values.shape[1:3]
    if values.ndim == 3 and not colours:
        one.NumberOfFrames = len(values)
    one.SamplesPerPixel, one.PhotometricInterpretation = (3, "RGB") if colours else (1, "MONOCHROME2")
    if colours:
        one.PlanarConfiguration = 0
    one.BitsAllocated = 8 * values.itemsize
    one.BitsStored = 12 if values.itemsize == 2 else 8
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, int(values.dtype.kind == "i")
    one.Modality, one.PixelData = "CT", values.tobytes()
    for key, value in more.items():
        setattr(one, key, value)
    one.save_as(name, enforce_file_format=True)
    return one


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(words="", page=0, name="a.dcm"):
    return decode_reduced(Path(name), never_reduce, value_range=words, page=page)


CT = {"RescaleSlope": 1, "RescaleIntercept": -1024}


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (-600, 1500), (127.5, 3)])
def test_the_files_own_window_is_as_pydicom_has_it(function, centre, width):
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    one = write(WindowCenter=centre, WindowWidth=width, VOILUTFunction=function, **CT)
    with np.errstate(over="ignore"):
        given = apply_voi_lut(apply_modality_lut(STORED, one), one)
    least, most = -1024, 3071  # what pydicom makes of 0 and 1
    expected = (given - least) / (most - least)
    decoded = read()
    np.testing.assert_allclose(decoded.planes[..., 0], expected, atol=1e-6)
    assert np.abs(np.asarray(decoded.image)[..., 1] - 255 * expected).max() <= 0.501
    assert decoded.notes == (f"has black and white by its own window: centre {centre:g}, width {width:g}, {function}",)


def test_the_first_of_several_windows():
    write(WindowCenter=[40, -600], WindowWidth=[400, 1500], **CT)
    assert "centre 40, width 400, LINEAR" in read().notes[0]


def test_a_window_that_is_asked_for():
    write(WindowCenter=40, WindowWidth=400, **CT)
    decoded = read("-600/1500")
    np.testing.assert_allclose(decoded.planes[..., 0], np.clip((STORED - 1024.0 + 1350) / 1500, 0, 1), atol=1e-6)
    assert decoded.notes == ()
    assert np.array_equal(read("-1350,150").planes, decoded.planes)


def test_without_a_window_the_stored_bits_say_it():
    write(**CT)
    decoded = read()
    np.testing.assert_allclose(decoded.planes[..., 0], STORED / 4095, atol=1e-6)
    assert "has no window: black and white are of its 12 bits, -1024 to 3071" in decoded.notes[0]
    signed = (STORED.astype(np.int16) - 2048).astype(np.int16)
    write(signed)
    np.testing.assert_allclose(read().planes[..., 0], (signed + 2048) / 4095, atol=1e-6)


def test_a_table_of_values_of_interest():
    from pydicom.dataset import Dataset

    table, values = Dataset(), np.minimum(4095, 3 * np.arange(4096)).astype(np.uint16)
    table.LUTDescriptor, table.LUTData = [4096, 0, 12], values.tobytes()
    write(VOILUTSequence=[table])
    np.testing.assert_allclose(read().planes[..., 0], values[STORED] / 4095, atol=1e-6)
    assert read().notes == ("has black and white by its own window: a table",)


def test_monochrome1_is_inverted():
    write(PhotometricInterpretation="MONOCHROME1", **CT)
    decoded = read("-1024,3071")
    np.testing.assert_allclose(decoded.planes[..., 0], 1 - STORED / 4095, atol=1e-6)
    assert np.asarray(decoded.image)[0, 0, 0] == 255
    assert "MONOCHROME1" in decoded.notes[-1]


def test_percentiles_are_of_all_but_padding():
    padded = STORED.copy()
    padded[:4] = 0
    write(padded, PixelPaddingValue=0)
    low, high = np.percentile(padded[4:], [10, 90])
    expected = np.clip((padded - low) / (high - low), 0, 1)
    np.testing.assert_allclose(read("10%,90%").planes[..., 0], expected, atol=1e-6)


def test_frames_are_pages():
    write(np.stack([STORED, STORED[::-1], STORED[:, ::-1]]))
    assert "page 1 of 3" in read().notes[0]
    np.testing.assert_allclose(read(page=2).planes[..., 0], STORED[::-1] / 4095, atol=1e-6)
    with pytest.raises(PictureError, match="has no page 4"):
        read(page=4)
    pages = list(expand_pages([PictureSource("a.dcm", "a.dcm")], "all"))
    assert [one.page for one in pages] == [1, 2, 3]


def test_windows_of_frames():
    from pydicom.dataset import Dataset

    def window(centre):
        values, frame = Dataset(), Dataset()
        values.WindowCenter, values.WindowWidth, values.VOILUTFunction = centre, 100, "LINEAR_EXACT"
        frame.FrameVOILUTSequence = [values]
        return frame

    shared, rescale = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 2, 0, "US"
    shared.PixelValueTransformationSequence = [rescale]
    write(
        np.stack([STORED, STORED]),
        PerFrameFunctionalGroupsSequence=[window(100), window(2000)],
        SharedFunctionalGroupsSequence=[shared],
    )
    for page, centre in ((1, 100), (2, 2000)):
        expected = np.clip((2.0 * STORED - centre + 50) / 100, 0, 1)
        np.testing.assert_allclose(read(page=page).planes[..., 0], expected, atol=1e-6)


def test_colours_are_as_they_are():
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write(values)
    decoded = read()
    assert decoded.planes is None
    assert np.array_equal(np.asarray(decoded.image), values)


def test_files_without_an_image_or_that_are_damaged():
    one = write()
    del one.PixelData
    one.save_as("a.dcm", enforce_file_format=True)
    with pytest.raises(PictureError, match="without an image: CT"):
        read()
    write()
    content = Path("a.dcm").read_bytes()
    Path("a.dcm").write_bytes(content[:-50])
    with pytest.raises(PictureError, match=r"cannot be decoded|damaged"):
        read()


def test_pixels_that_need_a_plug_in_are_named():
    one = write()
    one.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    one.PixelData = pydicom.encaps.encapsulate([b"\0" * 20])
    one["PixelData"].VR = "OB"
    one.save_as("a.dcm", enforce_file_format=True)
    with pytest.raises(PictureError, match=r"cannot be decoded \(JPEG-LS Lossless") as caught:
        read()
    assert "plug-ins" in caught.value.hint


def test_without_pydicom_it_is_said_what_to_install(monkeypatch):
    write()
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(PictureError, match="need pydicom") as caught:
        read()
    assert "camcli-vision[dicom]" in caught.value.hint


def test_a_file_without_a_suffix_and_from_memory():
    write(name="IM0001", **CT)
    assert read(name="IM0001").planes is not None
    from camcli.images.decode import from_file

    stream = io.BytesIO(Path("IM0001").read_bytes())
    assert np.array_equal(from_file(stream).planes, read(name="IM0001").planes)
