"""Outcomes of images, kept on disk as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from camcli.engine.explanation import Concept
from camcli.images import describe_page


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLine:
    """The beginning of every command's line of an image: which image it is, and who wrote the line.

    Attributes:
        source: the image, as it was given.
        name: the output name it has under ``out``.
        stamp: the image's file size and modification time, to see that it is still the same.
        job: the job's fingerprint.
        run: the run that wrote this.
        part: this line among the image's lines, such as ``1/5``.
        page: page of the file, from 1 on, where several are asked for; else 0.
        root: folder that the name is relative to, itself relative to ``out`` where that lies in it; empty if unknown.
        files: format to path, relative to ``out``.
        sizes: format to bytes, of the files that were written with the line.
        looks: format to digits for how its file was drawn; empty for arrays, and for what is drawn as by default.
        columns: values of the table that listed the image, by column, as far as the job carries them along.
    """

    source: str
    name: str
    stamp: str
    job: str
    run: str
    part: str = "1/1"
    page: int = 0
    root: str = ""
    files: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    looks: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)

    def as_line(self) -> bytes:
        """Return it as one JSON line, ended by a newline; also for names that are not valid UTF-8.

        Raises:
            ValueError: a number is not finite, which JSON does not know.
        """
        text = json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "backslashreplace") + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(ImageLine):
    """Outcome of one image and target: one line of ``outcomes.jsonl``.

    Attributes:
        index, label, score, probability: the class explained; no probability if there is none. For concepts: no
            class, their number, and the share of the layer's positive activation that they hold.
        predicted, predicted_label: the class with the highest score, whichever is explained; None unless the model has
            one score for each of several classes.
        number, box: which of the image's boxes, the best being 1, and its x0, y0, x1, y1 in pixels of the upright
            image; 0 and None if none is explained.
        true_box: the true box of ``--boxes`` that it stands for, in the same pixels; None without.
        layer, method: what made the map; several layers, if they were fused, joined by ``+``.
        concepts: the concepts of the image, in the order of the map's first dimension.
        versus: classes that the class is compared with, if the score is a margin.
        channel, weight: the channel shown, and its share in the class's score; None for a class's whole map.
        low, high: the raw map's least and greatest value.
        strongest: the value that is drawn at full strength when a map is normalised by itself.
        peak: x and y of its greatest value, in pixels of the upright image.
        heat_box: x, y, width and height of the box around its strongest region, in pixels of the upright image;
            None unless the output ``box`` is asked for.
        placement: x and y of the first cell's centre, and from each cell to the next across and down, in pixels of the
            model's input; None where the cells divide it evenly.
        image_size: width and height of the upright image, in pixels; None in lines of earlier versions.
        seconds: time for decoding, its share of its batch, and writing.
        untrained: the weights are random and the map means nothing.
        notes: notes for the reader of the map.
        error: why there is no map, and then all of the above, and the files, are empty; or why it is not drawn.
    """

    index: int | None = None
    label: str | None = None
    score: float | None = None
    probability: float | None = None
    predicted: int | None = None
    predicted_label: str | None = None
    number: int = 0
    box: tuple[float, float, float, float] | None = None
    true_box: tuple[float, float, float, float] | None = None
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
    heat_box: tuple[int, int, int, int] | None = None
    placement: tuple[float, float, float, float] | None = None
    image_size: tuple[int, int] | None = None
    seconds: float | None = None
    untrained: bool = False
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def shown(self) -> str:
        """Image in words for people: its path, and its page if that matters."""
        return describe_page(self.source, self.page)

    @property
    def about(self) -> str:
        """Target in words for people: ``281 tabby``, ``281 tabby over tiger cat``, ``5 concepts``."""
        if self.channel is not None and self.weight is None:
            return self.label or ""
        words = self.label or "" if self.index is None else f"{self.index} {self.label or ''}"
        words += f" over {self.versus}" if self.versus else ""
        return words if self.channel is None else f"{words}, channel {self.channel}"

    def as_line(self) -> bytes:
        """Return the outcome as one JSON line, ended by a newline; also for names that are not valid UTF-8."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return json.dumps(values, ensure_ascii=False, default=asdict).encode("utf-8", "backslashreplace") + b"\n"

    @classmethod
    def read(cls, values: dict[str, Any]) -> Outcome:
        """Make an outcome from JSON values, which have lists for tuples."""
        given = restore_tuples(values)
        return cls(**{**given, "concepts": tuple(map(Concept.from_dict, given.get("concepts", ())))})


def make_outcome(line: Any) -> Outcome:
    """Return the outcome of an image of which another command wrote a line, for counting and messages."""
    of_image = {one.name: getattr(line, one.name) for one in fields(ImageLine)}
    return Outcome(**{**of_image, "files": {}, "sizes": {}, "looks": {}}, error=line.error)


def restore_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with tuples in place of lists, since JSON has no tuples."""
    return {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}


@dataclass(slots=True)
class Counts:
    """Numbers of images that a run has processed so far; ``partial`` are those failed that have some maps."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    partial: int = 0

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Add an image: without outcomes it was done before; one failed map makes it a failure.

        An image counted as done that cannot be drawn is added a second time: with an error, but a map.
        """
        if not outcomes:
            self.skipped += 1
        elif any(outcome.error and outcome.files for outcome in outcomes):
            self.done -= 1
            self.failed += 1
        elif any(outcome.error for outcome in outcomes):
            self.failed += 1
            self.partial += not all(outcome.error for outcome in outcomes)
        else:
            self.done += 1

    @property
    def processed(self) -> int:
        """Number of all images so far."""
        return self.done + self.failed + self.skipped

    def describe(self) -> list[str]:
        """Return the numbers with what they count: ``12 done``, ``1 failed``; those that are 0 are left out."""
        parts = [f"{self.done} done"]
        some = f" ({self.partial} in part)" if self.partial else ""
        parts += [f"{self.failed} failed{some}"] if self.failed else []
        return parts + [f"{self.skipped} done before"] * (self.skipped > 0)

    @property
    def exit_code(self) -> int:
        """Exit code: 0 if every image is done, 1 if some failed."""
        return 1 if self.failed else 0
