"""Job of ``camcli compare``, and what it says of each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from camcli.base.errors import RequestError, did_you_mean
from camcli.base.words import count_of
from camcli.engine import factors
from camcli.models import BUNDLED_MODEL
from camcli.models.check_name import is_weights_file
from camcli.runs.job.check import check_panel_size
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option
from camcli.runs.record.outcome import ImageLine
from camcli.targets import AUTO, parse_target

# What can be compared; of two of them the earlier one is in rows.
Axis = Literal["images", "scales", "targets", "prompts", "layers", "models", "methods"]
AXES: tuple[Axis, ...] = get_args(Axis)
Format = Literal["png", "svg", "pdf", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)
Drawing = Literal["overlay", "heatmap", "contour", "signed"]
ColourScale = Literal["image", "range", "row", "column", "run", "none"]
# Longer side of each image on a sheet in pixels, and for formats that are printed: at 144 dots per inch, and 318.
SIDE, PRINT_SIDE = 232, 512
PRINT_FORMATS = frozenset({"svg", "pdf"})
# The word for a model's own weights, beside checkpoints.
PRETRAINED = "pretrained"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareJob:
    """Job of ``camcli compare``: maps side by side, that differ in two things.

    Attributes:
        job: images, methods, layers, targets or prompts, and how maps are made and drawn; its model, weights and scales
            are replaced by each of those below.
    """

    job: Job
    model: tuple[str, ...] = option(
        (BUNDLED_MODEL,),
        MODEL,
        help="Model name, as for camcli explain; repeat for several. A checkpoint behind a name is another one of it",
        short="-m",
        metavar="NAME",
        show_default="the bundled EfficientNet-Lite0",
    )
    weights: tuple[str, ...] = option(
        (),
        MODEL,
        help="Checkpoint of the model; repeat for one of each model, or for several of one: 'pretrained' = the model's "
        "own weights, 'random' for none",
        metavar="FILE",
    )
    name: tuple[str, ...] = option(
        (),
        MODEL,
        help="Heading of a model or checkpoint; repeat for each, in their order",
        metavar="WORDS",
        show_default="its model, and the name of its file",
        env=False,
    )
    scales: tuple[str, ...] = option(
        (),
        MODEL,
        help="Scale of the input, or several to average over, such as 0.75,1,1.25; repeat to compare them",
        metavar="FACTORS",
        show_default="1",
    )
    rows: str = option("", OUTPUT, help="What is in rows: {names}", metavar="AXIS", names=lambda: AXES, env=False)
    columns: str = option("", OUTPUT, help="What is in columns", metavar="AXIS", names=lambda: AXES, env=False)
    sheets: str = option(
        "",
        OUTPUT,
        help="What each sheet has one of",
        metavar="AXIS",
        show_default="images, where two other things differ",
        names=lambda: AXES,
        env=False,
    )
    plain: bool = option(
        False,
        OUTPUT,
        help="Leave out title, origin of the models, similarities and notes: headings, maps, captions and bars alone",
        env=False,
    )
    per_sheet: int = option(8, OUTPUT, help="Images in the rows of a sheet", metavar="N", min=1, max=500, env=False)
    save: tuple[str, ...] = option(
        ("png",),
        OUTPUT,
        help="Formats of the sheets, joined by commas: {names}. Texts are text in SVG and HTML; PDF is pixels "
        "throughout, 318 dots per inch unless --panel-size says otherwise",
        metavar="FORMATS",
        commas=True,
        names=lambda: FORMATS,
        env=False,
    )
    draw: Drawing = option(
        "overlay",
        OUTPUT,
        help="What is drawn: overlay, heatmap, contour, or signed = blue below zero, red above",
        metavar="KIND",
        env=False,
    )
    normalize: ColourScale = option(
        "image",
        OUTPUT,
        help="Colour scale: image = 0..max of each map, range = min..max, row or column = 0..max of all maps in it, "
        "run = 0..max of all maps, none = 0..1",
        metavar="MODE",
    )

    def __post_init__(self) -> None:
        """Raise RequestError for invalid options."""
        if not self.model:
            raise RequestError("no model is named", "name one: --model resnet50")
        self._check_axes()
        files = [name for name in self.model if is_weights_file(name)]
        if files and (self.weights or files[0] == self.model[0]):
            raise RequestError(
                f"the model {files[0]!r} is a file of weights, which does not name its model",
                f"name both: --model resnet50 --weights {PRETRAINED} --weights {files[0]}; or --model resnet50 --model "
                f"{files[0]}",
            )
        models, weights = len(self.model), len(self.weights) or 1
        if models > 1 and weights > 1 and models != weights:
            raise RequestError(
                f"{models} models and {weights} checkpoints do not go together",
                f"give one checkpoint for each model, in their order; {PRETRAINED!r} stands for a model's own weights",
            )
        self._check_names()
        for name, known in (("save", FORMATS), ("draw", get_args(Drawing)), ("normalize", get_args(ColourScale))):
            given = getattr(self, name)
            for word in given if isinstance(given, tuple) else (given,):
                if word not in known:
                    raise RequestError(f"{name} cannot be {word!r}", f"there are: {', '.join(known)}")
        if not self.save:
            raise RequestError("no format is given", "give at least one: --save png")
        if self.draw == "signed" and self.normalize == "range":
            raise RequestError(
                "signed maps have zero in the middle of their scale, and --normalize range begins at the least value",
                "leave one out",
            )
        if self.per_sheet < 1:
            raise RequestError(f"{self.per_sheet} images do not make a sheet", "give a number from 1 on")
        for scales in self.scales:
            factors(scales)
        check_panel_size(self.job.panel_size)

    def _check_names(self) -> None:
        """Check that each network has one name, and each another."""
        count, given = len(self.networks), len(self.name)
        if given and given != count:
            raise RequestError(
                f"{count_of(given, 'name')} for {count_of(count, 'model')} (checkpoints are counted)",
                "give --name once for each, in their order",
            )
        if "" in map(str.strip, self.name) or len({*self.name}) < given:
            raise RequestError(
                f"the names {', '.join(map(repr, self.name))} do not tell the models apart", "give each another --name"
            )

    def _check_axes(self) -> None:
        """Check what is named to be in rows, in columns and on sheets."""
        named = {name: getattr(self, name) for name in ("rows", "columns", "sheets") if getattr(self, name)}
        for name, word in named.items():
            if word not in AXES:
                near = did_you_mean(word, AXES) or f"there are: {', '.join(AXES)}"
                raise RequestError(f"--{name} cannot be {word!r}", near)
        words = [*named.values()]
        if twice := [word for word in words if words.count(word) > 1]:
            raise RequestError(f"{twice[0]} are in two places", "name an axis once, in --rows, --columns or --sheets")

    @property
    def networks(self) -> list[tuple[str, str]]:
        """Model and weights of each network, without repetitions."""
        if not self.weights:
            found: list[tuple[str, str]] = []
            for name in self.model:
                found.append((found[-1][0], name) if is_weights_file(name) else (name, ""))
            return [*dict.fromkeys(found)]
        weights = [("" if one == PRETRAINED else one) for one in self.weights or ("",)]
        count = max(len(self.model), len(weights))
        models = self.model * count if len(self.model) == 1 else self.model
        pairs = zip(models, weights * count if len(weights) == 1 else weights, strict=False)
        return [*dict.fromkeys(pairs)]

    @property
    def panel_side(self) -> int:
        """Longer side of each image on a sheet, in pixels."""
        return self.job.panel_size or (PRINT_SIDE if PRINT_FORMATS & {*self.save} else SIDE)

    @property
    def inputs_scales(self) -> list[str]:
        """The scales that are compared."""
        return [*dict.fromkeys(self.scales or (self.job.scales,))]

    def iter_jobs(self) -> Iterator[Job]:
        """Iterate over the jobs whose maps are compared: of each network, at each scale."""
        words = tuple(expand_targets(self.job.target))
        for model, weights in self.networks:
            for scales in self.inputs_scales:
                yield replace(self.job, model=model, weights=weights, scales=scales, target=words)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMap:
    """One map of an image, or why there is none.

    Attributes:
        model, weights, scales, target, layer, method: what it is of; the target is a prompt where prompts are compared.
        index, label, versus, score, probability, predicted_label: as in :class:`camcli.runs.record.outcome.Outcome`.
        strongest: the value that is drawn at full strength when a map is normalised by itself.
        peak: x and y of its greatest value, in pixels of the upright image.
        untrained: the weights are random and the map means nothing.
        notes: notes for the reader of the map.
        error: why there is no map.
        left_out: why the map is not made again: it is that of another column.
    """

    model: str
    weights: str
    scales: str
    target: str
    layer: str
    method: str
    index: int | None = None
    label: str | None = None
    versus: str = ""
    score: float | None = None
    probability: float | None = None
    predicted_label: str | None = None
    strongest: float | None = None
    peak: tuple[float, float] | None = None
    untrained: bool = False
    notes: tuple[str, ...] = ()
    error: str | None = None
    left_out: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(ImageLine):
    """The maps of one image: one line of ``compare.jsonl``.

    Attributes:
        maps: the maps, in one order for all images.
        similarity: for each measure a symmetric matrix; None where it is undefined.
        error: why the image, or its first map that is missing, could not be done.
    """

    maps: tuple[ComparedMap, ...] = ()
    similarity: dict[str, list[list[float | None]]] = field(default_factory=dict)
    error: str | None = None


def expand_targets(words: Sequence[str]) -> Iterator[str]:
    """Yield target words that each name one class of an image.

    Raises:
        RequestError: a word names a number of classes that is not known.
    """
    for word in words:
        row, argument = parse_target(word)
        if row == "top" and argument.isdecimal():
            yield from (f"rank:{place}" for place in range(1, int(argument) + 1))
        elif row == "channel" and "," in argument:
            yield from (f"channel:{one.strip()}" for one in argument.split(","))
        elif row in ("all", "channels") or (row == "top" and not argument.isdecimal()):
            raise RequestError(
                f"the target {word!r} can be any number of classes, and each column has one",
                "name classes: --target tabby --target tiger; or those of the highest scores: --target top:3",
            )
        else:
            yield word


def split_layers(words: Sequence[str]) -> list[str]:
    """Split words at commas, but not at those in the brackets of a slice: ``layer3,blocks[-3:]``."""
    found: list[str] = []
    for word in words:
        parts, depth = [""], 0
        for letter in word:
            depth += (letter == "[") - (letter == "]")
            if letter == "," and not depth:
                parts.append("")
            else:
                parts[-1] += letter
        found += filter(None, map(str.strip, parts))
    return found


def describe_targets(job: Job) -> Any:
    """Return the words of a job's targets, with what stands for the default."""
    return tuple("predicted" if word == AUTO else word for word in job.target)
