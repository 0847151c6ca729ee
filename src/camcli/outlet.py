"""From what a model returns to what can be explained: scores of classes, of classes in a region, or of boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camcli import probabilities
from camcli.errors import PictureError, RequestError

Task = Literal["classify", "segment", "detect", "features"]
# What makes probabilities of scores; "probabilities": nothing need, since the scores are some.
Activation = Literal["softmax", "sigmoid", "none", "probabilities"]
Box = tuple[float, float, float, float]

# How authors call the output that is the answer, best first; and how the names of those begin that only training uses.
ANSWERS = ("logits", "out", "scores", "output")
TRAINING = "aux"
# What a tensor can be by its shape, and for each task what is looked for, first the one, then the other.
Form = Literal["row", "number", "map", "tokens", "squeezed", ""]
FORMS: dict[Task, tuple[tuple[Form, ...], ...]] = {
    "classify": (("row",), ("number",), ("squeezed",)),
    "segment": (("map",),),
    "features": (("map", "tokens"), ("row",)),
}
# Torchvision's word for the class of what is no object: nobody asks why a wall is no dog.
BACKGROUND = "__background__"
NO_CLASS = -torch.inf
# How far a cosine may be from 1 for a picture that is the reference itself.
ITSELF = 1e-5
# A message and its hint.
NO_BOX_AGAIN = (
    "a detector's boxes of a changed picture are other boxes, so the score of one cannot be asked for again",
    "choose a method that needs one forward, such as gradcam or hirescam, without --scales and --augment",
)


def as_given(scores: Tensor, index: int, rivals: Sequence[int], activation: Activation) -> Tensor:
    """The class's score as the model gives it, ``(...)`` of scores ``(classes, ...)``."""
    del rivals, activation
    return scores[index]


@dataclass(frozen=True, slots=True)
class Score:
    """Which number of a class's is explained.

    Attributes:
        name: what it is called.
        function: from the scores of all classes ``(classes, ...)``, the class, its rivals and what makes probabilities
            to that number ``(...)``.
        words: what it is, for people; empty for the score as it stands.
        against: whether it compares with rivals.
        versus: the rivals; empty for the strongest other class of each image.
        cosine: by which scale and bias scores follow from cosines, if it is these that the function is handed.
        sign: -1 to explain what lowers it (Selvaraju 2017, sec. 3.3: counterfactual explanations).
    """

    name: str = "logit"
    function: Callable[[Tensor, int, Sequence[int], Activation], Tensor] = as_given
    words: str = ""
    against: bool = False
    versus: tuple[int, ...] = ()
    cosine: tuple[float, float] | None = None
    sign: Literal[1, -1] = 1

    @property
    def plain(self) -> bool:
        """Whether it is the class's score as it stands."""
        return self.function is as_given and self.cosine is None and self.sign == 1

    def rivals(self, scores: Tensor, index: int) -> tuple[int, ...]:
        """The classes that a class is compared with, by an image's scores; raises PictureError if there are none."""
        if not self.against:
            return ()
        if self.versus:
            others = tuple(other for other in self.versus if other != index and scores[other] > NO_CLASS)
        else:
            rest = scores.detach().clone()
            rest[index] = NO_CLASS
            best = int(rest.argmax())  # of equal ones the first
            others = (best,) if rest[best] > NO_CLASS else ()
        if not others:
            raise PictureError(
                f"class {index} is compared with itself alone" if self.versus else "there is no other class in it",
                "name another class: --versus CLASS",
            )
        return others

    def __call__(self, scores: Tensor, index: int, rivals: Sequence[int], activation: Activation) -> Tensor:
        """The number, with its sign."""
        if self.cosine is not None:
            scale, bias = self.cosine
            scores = (scores - bias) / scale
        found = self.function(scores, index, rivals, activation)
        return found if self.sign > 0 else -found


LOGIT = Score()


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to explain in one image.

    Attributes:
        index: its class.
        score: the number whose gradient is taken; a scalar in the graph.
        probability: what the model makes of it; None if nothing does.
        number: which of the image's boxes it is, the best being 1; 0 if it is none.
        box: x0, y0, x1, y1 in pixels of the model's input, if it is a box.
        inside: where every pixel has a score, over which of them is summed, ``(h, w)``.
        rivals: the classes that it is compared with.
        among: the classes that it competes with in this image, itself among them; empty for all there are.
        length: of the image's features, where their inner product with a reference is explained; 0 elsewhere.
        note: what a reader of the map must know.
        of_layer: whether it is a channel of the layer that is looked at, and no class: it has no score.
    """

    index: int
    score: Tensor
    probability: float | None
    number: int = 0
    box: Box | None = None
    inside: Tensor | None = None
    rivals: tuple[int, ...] = ()
    among: tuple[int, ...] = ()
    length: float = 0.0
    note: str = ""
    of_layer: bool = False


@runtime_checkable
class Reading(Protocol):
    """A batch's answer."""

    @property
    def classes(self) -> int | None:
        """How many classes there are; None if the answer does not tell."""

    def scores(self, row: int) -> Tensor:
        """The score of every class in an image, ``(classes,)``; -inf for one that is not in it, and for background."""

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:
        """What is explained of a class in an image; raises PictureError if there is nothing.

        Where a row of scores is what the image has, ``among`` can say which classes compete in it; empty: all.
        """

    def total(self) -> Tensor:
        """A sum that the gradient can be tried with."""

    def answer(self, row: int, subject: Subject) -> Tensor:
        """The score, in an image of this answer, of what was explained in another: a scalar in the graph."""

    def answers(self, row: int, subject: Subject) -> Tensor:
        """Likewise the score of every class, ``(classes,)``."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """How what a model returns is read.

    Attributes:
        task: ``classify``: one score for each class. ``segment``: one for each class and pixel. ``detect``: boxes, each
            with its class and score, a mapping of ``boxes``, ``labels`` and ``scores`` for each image. ``features``:
            channels over cells, perhaps not pooled; a channel's score is its mean over them (see :func:`pooled`).
        path: where in the output the answer lies, such as ``logits``, ``0`` or ``aux.0``; empty for the rule of
            :func:`chosen`.
        min_score: boxes below it are left out.
        score: which number of a class's is explained.
        references: of a network that gives features, those of other pictures ``(r, c)``: each "class" is then the
            likeness to one of them, the cosine.
        prefix: of features that are tokens, how many stand before those of the patches: they are no cells.
        group: whether the images of a batch belong together, so that one row of scores may answer for all of them.
        two_sided: whether a single score tells two classes apart: it is that of the second, and minus it (1 minus
            it, where it is a probability) that of the first.
    """

    task: Task = "classify"
    path: str = ""
    min_score: float = 0.5
    score: Score = LOGIT
    references: Tensor | None = None
    prefix: int = 0
    group: bool = False
    two_sided: bool = False

    def says(
        self,
        activation: Activation,
        classes: int,
        region: bool = False,
        headless: bool = False,
        cosine: tuple[float, float] | None = None,
    ) -> str:
        """What is explained, in words for people; where scores follow from ``cosine`` the classes are prompts."""
        own = _of_prompts(activation, *cosine) if cosine else self._says(activation, classes, region, headless)
        said = self.score.words or own
        return said if self.score.sign > 0 else f"{said}; its sign turned: what lowers it is warm"

    def _says(self, activation: Activation, classes: int, region: bool, headless: bool) -> str:
        if self.task == "detect":
            return f"the score of each box of at least {self.min_score:g}, a map for each"
        if self.task == "segment":
            where = "the region given" if region else "the pixels where the model predicts it"
            if activation == "probabilities":
                return f"a class's probabilities, as the model gives them, summed over {where}"
            return f"a class's scores before {activation}, summed over {where}"
        if self.references is not None:
            return "how like the reference it is: the cosine of their features"
        if self.task == "features":
            return "a feature of the backbone before it is pooled, its mean over the cells"
        if headless:
            return "a feature of the backbone, pooled, as it stands"
        if activation == "none":
            return "the model's output as it stands: what raises it is warm"
        if activation == "probabilities":
            return (
                "the model's one probability, as it gives it: what raises it is warm"
                if classes == 1
                else "a class's probability, as the model gives it"
            )
        if classes == 1:
            return "the model's one score, before sigmoid: what raises it is warm"
        if self.two_sided:
            return "the model's one score before sigmoid, for its second class, and minus it for its first"
        if activation == "sigmoid":
            return "a class's score before sigmoid: classes do not exclude one another"
        return "a class's score before softmax"

    def nothing(self) -> str:
        """Why an image has no class of its own accord."""
        if self.task == "detect":
            return f"the model finds no box with a score of at least {self.min_score:g} in it"
        return (
            "the model predicts nothing but background in it" if self.task == "segment" else "its target gives no class"
        )

    def read(
        self,
        output: Any,
        images: int,
        names: Sequence[str] = (),
        activation: Activation = "softmax",
        seen: Tensor | None = None,
        region: Tensor | None = None,
    ) -> Reading:
        """What a model returned for a batch, read.

        Args:
            output: what it returned.
            images: how many it was given.
            names: of the classes, if they are known.
            activation: what makes probabilities of the scores.
            seen: for ``segment``: which part of each input is picture and not padding, ``(n, h, w)``.
            region: for ``segment``: over what is summed, ``(n, h, w)``; None for where the class is predicted.

        Raises:
            RequestError: there is no answer in it, or several things could be the answer.
        """
        if self.task == "detect":
            found_boxes = _detections(at(output, self.path), images)
            return _Boxes(found_boxes, len(names) or None, self.min_score, self.score.sign)
        width = len(names) if self.references is None else self.references.shape[1]
        if self.task == "segment":
            found = chosen(output, images, width, self.path, self.task, self.group)
            # Once for all classes: to the scores' device, and to their size.
            inside, where = (None if masks is None else _brought(masks, found) for masks in (seen, region))
            return _Dense(found.float(), activation, tuple(names), inside, where, self.score)
        found = self.row(output, images, width)
        if self.two_sided and found.shape[1] == 1:
            found = torch.cat([1 - found if activation == "probabilities" else -found, found], 1)
        reading: Reading = _Scores(found, activation, self.score)
        if self.references is not None:
            reading = _Likeness.to(found, self.references, self.score)
        return Shared(reading) if len(found) < images else reading

    def row(self, output: Any, images: int, width: int = 0) -> Tensor:
        """The scores or pooled features in what a model returned, ``(n, width)``.

        Args:
            output: what it returned.
            images: how many it was given.
            width: how many scores or channels there are; 0 if nobody knows.

        Raises:
            RequestError: there are none in it, or several things could be them.
        """
        found = chosen(output, images, width, self.path, self.task, self.group)
        if self.task == "features":
            found = pooled(found, width, self.prefix)
        return found.reshape(len(found), -1)


PLAIN = Outlet()


def _of_prompts(activation: Activation, scale: float, bias: float) -> str:
    added = f"{'plus' if bias > 0 else 'minus'} {abs(bias):.4g}" if bias else ""
    before = f", before {activation}" if activation != "none" else ""
    return " ".join(filter(None, [f"a prompt's score, {scale:.4g} times its cosine with the picture", added])) + before


# ---- where the scores are


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor in what a model returned, and the path to it."""

    path: str
    tensor: Tensor

    def __str__(self) -> str:
        form = "x".join(map(str, self.tensor.shape)) or "one number"
        return f"{self.path or 'the output'}: {str(self.tensor.dtype).removeprefix('torch.')} {form}"


def parts(output: Any, path: str = "") -> Iterator[Part]:
    """Every tensor in tuples, lists, mappings, named tuples and dataclasses, however deep, in order."""
    if isinstance(output, Tensor):
        yield Part(path, output)
        return
    for name, value in _inside(output).items():
        yield from parts(value, f"{path}.{name}" if path else name)


def _inside(output: Any) -> dict[str, Any]:
    """What is in a container, by the word for it in a path."""
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items()}
    if is_dataclass(output) and not isinstance(output, type):
        return {one.name: getattr(output, one.name) for one in fields(output)}
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", None) or range(len(output))
        return dict(zip(map(str, names), output, strict=True))
    return {}


def at(output: Any, path: str) -> Any:
    """What lies at a path; a number counts also in named tuples, mappings and dataclasses.

    Raises:
        RequestError: nothing does.
    """
    found = output
    # A name may hold dots of its own, so the longest that fits goes first.
    steps = path.split(".") if path else []
    while steps:
        inside = _inside(found)
        for taken in range(len(steps), 0, -1):
            name = ".".join(steps[:taken])
            if name in inside:
                found = inside[name]
                break
            if taken == 1 and name.isdecimal() and int(name) < len(inside):
                found = list(inside.values())[int(name)]
                break
        else:
            raise RequestError(f"the model's output has no {path!r}", _listed(list(parts(output))))
        steps = steps[taken:]
    return found


def chosen(
    output: Any, images: int, classes: int = 0, path: str = "", task: Task = "classify", group: bool = False
) -> Tensor:
    """The tensor of scores in what a model returned.

    Those that can be scores are considered: floating point, one row for each image, and classes (and for ``segment``
    rows and columns) behind; for ``features`` channels over rows and columns or tokens, else a row of channels. The
    rule, until one is left:

    1. whose number of classes is that of the names, if the names are known and any is;
    2. not those whose name begins with ``aux``, which only training uses;
    3. not those that are the softmax or the sigmoid of another: the logits are meant;
    4. the one whose name is ``logits``, else ``out``, ``scores``, ``output``.

    Args:
        output: what the model returned.
        images: how many it was given.
        classes: how many classes are named; 0 if nobody knows.
        path: only what lies there is considered.
        task: what is looked for, as in :class:`Outlet`.
        group: one row for all images will do as well as one for each.

    Returns:
        ``(n, classes)``, or ``(n,)`` or ``(n, classes, 1, 1)`` if there is nothing else, or of one image ``(1,
        classes)`` where the model gives ``(classes,)`` or a number; ``(n, classes, h, w)`` for ``segment``; for
        ``features`` whatever :func:`pooled` takes; for ``group`` perhaps with one row.

    Raises:
        RequestError: nothing can be scores, or several things remain; the candidates are listed.
    """
    everything = list(parts(at(output, path), path))
    group = group and task != "segment"
    wanted = ([part for part in everything if _form(part.tensor, images, group) in forms] for forms in FORMS[task])
    able = next(filter(None, wanted), [])
    if not able:
        raise _unreadable(output, everything, images, task, group)
    able = [part for part in able if classes and _classes(part.tensor, classes, task) == classes] or able
    plain = [part for part in able if not _is_for_training(part.path.removeprefix(path))]
    able = plain or able
    if len(able) > 1:
        made = probabilities.of_another([part.tensor for part in able])
        able = [part for part, is_made in zip(able, made, strict=True) if not is_made]
    for name in ANSWERS:
        if len(able) > 1:
            able = [part for part in able if part.path.rpartition(".")[2] == name] or able
    if len(able) > 1:
        raise RequestError(
            f"the model gives {len(able)} things that can be its scores",
            f"say which: --output {able[0].path}\n{_listed(able)}",
        )
    found = able[0].tensor
    return found.reshape(1, -1) if _form(found, images, group) == "squeezed" else found


def pooled(features: Tensor, channels: int = 0, prefix: int = 0) -> Tensor:
    """The mean of every channel over its cells, ``(n, c)``.

    Args:
        features: ``(n, c)``, which are pooled already; ``(n, c, h, w)``; ``(n, h, w, c)`` where that, and only that,
            goes with the number of channels; or tokens ``(n, t, c)``.
        channels: how many there are; 0 if nobody knows.
        prefix: how many tokens stand before those of the patches.

    Raises:
        RequestError: the channels may be first or last; there are no tokens behind the prefix.
    """
    if features.ndim == 3:
        if features.shape[1] <= prefix:
            raise RequestError(
                f"the model gives {features.shape[1]} tokens, and {prefix} are said to stand before those of patches",
                "give the outlet the right prefix: camcli.Outlet('features', prefix=1)",
            )
        return features[:, prefix:].mean(1)
    if features.ndim == 4:
        first, last = (features.shape[place] == channels for place in (1, 3))
        if first and last and features.shape[2] != 1:
            form = "x".join(map(str, features.shape))
            raise RequestError(
                f"the model's features of shape {form} have {channels} channels, which may be the first or the last",
                "give it pictures of another size: --size",
            )
        return features.mean((1, 2) if last and not first else (2, 3))
    return features


def _form(tensor: Tensor, images: int, group: bool = False) -> Form:
    if not tensor.is_floating_point() or not tensor.numel():
        return ""
    if images == 1 and not group and (not tensor.ndim or (tensor.ndim == 1 and len(tensor) > 1)):
        return "squeezed"  # the scores of one image, whose dimension of images is gone
    if not tensor.ndim:
        return ""
    if len(tensor) != images and not (group and len(tensor) == 1):
        return ""
    if tensor.ndim == 2 or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1)):
        return "row"
    forms: dict[int, Form] = {1: "number", 3: "tokens", 4: "map"}
    return forms.get(tensor.ndim, "")


def _classes(tensor: Tensor, wanted: int, task: Task) -> int:
    """How many classes, or channels, a tensor is of; of features that may lie first or last, those that are wanted."""
    if task == "features" and tensor.ndim > 2 and (tensor.ndim == 3 or tensor.shape[1] != wanted):
        return tensor.shape[-1]
    return tensor.shape[1] if tensor.ndim > 1 else 1


def _is_for_training(path: str) -> bool:
    return any(step.startswith(TRAINING) for step in path.lower().split("."))


def first_rows(output: Any) -> int | None:
    """How many rows the first tensor in an output has; None if there is none."""
    part = next(parts(output), None)
    return len(part.tensor) if part is not None and part.tensor.ndim else None


def _unreadable(output: Any, everything: Sequence[Part], images: int, task: Task, group: bool = False) -> RequestError:
    what = {"segment": "scores of every pixel", "features": "features"}.get(task, "one row of class scores")
    form = ("x".join(map(str, output.shape)) or "one number") if isinstance(output, Tensor) else type(output).__name__
    if group:
        return RequestError(
            f"the model gives {form} for a group of {images} picture(s), neither one row of class scores for the group "
            "nor one for each of its pictures",
            f"give (1, classes) or ({images}, classes)"
            + ("" if isinstance(output, Tensor) or not everything else f"\n{_listed(everything)}"),
        )
    hint = "name a classifier, or a file.py:function that wraps the model in one"
    if task == "classify" and any(_form(part.tensor, images) == "map" for part in everything):
        hint += "; if it scores every pixel: camcli.Network(..., outlet=camcli.Outlet('segment'))"
        hint += "; if these are features: camcli.Network(..., outlet=camcli.Outlet('features'), headless=True)"
    return RequestError(
        f"the model gives {form} for {images} image(s), not {what} for each",
        hint + ("" if isinstance(output, Tensor) or not everything else f"\n{_listed(everything)}"),
    )


def _listed(found: Sequence[Part]) -> str:
    return "it gives\n" + "\n".join(f"  {part}" for part in found[:12]) + ("\n  ..." if len(found) > 12 else "")


# ---- one score for each class


def competing(scores: Tensor, among: Sequence[int]) -> Tensor:
    """Scores ``(classes,)``, -inf where a class does not compete; all of them where ``among`` names none."""
    if not among:
        return scores
    hidden = torch.full_like(scores, NO_CLASS)
    hidden[list(among)] = scores[list(among)]
    return hidden


@dataclass(frozen=True, slots=True)
class _Scores:
    table: Tensor
    activation: Activation
    score: Score = LOGIT

    @property
    def classes(self) -> int:
        return self.table.shape[1]

    def scores(self, row: int) -> Tensor:
        return self.table[row].detach().float().cpu()

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:
        if self.activation == "probabilities":
            probabilities.check(self.table[row])
        scores = self.scores(row)
        rivals = self.score.rivals(competing(scores, among), index)
        probability = self._probability(scores, index, among)
        subject = Subject(index, self.table[row, index], probability, rivals=rivals, among=tuple(among))
        return [replace(subject, score=_Scores.answer(self, row, subject))]

    def total(self) -> Tensor:
        return self.table.max(1).values.sum()

    def answer(self, row: int, subject: Subject) -> Tensor:
        # Rivals and competitors stay those of the picture itself, whoever they would be in a variant of it.
        scores, index, rivals = self.table[row], subject.index, subject.rivals
        if subject.among:
            scores, place = scores[list(subject.among)], subject.among.index
            index, rivals = place(index), tuple(map(place, rivals))
        return self.score(scores, index, rivals, self.activation)

    def answers(self, row: int, subject: Subject) -> Tensor:  # noqa: ARG002
        return self.table[row]

    def _probability(self, scores: Tensor, index: int, among: Sequence[int] = ()) -> float | None:
        if self.activation == "none" or (self.activation == "softmax" and len(among) == 1):
            return None
        if self.activation == "probabilities":
            return float(scores[index])
        scores = competing(scores, among)
        # Softmax of a single score is 1 whatever it says.
        alone = self.classes == 1 or self.activation == "sigmoid"
        return float(scores.sigmoid()[index] if alone else scores.softmax(0)[index])


# ---- likeness to other pictures


@dataclass(frozen=True, slots=True)
class _Likeness(_Scores):
    """Cosines ``(n, r)`` between features ``(n, c)`` and those of references ``(r, c)``.

    Where a picture is the reference itself the cosine is at its greatest and has no gradient. There the inner product
    with the reference is explained, in units of the picture's own length, so that its value is the cosine too: what
    each place has in it (Stylianou et al. 2019, arXiv:1901.00536).
    """

    products: Tensor = field(default_factory=lambda: torch.zeros(0, device="cpu"))

    @classmethod
    def to(cls, features: Tensor, references: Tensor, score: Score) -> Reading:
        products = features @ F.normalize(references.to(features), dim=1).mT
        lengths = features.norm(dim=1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)
        return cls(products / lengths, "none", score, products)

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:
        [subject] = _Scores.subjects(self, row, index, among)
        cosine = float(self.table[row, index].detach())
        if not self.score.plain or 1 - cosine > ITSELF:
            return [subject]
        length = float(self.products[row, index].detach()) / cosine
        note = "it is the reference itself, where the cosine has no gradient: the inner product is explained"
        return [replace(subject, score=self.products[row, index] / length, length=length, note=note)]

    def answer(self, row: int, subject: Subject) -> Tensor:
        if subject.length:
            return self.products[row, subject.index] / subject.length
        return _Scores.answer(self, row, subject)


# ---- one prediction for a group


class Shared:
    """One prediction for all images of a group: each of its images has the same scores, and the same subjects.

    Args:
        one: the prediction, a reading of one row.
    """

    def __init__(self, one: Reading) -> None:
        self._one = one
        # So that a score is one tensor for all images: whoever adds scores up counts it once.
        self._subjects: dict[tuple[int, tuple[int, ...]], Sequence[Subject]] = {}
        self._answers: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Tensor] = {}

    @property
    def classes(self) -> int | None:
        """How many classes there are."""
        return self._one.classes

    def scores(self, row: int) -> Tensor:  # noqa: ARG002
        """The one row of scores."""
        return self._one.scores(0)

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:  # noqa: ARG002
        """The same subjects for every image."""
        asked = index, tuple(among)
        if asked not in self._subjects:
            self._subjects[asked] = self._one.subjects(0, index, among)
        return self._subjects[asked]

    def total(self) -> Tensor:
        """A sum that the gradient can be tried with."""
        return self._one.total()

    def answer(self, row: int, subject: Subject) -> Tensor:  # noqa: ARG002
        """The same tensor for every image."""
        asked = subject.index, subject.rivals, subject.among
        if asked not in self._answers:
            self._answers[asked] = self._one.answer(0, subject)
        return self._answers[asked]

    def answers(self, row: int, subject: Subject) -> Tensor:  # noqa: ARG002
        """Likewise the score of every class."""
        return self._one.answers(0, subject)


# ---- one score for each class and pixel


@dataclass(frozen=True, slots=True)
class _Dense:
    """Class scores summed over a region (Vinogradova et al. 2020, Seg-Grad-CAM)."""

    table: Tensor
    activation: Activation
    names: tuple[str, ...]
    # Masks are where the scores are, and as large.
    seen: Tensor | None
    region: Tensor | None
    score: Score = LOGIT

    @property
    def classes(self) -> int:
        return self.table.shape[1]

    @property
    def _exclusive(self) -> bool:
        """Whether a pixel is of one class alone."""
        if self.activation == "probabilities":
            return probabilities.exclusive(self.table)
        return self.classes > 1 and self.activation == "softmax"

    def mask(self, row: int, index: int, winners: Tensor | None = None) -> Tensor:
        """The pixels of a class, ``(h, w)``: those given, else where it is predicted; never the padding.

        It is predicted where it scores highest; where classes do not exclude one another above zero, or above a half
        if the scores are probabilities.
        """
        scores = self.table[row].detach()
        if self.region is not None:
            inside = self.region[row]
        elif not self._exclusive:
            inside = scores[index] > (0.5 if self.activation == "probabilities" else 0)
        else:
            inside = (scores.argmax(0) if winners is None else winners) == index
        return inside & self.seen[row] if self.seen is not None else inside

    def scores(self, row: int) -> Tensor:
        table = self.table[row].detach()
        sums = torch.full((self.classes,), NO_CLASS, device="cpu")
        winners = table.argmax(0)
        for index in range(self.classes):
            inside = self.mask(row, index, winners)
            if inside.any() and self._name(index) != BACKGROUND:
                sums[index] = table[index][inside].sum().cpu()
        return sums

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:  # noqa: ARG002
        if self.activation == "probabilities":
            probabilities.check(self.table[row])
        inside = self.mask(row, index)
        if not inside.any():
            raise PictureError(
                "the region given lies outside what the model sees"
                if self.region is not None
                else f"the model predicts class {index} ({self._name(index)}) nowhere in it",
                "name another region" if self.region is not None else "name another class, or a region: --region",
            )
        probability = self._probability(row, index, inside)
        pixels = self.table[row][:, inside]
        rivals = self.score.rivals(pixels.detach().sum(1), index)
        score = self.score(pixels, index, rivals, self.activation).sum()
        return [Subject(index, score, probability, inside=inside, rivals=rivals)]

    def total(self) -> Tensor:
        return self.table.max(1).values.sum()

    def answer(self, row: int, subject: Subject) -> Tensor:
        pixels = self.table[row][:, self._region_of(subject)]
        return self.score(pixels, subject.index, subject.rivals, self.activation).sum()

    def answers(self, row: int, subject: Subject) -> Tensor:
        return self.table[row][:, self._region_of(subject)].sum(1)

    def _region_of(self, subject: Subject) -> Tensor:
        # The pixels stay those of the picture itself: what a variant of it is taken for elsewhere is another question.
        assert subject.inside is not None
        return _brought(subject.inside[None], self.table)[0]

    def _name(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else str(index)

    def _probability(self, row: int, index: int, inside: Tensor) -> float | None:
        """The mean over the region."""
        table = self.table[row].detach()
        if self.activation == "none":
            return None
        if self.activation == "probabilities":
            return float(table[index][inside].mean())
        alone = self.classes == 1 or self.activation == "sigmoid"
        return float((table.sigmoid() if alone else table.softmax(0))[index][inside].mean())


def table_of(reading: Reading) -> Tensor | None:
    """The scores of a batch, ``(n, classes)`` or ``(n, classes, h, w)``, as the model gives them; None of boxes."""
    one = reading._one if isinstance(reading, Shared) else reading
    return one.table if isinstance(one, _Scores | _Dense) else None


def of_boxes(reading: Reading, row: int = 0) -> Tensor | None:
    """Of each box in an image its four sides, class and score ``(boxes, 6)``, as given; None where there are none."""
    if not isinstance(reading, _Boxes):
        return None
    one = reading.found[row]
    found = [one["boxes"].detach(), one["labels"].detach()[:, None], one["scores"].detach()[:, None]]
    return torch.cat([part.float().cpu() for part in found], dim=1)


def _brought(masks: Tensor, table: Tensor) -> Tensor:
    """Masks ``(n, h, w)`` where scores ``(n, classes, h2, w2)`` are, and as large."""
    masks, size = masks.to(table.device), (table.shape[2], table.shape[3])
    if masks.shape[1:] == size:
        return masks
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0] > 0


# ---- boxes


@dataclass(frozen=True, slots=True)
class _Boxes:
    found: Sequence[Mapping[str, Tensor]]
    classes: int | None
    min_score: float
    sign: int = 1

    def scores(self, row: int) -> Tensor:
        best = torch.full((self.classes or 0,), NO_CLASS, device="cpu")
        for subject in self._all(row):
            if not 0 <= subject.index < len(best):
                raise PictureError(
                    f"the model finds a box of class {subject.index} in it, but {len(best)} classes are named",
                    "give the names of all its classes: --labels FILE, one name a line",
                )
            best[subject.index] = max(best[subject.index], subject.score.detach().float().cpu())
        return best

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:  # noqa: ARG002
        of_class = [
            replace(subject, score=self.sign * subject.score) for subject in self._all(row) if subject.index == index
        ]
        if not of_class:
            raise PictureError(
                f"the model finds no box of class {index} with a score of at least {self.min_score:g} in it",
                "lower --min-score, or name another class",
            )
        return of_class

    def total(self) -> Tensor:
        return torch.cat([one["scores"] for one in self.found]).sum()

    def answer(self, row: int, subject: Subject) -> Tensor:  # noqa: ARG002
        raise RequestError(*NO_BOX_AGAIN)

    def answers(self, row: int, subject: Subject) -> Tensor:
        return self.answer(row, subject)

    def _all(self, row: int) -> list[Subject]:
        """The image's boxes, best first."""
        one = self.found[row]
        order = one["scores"].detach().sort(descending=True, stable=True).indices.tolist()
        return [
            _subject(one, at, number)
            for number, at in enumerate(order, start=1)
            if float(one["scores"][at].detach()) >= self.min_score
        ]


def _subject(one: Mapping[str, Tensor], at: int, number: int) -> Subject:
    x0, y0, x1, y1 = one["boxes"][at].detach().float().tolist()
    score = one["scores"][at]
    # Most detectors give probabilities; what lies outside of 0 to 1 is none.
    probability = float(score.detach()) if probabilities.within(score[None]) else None
    return Subject(int(one["labels"][at]), score, probability, number, (x0, y0, x1, y1))


def _detections(output: Any, images: int) -> Sequence[Mapping[str, Tensor]]:
    good = isinstance(output, list | tuple) and len(output) == images
    if not good or not all(isinstance(one, Mapping) and {"boxes", "labels", "scores"} <= one.keys() for one in output):
        raise RequestError(
            f"the model does not give boxes, labels and scores for each of {images} image(s)",
            _listed(list(parts(output))),
        )
    found: Sequence[Mapping[str, Tensor]] = output
    return found


@contextmanager
def unfiltered(module: nn.Module) -> Iterator[None]:
    """While it lasts, a torchvision detector gives boxes of any score: on noise there may be no others."""
    owners: list[Any] = [part for part in (module, getattr(module, "roi_heads", None)) if hasattr(part, "score_thresh")]
    before = [owner.score_thresh for owner in owners]
    try:
        for owner in owners:
            owner.score_thresh = 0.0
        yield
    finally:
        for owner, threshold in zip(owners, before, strict=True):
            owner.score_thresh = threshold
