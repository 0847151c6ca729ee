"""Boxes in COCO's JSON: ``images``, ``annotations`` and ``categories``.

A ``bbox`` is x, y, width and height in pixels, from the upper left corner (cocodataset.org, data format).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.base.delimited import read_text
from camcli.base.errors import RequestError
from camcli.images.objects.entry import Box, Entry, parse_edges

FORMAT_HINT = (
    'COCO\'s format is {"images": [{"id", "file_name"}], "categories": [{"id", "name"}], '
    '"annotations": [{"image_id", "category_id", "bbox": [x, y, width, height]}]}'
)
BOX_HINT = "a bbox is x, y, width and height in pixels, both above 0"


def read_entries(file: Path) -> Iterator[Entry]:
    """Iterate over the boxes; annotations without a ``bbox``, as of captions, are passed over.

    Raises:
        RequestError: the file cannot be read, or is not of this format.
    """
    try:
        content = json.loads(read_text(file, f"the boxes file {str(file)!r}", FORMAT_HINT))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{file} is not JSON: {error}", FORMAT_HINT) from error
    images, categories = (_by_id(file, content, name) for name in ("images", "categories"))
    count = 0
    for number, one in enumerate(_list(file, content, "annotations")):
        if one.get("bbox") is None:
            continue
        count += 1
        where = f"annotations[{number}]"
        image = _find(file, where, images, one, "image_id", "images")
        category = _find(file, where, categories, one, "category_id", "categories")
        yield Entry(
            where, str(image.get("file_name")), _read_box(file, where, one["bbox"], image), str(category["name"])
        )
    if not count:
        raise RequestError(f"the boxes file {str(file)!r} lists no bbox", FORMAT_HINT)


def _read_box(file: Path, where: str, given: Any, image: Mapping[str, Any]) -> Box:
    try:
        x, y, width, height = (float(one) for one in given)
        edges = parse_edges([x, y, x + width, y + height])
    except (TypeError, ValueError, RequestError) as error:
        raise RequestError(f"{file}, {where}: {given} is no box", BOX_HINT) from error
    size = image.get("width"), image.get("height")
    try:
        return Box(edges, size=(int(size[0]), int(size[1])) if size[0] and size[1] else None)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{file}, {where}: its image's width and height are no numbers", FORMAT_HINT) from error


def _list(file: Path, content: Any, name: str) -> Sequence[Mapping[str, Any]]:
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RequestError(f"{file} has no list {name!r}", FORMAT_HINT)
    return found


def _by_id(file: Path, content: Any, name: str) -> Mapping[Any, Mapping[str, Any]]:
    key = "file_name" if name == "images" else "name"
    listed = _list(file, content, name)
    for number, one in enumerate(listed):
        if "id" not in one or key not in one:
            raise RequestError(f"{file}, {name}[{number}] has no {'id' if 'id' not in one else key!r}", FORMAT_HINT)
        if not isinstance(one["id"], int | str):
            raise RequestError(f"{file}, {name}[{number}]: an id is a number or text", FORMAT_HINT)
    return {one["id"]: one for one in listed}


def _find(
    file: Path, where: str, among: Mapping[Any, Mapping[str, Any]], one: Mapping[str, Any], key: str, name: str
) -> Mapping[str, Any]:
    given = one.get(key)
    found = among.get(given) if isinstance(given, int | str) else None
    if found is None:
        raise RequestError(f"{file}, {where}: {key} {given!r} is none of its {name}", FORMAT_HINT)
    return found
