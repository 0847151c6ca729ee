"""Boxes in YOLO's text files, one for each image, of the image's name.

A line is the number of a class, then the centre's x and y, width and height, in shares of the image's width and height.
The names of the classes are in ``classes.txt``, a line each, or under ``names`` in a YAML file (``data.yaml``), in the
folder or in one of the two above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from camcli.base.delimited import read_text
from camcli.base.errors import RequestError
from camcli.images.objects.entry import Box, Entry, parse_edges

NAMES_FILE = "classes.txt"
FORMAT_HINT = (
    "YOLO's format is a line for each box: class x-centre y-centre width height, in shares of the image's sides"
)
NAMES_HINT = f"write {NAMES_FILE} with a class's name a line, or data.yaml with names, into the folder or above it"
# Largest share that rounding can leave outside of an image.
ROUNDING = 1e-3


def read_entries(folder: Path) -> Iterator[Entry]:
    """Iterate over the boxes of all text files in a folder.

    Raises:
        RequestError: a file cannot be read, is not of this format, or the classes have no names.
    """
    names = _read_names(folder)
    for file in sorted(folder.rglob("*.txt")):
        if file.name == NAMES_FILE:
            continue
        name = file.relative_to(folder)
        for number, line in enumerate(read_text(file, str(file), FORMAT_HINT).splitlines(), start=1):
            if line.strip():
                try:
                    box, label = _read_line(line, names)
                except RequestError as error:
                    raise RequestError(f"{file}, line {number}: {error.message}", error.hint) from error
                yield Entry(f"{name}, line {number}", str(name.with_suffix("")), box, label)


def _read_line(line: str, names: Mapping[int, str]) -> tuple[Box, str]:
    cells = line.split()
    try:
        number, (x, y, width, height) = int(cells[0]), map(float, cells[1:])
        edges = parse_edges([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    except (ValueError, RequestError) as error:
        raise RequestError(f"{line.strip()!r} is no box", FORMAT_HINT) from error
    if min(edges) < -ROUNDING or max(edges) > 1 + ROUNDING:
        raise RequestError(f"{line.strip()!r} reaches beyond the image", FORMAT_HINT)
    if number not in names:
        raise RequestError(f"class {number} has no name among {len(names)}", NAMES_HINT)
    return Box(edges, relative=True), names[number]


def _read_names(folder: Path) -> Mapping[int, str]:
    """Return the names of classes by number."""
    for place in (folder, *folder.absolute().parents[:2]):
        if (place / NAMES_FILE).is_file():
            lines = read_text(place / NAMES_FILE, str(place / NAMES_FILE)).splitlines()
            return {number: name.strip() for number, name in enumerate(lines) if name.strip()}
        for file in sorted([*place.glob("*.yaml"), *place.glob("*.yml")]):
            if found := _read_yaml(file):
                return found
    raise RequestError(f"the boxes in {folder} have numbers for classes, and nothing names these", NAMES_HINT)


def _read_yaml(file: Path) -> Mapping[int, str]:
    """Return the names in a YAML file by number; none if it has no ``names``."""
    try:
        content = yaml.safe_load(read_text(file, str(file)))
    except (yaml.YAMLError, RecursionError) as error:
        raise RequestError(f"{file} is not YAML: {' '.join(str(error).split())}", NAMES_HINT) from error
    names = content.get("names") if isinstance(content, dict) else None
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    found = {int(number): name for number, name in pairs if str(number).isdecimal()}
    for number, name in found.items():
        # What aliases repeat could grow without bound as text, and a bare `no` is false.
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise RequestError(f"{file}: the name of class {number} is no text", "put it in quotes")
    return {number: str(name) for number, name in found.items()}
