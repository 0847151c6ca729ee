"""Job of ``camcli evaluate``, and what it says of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from camcli.base.errors import RequestError
from camcli.metrics import METRICS
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option
from camcli.runs.record.outcome import ImageLine, restore_tuples

# A method's map, its blurred copy, or a map that knows nothing of the model.
Kind = Literal["method", "blurred", "control"]
# The number of a class that is read from changed images.
Measured = Literal["auto", "probability", "score"]
# Formats of plots, each with its dots per inch.
PLOT_FORMATS: Mapping[str, int] = {"png": 200, "svg": 72, "pdf": 72}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateJob:
    """Job of ``camcli evaluate``: metrics of the maps of one or several methods, and of controls.

    Attributes:
        job: model, images, methods and targets, as for ``camcli explain``.
        maps: output folder of the run whose maps are evaluated, and whose the job is; empty to explain the images.
    """

    job: Job
    maps: str = ""
    metrics: tuple[str, ...] = option(
        (),
        MODEL,
        help="Metrics, joined by commas: {names}",
        metavar="NAMES",
        show_default="insertion-blur, deletion-mean, road-most, road-least, average-drop, average-increase; "
        "those of objects with --boxes or --masks",
        commas=True,
        names=METRICS.names,
        env=False,
    )
    settings: tuple[str, ...] = option(
        (),
        MODEL,
        help="Setting of a metric: steps=20, road-most.noise=0.02, pointing-game.tolerance=10; repeat for several",
        flag="--setting",
        metavar="NAME=VALUE",
        env=False,
    )
    boxes: str = option(
        "",
        MODEL,
        help="Boxes of objects: CSV (image,x0,y0,x1,y1 and perhaps label, in pixels of the upright image), COCO's "
        "JSON, or a folder of Pascal VOC's XML or of YOLO's text files",
        metavar="FILE",
        env=False,
    )
    masks: str = option(
        "",
        MODEL,
        help="Folder of masks of objects in place of boxes: a PNG of each image's name and size, zero outside of the "
        "object",
        metavar="FOLDER",
        env=False,
    )
    measured: Measured = option(
        "auto",
        MODEL,
        help="What metrics read from changed images: probability = of the class, score = what is explained (--score)",
        metavar="NUMBER",
        show_default="probability where the model has one and --score compares no classes",
        env=False,
    )
    to: str = option(
        "", OUTPUT, help="Write the table to a file too: .csv, .jsonl or .parquet", metavar="FILE", env=False
    )
    plots: tuple[str, ...] = option(
        (),
        OUTPUT,
        help="Draw the mean curves and the metrics to the output folder too, in formats joined by commas: {names} "
        "(needs matplotlib)",
        metavar="FORMATS",
        commas=True,
        names=lambda: [*PLOT_FORMATS],
        env=False,
    )

    def __post_init__(self) -> None:
        """Raise RequestError for invalid options."""
        if self.measured not in get_args(Measured):
            raise RequestError(f"--measured cannot be {self.measured!r}", f"there are: {', '.join(get_args(Measured))}")
        if self.boxes and self.masks:
            raise RequestError("--boxes and --masks both say where objects lie", "give one of them")
        whole = {
            "--to": (self.to, f"when all shards are done: camcli merge OUT --to {self.to}"),
            "--plots": (self.plots, "leave it out, and when all shards are done, run the same without --shard"),
        }
        for flag, (given, hint) in whole.items():
            if given and self.job.shard:
                raise RequestError(f"{flag} is of all images, and a shard has a part of them", hint)
        for name in self.metrics:
            METRICS.find(name)
        for name in self.plots:
            if name not in PLOT_FORMATS:
                raise RequestError(f"--plots cannot be {name!r}", f"there are: {', '.join(PLOT_FORMATS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(ImageLine):
    """One metric of one map of one image: one line of ``evaluation.jsonl``.

    Attributes:
        index, label, score, probability: the class explained, as in :class:`camcli.runs.record.outcome.Outcome`.
        map: name of the method, or of the control.
        kind: what the map is.
        layer: layer of the method's map.
        metric: name of the metric.
        setting: its settings, such as ``fill=mean steps=10``.
        measured: the number that it reads from changed images; empty if it looks at the map alone.
        value: the number; None if it is undefined.
        undefined: why it is.
        curve: numbers that the value is made of, where it is made of several.
        untrained: the weights are random and the map means nothing.
        notes: notes for the reader.
        error: why the image, or one of its maps, could not be done, and then there is no metric.
    """

    index: int | None = None
    label: str | None = None
    score: float | None = None
    probability: float | None = None
    map: str = ""
    kind: Kind = "method"
    layer: str = ""
    metric: str = ""
    setting: str = ""
    measured: str = ""
    value: float | None = None
    undefined: str = ""
    curve: tuple[float, ...] = ()
    untrained: bool = False
    notes: tuple[str, ...] = ()
    error: str | None = None

    @classmethod
    def read(cls, values: dict[str, Any]) -> Evaluation:
        """Make it from JSON values, which have lists for tuples."""
        return cls(**restore_tuples(values))
