"""How one picture went: a line of what is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from camcli.engine.explanation import Concept
from camcli.images import page_of

Measure = Literal["pearson", "ssim", "overlap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one picture and target went: one line of ``outcomes.jsonl``.

    Attributes:
        source: the picture, as it was given.
        name: the output name it has under ``out``.
        stamp: the picture's size and time of change, to see that it is still the same.
        job: the job's fingerprint.
        run: the run that wrote this.
        part: this line among the picture's lines, such as ``1/5``.
        page: which page of the file it is, from 1 on, where several are asked for; else 0.
        files: format to path, relative to ``out``.
        sizes: format to bytes, of the files that were written when the line was.
        index, label, score, probability: the class explained; no probability where the model gives none. Of concepts
            no class, how many they are, and the share of the layer's positive activation that they hold.
        number, box: which of the picture's boxes, the best being 1, and its x0, y0, x1, y1 in pixels of the upright
            picture; 0 and nothing if none is explained.
        layer, method: what made the map; several layers, if they were fused, joined by ``+``.
        concepts: the concepts of the picture, in the order of the map's first dimension.
        versus: what the class is compared with, where the score is a margin.
        channel, weight: which channel is shown, and its share in the class's score; nothing for a class's whole map.
        low, high: the raw map's least and greatest value.
        strongest: the value that is drawn at full strength when a map is normalised by itself.
        peak: x and y of its greatest value, in pixels of the upright picture.
        placement: x and y of the first cell's centre, and from each cell to the next across and down, in pixels of the
            model's input; nothing where the cells share it evenly.
        seconds: decoding, its share of its batch, and writing.
        untrained: the weights are random and the map means nothing.
        notes: what a reader of the map must know.
        error: why there is no map, and then all of the above from ``files`` on is empty; or why it is not drawn.
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
    index: int | None = None
    label: str | None = None
    score: float | None = None
    probability: float | None = None
    number: int = 0
    box: tuple[float, float, float, float] | None = None
    layer: str | None = None
    method: str | None = None
    concepts: tuple[Concept, ...] = ()
    versus: str = ""
    channel: int | None = None
    weight: float | None = None
    low: float | None = None
    high: float | None = None
    strongest: float | None = None
    peak: tuple[float, float] | None = None
    placement: tuple[float, float, float, float] | None = None
    seconds: float | None = None
    untrained: bool = False
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def shown(self) -> str:
        """The picture, in words for people: its path, and its page if that matters."""
        return page_of(self.source, self.page)

    @property
    def about(self) -> str:
        """What is explained, in words for people: ``281 tabby``, ``281 tabby over tiger cat``, ``5 concepts``."""
        if self.channel is not None and self.weight is None:
            return self.label or ""
        words = self.label or "" if self.index is None else f"{self.index} {self.label or ''}"
        words += f" over {self.versus}" if self.versus else ""
        return words if self.channel is None else f"{words}, channel {self.channel}"

    def as_line(self) -> bytes:
        """The outcome as one JSON line, ended by a newline; also for names that are not valid UTF-8."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return json.dumps(values, ensure_ascii=False, default=asdict).encode("utf-8", "backslashreplace") + b"\n"

    @classmethod
    def read(cls, values: dict[str, Any]) -> Outcome:
        """An outcome as JSON has it, with lists for tuples."""
        given = _with_tuples(values)
        return cls(**{**given, "concepts": tuple(map(Concept.read, given.get("concepts", ())))})


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Fields as JSON has them, which knows no tuples."""
    return {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}


@dataclass(slots=True)
class Tally:
    """How a run went so far, in pictures."""

    done: int = 0
    failed: int = 0
    skipped: int = 0

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """One more picture: without outcomes it was done before; one failed map makes it a failure.

        A picture counted as done that cannot be drawn comes a second time: an error, but a map.
        """
        if not outcomes:
            self.skipped += 1
        elif any(outcome.error and outcome.files for outcome in outcomes):
            self.done -= 1
            self.failed += 1
        elif any(outcome.error for outcome in outcomes):
            self.failed += 1
        else:
            self.done += 1

    @property
    def met(self) -> int:
        """All pictures so far."""
        return self.done + self.failed + self.skipped

    @property
    def exit_code(self) -> int:
        """0 if every picture is done, 1 if some failed."""
        return 1 if self.failed else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one prompt says of a picture.

    Attributes:
        prompt: its words.
        text: which of the texts asked about it says, from 0 on.
        score, probability: of the prompt, as in :class:`Outcome`.
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
        source, name, stamp, job, run, part, page: as in :class:`Outcome`.
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
        said = tuple(Said(**_with_tuples(one)) for one in values["prompts"])
        return cls(**{**_with_tuples(values), "prompts": said})

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
