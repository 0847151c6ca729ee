"""Image formats that can be read, and suffixes of those that cannot."""

import importlib.util
import os
from collections import Counter

from PIL import features

from camcli.base.words import count_of
from camcli.images import VIDEO_SUFFIXES

# Formats are Pillow's names. Pillow's other formats are not tried: each would add to the attack surface.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
# Archives whose images are read in place.
ARCHIVE_SUFFIXES = frozenset({".tar", ".zip"})
# Tables whose rows hold images, and all files that paths lead through.
TABLE_SUFFIXES = frozenset({".parquet", ".arrow"})
CONTAINER_SUFFIXES = ARCHIVE_SUFFIXES | TABLE_SUFFIXES
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM"]
AVIF = {".avif", ".avifs"}
JPEG_2000 = {".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"}
HEIF = {".heic", ".heif", ".hif", ".heics", ".heifs"}
# Raw files of cameras.
RAW = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos"),
    *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
# Images of other kinds: from medicine, microscopy, film and games, and outdated formats.
OTHER_SUFFIXES = {
    *(".dcm", ".dicom", ".nii", ".nrrd", ".mha", ".czi", ".lif", ".nd2", ".ndpi", ".mrxs", ".svs", ".scn", ".vsi"),
    *(".bpg", ".dds", ".exr", ".fit", ".fits", ".flif", ".hdr", ".icns", ".ico", ".jls", ".jxl", ".jxr", ".pcx"),
    *(".pfm", ".psb", ".psd", ".qoi", ".ras", ".rgb", ".sgi", ".tga", ".wdp", ".xcf", ".jng", ".mng", ".wbmp"),
}
DRAWINGS = {".svg", ".svgz", ".eps", ".ps", ".ai", ".cdr", ".emf", ".wmf", ".dxf"}
DOCUMENTS = {".pdf", ".djvu", ".djv", ".xps"}
DICOM = {".dcm", ".dicom"}
NIFTI_SUFFIXES = (".nii", ".nii.gz")
VOLUMES = {*NIFTI_SUFFIXES, ".nrrd", ".mha", ".mhd"}
# Folders hold arrays of all kinds, so that only those named are read.
ARRAYS = {".npy"}
OTHER_SUFFIXES -= DICOM | VOLUMES
# What to do about files that are not read, by their suffixes.
HINTS = {
    "HEIC: pip install 'camcli-vision[heif]'": HEIF,
    "raw: develop it to TIFF or JPEG first": RAW,
    "AVIF and JPEG 2000: this build of Pillow lacks them": AVIF | JPEG_2000,
    "drawings: export them to PNG first": DRAWINGS,
    "documents: turn their pages into PNG first, as pdftoppm -png does": DOCUMENTS,
    "videos: --every 1s explains a frame of each second": set(VIDEO_SUFFIXES),
    "DICOM: pip install 'camcli-vision[dicom]'": DICOM,
    "volumes: name NIfTI files, 'folder/*.nii.gz', for models of volumes; for others write slices to TIFF": VOLUMES,
    "arrays: name them, as by 'folder/*.npy'": ARRAYS,
    "others: convert them to PNG or TIFF first": OTHER_SUFFIXES,
}


def _register_heif() -> bool:
    """Register Pillow's plug-in for HEIC if it is installed, and return whether it is."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return True


if "avif" in features.modules and features.check_module("avif"):
    SUFFIXES |= AVIF
    FORMATS.append("AVIF")
if features.check_codec("jpg_2000"):
    SUFFIXES |= JPEG_2000
    FORMATS.append("JPEG2000")
if importlib.util.find_spec("pydicom") is not None:
    SUFFIXES |= DICOM
if _register_heif():
    SUFFIXES |= HEIF
    FORMATS.append("HEIF")
UNREADABLE_SUFFIXES = set().union(*HINTS.values()) - SUFFIXES


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with its dot."""
    if name.endswith((".nii.gz", ".NII.GZ")):
        return ".nii.gz"
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  names may be any bytes


def explain_unreadable(name: str) -> str:
    """Return what to do about a file whose suffix is that of a format that is not read; empty for another."""
    suffix = suffix_of(name)
    return next((way for way, suffixes in HINTS.items() if suffix in suffixes - SUFFIXES), "")


class SkippedFiles:
    """Counts of images in folders that cannot be read, and of other files left out.

    Attributes:
        counts: number of unreadable images by suffix.
        duplicates: number of times that an image was reached again.
        written: number of files that camcli itself wrote.
        archives: number of archives and tables in folders.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.duplicates = self.written = self.archives = 0
        self._archive_suffix = ""
        self._seen: set[int] = set()

    def __call__(self, path: str) -> None:
        """Count an unread file of a folder if it is an image or an archive; each file counts once."""
        suffix, mark = suffix_of(path), hash(os.path.abspath(path))  # noqa: PTH100
        if suffix in UNREADABLE_SUFFIXES | CONTAINER_SUFFIXES and mark not in self._seen:
            self._seen.add(mark)
            if suffix in CONTAINER_SUFFIXES:
                self.archives += 1
                self._archive_suffix = suffix
            else:
                self.counts[suffix] += 1

    def describe(self) -> str:
        """Return a sentence with the counts and hints on what to do; empty if nothing was skipped."""
        return "; ".join(filter(None, [self._describe_formats(), self._describe_names()]))

    def _describe_names(self) -> str:
        said = []
        if self.duplicates:
            said.append(f"{count_of(self.duplicates, 'image', 'are')} named more than once, and each is processed once")
        if self.written:
            said.append(
                f"{count_of(self.written, 'file')} that camcli wrote {'is' if self.written == 1 else 'are'} left out"
            )
        if self.archives:
            what = "table" if self._archive_suffix in TABLE_SUFFIXES else "archive"
            way = f"name them, as by 'folder/*{self._archive_suffix}'"
            said.append(
                f"{count_of(self.archives, what)} in folders {'is' if self.archives == 1 else 'are'} not read: {way}"
            )
        return "; ".join(said)

    def _describe_formats(self) -> str:
        if not self.counts:
            return ""
        total = self.counts.total()
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in self.counts.most_common())
        ways = "; ".join(way for way, suffixes in HINTS.items() if suffixes & self.counts.keys())
        return f"{total} file{'s are' if total > 1 else ' is'} not read: {kinds} ({ways})"

    def as_dict(self) -> dict[str, int]:
        """Return the counts by suffix, the greatest first."""
        return dict(self.counts.most_common())
