"""Plain values that flow through the house: what is asked, what came out, and how it went."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from camcli.errors import RequestError

if TYPE_CHECKING:
    import numpy as np

    from camcli.geometry import View
    from camcli.placement import Placement

BUNDLED_MODEL = "bundled:efficientnet-lite0"
RANDOM_WEIGHTS = "random"

Normalize = Literal["image", "range", "run", "none"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Decode = Literal["full", "reduced"]
Crop = Literal["model", "center", "none", "squash"]
Place = Literal["measured", "even"]
Fuse = Literal["none", "mean", "max", "product", "sum", "paper"]
Head = Literal["auto", "keep", "none"]
Pool = Literal["keep", "none"]
Activations = Literal["model", "softmax", "sigmoid", "none", "probabilities"]
Compile = Literal["auto", "on", "off"]
Sort = Literal["mean", "max", "std", "active", "correlation"]
Measure = Literal["pearson", "ssim", "overlap"]
Kept = Literal["sheet", "array"]
# Which mirrored pictures may be explained too, and by which factors the input may be scaled.
FLIPS = ("flip", "flip-vertical")
SMALLEST, LARGEST = 0.1, 10.0
FUSES: tuple[str, ...] = get_args(Fuse)

# How a run goes about its work, or what it works on: neither changes what one picture's files hold. The seed does, by
# way of the weights, whose hash counts in the worker's fingerprint.
NOT_IN_FINGERPRINT = frozenset(
    {
        *("inputs", "null_separated", "out", "root", "overwrite", "drop_others", "accept_versions", "durable", "pages"),
        *("batch_size", "recompute", "workers", "timeout", "device", "compile", "seed"),
    }
)
# How a layer's output may be said to lie in memory.
LAYOUTS = "nchw, nhwc, tokens:PREFIX:HxW, ncl:PREFIX:HxW"
LAYOUT = re.compile(r"nchw|nhwc|(tokens|ncl):\d{1,6}:[1-9]\d{0,5}x[1-9]\d{0,5}", re.ASCII)
# Options by the names that they had before.
RENAMED = {"checkpoint": "recompute"}
# Files whose content is part of what is asked.
FILES = ("weights", "labels", "texts", "targets", "region", "extras")
WRAPPERS = "a wrapper is named path/to/file.py:Class, or package.module:Class where it is installed"
TOWERS = "a text tower is named path/to/file.py:function, or package.module:function where it is installed"
# Templates for prompts that open_clip knows; any other has the prompt's place in it.
TEMPLATES = ("imagenet", "imagenet-simple")
PLACE = "{}"
# What is explained, which number of it and by which method, where nobody says so.
AUTO = "auto"
# What makes a group: so many pictures, or those of a folder.
BY_FOLDER = "folder"
GROUP = re.compile(rf"[1-9]\d{{0,5}}|{BY_FOLDER}", re.ASCII)

# How a target begins that names a picture to compare with.
LIKE = "similar:"

# Which values of a picture of more than 8 bits become black and white: all that there are in it.
ALL_THERE_IS = "auto"
# Of a file with several pages: the first, or every one; others are named by their numbers.
FIRST, EVERY = "first", "all"
PAGES = re.compile(r"[1-9]\d{0,8}(-[1-9]\d{0,8})?", re.ASCII)

SIZE = re.compile(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?")


def input_size(words: str) -> tuple[int, int] | None:
    """Height and width meant by ``256`` (a square) or ``256x384``; None if nothing is asked.

    Raises:
        RequestError: it is no size.
    """
    if not words:
        return None
    match = SIZE.fullmatch(words)
    if match is None:
        raise RequestError(
            f"size cannot be {words!r}", "give one number for a square, or height x width: 256, or 256x384"
        )
    height, width = int(match[1]), int(match[2] or match[1])
    return height, width


def factors(words: str) -> tuple[float, ...]:
    """The factors meant by ``0.75,1,1.25``.

    Raises:
        RequestError: these are none.
    """
    try:
        found = tuple(float(word) for word in words.split(","))
    except ValueError:
        found = ()
    if not found or not all(SMALLEST <= factor <= LARGEST for factor in found):
        raise RequestError(
            f"scales cannot be {words!r}",
            f"give factors of the input's size from {SMALLEST:g} to {LARGEST:g}, joined by commas: 0.75,1,1.25",
        )
    return found


def value_range(words: str) -> tuple[float, float] | None:
    """The least and the greatest value meant by ``0,4095``; None if none is named (``auto``, or nothing).

    Raises:
        RequestError: it is no range.
    """
    if words in ("", ALL_THERE_IS):
        return None
    try:
        low, high = (float(word) for word in words.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise RequestError(
            f"range cannot be {words!r}",
            "give the values that become black and white, the smaller first: 0,4095 (of 12 bits), -1000,400; or "
            f"{ALL_THERE_IS} for each file's own least and greatest",
        )
    return low, high


def page_ranges(words: str) -> tuple[tuple[int, int | None], ...]:
    """The first and the last of each range of pages meant by ``1,3``, ``2-5`` or ``all`` (with None for the end).

    Nothing is meant by ``first``: the first page then stands for its file.

    Raises:
        RequestError: these are no pages.
    """
    if words == FIRST:
        return ()
    if words == EVERY:
        return ((1, None),)
    found = []
    for word in words.split(","):
        first, _, last = word.strip().partition("-")
        if not PAGES.fullmatch(word.strip()) or int(last or first) < int(first):
            raise RequestError(
                f"pages cannot be {words!r}",
                f"give {FIRST}, {EVERY}, or numbers from 1 on, joined by commas, and ranges of them: 1,3 or 2-5",
            )
        found.append((int(first), int(last or first)))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that is asked of a run. Same job, same picture: same files.

    Attributes:
        model: a model string such as ``resnet50``, ``timm:resnet50.a1_in1k`` or ``path/to/file.py:function``.
        weights: empty for the model's own, ``random``, or a file with a state dict.
        labels: a file with the names of the classes, if the model's own do not fit.
        text: prompts that are the classes, for an open_clip model or beside a text tower.
        texts: a file of more prompts, one a line; of type ``.csv`` or ``.jsonl`` one of each picture's own prompts.
        template: what each prompt is put into, as ``a photo of a {}.``, or ``imagenet`` or ``imagenet-simple``; of
            several the embeddings' mean counts.
        text_tower: a function of the user's that embeds prompts for a model without a text tower of its own,
            ``path/to/file.py:function`` or ``package.module:function``.
        size: of the model's input, ``256`` or ``256x384`` (height x width); empty for the model's own.
        crop: which part of a picture the model sees: ``model``: as its own preprocessing says; ``center``: the middle,
            in the picture's proportions; ``none``: all, with padding; ``squash``: all, stretched.
        wrap: a module of the user's own around the model's, ``path/to/file.py:Class`` or ``package.module:Class``.
        group: how many consecutive pictures are handed to the model at once, or ``folder`` for those of one folder;
            empty for pictures that have nothing to do with one another.
        extras: a CSV or NPZ file of features that the wrapper is handed beside each picture.
        layers: layer paths, each perhaps a slice or glob; empty for the default layer.
        layout: how the layers' output lies in memory, where that cannot be read from its shape: ``nchw``, ``nhwc``,
            ``tokens:PREFIX:HxW`` or ``ncl:PREFIX:HxW``; empty to read it from shapes and metadata.
        call: which run of a layer counts that runs several times in one forward, from 1 on; 0 for the last.
        method: a row of ``camcli.methods``, or several joined by commas; ``auto``: gradcam, and of a detector's boxes
            hirescam, whose maps at the levels that a box is read from are summed up.
        options: of the methods, each ``name=value``, or ``method.name=value`` for one of several methods.
        fuse: how the maps of several layers become one; ``none``: each layer has its own.
        scales: factors of the input's size, joined by commas; the mean of the maps is given.
        augment: which mirrored pictures are explained too: ``flip``, ``flip-vertical``; likewise.
        eigen_smooth: the first principal component of the channels' parts of a map, instead of their sum.
        target: what is explained in every picture: each ``predicted``, ``top:5``, ``all``, a class, or ``folder``;
            ``auto``: of prompts all that none is compared with, else the predicted class.
        output: where in what the model returns its scores are, such as ``logits`` or ``0``, if that is not plain.
        region: for models that score every pixel, where scores are summed: a mask's file, or ``x0,y0,x1,y1``; empty
            for where the class is predicted.
        min_score: boxes of a detector below it are left out.
        head: ``none`` for a backbone without its classifier, which gives features; ``auto``: where a target asks for
            it.
        pool: ``none`` for the features before they are pooled.
        activation: what makes probabilities of scores; ``model``: what the model's source says, or nothing where its
            outputs are found to be probabilities; ``probabilities``: they are.
        score: which number of a class's is explained: a row of ``camcli.scores``; ``auto``: the logit, and where
            ``versus`` is given the margin, of prompts under a softmax the probability.
        versus: the classes that a margin is over; empty for the strongest other one of each picture. Of prompts what
            competes with them: one of them, or any other text.
        counterfactual: explain what lowers the score.
        targets: a CSV or JSONL file that names each picture's own targets, instead of ``target``.
        inputs: files, folders, globs, ``@list``, ``-``.
        null_separated: names on standard input end in NUL, not in a newline.
        out: the folder that everything is written under.
        root: outputs are named by their picture's path from here; empty for the current folder.
        save: rows of ``camcli.outputs``.
        placement: where a layer's cells are drawn: ``measured``: where they look, found on noise before the first
            picture; ``even``: as if they shared the input evenly, whatever the network's padding.
        colormap, alpha, normalize: how maps are drawn.
        decode: ``full``: each picture as it is in its file; ``reduced``: those larger than the model needs at a half, a
            quarter or an eighth of their size, where no output shows their own pixels, and resized more quickly; what
            the model sees then differs by some levels.
        background: the colour put behind transparent pictures, ``#rrggbb``.
        range: of pictures of more than 8 bits, which values become black and white: ``LOW,HIGH``, or ``auto`` for each
            file's least and greatest; empty for 0 and the greatest of their type.
        pages: of files with several pages or frames: ``first``, ``all``, or some by number, ``1,3`` or ``2-5``.
        overwrite: do again what is done, and put it in the place of what is there, another job's too, picture by
            picture.
        drop_others: with ``overwrite``, drop the results of other jobs for pictures that are not named now.
        accept_versions: count as done what the same job did with other versions of camcli and its libraries.
        durable: each picture's files and lines are on the disk, and not in the system's memory, before they count.
        batch_size: pictures in one forward; 0 for the device's default.
        recompute: compute parts of the network again on the way back instead of keeping what they need for it
            (gradient checkpointing).
        workers: decode threads, and as many writer threads; 0 for the machine's default.
        timeout: seconds after which a picture that is not decoded yet has failed; 0 for as long as it takes.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``; several that share the pictures, joined by commas, or
            ``cuda:all``.
        precision: the arithmetic of the network: ``fp32`` is IEEE's, and ``tf32`` lets GPUs round to ten bits before
            products; ``bf16``, ``fp16``; maps are always float32.
        compile: whether the part of the network that no gradient passes is compiled; ``auto``: in long runs.
        seed: of random weights.
    """

    model: str = BUNDLED_MODEL
    weights: str = ""
    labels: str = ""
    text: tuple[str, ...] = ()
    texts: str = ""
    template: tuple[str, ...] = ()
    text_tower: str = ""
    size: str = ""
    crop: Crop = "model"
    wrap: str = ""
    group: str = ""
    extras: str = ""
    layers: tuple[str, ...] = ()
    layout: str = ""
    call: int = 0
    method: str = AUTO
    options: tuple[str, ...] = ()
    fuse: Fuse = "none"
    scales: str = "1"
    augment: tuple[str, ...] = ()
    eigen_smooth: bool = False
    target: tuple[str, ...] = (AUTO,)
    targets: str = ""
    head: Head = "auto"
    pool: Pool = "keep"
    activation: Activations = "model"
    score: str = AUTO
    versus: tuple[str, ...] = ()
    counterfactual: bool = False
    output: str = ""
    region: str = ""
    min_score: float = 0.5
    inputs: tuple[str, ...] = ()
    null_separated: bool = False
    out: str = "camcli-out"
    root: str = ""
    save: tuple[str, ...] = ("overlay",)
    placement: Place = "measured"
    colormap: str = "viridis"
    alpha: float = 0.6
    normalize: Normalize = "image"
    decode: Decode = "full"
    background: str = "#ffffff"
    range: str = ""
    pages: str = FIRST
    overwrite: bool = False
    drop_others: bool = False
    accept_versions: bool = False
    durable: bool = False
    batch_size: int = 0
    recompute: bool = False
    workers: int = 0
    timeout: float = 60.0
    device: str = "auto"
    precision: Precision = "fp32"
    compile: Compile = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises RequestError for what no job can be; what depends on libraries or files is checked later."""
        for one in fields(self):
            given = getattr(self, one.name)
            if str(one.type).startswith("tuple"):  # a list will do, and a string is no list of its letters
                object.__setattr__(self, one.name, (given,) if isinstance(given, str) else tuple(given))
        kinds = {
            "normalize": Normalize,
            "precision": Precision,
            "crop": Crop,
            "decode": Decode,
            "fuse": Fuse,
            "compile": Compile,
            "placement": Place,
        }
        kinds |= {"head": Head, "pool": Pool, "activation": Activations}
        for name, choices in ((name, get_args(kind)) for name, kind in kinds.items()):
            if getattr(self, name) not in choices:
                raise RequestError(f"{name} cannot be {getattr(self, name)!r}", f"there are: {', '.join(choices)}")
        if self.layout and not LAYOUT.fullmatch(self.layout):
            raise RequestError(f"layout cannot be {self.layout!r}", f"there are: {LAYOUTS}")
        for name in ("batch_size", "workers", "call"):
            if getattr(self, name) < 0:
                raise RequestError(
                    f"{name} cannot be {getattr(self, name)}", "give a number from 1 on, or 0 for the default"
                )
        if not 0 <= self.timeout < math.inf:
            raise RequestError(f"timeout cannot be {self.timeout}", "give seconds, or 0 for as long as it takes")
        input_size(self.size)
        factors(self.scales)
        value_range(self.range)
        page_ranges(self.pages)
        for flip in self.augment:
            if flip not in FLIPS:
                raise RequestError(f"augment cannot be {flip!r}", f"there are: {', '.join(FLIPS)}")
        if not 0 <= self.alpha <= 1:
            raise RequestError(f"alpha cannot be {self.alpha}", "it is an opacity, from 0 to 1")
        if not 0 <= self.min_score <= 1:
            raise RequestError(f"min_score cannot be {self.min_score}", "it is a box's score, from 0 to 1")
        if not self.target and not self.targets:
            raise RequestError("no target is named", "say which class is explained: predicted, top:5, or a class")
        if not self.save:
            raise RequestError("nothing is to be saved", "name at least one format: --save overlay")
        self._check_wrapping()
        if self.targets and self.target != (AUTO,):
            raise RequestError(
                f"both a target ({', '.join(self.target)}) and a file of targets ({self.targets}) were given",
                "leave one out",
            )

    @property
    def prompted(self) -> bool:
        """Whether there are prompts, which are then the classes."""
        return bool(self.text or self.texts)

    def _check_wrapping(self) -> None:
        _check_templates(self.template)
        if self.text_tower and not all(self.text_tower.rpartition(":")[::2]):
            raise RequestError(f"text_tower cannot be {self.text_tower!r}", TOWERS)
        place, _, name = self.wrap.rpartition(":")
        if self.wrap and not (place and name):
            raise RequestError(f"wrap cannot be {self.wrap!r}", WRAPPERS)
        if self.group and not GROUP.fullmatch(self.group):
            raise RequestError(
                f"group cannot be {self.group!r}",
                f"give the number of pictures that belong together, or {BY_FOLDER} for those of one folder",
            )

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when anything that is asked for changes that could change a picture's files.

        Files named in the job (weights, labels, targets, features, Python files) count by their content. What is as it
        is by default does not count, so that a version with more options has the same digits.

        Raises:
            RequestError: such a file cannot be read.
        """
        default = Job()._asked()
        asked = {name: value for name, value in self._asked().items() if name not in default or value != default[name]}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def _asked(self) -> dict[str, Any]:
        """What counts of what is asked, by its name."""
        asked = {name: value for name, value in asdict(self).items() if name not in NOT_IN_FINGERPRINT}
        for name in FILES:
            if asked[name] and asked[name] != RANDOM_WEIGHTS and not _is_rectangle(name, asked[name]):
                asked[name] = _content_hash(asked[name], name)
        if self.texts:  # its type says whether it lists prompts or pictures with theirs
            asked["texts"] = [asked["texts"], Path(self.texts).suffix.lower()]
        for word in (*self.target, *self.versus):
            if word.startswith(LIKE):
                asked[word] = _content_hash(word.removeprefix(LIKE), "target")
        asked |= self._meant()
        asked["save"] = sorted(set(self.save))
        asked["size"] = input_size(self.size)
        asked["range"] = value_range(self.range) or self.range
        asked["scales"] = sorted(set(factors(self.scales)))
        asked["augment"] = sorted(set(self.augment))
        source, _, function = self.model.rpartition(":")
        if source.endswith(".py") and function:
            asked["model"] = [_content_hash(source, "model"), function]
        source, _, function = self.wrap.rpartition(":")
        if self.wrap:
            asked["wrap"] = [_content_hash(_python_file(source, WRAPPERS), "wrap"), function]
        source, _, function = self.text_tower.rpartition(":")
        if self.text_tower:
            asked["text_tower"] = [_content_hash(_python_file(source, TOWERS), "text_tower"), function]
        return asked

    def _meant(self) -> dict[str, Any]:
        """What target and score come to, where the job alone tells."""
        meant: dict[str, Any] = {}
        if self.target == (AUTO,) and not self.prompted:
            meant["target"] = ("predicted",)
        if self.score == AUTO and not (self.versus and self.prompted):
            meant["score"] = "margin" if self.versus else "logit"
        return meant

    def as_dict(self) -> dict[str, Any]:
        """The job in the words of a job file: what ``--config`` reads back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _python_file(place: str, usage: str) -> str:
    """The file that ``path/to/file.py`` or ``package.module`` stands for.

    Raises:
        RequestError: there is no such module, or it is no file.
    """
    if place.endswith(".py"):
        return place
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError) as error:
        raise RequestError(f"there is no module {place!r}: {error}", usage) from error
    if spec is None or spec.origin is None or not spec.has_location:
        raise RequestError(f"there is no module {place!r}" + (" in a file" if spec else ""), usage)
    return spec.origin


def _is_rectangle(name: str, value: str) -> bool:
    return name == "region" and value.count(",") == 3 and not Path(value).is_file()


def _content_hash(path: str, what: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"the {what} file {path!r} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Spoken:
    """A class that a concept speaks for.

    Attributes:
        index: the class.
        label: its name.
        rise: how much its score rises when the layer gives this concept's part alone, and nothing else, over what it
            is when the layer gives nothing.
    """

    index: int
    label: str
    rise: float


@dataclass(frozen=True, slots=True)
class Concept:
    """One of the concepts that a layer's activation is made of in a picture.

    Attributes:
        number: from 1 on, and the same in all pictures that were factorised together; its place in the map.
        share: its part of all that the concepts have in this picture: the sum of its map over the sum of all.
        classes: those it speaks for, strongest first; empty where none rises, or none can be named.
    """

    number: int
    share: float
    classes: tuple[Spoken, ...] = ()

    @classmethod
    def read(cls, values: dict[str, Any]) -> Concept:
        """A concept as JSON has it."""
        return cls(values["number"], values["share"], tuple(Spoken(**one) for one in values["classes"]))


@dataclass(frozen=True, slots=True)
class Explanation:
    """One map of one picture for one class at one layer; or the concepts of a picture, which are of no class.

    Attributes:
        map: float32, signed, as the method gave it: ``(h, w)`` at the layer's size, or ``(3, H, W)`` at the model's
            input for methods that work there; of concepts ``(k, h, w)`` at the layer's size.
        method: the row that made it.
        layer: the layer's full name, or empty for methods at the input; several fused are joined by ``+``.
        index: the class explained; None of concepts.
        label: the class's name; of concepts how many there are.
        score: the number that is explained: the model's output for it, before softmax or sigmoid, unless another
            was asked for; summed over a region, or that of a box, where the model gives such; of a channel of the
            layer its mean; of concepts the share of the layer's positive activation that they hold together (1 minus
            the sum of squares of what they miss over that of the activation).
        probability: after it; the mean over the region; None where the model gives no probability.
        notes: what a reader of the map must know.
        number: which of the picture's boxes is explained, the best being 1; 0 if none is.
        box: its x0, y0, x1, y1, in pixels of the picture (of the model's input, where there is no picture).
        concepts: what the map's first dimension counts, where the method finds concepts.
        versus: what the class is compared with, where the score is a margin.
        channel: the channel of the layer or of the backbone that is shown; None where it is a class's whole map.
        weight: the channel's share in the class's score, to first order: activation times gradient, summed over the
            layer's cells.
        source: the picture, where the map came out of a stream of them.
        view: which part of it the model saw, likewise, and where the map's cells lie in it.
        placement: where the map's cells lie in the model's input; None where they share it evenly.
        page: which page of its file it is, from 1 on, where several are asked for; else 0.
    """

    map: np.ndarray
    method: str
    layer: str
    index: int | None
    label: str
    score: float
    probability: float | None
    notes: tuple[str, ...] = ()
    number: int = 0
    box: tuple[float, float, float, float] | None = None
    concepts: tuple[Concept, ...] = ()
    versus: str = ""
    channel: int | None = None
    weight: float | None = None
    source: str = ""
    view: View | None = None
    placement: Placement | None = None
    page: int = 0

    @property
    def drawn(self) -> np.ndarray:
        """The map; of concepts at each cell the strongest, ``(h, w)``."""
        return self.map.max(0) if self.concepts else self.map


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


def page_of(path: str, page: int) -> str:
    """A file, or a page of it, in words."""
    return f"{path}, page {page}" if page else path


def _check_templates(templates: Sequence[str]) -> None:
    """See that each has one place for a prompt.

    Raises:
        RequestError: one has none, or several.
    """
    for template in templates:
        if template not in TEMPLATES and template.count(PLACE) != 1:
            raise RequestError(
                f"the template {template!r} has {template.count(PLACE) or 'no'} places for a prompt",
                f"write {PLACE} once where the prompt goes, as in 'a photo of a {PLACE}.'; open_clip's own are "
                f"called {' and '.join(TEMPLATES)}",
            )


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
class Contest:
    """What is asked of ``camcli channels``: the channels of one layer, ranked over pictures.

    Attributes:
        job: model, layer, pictures, and how they are done; its target names channels, ``channel:12,99``.
        channels: those that are shown; empty for the first of all.
        top: how many are shown; 0 for 16, or for all that ``channels`` names.
        pictures: how many pictures of each.
        sort: by which of their statistics; None for ``correlation`` where there are values, else ``mean``.
        values: a CSV file with a number for each picture, perhaps with ``:COLUMN`` behind; empty for none.
    """

    job: Job
    channels: tuple[int, ...] = ()
    top: int = 0
    pictures: int = 6
    sort: Sort | None = None
    values: str = ""

    def __post_init__(self) -> None:
        """Raises RequestError for what cannot be asked."""
        if self.sort is not None and self.sort not in get_args(Sort):
            raise RequestError(f"sort cannot be {self.sort!r}", f"there are: {', '.join(get_args(Sort))}")
        if self.sort == "correlation" and not self.values:
            raise RequestError(
                "channels are to be sorted by their correlation, and nothing says with what",
                "give each picture a number: --values FILE.csv:COLUMN",
            )
        if self.top < 0 or self.pictures < 1:
            raise RequestError(
                f"{self.top} channels with {self.pictures} pictures each cannot be shown",
                "give numbers from 1 on",
            )

    @property
    def shown(self) -> int:
        """How many channels are shown at most."""
        return self.top or len(self.channels) or 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What is asked of ``camcli prompts``: the maps of several prompts in each picture, compared.

    Attributes:
        job: model, layer, method, pictures, and how they are done; its prompts are what is asked about, and its
            ``save`` says what is written for each picture: ``sheet``, and ``array`` for the maps themselves.
        paraphrases: templates that make a prompt of each text: ``a photo of a {}.``, or ``imagenet`` or
            ``imagenet-simple``, open_clip's own; empty for the texts as they stand.
        measure: by which similarity the prompts are told apart and the pictures sorted in the summary.
        pictures: how many of the least stable pictures are shown.
    """

    job: Job
    paraphrases: tuple[str, ...] = ()
    measure: Measure = "pearson"
    pictures: int = 5

    def __post_init__(self) -> None:
        """Raises RequestError for what cannot be asked."""
        if not self.job.prompted:
            raise RequestError(
                "no prompts were given",
                "name several: --text dog --text puppy; or one, and ways to say it: --text dog --paraphrase "
                "'a photo of a {}.' --paraphrase 'a drawing of a {}.'",
            )
        _check_templates(self.paraphrases)
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
