"""Contact sheet of the maps that changed most: the image, and the map of each run over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camcli.base.errors import PictureError
from camcli.images import describe_page, parse_bands
from camcli.images.decode import decode_reduced
from camcli.images.view import is_fine
from camcli.metrics.similarity import MEASURE_MEANINGS, MEASURE_NAMES
from camcli.outputs import encode
from camcli.outputs.sheet import SMALL, THUMBNAIL_SIDE, SheetRow, SheetTile, compose_sheet, make_thumbnail, wrap_text
from camcli.outputs.style import Style, to_unit_range
from camcli.runs.diff import MapChange
from camcli.runs.diff.pairs import Pair
from camcli.runs.record.finished import RecordedMap
from camcli.runs.record.kept import find_source

COLORMAP, ALPHA = "inferno", 0.75
COLUMNS = 3
# Sides of a thumbnail that an image still has when it is decoded at a fraction of its size.
SPARE = 3
DRAWN_NOTE = (
    "Maps are drawn where they are positive, each up to its own greatest value. moved: distance of the peaks, as a "
    "share of the image's diagonal."
)


@dataclass(frozen=True, slots=True)
class SheetRun:
    """A run as the sheet names it: what it is called, what it recorded, and its folder; None in a store."""

    name: str
    facts: Mapping[str, Any]
    folder: Path | None = None


def draw_sheet(worst: Sequence[tuple[MapChange, Pair]], base: SheetRun, new: SheetRun) -> bytes:
    """Draw the sheet as a PNG.

    Args:
        worst: the maps, worst first.
        base, new: the runs.
    """
    untrained = any(one is not None and one.outcome.untrained for _, pair in worst for one in pair)
    heading = [f"{title}: {run.name}, {_describe_model(run.facts)}" for title, run in (("base", base), ("new", new))]
    rows = [_make_row(change, pair, new) for change, pair in worst]
    footing = [DRAWN_NOTE, *(f"{MEASURE_NAMES[name]}: {MEASURE_MEANINGS[name]}." for name in MEASURE_NAMES)]
    style = Style(COLORMAP, ALPHA, "image", untrained=untrained)
    return encode.png(compose_sheet("Maps that changed most", heading, rows, footing, style, COLUMNS))


def _describe_model(facts: Mapping[str, Any]) -> str:
    model = facts.get("model") or {}
    return f"{model.get('name')}, weights {str(model.get('sha256'))[:8]}, {facts.get('precision')}"


def _make_row(change: MapChange, pair: Pair, run: SheetRun) -> SheetRow:
    name = describe_page(Path(change.name).name, change.page)
    return SheetRow(name, [*_list_lines(change)], [*_make_tiles(change, pair, run)])


def _list_lines(change: MapChange) -> Iterator[str]:
    yield change.label
    if change.there != "both" or change.pearson is None:
        yield from (line for reason in change.reasons for line in wrap_text(reason, 15, 220))
    else:
        yield f"r {change.pearson:.2f}   SSIM {_format(change.ssim)}"
        yield f"top 20% {_format(change.overlap)}   moved {_format(change.moved)}"
    if change.changed:
        yield "another class is predicted"


def _make_tiles(change: MapChange, pair: Pair, run: SheetRun) -> Iterator[SheetTile]:
    """Yield tiles of the image and of both maps over it."""
    given = next((one for one in reversed(pair) if one is not None and one.has_map), None)
    pixels, trouble = None, "no image"
    if given is not None and pair[1] is not None:
        try:
            pixels = _decode(pair[1], run)
            yield SheetTile("image", make_thumbnail(pixels, given.view)[0])
        except PictureError as error:
            trouble = error.message
    if pixels is None:
        yield SheetTile(_wrap(trouble))
    for name, one, label, probability in (
        ("base", pair[0], change.base_label, change.base_probability),
        ("new", pair[1], change.new_label, change.new_probability),
    ):
        words = f"{label or ''} {'' if probability is None else f'{probability:.2f}'}"
        yield _make_map_tile(one, pixels, f"{name}: {words}")


def _make_map_tile(recorded: RecordedMap | None, pixels: np.ndarray | None, words: str) -> SheetTile:
    if recorded is None or not recorded.has_map:
        return SheetTile(_wrap(f"{words} no map"))
    try:
        map, view = recorded.load(), recorded.view
    except PictureError as error:
        return SheetTile(_wrap(f"{words} {error.message}"))
    drawn = to_unit_range(map, Style(COLORMAP, ALPHA, "image"), is_fine(map, view), smooth=True)
    on_input = view.view_of_input().enlarge(drawn)
    if pixels is None:  # the map alone, over grey
        pixels = np.full((*_fit(view.picture), 3), 128, np.uint8)
    thumbnail, seen = make_thumbnail(pixels, view)
    return SheetTile(_wrap(words), thumbnail, seen.placed(None), np.asarray(on_input, np.float32), 1.0)


def _decode(recorded: RecordedMap, run: SheetRun) -> np.ndarray:
    """Decode the image of a map, perhaps at a fraction of its size.

    Raises:
        PictureError: it is gone or was changed.
    """
    source, job = find_source(recorded.outcome, run.folder), run.facts.get("job") or {}
    opened = decode_reduced(
        source.path,
        lambda width, height: max(1.0, min(width, height) / (SPARE * THUMBNAIL_SIDE)),
        str(job.get("background") or "#ffffff"),
        str(job.get("range") or ""),
        source.page,
        parse_bands(str(job.get("bands") or ""), str(job.get("rgb") or "")),
    )
    if opened.size != recorded.outcome.image_size:
        raise PictureError("the image has another size now")
    return np.asarray(opened.image)


def _fit(picture: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image, reduced to that of a thumbnail."""
    scale = min(1.0, SPARE * THUMBNAIL_SIDE / max(picture))
    return max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))


def _format(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _wrap(text: str) -> str:
    return "\n".join(wrap_text(text, SMALL, THUMBNAIL_SIDE))
