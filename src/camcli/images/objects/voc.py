"""Boxes in Pascal VOC's XML, a file for each image, of the image's name.

Pixels are counted from 1, and the last one is inside (VOC2012 devkit, sec. 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from camcli.base.errors import RequestError
from camcli.images.objects.entry import Box, Entry, parse_edges

FORMAT_HINT = "Pascal VOC's format is <annotation><object><name/><bndbox><xmin/><ymin/><xmax/><ymax/></bndbox></object>"
EDGES = ("xmin", "ymin", "xmax", "ymax")


class _NoDoctype(ET.TreeBuilder):
    """Refuses what could define entities, which may name other files, or grow without bound."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise RequestError("it has a document type, which is not read", "remove <!DOCTYPE ...>: annotations need none")


def read_entries(folder: Path) -> Iterator[Entry]:
    """Iterate over the boxes of all XML files in a folder, also of objects that are marked as difficult.

    Raises:
        RequestError: a file cannot be read, or is not of this format.
    """
    for file in sorted(folder.rglob("*.xml")):
        name = file.relative_to(folder)
        try:
            root = ET.parse(file, ET.XMLParser(target=_NoDoctype())).getroot()
            size = _read_size(root)
            for number, one in enumerate(root.iter("object"), start=1):
                yield _read_object(one, f"{name}, object {number}", str(name.with_suffix("")), size)
        except OSError as error:
            raise RequestError(f"{file} cannot be read: {error.strerror}") from error
        except ET.ParseError as error:
            raise RequestError(f"{file} is not XML: {error}", FORMAT_HINT) from error
        except RequestError as error:
            raise RequestError(f"{file}: {error.message}", error.hint) from error


def _read_object(one: ET.Element, where: str, picture: str, size: tuple[int, int] | None) -> Entry:
    box = one.find("bndbox")
    texts = [(box.findtext(edge) if box is not None else None) or "nothing" for edge in EDGES]
    label = (one.findtext("name") or "").strip()
    if not label:
        raise RequestError(f"an object has no name ({where.rsplit(', ', 1)[1]})", FORMAT_HINT)
    try:
        x0, y0, x1, y1 = (float(text) for text in texts)
        edges = parse_edges([x0 - 1, y0 - 1, x1, y1])
    except (ValueError, RequestError) as error:
        raise RequestError(f"{where.rsplit(', ', 1)[1]}: {', '.join(texts)} is no box", FORMAT_HINT) from error
    return Entry(where, picture, Box(edges, size=size), label)


def _read_size(root: ET.Element) -> tuple[int, int] | None:
    """Return width and height of the image; None if they are missing or zero, as some programs write them."""
    try:
        width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width and height else None
