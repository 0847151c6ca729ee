"""Maps of an image from all passes, put together: how alike they are, and its line of the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from camcli.engine.explanation import Explanation
from camcli.images.source import PictureSource
from camcli.outputs.style import rectify
from camcli.runs.compare import ComparedMap, Comparison
from camcli.runs.compare.drawing import measure_peak
from camcli.runs.compare.explain import Cell, ExplainedImage, Missing, Subject
from camcli.runs.worker.map_similarity import Matrices, PlacedMap, measure_similarity, nan_to_none


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """Maps of an image from all passes.

    Attributes:
        number: its number, from 0 on.
        source: the image.
        stamp: its file's size and modification time.
        pixels: the image at the size of a sheet's cell; None if it cannot be read.
        cells: its maps.
        similarity: similarity of each two maps.
    """

    number: int
    source: PictureSource
    stamp: str
    pixels: UInt8[np.ndarray, "h w 3"] | None
    cells: tuple[Cell, ...]
    similarity: Matrices

    @property
    def error(self) -> str | None:
        """Reason why its first map that is missing could not be made."""
        return next((one.reason for one in self.cells if isinstance(one, Missing) and one.failed), None)


def merge_image(number: int, passes: Sequence[ExplainedImage]) -> ComparedImage:
    """Put the maps of an image's passes together, and compare them."""
    cells = tuple(cell for one in passes for cell in one.cells)
    pixels = next((one.pixels for one in passes if one.pixels is not None), None)
    matrices, _ = measure_similarity([_place(cell) for cell in cells])
    return ComparedImage(number, passes[0].source, passes[0].stamp, pixels, cells, matrices)


def _place(cell: Cell) -> PlacedMap | None:
    if not isinstance(cell, Explanation):
        return None
    assert cell.view is not None  # every compared map has one
    # Of a map with colours the greatest magnitude, as for drawing.
    return PlacedMap(rectify(cell.map) if cell.map.ndim == 3 else cell.map, cell.view)


def make_line(image: ComparedImage, subjects: Sequence[Subject], fields: dict[str, Any]) -> Comparison:
    """Return the line of an image.

    Args:
        image: its maps.
        subjects: what each pass explains.
        fields: fields that a line of any image has.
    """
    several = len(image.cells) > 1
    return Comparison(
        **fields,
        maps=tuple(_list_maps(image.cells, subjects)),
        similarity={name: nan_to_none(values) for name, values in image.similarity.items()} if several else {},
        error=image.error,
    )


def _list_maps(cells: Sequence[Cell], subjects: Sequence[Subject]) -> Iterator[ComparedMap]:
    given = iter(cells)
    for subject in subjects:
        for target in subject.targets:
            for layer in subject.layers:
                for method in subject.methods:
                    words: dict[str, Any] = {
                        "model": subject.name,
                        "weights": subject.job.weights,
                        "scales": subject.job.scales,
                        "target": target,
                        "layer": layer,
                        "method": method,
                        "untrained": subject.untrained,
                    }
                    yield ComparedMap(**{**words, **_describe(next(given))})


def _describe(cell: Cell) -> dict[str, Any]:
    if isinstance(cell, Missing):
        return {"error": cell.reason} if cell.failed else {"left_out": cell.reason}
    assert cell.view is not None  # every compared map has one
    x, y = cell.view.peak(rectify(cell.map))
    return {
        "layer": cell.layer,
        "index": cell.index,
        "label": cell.label,
        "versus": cell.versus,
        "score": cell.score,
        "probability": cell.probability,
        "predicted_label": cell.predicted_label,
        "strongest": float(f"{measure_peak(cell, 'overlay'):.6g}"),
        "peak": (round(x, 2), round(y, 2)),
        "notes": cell.notes,
    }
