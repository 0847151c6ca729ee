"""``camcli prompts``: what is asked of it, and what comes out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from camcli.base.errors import RequestError
from camcli.models import check_templates
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option
from camcli.runs.record.outcome import Outcome, with_tuples

Kept = Literal["sheet", "array"]
Measure = Literal["pearson", "ssim", "overlap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What is asked of ``camcli prompts``: the maps of several prompts in each picture, compared.

    Attributes:
        job: model, layer, method, pictures, and how they are done; its prompts are what is asked about, and its
            ``save`` says what is written for each picture: ``sheet``, and ``array`` for the maps themselves.
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
        """Raises RequestError for what cannot be asked."""
        if not self.job.prompted:
            raise RequestError(
                "no prompts were given",
                "name several: --text dog --text puppy; or one, and ways to say it: --text dog --paraphrase "
                "'a photo of a {}.' --paraphrase 'a drawing of a {}.'",
            )
        check_templates(self.paraphrases)
        if self.measure not in get_args(Measure):
            raise RequestError(f"measure cannot be {self.measure!r}", f"there are: {', '.join(get_args(Measure))}")
        if unknown := [kind for kind in self.job.save if kind not in get_args(Kept)]:
            raise RequestError(f"{unknown[0]!r} cannot be saved", f"there are: {', '.join(get_args(Kept))}")
        if self.pictures < 1:
            raise RequestError(f"{self.pictures} pictures cannot be shown", "give a number from 1 on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one prompt says of a picture.

    Attributes:
        prompt: its words.
        text: which of the texts asked about it says, from 0 on.
        score, probability: of the prompt, as in :class:`camcli.runs.record.outcome.Outcome`.
        strongest: the map's value that is drawn at full strength.
        peak: x and y of its greatest value, in pixels of the upright picture.
        agreement: for each measure the mean similarity of its map to the others that it is compared with.
        notes: what a reader of the map must know.
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
class Compared:
    """The maps of several prompts in one picture, compared: one line of ``prompts.jsonl``.

    What is not defined is None: the similarity of a map that is the same everywhere, or that there is none of.

    Attributes:
        source, name, stamp, job, run, part, page: as in :class:`camcli.runs.record.outcome.Outcome`.
        files: kind to path, relative to ``out``.
        sizes: kind to bytes, of these files.
        layer, method: what made the maps.
        prompts: what each says, in the order of rows and columns.
        similarity: for each measure a symmetric matrix.
        agreement: for each measure its mean over the pairs that are compared: those of one text where there are
            paraphrases, else all.
        apart: for each measure its mean over the pairs of different texts, where there are paraphrases.
        deviation: of what is drawn, the standard deviation over the prompts, pixel by pixel: its mean and its greatest
            value; empty where only one prompt has a map.
        disagreement: x and y of the latter, in pixels of the upright picture, if it is anywhere.
        seconds: decoding, its share of its batch, comparing and writing.
        untrained: the weights are random and the maps mean nothing.
        notes: what a reader of all the maps must know.
        error: why the picture, or the map of one of its prompts, could not be done.
    """

    source: str
    name: str
    stamp: str
    job: str
    run: str
    part: str = "1/1"
    page: int = 0
    files: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    layer: str | None = None
    method: str | None = None
    prompts: tuple[Said, ...] = ()
    similarity: dict[str, list[list[float | None]]] = field(default_factory=dict)
    agreement: dict[str, float | None] = field(default_factory=dict)
    apart: dict[str, float | None] = field(default_factory=dict)
    deviation: dict[str, float] = field(default_factory=dict)
    disagreement: tuple[float, float] | None = None
    seconds: float | None = None
    untrained: bool = False
    notes: tuple[str, ...] = ()
    error: str | None = None

    def as_line(self) -> bytes:
        """It as one JSON line, ended by a newline; also for names that are not valid UTF-8."""
        text = json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "backslashreplace") + b"\n"

    @classmethod
    def read(cls, values: dict[str, Any]) -> Compared:
        """It as JSON has it, with lists for tuples."""
        said = tuple(Said(**with_tuples(one)) for one in values["prompts"])
        return cls(**{**with_tuples(values), "prompts": said})

    def outcome(self) -> Outcome:
        """How the picture went, for those who count and tell."""
        return Outcome(
            source=self.source,
            name=self.name,
            stamp=self.stamp,
            job=self.job,
            run=self.run,
            page=self.page,
            error=self.error,
        )
