"""Which files are pictures that can be read here, and which are known to be pictures and cannot."""

import importlib.util
import os
from collections import Counter

from PIL import features

# Formats are Pillow's names. No others are tried, whatever Pillow can read: each is one more way into the process.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM"]
AVIF = {".avif", ".avifs"}
JPEG_2000 = {".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"}
HEIF = {".heic", ".heif", ".hif", ".heics", ".heifs"}
# What cameras write before it is a picture.
RAW = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos"),
    *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
# Pictures of other kinds: of medicine, of microscopes, of films and games, and those that are out of use.
OTHERS = {
    *(".dcm", ".dicom", ".nii", ".nrrd", ".mha", ".czi", ".lif", ".nd2", ".ndpi", ".mrxs", ".svs", ".scn", ".vsi"),
    *(".bpg", ".dds", ".exr", ".fit", ".fits", ".flif", ".hdr", ".icns", ".ico", ".jls", ".jxl", ".jxr", ".pcx"),
    *(".pfm", ".psb", ".psd", ".qoi", ".ras", ".rgb", ".sgi", ".tga", ".wdp", ".xcf", ".jng", ".mng", ".wbmp"),
}
HINTS = {
    "HEIC: pip install 'camcli-vision[heif]'": HEIF,
    "raw: develop it to TIFF or JPEG first": RAW,
    "AVIF and JPEG 2000: an own build of Pillow lacks them": AVIF | JPEG_2000,
    "others: convert them to PNG or TIFF first": OTHERS,
}


def _registered() -> bool:
    """Have Pillow read HEIC, where the plug-in for it is installed."""
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
if _registered():
    SUFFIXES |= HEIF
    FORMATS.append("HEIF")
KNOWN = set().union(*HINTS.values()) - SUFFIXES


def suffix_of(name: str) -> str:
    """In small letters, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  names may be any bytes


class Unread:
    """Counts what folders hold that is a picture and is not read, and what else is left out of what was named.

    Attributes:
        counts: how many of each suffix.
        twice: pictures that were reached once more.
        written: files that camcli itself wrote.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.twice = self.written = 0
        self._seen: set[int] = set()

    def __call__(self, path: str) -> None:
        """A file in a folder that is not among those read; each counts once."""
        suffix, mark = suffix_of(path), hash(os.path.abspath(path))  # noqa: PTH100
        if suffix in KNOWN and mark not in self._seen:
            self._seen.add(mark)
            self.counts[suffix] += 1

    def words(self) -> str:
        """How many of which, in a sentence, and what to do about it; empty if there are none."""
        return "; ".join(filter(None, [self._about_formats(), self._about_names()]))

    def _about_names(self) -> str:
        said = []
        if self.twice:
            said.append(f"{self.twice} picture(s) are named more than once, and each is done once")
        if self.written:
            said.append(f"{self.written} file(s) that camcli wrote are left out")
        return "; ".join(said)

    def _about_formats(self) -> str:
        if not self.counts:
            return ""
        total = self.counts.total()
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in self.counts.most_common())
        ways = "; ".join(way for way, suffixes in HINTS.items() if suffixes & self.counts.keys())
        return f"{total} file{'s are' if total > 1 else ' is'} not read: {kinds} ({ways})"

    def as_dict(self) -> dict[str, int]:
        """The counts by suffix, most first."""
        return dict(self.counts.most_common())
