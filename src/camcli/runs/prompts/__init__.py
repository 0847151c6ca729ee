"""Job and results of ``camcli prompts``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from camcli.base.errors import RequestError
from camcli.models import check_templates
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option
from camcli.runs.record.outcome import ImageLine, restore_tuples

SaveKind = Literal["sheet", "array"]
Measure = Literal["pearson", "ssim", "overlap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptJob:
    """Job of ``camcli prompts``: compare the maps of several prompts in each image.

    Attributes:
        job: model, layer, method, images, and how they are processed; its prompts are the texts, and its ``save``
            names what is written for each image: ``sheet``, and ``array`` for the maps themselves.
    """

    job: Job
    paraphrases: tuple[str, ...] = option(
        (),
        MODEL,
        help="Template that makes a prompt of each --text, such as 'a photo of a {}.' ({} alone = the text itself), or "
        "open_clip's imagenet or imagenet-simple; repeat for several. Then the prompts of each text are compared",
        flag="--paraphrase",
        metavar="TEXT",
        env=False,
    )
    measure: Measure = option(
        "pearson",
        OUTPUT,
        help="Similarity of two maps, for the table and for sorting images: pearson, ssim, overlap (of the top 20%)",
        metavar="MEASURE",
        env=False,
    )
    pictures: int = option(5, OUTPUT, help="Number of least stable images to show", metavar="N", min=1, env=False)

    def __post_init__(self) -> None:
        """Raise RequestError for invalid options."""
        if not self.job.prompted:
            raise RequestError(
                "no prompts were given",
                "give several: --text dog --text puppy; or one with paraphrases: --text dog --paraphrase 'a photo of "
                "a {}.' --paraphrase 'a drawing of a {}.'",
            )
        check_templates(self.paraphrases)
        if self.measure not in get_args(Measure):
            raise RequestError(f"measure cannot be {self.measure!r}", f"there are: {', '.join(get_args(Measure))}")
        if unknown := [kind for kind in self.job.save if kind not in get_args(SaveKind)]:
            raise RequestError(f"{unknown[0]!r} cannot be saved", f"there are: {', '.join(get_args(SaveKind))}")
        if self.pictures < 1:
            raise RequestError(f"{self.pictures} images cannot be shown", "give a number from 1 on")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptResult:
    """Result of one prompt in an image.

    Attributes:
        prompt: the prompt.
        text: index of the text that it words.
        score, probability: of the prompt, as in :class:`camcli.runs.record.outcome.Outcome`.
        strongest: the map's value that is drawn at full strength.
        peak: x and y of its greatest value, in pixels of the upright image.
        agreement: for each measure the mean similarity of its map to those that it is compared with.
        notes: notes for the reader of the map.
        error: why there is no map, and then all of the above from ``score`` on is empty.
    """

    prompt: str
    text: int
    score: float | None = None
    probability: float | None = None
    strongest: float | None = None
    peak: tuple[float, float] | None = None
    agreement: dict[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptComparison(ImageLine):
    """Comparison of the maps of several prompts in one image: one line of ``prompts.jsonl``.

    Undefined values are None: the similarity of a map that is constant or missing.

    Attributes:
        layer, method: what made the maps.
        prompts: result of each prompt, in the order of rows and columns.
        similarity: for each measure a symmetric matrix.
        agreement: for each measure its mean over the pairs that are compared: those of one text where there are
            paraphrases, else all.
        apart: for each measure its mean over the pairs of different texts, where there are paraphrases.
        deviation: mean and greatest value of the standard deviation over the prompts, pixel by pixel, of the drawn
            maps; empty if only one prompt has a map.
        disagreement: x and y of the greatest deviation, in pixels of the upright image, if that is above zero.
        placement: of the maps' cells, as in :class:`camcli.runs.record.outcome.Outcome`.
        seconds: time for decoding, its share of its batch, comparing and writing.
        untrained: the weights are random and the maps mean nothing.
        notes: notes for the reader of all the maps.
        error: why the image, or the map of one of its prompts, could not be done.
    """

    layer: str | None = None
    method: str | None = None
    prompts: tuple[PromptResult, ...] = ()
    similarity: dict[str, list[list[float | None]]] = field(default_factory=dict)
    agreement: dict[str, float | None] = field(default_factory=dict)
    apart: dict[str, float | None] = field(default_factory=dict)
    deviation: dict[str, float] = field(default_factory=dict)
    disagreement: tuple[float, float] | None = None
    placement: tuple[float, float, float, float] | None = None
    seconds: float | None = None
    untrained: bool = False
    notes: tuple[str, ...] = ()
    error: str | None = None

    @classmethod
    def read(cls, values: dict[str, Any]) -> PromptComparison:
        """Make a comparison from JSON values, which have lists for tuples."""
        results = tuple(PromptResult(**restore_tuples(one)) for one in values["prompts"])
        return cls(**{**restore_tuples(values), "prompts": results})
