"""The maps of several prompts side by side: a sheet for a picture, and one for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from camcli.engine.explanation import Explanation
from camcli.images import page_of
from camcli.images.source import Picture
from camcli.images.view import View
from camcli.metrics import similarity
from camcli.metrics.similarity import NAMES
from camcli.outputs import encode, style
from camcli.outputs.matrix import matrix
from camcli.outputs.sheet import GAP, SIDE, SMALL, Row, Tile, folded, sheet, small
from camcli.outputs.style import Style
from camcli.runs.prompts import Compared
from camcli.runs.prompts.summary import MEASURES, PromptSummary, Summary, with_nan

# Pictures in a row of a picture's sheet, and of the summary's: picture, mean, deviation, and the two maps least alike.
FEWEST, MOST, ACROSS = 3, 6, 5
SHORT = {"pearson": "r", "ssim": "SSIM", "overlap": f"top {similarity.TOP:.0%}"}
DRAWN = (
    "Mean and deviation, pixel by pixel over the prompts, are of the maps as they are drawn: what is above zero, each "
    "from 0 to its own strongest value. Below each map stand the prompt's score and the mean r of its map with those "
    "that it is compared with."
)


@dataclass(frozen=True, slots=True)
class Heats:
    """What is drawn of a picture's maps: values above zero, the strongest of each 1; at the model's input size.

    Attributes:
        maps: by the prompt's number.
        mean, deviation: over the prompts, pixel by pixel; the deviation is divided by their number.
    """

    maps: dict[int, Float32[np.ndarray, "h w"]]
    mean: Float32[np.ndarray, "h w"]
    deviation: Float32[np.ndarray, "h w"]

    @classmethod
    def of(cls, explained: dict[int, Explanation], view: View) -> Heats:
        """Those of a picture.

        Args:
            explained: what has a map, by the prompt's number.
            view: of the picture.
        """
        own = Style("", 1.0, "image")
        whole = view.whole_input()
        maps = {
            number: whole.placed(one.placement).onto_picture(style.unit(one.map, own, spread=True))
            for number, one in explained.items()
        }
        stacked = np.stack([*maps.values()])
        return cls(maps, stacked.mean(0), stacked.std(0))


@dataclass(frozen=True, slots=True)
class Seen:
    """A compared picture, small, and what is drawn over it."""

    record: Compared
    pixels: np.ndarray
    view: View
    heats: Heats

    @classmethod
    def of(cls, record: Compared, picture: Picture, heats: Heats) -> Seen:
        """As it stands on a sheet."""
        return cls(record, *small(picture.pixels, picture.view), heats)

    def common(self, name: str) -> list[Tile]:
        """The picture, the mean of its maps, and their deviation."""
        mean, deviation = float(self.heats.mean.max()), self.record.deviation
        tiles = [
            Tile(name, self.pixels),
            Tile(f"mean of the maps\nat most {mean:.2f}", self.pixels, self.view, self.heats.mean, mean),
        ]
        if deviation:
            words = f"deviation\nat most {deviation['greatest']:.2f}, mean {deviation['mean']:.2f}"
            tiles.append(Tile(words, self.pixels, self.view, self.heats.deviation, deviation["greatest"]))
        return tiles

    def map(self, number: int) -> Tile:
        """The map of one prompt."""
        said = self.record.prompts[number]
        words = _captioned(f"{number + 1}  {said.prompt}")
        if said.score is None:
            return Tile(f"{words}\nno map")
        numbers = f"score {said.score:.3g}, r {decimal(said.agreement['pearson'])}"
        return Tile(f"{words}\n{numbers}", self.pixels, self.view, self.heats.maps[number], 1.0)


def picture_sheet(seen: Seen, heading: Sequence[str], texts: Sequence[str], style: Style) -> bytes:
    """A PNG of one picture: its maps side by side, their mean and deviation, and how alike each two are.

    Args:
        seen: the picture.
        heading: what made the maps.
        texts: where there are several ways to say each of several texts, these texts.
        style: of the maps.
    """
    record = seen.record
    across = min(MOST, max(FEWEST, len(record.prompts)))
    rows = [
        Row("all prompts", _lines(record.agreement, record.apart), seen.common("picture")),
        *_map_rows(seen, texts, across),
        Row("similarity", ["of each two prompts", "by their numbers"], _matrices(record.similarity, across, style)),
    ]
    notes = [*record.notes, *dict.fromkeys(note for said in record.prompts for note in said.notes)]
    notes += [record.error] if record.error else []
    footing = [DRAWN, *_measures(bool(texts)), *(f"Note: {note}" for note in notes)]
    return encode.png(sheet(page_of(Path(record.source).name, record.page), heading, rows, footing, style, across))


def summary_sheet(
    summary: Summary,
    unstable: Sequence[tuple[Compared, Seen | None, tuple[int, int]]],
    heading: Sequence[str],
    sorted_by: str,
    notes: Sequence[str],
    style: Style,
) -> bytes:
    """A PNG of all pictures: the prompts, how alike their maps are in the mean, and where they are least so.

    Args:
        summary: of all pictures.
        unstable: the least stable, if they could be seen again; and in each the two prompts least alike.
        heading: what made the maps.
        sorted_by: the measure by which they are the least stable.
        notes: what a reader must know.
        style: of the maps.
    """
    rows = [
        Row("prompts", ["mean score, and mean r with", "those compared with"], words=_listing(summary.prompts)),
        Row("similarity", _lines(summary.agreement, summary.apart), _matrices(summary.similarity, ACROSS, style)),
    ]
    for record, seen, two in unstable:
        name = page_of(Path(record.source).name, record.page)
        tiles = [*seen.common(name), *map(seen.map, two)] if seen else [Tile(f"{name}\ngone or changed")]
        rows.append(Row(name, _lines(record.agreement, record.apart), tiles))
    footing = [
        f"The pictures are those of the lowest mean {similarity.NAMES[sorted_by]}, the lowest first, each with the two "
        "maps least alike by it.",
        DRAWN,
        *_measures(bool(summary.apart)),
        *(f"Note: {note}" for note in notes),
    ]
    return encode.png(sheet("Prompts compared", heading, rows, footing, style, ACROSS))


def decimal(value: float | None) -> str:
    """A similarity for people."""
    return "undefined" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _map_rows(seen: Seen, texts: Sequence[str], across: int) -> Iterator[Row]:
    """The maps, those of each text by themselves where there are several."""
    of = {
        text: [number for number, said in enumerate(seen.record.prompts) if said.text == at]
        for at, text in enumerate(texts)
    }
    for name, numbers in (of or {"prompts": [*range(len(seen.record.prompts))]}).items():
        for start in range(0, len(numbers), across):
            yield Row("" if start else name, [], [*map(seen.map, numbers[start : start + across])])


def _matrices(similarity: dict[str, list[list[float | None]]], across: int, style: Style) -> list[Tile]:
    widest = (across * (SIDE + GAP) - len(MEASURES) * GAP) // len(MEASURES)
    return [Tile(NAMES[name], matrix(with_nan(similarity[name]), widest, style.colormap)) for name in MEASURES]


def _measures(texts: bool) -> Iterator[str]:
    """What the numbers are."""
    for name in MEASURES:
        yield f"{similarity.NAMES[name]}: {similarity.MEANINGS[name]}."
    yield (
        "The matrices' colours go from 0 to 1; what is below zero has zero's. What is not defined is grey: a map that "
        "is the same everywhere is like none and unlike none."
    )
    if texts:
        yield "Compared are the prompts of one text; beside it stands the same of prompts of different texts."


def _lines(mean: dict[str, float | None], apart: dict[str, float | None]) -> list[str]:
    beside = {name: f", across texts {decimal(value)}" for name, value in apart.items()}
    return [f"{SHORT[name]} {decimal(mean[name])}{beside.get(name, '')}" for name in MEASURES]


def _listing(prompts: Sequence[PromptSummary]) -> list[str]:
    scores = ("no score" if one.score is None else f"{one.score:.2f}" for one in prompts)
    numbered = enumerate(zip(prompts, scores, strict=True), start=1)
    return [f"{at}   {score}   r {decimal(one.agreement['pearson'])}   {one.prompt}" for at, (one, score) in numbered]


def _captioned(text: str) -> str:
    """A text below a picture, in at most two lines."""
    first, *rest = folded(text, SMALL, SIDE)
    return "\n".join([first, *([" ".join(rest)] if rest else [])])
