"""Sheets that show the maps of several prompts side by side, for one image and for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from camcli.engine.explanation import Explanation
from camcli.images import describe_page
from camcli.images.source import Picture
from camcli.images.view import View, is_fine
from camcli.metrics import similarity
from camcli.metrics.similarity import MEASURE_NAMES
from camcli.outputs import encode, style
from camcli.outputs.matrix import draw_matrix
from camcli.outputs.sheet import (
    GAP,
    SMALL,
    THUMBNAIL_SIDE,
    SheetRow,
    SheetTile,
    compose_sheet,
    make_thumbnail,
    wrap_text,
)
from camcli.outputs.style import Style
from camcli.runs.prompts import PromptComparison
from camcli.runs.prompts.summary import PromptSummary, Summary
from camcli.runs.worker.map_similarity import MEASURES, none_to_nan

# Tiles in a row of an image's sheet, and of the summary's: image, mean, deviation, and the two least similar maps.
MIN_COLUMNS, MAX_COLUMNS, SUMMARY_COLUMNS = 3, 6, 5
SHORT_NAMES = {"pearson": "r", "ssim": "SSIM", "overlap": f"top {similarity.TOP_SHARE:.0%}"}
DRAWN_NOTE = (
    "Mean and deviation, pixel by pixel over the prompts, are of the maps as drawn: positive values, each map scaled "
    "to its own maximum. Below each map: the prompt's score, and the mean r of its map with the maps it is compared "
    "with."
)


@dataclass(frozen=True, slots=True)
class PromptHeatmaps:
    """Maps of an image as drawn: values above zero, the strongest of each 1; at the model's input size.

    Attributes:
        maps: the maps, by the prompt's number.
        mean, deviation: mean and standard deviation over the prompts, pixel by pixel; divided by their number.
    """

    maps: dict[int, Float32[np.ndarray, "h w"]]
    mean: Float32[np.ndarray, "h w"]
    deviation: Float32[np.ndarray, "h w"]

    @classmethod
    def from_explanations(cls, explained: dict[int, Explanation], view: View) -> PromptHeatmaps:
        """Make the maps of an image from its explanations, by the prompt's number; all are of one layer."""
        maps = {number: one.map for number, one in explained.items()}
        return cls.from_maps(maps, view.placed(next(iter(explained.values())).placement))

    @classmethod
    def from_maps(cls, maps: dict[int, Float32[np.ndarray, "*c h w"]], view: View) -> PromptHeatmaps:
        """Make the maps of an image.

        Args:
            maps: its maps as the method gave them, by the prompt's number.
            view: view of the image, with the places of the maps' cells.
        """
        own_scale, whole = Style("", 1.0, "image"), view.view_of_input()
        drawn = {
            number: whole.onto_picture(style.to_unit_range(one, own_scale, is_fine(one, view), smooth=True))
            for number, one in maps.items()
        }
        stacked = np.stack([*drawn.values()])
        return cls(drawn, stacked.mean(0), stacked.std(0))


@dataclass(frozen=True, slots=True)
class SheetPicture:
    """Thumbnail of a compared image, and the maps drawn over it."""

    record: PromptComparison
    pixels: np.ndarray
    view: View
    heatmaps: PromptHeatmaps

    @classmethod
    def from_picture(cls, record: PromptComparison, picture: Picture, heatmaps: PromptHeatmaps) -> SheetPicture:
        """Make the thumbnail of an image."""
        return cls(record, *make_thumbnail(picture.pixels, picture.view), heatmaps)

    def make_common_tiles(self, name: str) -> list[SheetTile]:
        """Make tiles of the image, the mean of its maps, and their deviation."""
        mean, deviation = float(self.heatmaps.mean.max()), self.record.deviation
        tiles = [
            SheetTile(name, self.pixels),
            SheetTile(f"mean of the maps\nat most {mean:.2f}", self.pixels, self.view, self.heatmaps.mean, mean),
        ]
        if deviation:
            words = f"deviation\nat most {deviation['greatest']:.2f}\nmean {deviation['mean']:.2f}"
            tiles.append(SheetTile(words, self.pixels, self.view, self.heatmaps.deviation, deviation["greatest"]))
        return tiles

    def make_map_tile(self, number: int) -> SheetTile:
        """Make the tile of one prompt's map."""
        result = self.record.prompts[number]
        words = _wrap_caption(f"{number + 1}  {result.prompt}")
        if result.score is None:
            return SheetTile(f"{words}\nno map")
        numbers = f"score {result.score:.3g}, r {format_decimal(result.agreement['pearson'])}"
        return SheetTile(f"{words}\n{numbers}", self.pixels, self.view, self.heatmaps.maps[number], 1.0)


def draw_picture_sheet(picture: SheetPicture, heading: Sequence[str], texts: Sequence[str], style: Style) -> bytes:
    """Draw one image as a PNG: its maps side by side, their mean and deviation, and each two maps' similarity.

    Args:
        picture: the image.
        heading: lines that describe the run.
        texts: texts with several prompts each, if there are several such texts.
        style: style of the maps.
    """
    record = picture.record
    columns = min(MAX_COLUMNS, max(MIN_COLUMNS, len(record.prompts)))
    rows = [
        SheetRow("all prompts", _format_means(record.agreement, record.apart), picture.make_common_tiles("image")),
        *_make_map_rows(picture, texts, columns),
        SheetRow("similarity", ["of each two prompts", "by their numbers"], _draw_matrices(record.similarity, columns)),
    ]
    notes = [*record.notes, *dict.fromkeys(note for result in record.prompts for note in result.notes)]
    notes += [record.error] if record.error else []
    footing = [DRAWN_NOTE, *_describe_measures(bool(texts)), *(f"Note: {note}" for note in notes)]
    return encode.png(
        compose_sheet(describe_page(Path(record.source).name, record.page), heading, rows, footing, style, columns)
    )


def draw_summary_sheet(
    summary: Summary,
    unstable: Sequence[tuple[PromptComparison, SheetPicture | None, tuple[int, int]]],
    heading: Sequence[str],
    sorted_by: str,
    notes: Sequence[str],
    style: Style,
) -> bytes:
    """Draw a PNG of all images: the prompts, the mean similarity of their maps, and the least stable images.

    Args:
        summary: summary of all images.
        unstable: lines of the least stable images, each with the image, if it could be explained again, and the
            numbers of the two least similar prompts.
        heading: lines that describe the run.
        sorted_by: the measure by which they are the least stable.
        notes: notes for the reader.
        style: style of the maps.
    """
    rows = [
        SheetRow("prompts", ["mean score, mean r with", "those compared with"], words=_format_prompts(summary.prompts)),
        SheetRow(
            "similarity",
            _format_means(summary.agreement, summary.apart),
            _draw_matrices(summary.similarity, SUMMARY_COLUMNS),
        ),
    ]
    for record, seen, two in unstable:
        name = describe_page(Path(record.source).name, record.page)
        tiles = (
            [*seen.make_common_tiles(name), *map(seen.make_map_tile, two)]
            if seen
            else [SheetTile(f"{name}\ngone or changed")]
        )
        rows.append(SheetRow(name, _format_means(record.agreement, record.apart), tiles))
    footing = [
        f"These images have the lowest mean {similarity.MEASURE_NAMES[sorted_by]}, lowest first; each is shown with "
        "its two least similar maps.",
        DRAWN_NOTE,
        *_describe_measures(bool(summary.apart)),
        *(f"Note: {note}" for note in notes),
    ]
    return encode.png(compose_sheet("Prompts compared", heading, rows, footing, style, SUMMARY_COLUMNS))


def format_decimal(value: float | None) -> str:
    """Format a similarity for people."""
    return "undefined" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _make_map_rows(picture: SheetPicture, texts: Sequence[str], columns: int) -> Iterator[SheetRow]:
    """Yield rows of the maps, those of each text by themselves if there are several."""
    numbers_by_text = {
        text: [number for number, result in enumerate(picture.record.prompts) if result.text == at]
        for at, text in enumerate(texts)
    }
    for name, numbers in (numbers_by_text or {"prompts": [*range(len(picture.record.prompts))]}).items():
        for start in range(0, len(numbers), columns):
            yield SheetRow("" if start else name, [], [*map(picture.make_map_tile, numbers[start : start + columns])])


def _draw_matrices(similarity: dict[str, list[list[float | None]]], columns: int) -> list[SheetTile]:
    widest = (columns * (THUMBNAIL_SIDE + GAP) - len(MEASURES) * GAP) // len(MEASURES)
    return [SheetTile(MEASURE_NAMES[name], draw_matrix(none_to_nan(similarity[name]), widest)) for name in MEASURES]


def _describe_measures(texts: bool) -> Iterator[str]:
    """Yield descriptions of the numbers."""
    for name in MEASURES:
        yield f"{similarity.MEASURE_NAMES[name]}: {similarity.MEASURE_MEANINGS[name]}."
    yield (
        "The matrices' colours go from blue at -1 over white at 0 to red at 1. Undefined values, of maps "
        "that are constant, are grey."
    )
    if texts:
        yield "The prompts of the same text are compared; the value for prompts of different texts is given beside it."


def _format_means(mean: dict[str, float | None], apart: dict[str, float | None]) -> list[str]:
    beside = {name: f", across texts {format_decimal(value)}" for name, value in apart.items()}
    return [f"{SHORT_NAMES[name]} {format_decimal(mean[name])}{beside.get(name, '')}" for name in MEASURES]


def _format_prompts(prompts: Sequence[PromptSummary]) -> list[str]:
    scores = ("no score" if one.score is None else f"{one.score:.2f}" for one in prompts)
    numbered = enumerate(zip(prompts, scores, strict=True), start=1)
    return [
        f"{at}   {score}   r {format_decimal(one.agreement['pearson'])}   {one.prompt}" for at, (one, score) in numbered
    ]


def _wrap_caption(text: str) -> str:
    """Wrap a text below an image into at most two lines."""
    first, *rest = wrap_text(text, SMALL, THUMBNAIL_SIDE)
    return "\n".join([first, *([" ".join(rest)] if rest else [])])
