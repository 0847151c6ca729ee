"""Plain values that flow through the house: what is asked, what came out, and how it went."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from camcli.base.errors import RequestError
from camcli.engine import FLIPS, LAYOUT, LAYOUTS, Compile, Fuse, Place, Precision, factors
from camcli.images import BY_FOLDER, FIRST, GROUP, Crop, Decode, page_ranges, value_range
from camcli.models import (
    BUNDLED_MODEL,
    RANDOM_WEIGHTS,
    TOWERS,
    WRAPPERS,
    Activations,
    Head,
    Pool,
    check_templates,
    input_size,
)
from camcli.outputs import Normalize
from camcli.targets import AUTO, LIKE

# How a run goes about its work, or what it works on: neither changes what one picture's files hold. The seed does, by
# way of the weights, whose hash counts in the worker's fingerprint.
NOT_IN_FINGERPRINT = frozenset(
    {
        *("inputs", "null_separated", "out", "root", "overwrite", "drop_others", "accept_versions", "durable", "pages"),
        *("batch_size", "recompute", "workers", "timeout", "device", "compile", "seed"),
    }
)
# Options by the names that they had before.
RENAMED = {"checkpoint": "recompute"}
# Files whose content is part of what is asked.
FILES = ("weights", "labels", "texts", "targets", "region", "extras")


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
        check_templates(self.template)
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
