"""Model, layer, target and method meet here: images in, maps out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from camcli.capture import RuledReLUs, Taps, frozen, tapped
from camcli.errors import PictureError, RequestError
from camcli.job import Explanation
from camcli.layers import resolve
from camcli.layout import Layout, asked, canonical, decide, readings
from camcli.methods import METHODS
from camcli.network import Network
from camcli.outlet import Outlet, Reading, Subject, unfiltered
from camcli.survey import (
    Layer,
    default_layer,
    first_not_finite,
    no_gradient,
    plain_layouts,
    probe_image,
    survey,
)
from camcli.tables import Row

# From an image's row in the batch and its scores (classes,) to the classes explained; PictureError if it has none.
# The score of a class that is not in the image, where the model says such a thing, is -inf.
Choose = Callable[[int, Tensor], Sequence[int]]
# What a call takes for the classes of a batch.
Targets = int | Sequence[int] | Sequence[Sequence[int]] | Tensor | np.ndarray | Choose | None
# One map, or why there is none.
Result = Explanation | PictureError

# A map whose values differ by less than this part of them is constant: what differs is rounding.
FLAT = 1e-6
# A probability from which on a softmax leaves hardly any gradient.
SATURATED = 0.999


def predicted(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
    """The class with the greatest score."""
    return [int(scores.argmax())] if len(scores) and scores.max() > -torch.inf else []


def found(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
    """Every class that is in the image, that with the greatest score first: what a detector predicts."""
    order = scores.sort(descending=True, stable=True).indices.tolist()
    return [index for index in order if scores[index] > -torch.inf]


@dataclass(frozen=True, slots=True)
class _Forward:
    """One forward of a batch, and what is needed to go back.

    Attributes:
        image: what the network was given; the start of the graph if a method works at the input.
        reading: what the network returned, read.
        taps: the output of each layer that ran.
        relus: how gradients pass the ReLUs, if a method has a rule for them.
    """

    image: Tensor
    reading: Reading
    taps: Taps
    relus: RuledReLUs | None


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What one score's way back brought, for every image of the batch.

    Attributes:
        act: the output of each layer, ``(n, c, h, w)``.
        grad: the gradient of the score by it.
        ruled: by each backprop method its gradient by the input, ``(n, 3, H, W)``.
    """

    act: dict[str, Tensor]
    grad: dict[str, Tensor]
    ruled: dict[str, Tensor]


class Explainer:
    """Explains batches of images by one method, at one or several layers of one network.

    The network is used as it stands, on its device and in its precision, and is left exactly as it was.

    Args:
        model: a network, or a bare module that takes ``(n, 3, h, w)`` to scores ``(n, classes)``, perhaps somewhere in
            tuples, mappings or dataclasses.
        layers: layer paths (see :func:`camcli.layers.resolve`); empty for the default layer, chosen at the first
            batch. Must be empty for methods that work at the input alone.
        method: a row of ``camcli methods``.
        output: where in what the model returns its scores are, such as ``logits`` or ``0``, if that is not plain.
        layout: how the layers' output lies in memory (see :attr:`camcli.Job.layout`); empty to read it.
        call: which run of a layer counts that runs several times in one forward, from 1 on; 0 for the last.

    Attributes:
        layers: the full names of the layers explained.
        notes: what a reader of all the maps must know.

    Raises:
        RequestError: there is no such method or layer.
    """

    def __init__(
        self,
        model: Network | nn.Module,
        *,
        layers: Sequence[str] = (),
        method: str = "gradcam",
        layout: str = "",
        call: int = 0,
        output: str = "",
    ) -> None:
        self.network = model if isinstance(model, Network) else None
        self.module = model.module if isinstance(model, Network) else model
        self.outlet = self.network.outlet if self.network else Outlet()
        if output:
            self.outlet = replace(self.outlet, path=output)
        self.method = METHODS.find(method)
        self._parts = [METHODS.find(name) for name in self.method.parts or (self.method.name,)]
        self._formulas = {part.name: METHODS.load(part.name) for part in self._parts}
        self._at_layer = any(part.kind == "gradient" for part in self._parts)
        self._at_input = any(part.kind == "backprop" for part in self._parts)
        if layers and not self._at_layer:
            raise RequestError(
                f"the method {method!r} works at the input, so a layer ({', '.join(layers)}) means nothing to it",
                "name no layer, or choose another method",
            )
        if (layout or call) and not layers:
            raise RequestError(
                f"{f'the layout {layout}' if layout else f'call {call}'} was given without the layer it is meant for",
                "name the layer: --layer PATH",
            )
        self.layers = tuple(resolve(self.module, layers))
        self.notes: tuple[str, ...] = (self.method.caveat,) if self.method.caveat else ()
        self._facts = (self.network.prefix, self.network.grid) if self.network else (None, None)
        self._asked, self._call = layout, call
        self._layouts: dict[str, Layout] = {}
        self._checked: tuple[int, int] | None = None

    def __call__(
        self,
        images: Float[Tensor, "n 3 h w"],
        targets: Targets = None,
        region: Bool[Tensor, "n h w"] | None = None,
    ) -> list[list[Explanation]]:
        """Explain a batch.

        Args:
            images: prepared as the model wants them.
            targets: None for the predicted class, of a detector for each box; one class for all; one class an image (a
                list, tensor or array); several classes an image; or a function from the image's row and its scores to
                its classes.
            region: for models that score every pixel: over what is summed, at the images' size; None for where the
                class is predicted.

        Returns:
            For each image its explanations: class by class (box by box), layer by layer.

        Raises:
            RequestError: these are no images, the targets do not fit them or the classes, or no map can be made at
                the layer.
            PictureError: an image has no map, with its row and the reason.
        """
        everything: list[list[Explanation]] = []
        for row, results in enumerate(self.results(images, _choice(targets, len(images)), region=region)):
            for result in results:
                if isinstance(result, PictureError):
                    raise PictureError(f"image {row} of the batch: {result.message}", result.hint)
            everything.append(cast("list[Explanation]", results))
        return everything

    def results(
        self,
        images: Float[Tensor, "n 3 h w"],
        choose: Choose | None = None,
        seen: Bool[Tensor, "n h w"] | None = None,
        region: Bool[Tensor, "n h w"] | None = None,
    ) -> list[list[Result]]:
        """Like a call, but where a map cannot be made the reason stands in its place; nothing else is lost.

        Args:
            images: as in a call.
            choose: from an image's row and its scores to its classes; None for the predicted.
            seen: for models that score every pixel: which part of each image is picture, and not padding.
            region: as in a call.
        """
        _check_batch(images)
        if not len(images):
            return []
        if region is not None and self.outlet.task != "segment":
            raise RequestError(
                "a region is given, but the model does not score every pixel", "leave the region out: --region"
            )
        choose = choose or (found if self.outlet.task == "detect" else predicted)
        self.check(probe_image((images.shape[2], images.shape[3]), images.dtype, images.device))
        with self._ready():
            forward = self._forward(images, seen, region)
            chosen = [self._chosen(choose, row, forward.reading, images) for row in range(len(images))]
            results: list[list[Result]] = [[one for one in some if isinstance(one, PictureError)] for some in chosen]
            subjects = [[one for one in some if isinstance(one, Subject)] for some in chosen]
            ranks = max(map(len, subjects))
            for rank in range(ranks):
                rows = [row for row, some in enumerate(subjects) if rank < len(some)]
                # Samples do not mix in evaluation mode, so the gradient of the sum holds every image's own.
                score = torch.stack([subjects[row][rank].score for row in rows]).sum()
                evidence = self._evidence(score, forward, last=rank + 1 == ranks)
                for layer in self.layers or ("",):
                    maps = self._map(layer, evidence).numpy(force=True)
                    for row in rows:
                        said = forward.reading.scores(row)
                        image = images[row : row + 1]
                        results[row].append(self._result(maps[row], layer, subjects[row][rank], said, image))
        return results

    def check(self, image: Float[Tensor, "1 3 h w"]) -> None:
        """Try everything on one image: choose the layer, read its layout, see that gradient reaches it.

        Done by itself at the first batch of each size, on noise, so that nothing hangs on its first image; done
        before, it finds mistakes before the first picture.

        Raises:
            RequestError: no map can be made, with the reason.
        """
        size = (image.shape[2], image.shape[3])
        if self._checked == size:
            return
        if self._at_layer and not self.layers:
            known = self.network.layer if self.network else ""
            self.layers = (known or default_layer(self.module, self._survey(image)),)
        with self._ready(), unfiltered(self.module):
            forward = self._forward(image)
            self._check_labels(forward.reading.classes)
            if forward.relus is not None:
                self._check_relus(forward.relus)
            self._layouts = {name: self._layout(name, forward.taps, image) for name in self.layers}
            evidence = self._evidence(forward.reading.total(), forward, last=True)
        for name in self.layers:
            if not evidence.grad[name].any():
                raise no_gradient(self.module, self._survey(image), name)
        self._checked = size

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each layer's maps, for images of the size that was checked last."""
        return {name: layout.grid for name, layout in self._layouts.items()}

    # ---- one forward, and the ways back from a score

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The network frozen, and the graph on, whatever the caller has switched off."""
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.module):
            yield

    def _forward(self, images: Tensor, seen: Tensor | None = None, region: Tensor | None = None) -> _Forward:
        leaf = self._leaf(images)
        layers = {name: self.module.get_submodule(name) for name in self.layers}
        with tapped(layers, self._call) as taps, RuledReLUs() if self._at_input else nullcontext() as relus:
            # A network may change its input in place, which a leaf of the graph does not allow.
            output = self.module(leaf.clone() if leaf.requires_grad else leaf)
        return _Forward(leaf, self._read(output, len(images), seen, region), taps, relus)

    def _read(self, output: Any, images: int, seen: Tensor | None = None, region: Tensor | None = None) -> Reading:
        names = self.network.labels.names if self.network else ()
        activation = self.network.activation if self.network else "softmax"
        return self.outlet.read(output, images, names, activation, seen, region)

    def _leaf(self, images: Tensor) -> Tensor:
        """The images where the network is and as it counts; the start of the graph if a method works at the input."""
        like = next((one for one in self.module.parameters() if one.is_floating_point()), images)
        return images.detach().clone().to(like.device, like.dtype).requires_grad_(self._at_input)

    def _chosen(self, choose: Choose, row: int, reading: Reading, images: Tensor) -> list[Subject | PictureError]:
        """What is explained of an image; of a class of which there is nothing, the reason stands in its place."""
        scores = reading.scores(row)
        # Where a model says what is in an image, -inf is what is not.
        broken = (
            scores.isfinite().logical_not()
            if self.outlet.task == "classify"
            else scores.isnan() | (scores == torch.inf)
        )
        try:
            if broken.any():
                raise PictureError(
                    "the network's scores hold NaN or infinite values on this picture"
                    + self._culprit(images[row : row + 1]),
                    "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
                )
            indices = _classes(choose, row, scores, self.outlet.nothing())
        except PictureError as error:
            return [error]
        subjects: list[Subject | PictureError] = []
        for index in indices:
            try:
                subjects += reading.subjects(row, index)
            except PictureError as error:
                subjects.append(error)
        return subjects

    def _evidence(self, score: Tensor, forward: _Forward, last: bool) -> _Evidence:
        act: dict[str, Tensor] = {}
        grad: dict[str, Tensor] = {}
        if self.layers:
            points = [forward.taps[name] for name in self.layers]
            # A score outside the graph owes nothing to any of the layers.
            found: Sequence[Tensor | None] = [None] * len(points)
            if score.requires_grad:
                found = torch.autograd.grad(score, points, retain_graph=self._at_input or not last, allow_unused=True)
            for name, point, gradient in zip(self.layers, points, found, strict=True):
                gradient = torch.zeros_like(point) if gradient is None else gradient
                act[name] = canonical(_wide(point.detach()), self._layouts[name])
                grad[name] = canonical(_wide(gradient), self._layouts[name])
        ruled: dict[str, Tensor] = {}
        if forward.relus is not None:
            rules = [part.name for part in self._parts if part.kind == "backprop"]
            for turn, name in enumerate(rules, start=1):
                with forward.relus.following(self._formulas[name]):
                    (gradient,) = torch.autograd.grad(
                        score, [forward.image], retain_graph=turn < len(rules) or not last
                    )
                ruled[name] = _wide(gradient)
        return _Evidence(act, grad, ruled)

    def _map(self, layer: str, evidence: _Evidence) -> Tensor:
        """The method's maps, ``(n, h, w)`` at the layer or ``(n, 3, H, W)`` at the input."""
        maps = [self._part_map(part, layer, evidence) for part in self._parts]
        return maps[0] if len(maps) == 1 else _product(maps)

    def _part_map(self, part: Row, layer: str, evidence: _Evidence) -> Tensor:
        if part.kind == "backprop":
            return evidence.ruled[part.name]
        map: Tensor = self._formulas[part.name](evidence.act[layer], evidence.grad[layer])
        return map

    def _result(self, map: np.ndarray, layer: str, subject: Subject, scores: Tensor, image: Tensor) -> Result:
        index = subject.index
        label = self.network.labels.short(index) if self.network else str(index)
        where = f"the layer {layer!r}" if layer else "the input"
        if not np.isfinite(map).all():
            return PictureError(
                f"the map of class {index} ({label}) holds NaN or infinite values"
                + (self._culprit(image) or "; they come up on the way back from the score"),
                "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
            )
        if not map.any():
            why = "nothing at {} speaks for it here" if len(self._parts) > 1 else "{} has no part in its score here"
            return PictureError(
                f"the map of class {index} ({label}) is zero everywhere: {why.format(where)}",
                "try an earlier layer" if layer else "try a method that works at a layer",
            )
        return Explanation(
            map=map.astype(np.float32),
            method=self.method.name,
            layer=layer,
            index=index,
            label=label,
            score=float(subject.score.detach()),
            probability=subject.probability,
            notes=_remarks(map, where, scores),
            number=subject.number,
            box=subject.box,
        )

    def _culprit(self, image: Tensor) -> str:
        """Where NaN or infinite values come up in a forward, as the end of a message."""
        if not image.isfinite().all():
            return "; the picture itself holds some"
        first = first_not_finite(self.module, self._leaf(image).detach())
        return f"; they come up at {first}" if first else ""

    # ---- checks, once for each size of image

    def _survey(self, image: Tensor) -> list[Layer]:
        return survey(self.module, self._leaf(image).detach(), *self._facts, self._read)

    def _layout(self, name: str, taps: Taps, image: Tensor) -> Layout:
        if name not in taps and taps.calls[name]:
            raise RequestError(
                f"the layer {name!r} has no run {self._call}: it runs {_times(taps.calls[name])} in one forward",
                "give a smaller --call, or leave it out for the last",
            )
        if name not in taps:
            raise RequestError(
                f"the layer {name!r} does not run when the model is given an image",
                "choose another; `camcli layers MODEL` lists those that do",
            )
        self._note_choice(name, taps)
        shape = tuple(taps[name].shape)
        size = (image.shape[2], image.shape[3])
        try:
            if self._asked:
                return asked(self._asked, shape)
            ways = readings(shape, size, *self._facts)
            # How the network's other layers lie may settle it, as it does in `camcli layers`.
            clear = len(ways) == 1 and ways[0].order != "ncl"
            layout = decide(
                ways, shape, frozenset() if clear else plain_layouts(self._survey(image), size, *self._facts)
            )
        except RequestError as error:
            raise RequestError(f"the layer {name!r}: {error.message}", error.hint) from None
        if layout.prefix and self._facts[0] is None:
            cells = "x".join(map(str, layout.grid))
            self._note(
                f"the layer {name!r} is read as {layout}, by its shape; "
                f"if those tokens stand behind the patches: --layout {layout.order}:0:{cells}"
            )
        return layout

    def _note_choice(self, name: str, taps: Taps) -> None:
        """Say which of a layer's runs and which of its tensors is explained, where there are several."""
        calls, parts = taps.calls[name], taps.parts[name]
        if calls > 1:
            turn = f"run {self._call}" if self._call else "the last"
            self._note(f"the layer {name!r} runs {_times(calls)} in one forward; {turn} is explained (--call N)")
        if parts > 1:
            self._note(f"the layer {name!r} gives {parts} tensors; the first is explained")

    def _note(self, text: str) -> None:
        self.notes = (*(one for one in self.notes if one != text), text)

    def _check_labels(self, classes: int | None) -> None:
        if classes is not None and self.network and len(self.network.labels) != classes:
            raise RequestError(
                f"the model gives {classes} scores, but {len(self.network.labels)} classes are named",
                "give the names of all its classes: --labels FILE, one name a line",
            )

    def _check_relus(self, met: RuledReLUs) -> None:
        others = ", ".join(sorted(met.others))
        if not met.count:
            raise RequestError(
                f"{self.method.name} is defined by what it does at ReLUs, and this network meets none"
                + (f"; its activations are {others}" if others else ""),
                "choose a method that works at a layer, such as gradcam",
            )
        if others:
            self._note(f"{met.count} ReLUs follow the rule of {self.method.name}; {others} pass the plain gradient")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _check_batch(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        form = "x".join(map(str, images.shape))
        raise RequestError(f"images of shape {form} were given", "give a batch of colour images: (n, 3, h, w)")


def _wide(tensor: Tensor) -> Tensor:
    """At least float32, since sums over half-precision products lose the map."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _product(maps: Sequence[Tensor]) -> Float[Tensor, "n 3 h w"]:
    """Maps multiplied at the input's size (Selvaraju 2017, sec. 3.2): those of a layer rectified, then bilinear."""
    size = next(map.shape[2:] for map in maps if map.ndim == 4)
    result: Tensor | None = None
    for map in maps:
        if map.ndim == 3:
            map = F.interpolate(map.relu().unsqueeze(1), size, mode="bilinear", align_corners=False)
        result = map if result is None else result * map
    assert result is not None
    return result


def _remarks(map: np.ndarray, where: str, scores: Tensor) -> tuple[str, ...]:
    """What a reader of one map must know."""
    remarks = []
    if map.ndim == 2 and map.max() <= 0:
        remarks.append(
            f"nothing at {where} speaks for the class: the whole map is negative (--save array keeps what it says)"
        )
    if map.size > 1 and np.ptp(map) <= FLAT * np.abs(map).max():
        remarks.append(f"the map is the same everywhere at {where}, so it names no place")
    if len(scores) > 1 and scores.min() >= 0 and abs(float(scores.sum()) - 1) < 1e-3 and scores.max() > SATURATED:
        remarks.append(
            "the model's scores are probabilities and one is nearly 1, where their gradient vanishes: "
            "the map may be mostly rounding; a model that ends before its softmax is explained better"
        )
    return tuple(remarks)


def _classes(choose: Choose, row: int, scores: Tensor, nothing: str) -> Sequence[int]:
    indices = list(dict.fromkeys(choose(row, scores)))
    if not indices:
        raise PictureError(nothing)
    for index in indices:
        if not 0 <= index < len(scores):
            raise RequestError(
                f"there is no class {index}",
                f"the model has {len(scores)} classes, counted from 0 to {len(scores) - 1}",
            )
    return indices


def _choice(targets: Targets, images: int) -> Choose | None:
    """The function that the targets of a call amount to."""
    if targets is None:
        return None
    if isinstance(targets, Tensor | np.ndarray):
        targets = targets.tolist()
    if callable(targets):
        return targets
    if isinstance(targets, int):
        return lambda row, scores: [targets]
    wanted = [[one] if isinstance(one, int) else list(one) for one in targets]
    if len(wanted) != images:
        raise RequestError(
            f"{len(wanted)} targets were given for {images} images",
            "give one for each image, or a single number for all",
        )
    return lambda row, scores: wanted[row]
