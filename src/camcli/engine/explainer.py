"""Model, layer, target and method meet here: images in, maps out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.engine import Place, devices
from camcli.engine.checks.attention_chain import check_chain, check_last, remarks
from camcli.engine.checks.rerun import prepare_parts, prepare_rest, prepare_trunk
from camcli.engine.checks.trial import drawn, tried
from camcli.engine.choose import (
    ONE_TARGET,
    Choose,
    Class,
    Targets,
    check_classes,
    choice,
    classes_of,
    disagreement,
    found,
    one_or_several,
    predicted,
)
from camcli.engine.explanation import Explanation
from camcli.engine.forward import (
    ALONE,
    ATTENTION,
    BEHIND,
    BLOCKS,
    CHAIN,
    COSINES,
    LAST_ATTENTION,
    LOOKED,
    ROUNDED,
    SAME,
    Forward,
    Plan,
    Witness,
    alike,
)
from camcli.engine.hooks.attention import Attending
from camcli.engine.hooks.capture import Taps, at_layer
from camcli.engine.hooks.input_size import told
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.hooks.relu import RuledActivations, unseen_relus
from camcli.engine.hooks.state import frozen, quantised
from camcli.engine.hooks.tensors import wide
from camcli.engine.hooks.watch import listened
from camcli.engine.input_channels import channels_in_words, taken
from camcli.engine.layers.default_layer import found_default
from camcli.engine.layers.even_steps import EvenSteps
from camcli.engine.layers.layout import Layout, asked, canonical, decide, readings
from camcli.engine.layers.levels import levels
from camcli.engine.layers.locate import (
    FEW,
    Located,
    carried,
    evenly,
    least,
    locate,
    locate_briefly,
    of_tokens,
    smaller,
    words_of,
)
from camcli.engine.layers.nan import depends, first_not_finite
from camcli.engine.layers.paths import first_names, resolve
from camcli.engine.layers.probe import Layer, noise_like, plain_layouts, survey, token_layout
from camcli.engine.layers.refusals import LayerError, cut_off, no_grad_fn, no_gradient, no_graph
from camcli.engine.maps.augment import Pass, channel_parts, fused, passes, sizes, smoothed, summed
from camcli.engine.maps.concepts import Fitted, fitted, sampled
from camcli.engine.maps.concepts import found as found_concepts
from camcli.engine.maps.method import Recipe, recipes
from camcli.engine.network import Network, tells_apart, two_sided
from camcli.engine.setup import Request, score_of
from camcli.engine.signals.evidence import Evidence, Trying
from camcli.engine.signals.mixing import mixes
from camcli.engine.speed.compiling import Compilation, compiled
from camcli.engine.speed.folding import Pair, fold, pairs
from camcli.images.features import Features
from camcli.images.placement import Placement
from camcli.methods import METHODS
from camcli.methods.rounding import coarse, rounding
from camcli.targets import AUTO
from camcli.targets.labels import Labels
from camcli.targets.readers import probabilities
from camcli.targets.readers.classification import GroupPredictions
from camcli.targets.readers.detection import unfiltered
from camcli.targets.readers.find import parts
from camcli.targets.readers.spec import Outlet, of_boxes, table_of
from camcli.targets.target import Activation, Reading, Subject, competing

# One map, or why there is none.
Result = Explanation | PictureError

# Evidence that is a gradient.
GOES_BACK = frozenset(
    {"grad", "curve", "grad_of", "input_grad", "slopes", "responses", "biases", "attn_grad", "told_grad", "stopped"}
)
# What only methods ask for whose papers rectify what they make of it.
RECTIFIED = frozenset({"attn_grad", "told_grad", "stopped"})
# Stands for a method where a layer's shares are kept beside the maps.
OF_SHARES = -1
# Evidence that needs a gradient, whatever it is.
NEEDS_GRAPH = GOES_BACK | {"spread"} | LOOKED | BLOCKS
# A map whose least value is above this part of its greatest is mostly ground.
MOSTLY_GROUND = 0.5
# A map whose values differ by less than this part of them is constant: what differs is rounding.
FLAT = 1e-6
# Of what a layer says of a picture, how much has to change where the picture is another one.
MOVED = 1e-4
# Of a network's modules, how many come before a layer behind which little is left.
LATE = 0.7
# A cosine is at most 1, but for the rounding of half precision.
FARTHEST = 1.01
OTHERS = "choose legrad or gae, or a method that works at a layer, such as gradcam"
# A probability from which on a softmax leaves hardly any gradient.
SATURATED = 0.999
# Or so near to 0 or 1 that there is none left.
SURE = 1e-6


@dataclass(frozen=True, slots=True)
class _Maps:
    """Maps of several images by one method at one layer.

    Attributes:
        recipe: the method.
        layer: the layer, or several joined; empty at the input.
        map: for each image, ``(n, ...)``; a list where they are of several sizes.
        channels: for each image which channel of the layer it is of; empty if it is of all.
        weights: for each image that channel's share in the score.
        layers: for each image which of the joined layers say anything of it, where that is not all of them.
    """

    recipe: Recipe
    layer: str
    map: np.ndarray | list[np.ndarray]
    channels: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()


class Explainer:
    """Explains batches of images by one or several methods, at one or several layers of one network.

    The network is used as it stands, on its device and in its precision, and is left exactly as it was.

    Args:
        model: a network, or a bare module that takes ``(n, 3, h, w)`` (or as many other channels as
            it likes) to scores ``(n, classes)``, perhaps somewhere in
            tuples, mappings or dataclasses.
        layers: layer paths (see :func:`camcli.engine.layers.paths.resolve`); empty for the default layer, chosen at the
            first
            batch, or where hirescam explains boxes for the levels that they are read from. Must be empty for methods
            that work at the input alone.
        method: a row of ``camcli methods``, or several: they share the forward, and the backward where they want one;
            ``auto``: gradcam, and for boxes hirescam.
        options: of the methods: ``{"samples": 8}``, or words such as ``samples=8`` and ``smoothgrad.samples=8``.
        output: where in what the model returns its scores are, such as ``logits`` or ``0``, if that is not plain.
        layout: how the layers' output lies in memory (see :attr:`camcli.Job.layout`); empty to read it.
        call: which run of a layer counts that runs several times in one forward, from 1 on; 0 for the last.
        fuse: how the maps of several layers become one: ``none``, ``mean``, ``max``, ``product``, ``sum``, or
            ``paper``.
        scales: factors of the input's size at which the maps are made; their mean is given.
        flips: which mirrored images are explained too: ``flip``, ``flip-vertical``; likewise.
        eigen_smooth: of the channels' parts of a map the first principal component, instead of their sum.
        rows: how many images the network is given at once where a method asks about variants of them.
        score: which number of a class's is explained: a row of :data:`camcli.targets.scores.SCORES`.
        versus: the classes that a ``margin`` is over; empty for the strongest other class of each image.
        counterfactual: turn the score's sign, to explain what lowers it.
        channels: instead of the map the parts of so many of the layer's channels: those of the greatest share in the
            score, to first order (the sum over the cells of activation times gradient).
        recompute: compute parts of the network again on the way back instead of keeping what they need for it: slower,
            less memory. Parts and their saving are found out for each size of images.
        group: whether the images of a call belong together: the model is given exactly these at once, and may give one
            row of scores for all of them. Of scores that depend on several images each is explained by itself, with a
            backward of its own.
        placement: where the layer's cells are taken to lie in the input: ``measured`` on noise, or ``even``, as if they
            shared it evenly whatever the network's padding.

    Attributes:
        layers: the full names of the layers explained.
        methods: the rows of the methods.
        recipes: these, with their functions and options.
        strongest: of how many channels the parts are given, instead of the map; 0 for the map.
        fuse: how the maps of several layers become one; ``sum`` where the levels of a pyramid were chosen.
        fitted: by method and layer, what a method was fitted to that finds concepts in several pictures together; while
            it is empty, those of each call are taken together. Filled by :meth:`fit`, and may be set.
        activation: what makes probabilities of the scores; what was found out about them at the first check.
        one_by_one: whether each image is explained in a batch of its own, since others would change what is said of it.
        notes: what a reader of all the maps must know.

    Raises:
        RequestError: there is no such method, option or layer, or they do not go together.
    """

    def __init__(
        self,
        model: Network | nn.Module,
        *,
        layers: str | Sequence[str] = (),
        method: str | Sequence[str] = AUTO,
        options: Mapping[str, Any] | Sequence[str] = (),
        layout: str = "",
        call: int = 0,
        output: str = "",
        fuse: str = "none",
        scales: int | float | Sequence[int | float] = (1.0,),
        flips: str | Sequence[str] = (),
        eigen_smooth: bool = False,
        rows: int = 8,
        score: str = "logit",
        versus: Class | Sequence[Class] = (),
        counterfactual: bool = False,
        channels: int = 0,
        recompute: bool = False,
        group: bool = False,
        placement: Place = "measured",
    ) -> None:
        self.network = model if isinstance(model, Network) else None
        self.module = model.module if isinstance(model, Network) else model
        outlet = self.network.outlet if self.network else Outlet()
        self.activation: Activation = self.network.activation if self.network else "softmax"
        self._score = score, classes_of(versus), counterfactual
        known = self.network.activation if self.network else "none"
        explained = score_of(*self._score, self.network, known)
        self.outlet = replace(outlet, path=output or outlet.path, score=explained, group=group)
        self.recipes = recipes(method, options, self.outlet.task == "detect")
        self.methods = tuple(recipe.row for recipe in self.recipes)
        self.strongest, self.fuse = channels, fuse
        self._request = Request(
            module=self.module,
            network=self.network,
            outlet=self.outlet,
            recipes=self.recipes,
            fuse=fuse,
            smooth=eigen_smooth,
            scales=one_or_several(scales),
            flips=one_or_several(flips),
            strongest=channels,
            group=group,
        )
        layers = one_or_several(layers)
        self._request.check_meant(layers, layout, call)
        wants = self._request.wants
        self.fitted: Fitted = {}
        ruled, everywhere = (any(getattr(one, what) for one in self.recipes) for what in ("ruled", "everywhere"))
        cosine = self.network.cosine if self.network else None
        shift = cosine[1] if cosine and self.outlet.score.plain else 0.0
        self._witness = Witness(self.module, self._read, wants, ruled, everywhere, call, rows, cosine, shift)
        self._request.check_open()
        named = resolve(self.module, layers, self.network.wrapped if self.network else None)
        self.layers = tuple(first_names(self.module, named))
        self._request.check_layers_open(self.layers)
        self._request.check_together(self.layers)
        one = len(self.methods) == 1
        caveats = [row.caveat if one else f"{row.name}: {row.caveat}" for row in self.methods if row.caveat]
        self.notes: tuple[str, ...] = tuple(dict.fromkeys(caveats))
        if forgotten := self._request.forgotten():
            self._note(forgotten)
        if unnamed := self._request.unnamed:
            self._note(f"no classes are named that a concept speaks for: {unnamed}")
        self._asked, self._call, self._recompute, self._place = layout, call, recompute, placement
        self._located: dict[tuple[int, int, int], dict[str, Located]] = {}
        self._even: dict[tuple[int, int, int], bool] = {}
        # What one step found out for the next.
        self._tapped: dict[tuple[int, int, int], Taps] = {}
        self._surveyed: dict[tuple[int, int, int], list[Layer]] = {}
        # Found out for so many images at once (1 where they are no group), of so many rows and columns.
        self._plans: dict[tuple[int, int, int], Plan] = {}
        self._passes: dict[tuple[int, int, int], list[Pass]] = {}
        self._checked: tuple[int, int, int] | None = None
        self._shared: set[tuple[int, int, int]] = set()
        self._tried = self.one_by_one = self._default = False
        self._failed: list[str] = []
        self._vanished: set[str] = set()

    @property
    def keeps_much(self) -> bool:
        """Whether more than what belongs to the last part of the network is kept of each image until its map is made.

        So it is with attention, with a graph from the images on, or from an early layer on, as far as that can be told
        by the order in which the modules were made.
        """
        wants = self._witness.wants
        if self._witness.from_input or wants & ({"slopes"} | ATTENTION) or not self.layers:
            return True
        places = {module: place for place, module in enumerate(self.module.modules())}
        ends = [max(places[part] for part in at_layer(self.module, name)[0].modules()) for name in self.layers]
        return min(ends) < LATE * len(places)

    @property
    def layers(self) -> tuple[str, ...]:
        """The full names of the layers explained."""
        return self._witness.layers

    @layers.setter
    def layers(self, names: tuple[str, ...]) -> None:
        self._witness.layers = names

    def __call__(
        self,
        images: Float[Tensor, "n d h w"],
        targets: Targets = None,
        region: Bool[Tensor, "n h w"] | None = None,
        extras: Features | None = None,
    ) -> list[list[Explanation]]:
        """Explain a batch.

        Args:
            images: prepared as the model wants them.
            targets: None for the predicted class, of a detector for each box; one class for all; one class an image (a
                list, tensor or array); several classes an image; or a function from the image's row and its scores to
                its classes. For a group with one prediction, a list of one will do, and longer ones must agree.
            region: for models that score every pixel: over what is summed, at the images' size; None for where the
                class is predicted.
            extras: for a model that takes (images, features): a tensor ``(n, ...)``, or several by name.

        Returns:
            For each image its explanations: those that are of no class, then class by class (box by box), method by
            method, layer by layer.

        Raises:
            RequestError: these are no images, the targets do not fit them or the classes, or no map can be made at
                the layer.
            PictureError: an image has no map, with its row and the reason.
        """
        everything: list[list[Explanation]] = []
        _check_batch(images, self.network)
        self._ready(images, extras)
        choose = choice(targets, len(images), self.shared)
        for row, results in enumerate(self.results(images, choose, region=region, extras=extras)):
            for result in results:
                if isinstance(result, PictureError):
                    raise PictureError(f"image {row} of the batch: {result.message}", result.hint)
            everything.append(cast("list[Explanation]", results))
        return everything

    def results(
        self,
        images: Float[Tensor, "n d h w"],
        choose: Choose | None = None,
        seen: Bool[Tensor, "n h w"] | None = None,
        region: Bool[Tensor, "n h w"] | None = None,
        extras: Features | None = None,
        among: Callable[[int], Sequence[int]] = lambda row: (),
    ) -> list[list[Result]]:
        """Like a call, but where a map cannot be made the reason stands in its place; nothing else is lost.

        Args:
            images: as in a call.
            choose: from an image's row and its scores to its classes; None for the predicted.
            seen: for models that score every pixel: which part of each image is picture, and not padding.
            region: as in a call.
            extras: as in a call.
            among: from an image's row to the classes that compete in it, which alone can be explained; empty: all.
        """
        _check_batch(images, self.network)
        if not len(images):
            return []
        if region is not None and self.outlet.task != "segment":
            raise RequestError(
                "a region is given, but the model does not score every pixel", "leave the region out: --region"
            )
        if choose is None and self._request.of_layer:
            named = " and ".join(row.name for row in self.methods)
            raise RequestError(
                f"{named} shows a channel of the layer, and none is named",
                "name some: --target channel:12,99; or those that matter most to the class: --target channels:top:5",
            )
        choose = choose or (found if self.outlet.task == "detect" else self._predicted)
        key = self._ready(images, extras)
        if self.one_by_one and len(images) > 1:
            return self._each_alone(images, choose, seen, region, extras, among)
        try:
            return self._explained(key, images, choose, seen, region, extras, among)
        except PictureError as error:
            # One image's trouble: it is found, and the others stand. A group fails as a whole.
            if self._request.group or len(images) == 1:
                raise
            reason = error.message
        alone = self._each_alone(images, choose, seen, region, extras, among)
        if not any(isinstance(one, PictureError) for some in alone for one in some):
            self._note(f"a batch failed and was done picture by picture: {reason}")
        return alone

    def _explained(
        self,
        key: tuple[int, int, int],
        images: Tensor,
        choose: Choose,
        seen: Tensor | None,
        region: Tensor | None,
        extras: Features | None,
        among: Callable[[int], Sequence[int]],
    ) -> list[list[Result]]:
        """The results of a batch whose size was tried.

        Raises:
            PictureError: one of several images has no map by one of the methods.
        """
        with self._witness.ready(), self._witness.feed.giving(extras):
            forward = self._witness.forward(images, seen, region, self._plans[key])
            choose = self._agreed(choose, forward.reading, len(images))
            chosen = [self._chosen(choose, row, forward.reading, images, among(row)) for row in range(len(images))]
            results: list[list[Result]] = [[] for _ in chosen]
            # What is said of each class asked for, so that a reason stands where the maps would.
            places: list[list[list[Result]]] = [
                [[one] if isinstance(one, PictureError) else [] for one in some] for some in chosen
            ]
            subjects = [[one for one in some if isinstance(one, Subject)] for some in chosen]
            of_subjects = [[place for place in some if not place] for some in places]
            said = [_scores_of(forward.reading, row) for row in range(len(images))]
            self._add_concepts(results, images, forward, seen)
            for rank, maps in enumerate(self._averaged(images, forward, subjects)):
                rows = [row for row, some in enumerate(subjects) if rank < len(some)]
                for some in self._joined(maps):
                    for at, row in enumerate(rows):
                        if isinstance(some, PictureError):
                            of_subjects[row][rank].append(some)
                            continue
                        one = self._result(some, at, subjects[row][rank], said[row], images, row)
                        of_subjects[row][rank].append(one)
        return [[*own, *chain.from_iterable(some)] for own, some in zip(results, places, strict=True)]

    def _each_alone(
        self,
        images: Tensor,
        choose: Choose,
        seen: Tensor | None,
        region: Tensor | None,
        extras: Features | None,
        among: Callable[[int], Sequence[int]],
    ) -> list[list[Result]]:
        """The results of each image in a batch of its own."""

        def alone(row: int) -> list[Result]:
            image, inside, part = (None if some is None else some[row : row + 1] for some in (images, seen, region))
            assert image is not None
            own = None if extras is None else one_of(extras, row)
            [results] = self.results(
                image, lambda _, scores: choose(row, scores), inside, part, own, lambda _: among(row)
            )
            return results

        return [alone(row) for row in range(len(images))]

    def _ready(self, images: Tensor, extras: Features | None) -> tuple[int, int, int]:
        """See that everything was tried on noise like these images; gives what it was found out for."""
        if len(images):
            self.check(noise_like(images, count=len(images) if self._request.group else 1), extras)
        return self._key(images)

    def _key(self, images: Tensor) -> tuple[int, int, int]:
        return len(images) if self._request.group else 1, images.shape[2], images.shape[3]

    @property
    def shared(self) -> bool:
        """Whether the model was found to give one prediction for the whole group that was checked last."""
        return self._checked in self._shared

    @property
    def fits(self) -> bool:
        """Whether a method finds concepts in several pictures together."""
        return any(recipe.fit for recipe in self.recipes)

    def cells(self, images: Float[Tensor, "n d h w"], pictures: int) -> dict[str, Float[Tensor, "m c"]]:
        """Of each layer cells of a batch, for :meth:`fit`; ``pictures`` is how many are looked at in all."""
        _check_batch(images, self.network)
        key = self._ready(images, None)
        with self._witness.ready():
            evidence = self._of_everything(self._plans[key], self._witness.forward(images))
            return {layer: sampled(evidence.get("act", layer), pictures) for layer in self.layers}

    def fit(self, samples: Iterable[Mapping[str, Float[Tensor, "m c"]]]) -> None:
        """Find concepts in cells of several pictures; those of every image explained from now on.

        ``explainer.fit(explainer.cells(batch, 500) for batch in batches)``

        Args:
            samples: what :meth:`cells` gives, batch by batch.
        """
        self.fitted = fitted(self.recipes, samples)

    def rearrange(self, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> int:
        """Make the network faster and its numbers the same to rounding: of no use to anyone else who holds it.

        Convolutions and the batch norms behind them are folded into one, but for those at or in a layer that is looked
        at, and not where a method wants every bias. On a CPU the weights of convolutions get the order in memory that
        their input will have.

        Args:
            image: noise to try it with, as for :meth:`check`.
            extras: likewise.

        Returns:
            How many batch norms are left out from now on.

        Raises:
            RequestError: the layer cannot be chosen.
        """
        self._try(image, extras)
        with self._feeding(image, extras):
            self._choose_layer(image)
            with torch.inference_mode(False), torch.no_grad(), frozen(self.module):
                return self._fold(image)

    def _fold(self, image: Tensor) -> int:
        """Settle the weights, and fold what can be; taken back if what is said moves by more than rounding."""
        norms = any(isinstance(one, nn.BatchNorm2d) for one in self.module.modules())
        folds = norms and "biases" not in self._witness.wants
        said: list[Any] = []
        found: list[Pair] = []

        def run() -> None:
            said[:] = [self.module(self._witness.leaf(image))]

        def look() -> None:
            if folds:
                found[:] = pairs(self.module, run)
            else:
                run()

        self._witness.settle(look, always=folds)
        found = [one for one in found if not any(map(one.touches, self.layers))]
        if not found:
            return 0
        [before] = said
        unfold = fold(self.module, found)
        with self._witness.tapping(self.layers) as taps:
            run()
        self._tapped[self._key(image)] = taps
        if not _same(before, *said):
            unfold()
            return 0
        return len(found)

    def compile(self, images: Float[Tensor, "n d h w"], least: float = 0.0) -> Compilation:
        """Compile the part of the network that no gradient passes, for batches of this size, where that is faster.

        Of no use to anyone else who holds the network.

        Args:
            images: noise, as many as a batch will have.
            least: seconds that a forward of them must take, or nothing is compiled.

        Raises:
            RequestError: no map can be made, as in :meth:`check`.
        """
        if why := self._why_not_compiled():
            return Compilation(reason=why)
        self.check(noise_like(images, count=1))
        first, turn = next(iter(self.runs.items()))
        given = self._witness.leaf(images)

        def run() -> Tensor:
            # No inference tensors: a compiled part would be compiled once more for tensors that are none.
            reading = self._witness.read(self.module(given.clone()), len(given))
            return torch.stack([reading.scores(row) for row in range(len(given))])

        with torch.inference_mode(False), frozen(self.module):
            return compiled(self.module, first, turn, run, least)

    def _why_not_compiled(self) -> str:
        """Why nothing of the network can be compiled; empty if something can."""
        wants = self._witness.wants
        if not self._request.at_layer:
            return "no layer is looked at, so no part of the network lies before it"
        if self._witness.from_input or wants & {"slopes"}:
            return "a method takes the gradient by the images, so it passes every part of the network"
        if wants & ATTENTION:
            return "a method follows attention through every operation"
        if self._recompute:
            return "parts of the network are computed again on the way back"
        if self._request.group:
            return "groups may be of several sizes"
        return "a detector's boxes are no scores to compare" if self.outlet.task == "detect" else ""

    def on(self, device: torch.device, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> Explainer:
        """Another explainer like this one, whose network is a copy on a device; the two may work at the same time.

        All that was found out about the network is found out about the copy anew.

        Args:
            device: where the copy is.
            image: noise to try it with, as for :meth:`check`.
            extras: likewise.

        Raises:
            RequestError: the copy runs modules of the network that it was made of, or says something else than it; or
                no map can be made with it.
            Exception: whatever a network says that cannot be copied, or has no place on the device.
        """
        # What stands for these is left out of the copy.
        other = deepcopy(self, {id(self._plans): {}, id(self._passes): {}, **devices.moved(self.module, device)})
        other._checked = None
        other.module.to(device)
        ran: list[str] = []
        with listened(self.module, lambda name, _output: ran.append(name)):
            other.check(image, extras)
        if ran:
            raise RequestError(f"copied, the network still runs modules of the one that it was copied from: {ran[0]!r}")
        # Of another image than that of the check, since the copy may remember what was said of that.
        own, again, copied = (one._says(image.flip(3), extras) for one in (self, self, other))
        if _same(own, again) and not _same(own, copied):
            raise RequestError(
                "copied, the network says something else: what it remembers of an image is not copied with it, such as "
                "by a hook that is a function within a function"
            )
        return other

    def _says(self, images: Tensor, extras: Features | None) -> Any:
        """What the network returns for images."""
        with self._feeding(images, extras), torch.inference_mode(False), torch.no_grad(), frozen(self.module):
            return self.module(self._witness.leaf(images))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return devices.home(self.module)

    def check(self, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> None:
        """Try everything on one image or one group: choose the layer, read its layout, see that gradient reaches it.

        Done by itself at the first batch of each size, on noise, so that nothing hangs on its first image; done
        before, it finds mistakes before the first picture.

        Args:
            image: noise.
            extras: features of these images, or of others, of which the first count.

        Raises:
            RequestError: no map can be made, with the reason.
        """
        key, size = self._key(image), (image.shape[2], image.shape[3])
        if self._checked == key:
            return
        try:
            self._try(image, extras)
            with self._feeding(image, extras):
                self._check_sizes(image, key, size)
        except CamcliError:
            raise
        except Exception:
            self.check_channels(image)
            raise
        self._checked = key

    def _try(self, image: Tensor, extras: Features | None) -> None:
        """Find out, once, what the scores are, and whether the network says the same twice and beside other images."""
        if self._tried or self.outlet.task == "detect":
            return

        def table(output: Any, images: int) -> Tensor:
            # What the model gives, and not what is made of one score for two classes.
            outlet, names = replace(self.outlet, two_sided=False), self.network.labels.names if self.network else ()
            found = table_of(outlet.read(output, images, names, self.activation))
            assert found is not None
            return found

        def run(images: Tensor) -> Tensor:
            with self._feeding(images, extras), nullcontext() if closed else EvenSteps() as steps:
                # As the survey had it, which the network took.
                own = devices.copied_to(self.module, images) if first is None else self._witness.leaf(images).detach()
                output = self.module(own)
            if steps is not None:
                self._even[self._key(images)] = steps.even
            return table(output, len(images))

        closed = closed_parts(self.module)
        first: Tensor | None = None
        if self._chooses and not closed and not quantised(self.module):
            heard: list[Any] = []
            with self._feeding(image, extras), suppress(Exception):  # said where the layer is chosen
                self._surveyed[self._key(image)] = self._survey(image, heard)
                first = table(heard[0], len(image))

        alone = self._request.group or (extras is not None and count_of(extras) < len(image) + 1)
        other = None if alone else noise_like(image, seed=1)
        with self._witness.ready():
            pair = None if other is None else torch.cat([image, other])
            trial = tried(self.module, run, image, pair, first)
        self._tried = True
        asked = self.network is not None and self.network.activation_asked
        if trial.probabilities and not asked and self.activation in ("softmax", "sigmoid"):
            self.activation = "probabilities"
            if self.network is not None:
                self.network = replace(self.network, activation="probabilities")
            score = score_of(*self._score, self.network, self.activation)
            self.outlet = replace(self.outlet, score=score)
        elif self.activation == "probabilities" and not trial.within:
            raise RequestError(
                "the model's outputs are said to be probabilities, and on noise some lie outside of 0 to 1",
                probabilities.INSTEAD,
            )
        if trial.mixed or trial.single:
            self.one_by_one, self._witness.rows = True, 1
        for words in trial.notes(self.activation, asked):
            self._note(words)

    def _try_boxes(self, reading: Reading, image: Tensor) -> None:
        """Find out, once, whether a detector finds the same boxes in the same image."""
        before = of_boxes(reading)
        if self._tried or before is None or not before.isfinite().all():
            return

        def run(_boxes: Tensor) -> Tensor:
            output = self.module(self._witness.leaf(image).detach().clone())
            found = of_boxes(self._read(output, len(image)))
            assert found is not None
            return found

        self._tried = True
        for words in drawn(self.module, run, before).notes(self.activation, asked=True):
            self._note(words)

    def check_channels(self, image: Float[Tensor, "n d h w"]) -> None:
        """Where the network fails on images, see that it is not for their channels.

        Raises:
            RequestError: it takes another number of them.
        """
        given = image.shape[1]
        with frozen(self.module):
            wanted = taken(self.module, (image.shape[2], image.shape[3]), given)
        if wanted not in (None, given):
            raise RequestError(
                f"the network takes images of {channels_in_words(wanted)}, and these have {given}",
                f"give a batch of such: (n, {wanted}, h, w)",
            )

    def _feeding(self, image: Tensor, extras: Features | None) -> AbstractContextManager[None]:
        """While it lasts, the network is given features beside each of these images, if there are some."""
        return self._witness.feed.giving(None if extras is None else first_of(extras, len(image)))

    def _choose_layer(self, image: Tensor) -> None:
        """The default layer, where a method wants one and none is named."""
        if not self._plans and self._witness.wants & GOES_BACK:
            self._check_floats(image)
        if self._request.at_layer and not self.layers:
            if self._request.levelled and (found := self._levels(image)):
                self.layers = found
                self.fuse = "sum" if self.fuse == "none" else self.fuse
                return
            known = self.network.layer if self.network else ""
            first = first_names(self.module, [known] if known else [])
            self._default = True
            self._take(first[0] if first else "", image)
            self._request.check_fused(self.layers)

    @property
    def _chooses(self) -> bool:
        """Whether the default layer is still to be found among all."""
        known = self.network.layer if self.network else ""
        return self._request.at_layer and not self.layers and not known

    def _take(self, name: str, image: Tensor) -> None:
        """Take this layer as the default, or the first that will do and has not failed."""
        if not name:
            layers = self._surveyed.pop(self._key(image), []) or self._survey(image)
            images = self._witness.leaf(image).detach()
            name = found_default(self.module, layers, images, self._read, self._needs_graph, self._failed)
            self._witness.places[name] = next(layer.part for layer in layers if layer.name == name)
        self.layers = (name,)

    @property
    def _needs_graph(self) -> bool:
        """Whether a method needs a gradient."""
        return self._witness.ruled or bool(self._witness.wants & NEEDS_GRAPH)

    @property
    def places(self) -> dict[str, int]:
        """Of layers that give several tensors, which of them is explained, from 0 on; the first where none stands."""
        return self._witness.places

    def _check_default(self, image: Tensor) -> None:
        """Check images of a size; a default layer that will not do gives way to the next."""
        while True:
            try:
                return self._check_size(image)
            except LayerError:
                if not self._default or self._plans:
                    raise
                self._failed += self.layers
                self._located.clear()
                self._take("", image)

    def _levels(self, image: Tensor) -> tuple[str, ...]:
        """The levels that boxes are read from, where the source names no other layer."""
        pyramid = self.network.pyramid if self.network else ""
        if self.network and self.network.layer and not pyramid:
            return ()
        return levels(self.module, self._witness.leaf(image).detach(), self._read, pyramid)

    def _check_floats(self, image: Tensor) -> None:
        """See that gradients pass a network of which parts are quantised."""
        parts = quantised(self.module)
        if not parts:
            return
        with self._witness.ready(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of operations that no gradient is known of
            leaf, passes = self._witness.leaf(image, from_input=True), False
            with suppress(RuntimeError):  # their operations may refuse what has a gradient
                total = self._witness.read(self.module(leaf), len(image)).total()
                passes = torch.autograd.grad(total, leaf, allow_unused=True)[0] is not None
        if not passes:
            raise RequestError(
                f"the network computes in whole numbers (quantised) at {parts[0]!r}, which no gradient passes",
                "explain the network that it was made of, in floating point; or name a layer and a method that needs "
                "no gradient: --method eigencam, scorecam, ablationcam, ...",
            )

    def _check_sizes(self, image: Tensor, key: tuple[int, int, int], size: tuple[int, int]) -> None:
        self._check_default(image)
        if key not in self._passes:
            found = [self._scaled(one, image) for one in passes(self._request.scales, self._request.flips)]
            # Of factors that come to the same size one is enough.
            self._passes[key] = list({(one.size, one.flips): one for one in found}.values())
            others = {f"{one.size[0]}x{one.size[1]}" for one in self._passes[key] if one.size not in (None, size)}
            if others:
                self._note(f"explained at other input sizes too: {', '.join(sorted(others))}; the maps' mean is given")
        for words in told(self.module):
            self._note(words)

    def _check_size(self, image: Tensor) -> None:
        key = self._key(image)
        if key in self._plans:
            return
        self._choose_layer(image)
        plan = Plan()
        with self._witness.ready(), unfiltered(self.module):
            forward = self._witness.forward(image)
            if self._turned_two_sided(forward.reading.classes):
                forward = self._witness.forward(image)
            self._check_labels(forward.reading.classes)
            self._try_boxes(forward.reading, image)
            if self._choose_tensors(forward.taps, image):
                forward = self._witness.forward(image)
            if self._needs_graph and not forward.reading.total().requires_grad and no_graph(self._survey(image)):
                raise no_grad_fn()
            if isinstance(forward.reading, GroupPredictions):
                self._shared.add(key)
            if forward.ruled is not None:
                self._check_activations(forward.ruled, forward.reading.total(), image)
            for name in self.layers:
                plan.layouts[name] = self._layout(name, forward.taps, image)
                plan.channels[name] = canonical(forward.taps[name], plan.layouts[name]).shape[1]
            plan.runs = {name: self._call or forward.taps.calls[name] for name in forward.taps}
            if forward.attending is not None:
                self._plan_attention(plan, forward.attending, image)
            evidence = self._of_everything(plan, forward)
            if forward.attending is not None:
                self._note_attention(plan, forward.attending, evidence)
            self._check_gradient(evidence, image)
            if "biases" in self._witness.wants:
                self._check_complete(evidence)
            if self._request.smooth or self.strongest:
                for recipe in self.recipes:
                    for layer in self.layers or ("",):
                        channel_parts(recipe.row.name, recipe.formulas, evidence, layer)
                        self._check_strongest(layer, plan)
            taps = forward.taps
            # Unless more is kept of a forward that is planned, this one will do for the methods too.
            planned = self._recompute or self._witness.wants & (BEHIND | ATTENTION)
            one = None if planned or self._plans else forward
            del forward, evidence
            plan.located = self._locate(plan.layouts, image, taps)
            if len(image) > 1:
                self._check_order(plan, image)
            if self._recompute:
                note = prepare_parts(self._witness, plan, image)
                # Of other sizes it is enough to say where nothing can be done.
                if not (plan.parts and self._plans):
                    self._note(note)
            if self._witness.wants & BEHIND:
                self._check_behind(plan, image)
                for name in self.layers:
                    if note := prepare_rest(self._witness, plan, name, image):
                        self._note(note)
            if any(recipe.of_concepts for recipe in self.recipes):
                self._concepts(image, self._witness.forward(image, plan=plan), plan, [0])
            if plan.tokens is not None:
                self._try_attention(plan, image)
            if not self._plans:
                self._try_methods(plan, one or self._witness.forward(image, plan=plan))
        self._plans[key] = plan
        self._note_tokens(plan)

    def _note_tokens(self, plan: Plan) -> None:
        """Say where another method does better for the same cost."""
        methods = {row.name for row in self.methods}
        tokens = any(layout.order == "tokens" for layout in plan.layouts.values())
        if tokens and "gradcam" in methods and "hirescam" not in methods:
            self._note(
                "of tokens hirescam costs the same as gradcam, with more of its heat on what is asked for, though not "
                "more of its peaks: docs/methods.md"
            )

    def _try_methods(self, plan: Plan, forward: Forward) -> None:
        """Run the methods on noise, those that ask often a few times: what they refuse must show before a picture.

        Those of other packages, which may count their calls or keep something, are left alone.

        Raises:
            RequestError: one does. What fails in another way may be noise's own affair.
        """
        if self._request.of_layer or self._request.of_no_class:
            return
        try:
            choose = found if self.outlet.task == "detect" else self._predicted
            scores = forward.reading.scores(0)
            index = next(iter(choose(0, scores)), None)
            if index is None or scores.isnan().any():
                return
            [subject, *_] = forward.reading.subjects(0, index)
        except PictureError:
            return
        evidence = Trying(self._witness, plan, forward, [subject], [0])
        for recipe in self.recipes:
            for layer in self.layers if recipe.at_layer else ("",):
                try:
                    if not recipe.of_concepts and recipe.row in METHODS.own:
                        self._map(recipe, evidence, layer)
                except RequestError:
                    raise
                except Exception:
                    continue

    def locate(self, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> None:
        """Measure where the layers' cells lie in the input, in the precision that the network has now.

        Done by :meth:`check` where it was not done before.

        Args:
            image: noise, as for :meth:`check`.
            extras: likewise.

        Raises:
            RequestError: the layer cannot be chosen or read.
        """
        with self._feeding(image, extras), self._witness.ready():
            self._choose_layer(image)
            key = self._key(image)
            taps = self._tapped.pop(key, None)
            # Where all steps are even, what the check finds out anyhow is enough.
            if self._place != "measured" or not self.layers or self._even.get(key):
                return
            if taps is None or key not in self._even:
                with self._witness.tapping(self.layers) as taps, torch.no_grad():
                    self._watched(image)
            if self._choose_tensors(taps, image):
                with self._witness.tapping(self.layers) as taps, torch.no_grad():
                    self.module(self._witness.leaf(image).clone())
            self._locate({name: self._layout(name, taps, image) for name in self.layers}, image, taps)

    def _watched(self, images: Tensor) -> Any:
        """What the network returns, and seen on the way whether all its steps are even."""
        closed = closed_parts(self.module)
        with nullcontext(EvenSteps()) if closed else EvenSteps() as steps:
            output = self.module(self._witness.leaf(images).clone())
        self._even[self._key(images)] = steps.even and not closed
        return output

    def _locate(self, layouts: Mapping[str, Layout], image: Tensor, taps: Taps) -> dict[str, Located]:
        """Where the cells of each layer lie in inputs like this, and what is to be said of it; measured once."""
        key, size = self._key(image), (image.shape[2], image.shape[3])
        if self._place != "measured" or not layouts:
            return {}
        if key not in self._located:
            if key not in self._even:
                with torch.no_grad():
                    self._watched(image)
            if self._even[key]:
                found = {name: evenly(layout.grid, size) for name, layout in layouts.items()}
            else:
                # Of layers that run once, nothing behind the last need be computed.
                once = all(taps.calls[name] == 1 for name in layouts) and not closed_parts(self.module)
                found = self._measured(layouts, image, once)
            self._located[key] = found
            for note in words_of(found, size):
                self._note(note)
        return self._located[key]

    def _measured(self, layouts: Mapping[str, Layout], image: Tensor, once: bool) -> dict[str, Located]:
        """Where the cells of each layer lie, measured at small inputs where these leave no doubt."""
        size, group = (image.shape[2], image.shape[3]), self._request.group
        # How tokens lie depends on the size.
        fixed = any(layout.order in ("tokens", "ncl") for layout in layouts.values())
        found: dict[str, Located] = {}
        if not fixed and not group and least(size) != size and len(layouts) <= FEW:
            with suppress(Exception):  # it may take no such inputs
                found = self._measured_at(least(size), layouts, image, once, brief=True)
        open_ = {name: layout for name, layout in layouts.items() if name not in found}
        if not open_:
            return {name: found[name] for name in layouts}
        try:
            found |= self._measured_at(size if fixed else smaller(size), open_, image, once)
        except Exception as error:  # whatever it is, maps can be made without
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            found |= {name: Located(layout.grid, unknown=reason) for name, layout in open_.items()}
        return {
            name: of_tokens(one) if layouts[name].order in ("tokens", "ncl") else one for name, one in found.items()
        }

    def _measured_at(
        self, size: tuple[int, int], layouts: Mapping[str, Layout], image: Tensor, once: bool, brief: bool = False
    ) -> dict[str, Located]:
        """Likewise, by inputs of this size."""

        def noise(count: int, seed: int, more: int) -> Tensor:
            return self._witness.leaf(noise_like(image, (size[0] + more, size[1] + more), count, seed)).detach()

        def cells(given: Tensor) -> dict[str, Tensor]:
            return self._witness.cells(given, layouts, once)

        images = len(image) if self._request.group else 0
        with self._witness.feed.about(None if images else [0]):
            found = locate_briefly(cells, noise) if brief else locate(cells, noise, images)
        own = image.shape[2], image.shape[3]
        return {name: carried(one, size, layouts[name].grid, own) for name, one in found.items()}

    def _choose_tensors(self, taps: Taps, image: Tensor) -> bool:
        """Of layers that give several tensors, choose the first that the score depends on; whether one changes."""
        places = self._witness.places
        several = [name for name in taps if taps.parts[name] > 1 and name not in places]
        if several:
            known = {layer.name: layer.part for layer in self._survey(image)}
            places |= {name: known[name] for name in several}
        return any(places[name] for name in several)

    def _check_order(self, plan: Plan, images: Tensor) -> None:
        """See that each row of the layers is of the picture in that place of the group.

        Pictures are changed in turns such that each has turns of its own, as the bits of its number say.
        """
        count = len(images)
        others = noise_like(images, seed=1)
        numbers = torch.arange(1, count + 1, device="cpu")
        before = self._rows_of(self._witness.forward(images, plan=plan), plan)
        seen = {name: torch.zeros(count, dtype=torch.long, device="cpu") for name in before}
        least = max(MOVED, ROUNDED * coarse(self.device))
        for bit in range(count.bit_length()):
            turned = (numbers >> bit) & 1 == 1
            mixed = torch.where(turned.to(images.device)[:, None, None, None], others, images)
            for name, rows in self._rows_of(self._witness.forward(mixed, plan=plan), plan).items():
                was, change = before[name].norm(dim=1), (rows - before[name]).norm(dim=1)
                # What is silent either way says nothing of where it comes from.
                moved = (change > least * was).cpu() | (((was == 0) & (change == 0)).cpu() & turned)
                seen[name] += moved.long() << bit
        for name, codes in seen.items():
            where = f"the layer {name!r}" if name in self.layers else name
            if bool((codes & numbers != numbers).any()):
                row = int((codes != numbers).nonzero()[0])
                of = f"is of picture {int(codes[row])}" if 1 <= int(codes[row]) <= count else "is not of that picture"
                raise RequestError(
                    f"the pictures of a group are in another order at {where}: row {row + 1} of {count} {of}",
                    "keep their order on the way there: reshape without transposing",
                )
            if bool((codes != numbers).any()):
                self._note(
                    f"the pictures of a group meet before {where}: what it says of one depends on the others, and so "
                    "do the maps"
                )

    def _rows_of(self, forward: Forward, plan: Plan) -> dict[str, Tensor]:
        """What each layer and each attention says of each image, ``(n, ...)`` in one piece."""
        count = len(forward.image)
        found = {name: canonical(forward.taps[name].detach(), plan.layouts[name]) for name in forward.taps}
        seen = forward.attending.seen if forward.attending is not None else []
        found |= {f"attention {turn}": one.weights for turn, one in enumerate(seen, start=1)}
        return {name: wide(tensor).reshape(count, -1) for name, tensor in found.items()}

    def _check_strongest(self, layer: str, plan: Plan) -> None:
        if self.strongest > plan.channels.get(layer, self.strongest):
            raise RequestError(
                f"the {self.strongest} strongest channels are asked for, and the layer {layer!r} has "
                f"{plan.channels[layer]}",
                "ask for fewer: --target channels:top:5",
            )

    def _scaled(self, one: Pass, image: Tensor) -> Pass:
        """A pass with a size that the model takes; raises RequestError if there is none."""
        own = (image.shape[2], image.shape[3])
        first: Exception | None = None
        for size in sizes(own, one.scale):
            try:
                self._check_size(noise_like(image, size))
            except Exception as error:  # whatever it is, this size will not do
                first = first or error
            else:
                return replace(one, size=size)
        reason = (str(first).strip() or type(first).__name__).splitlines()[0]
        raise RequestError(
            f"the model does not take its input of {own[0]}x{own[1]} scaled by {one.scale:g}: {reason}",
            "leave --scales out, or choose a model that takes other sizes",
        ) from first

    @property
    def layouts(self) -> dict[str, Layout]:
        """How each layer's output lies in memory, for images of the size that was checked last."""
        return {} if self._checked is None else self._plans[self._checked].layouts

    @property
    def runs(self) -> dict[str, int]:
        """Which of each layer's runs is explained, from 1 on, likewise; the layers in running order."""
        return {} if self._checked is None else self._plans[self._checked].runs

    @property
    def located(self) -> dict[str, Located]:
        """Where each layer's cells lie in the input, likewise, if that was measured."""
        return {} if self._checked is None else self._plans[self._checked].located

    def placement(self, layer: str, map: np.ndarray) -> Placement | None:
        """Where the cells of a map at a layer lie, or of several layers joined by ``+``; None: evenly."""
        finest, of = tuple(map.shape[-2:]), layer.split("+")
        located = (self.located.get(name) for name in self._in_turn if name in of)
        return next((one.placement for one in located if one and one.grid == finest), None)

    @property
    def channels(self) -> dict[str, int]:
        """How many channels each layer has, likewise."""
        return {} if self._checked is None else self._plans[self._checked].channels

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each layer's maps, and ("") of those over tokens, likewise."""
        tokens = None if self._checked is None else self._plans[self._checked].tokens
        return ({"": tokens.grid} if tokens else {}) | {name: layout.grid for name, layout in self.layouts.items()}

    # ---- maps

    def _averaged(
        self, images: Tensor, forward: Forward, subjects: Sequence[Sequence[Subject]]
    ) -> list[dict[tuple[int, str], Tensor | PictureError]]:
        """For each rank of the subjects, by method and layer the mean of the maps of all passes, or why there is none.

        Raises:
            PictureError: one of several images has none.
        """
        count, *_ = key = self._key(images)
        size = (images.shape[2], images.shape[3])
        ranks = max(map(len, subjects), default=0)
        sums: list[dict[tuple[int, str], Tensor | PictureError]] = [{} for _ in range(ranks)]
        turns, base = self._passes[key], self._plans[key]
        for one in turns:
            plan = self._plans[count, *(one.size or size)]
            run = forward if one.plain(size) else self._witness.forward(one.there(images), plan=plan)
            for rank in range(ranks):
                rows = [row for row, some in enumerate(subjects) if rank < len(some)]
                meant = [one.subject(subjects[row][rank], run.reading, row, size) for row in rows]
                for place, own in self._maps_of(plan, run, meant, rows, last=rank + 1 == ranks).items():
                    before = sums[rank].get(place)
                    if isinstance(own, PictureError) or isinstance(before, PictureError):
                        sums[rank][place] = before if isinstance(before, PictureError) else own
                        continue
                    grid = size if own.shape[-2:] == one.size else self.grids.get(place[1], size)
                    shown, here = self._placed(plan, place[1], own.shape), self._placed(base, place[1], grid)
                    part = one.back(own, grid, size, shown, here) / len(turns)
                    sums[rank][place] = part if before is None else before + part
        return sums

    def _places(self, maps: Mapping[str, Tensor]) -> dict[str, Placement | None]:
        """Where the cells of each layer's maps lie."""
        assert self._checked is not None
        return {layer: self._placed(self._plans[self._checked], layer, map.shape) for layer, map in maps.items()}

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width of the images that were checked last."""
        assert self._checked is not None
        return self._checked[1:]

    @staticmethod
    def _placed(plan: Plan, layer: str, grid: Sequence[int]) -> Placement | None:
        """Where the cells of a map of this grid lie in inputs of a plan's size; None: evenly."""
        located = plan.located.get(layer)
        return located.placement if located and located.grid == tuple(grid[-2:]) else None

    def _maps_of(
        self, plan: Plan, run: Forward, subjects: Sequence[Subject], rows: Sequence[int], last: bool
    ) -> dict[tuple[int, str], Tensor | PictureError]:
        """The maps of these images' subjects: of all at once where the score of each is its image's own affair.

        In a group it may depend on the others. Then each has a backward to itself, since the gradient of the sum would
        mix what one image does for its own score with what it does for the others'.
        """
        together = Evidence(self._witness, plan, run, subjects, rows, last=last and not self._request.group)
        alone = len(rows) == 1 and not self._request.group
        if not self._request.group or len(rows) < 2 or isinstance(run.reading, GroupPredictions):
            return self._maps(together, alone)
        if not plan.mixes and not mixes(together.scored):
            return self._maps(together, alone)
        if not plan.mixes:
            plan.mixes = True
            self._note(
                "the score of a picture depends on others of its group; each map explains its own picture's score"
            )
        found = [
            self._maps(Evidence(self._witness, plan, run, [subject], [row]), alone=False)
            for subject, row in zip(subjects, rows, strict=True)
        ]
        return {place: torch.cat([cast("Tensor", one[place]) for one in found]) for place in found[0]}

    def _maps(self, evidence: Evidence, alone: bool) -> dict[tuple[int, str], Tensor | PictureError]:
        """By method and layer the maps, ``(n, h, w)`` at the layer or the input, or ``(n, 3, H, W)`` at the input.

        Args:
            evidence: of the images.
            alone: they are one, so that where a method has no map of it the reason stands in its place.

        Raises:
            PictureError: they are several, and one has none.
        """
        maps: dict[tuple[int, str], Tensor | PictureError] = {}
        for number, recipe in enumerate(self.recipes):
            if recipe.of_concepts:
                continue
            for layer in self.layers if recipe.at_layer else ("",):
                try:
                    map = self._map(recipe, evidence, layer)
                except CamcliError as error:
                    # What holds for all pictures was found out on noise.
                    reason = error if isinstance(error, PictureError) else PictureError(error.message, error.hint)
                    if not alone:
                        raise reason from error
                    maps[number, layer] = reason
                    continue
                if not self.strongest:
                    _check_shape(recipe, map)
                maps[number, layer] = map
        if self.strongest:
            for layer in self.layers:
                maps[OF_SHARES, layer] = evidence.get("act", layer) * evidence.get("grad", layer)
        return maps

    def _map(self, recipe: Recipe, evidence: Evidence, layer: str) -> Tensor:
        if self._request.smooth:
            return smoothed(recipe.row.name, recipe.formulas, evidence, layer)
        if self.strongest:
            return channel_parts(recipe.row.name, recipe.formulas, evidence, layer)
        return recipe(evidence, layer)

    def _joined(self, maps: Mapping[tuple[int, str], Tensor | PictureError]) -> list[_Maps | PictureError]:
        """Method by method what is given: the map of each layer, or one of all; of channels one after another."""
        found: list[_Maps | PictureError] = []
        for number, recipe in enumerate(self.recipes):
            made = {layer: map for (method, layer), map in maps.items() if method == number}
            own = {layer: map for layer, map in made.items() if not isinstance(map, PictureError)}
            lost = [map for map in made.values() if isinstance(map, PictureError)]
            if lost and (self.fuse != "none" or not own):
                found.append(lost[0])
                continue
            if self.strongest:
                for layer, parts in own.items():
                    shares = cast("Tensor", maps[OF_SHARES, layer])
                    found += _strongest(recipe, layer, parts, shares, self.strongest)
                found += lost
                continue
            if self.fuse == "sum" and recipe.at_layer:
                sums = summed({layer: own[layer] for layer in self._in_turn}, self._places(own), self._size)
                arrays = [map.squeeze(0).numpy(force=True) for _, map in sums]
                found.append(_Maps(recipe, "+".join(own), arrays, layers=tuple(drawn for drawn, _ in sums)))
                continue
            if self.fuse != "none" and recipe.at_layer:
                in_turn = [own[layer] for layer in self._in_turn]
                places = [self._places(own)[layer] for layer in self._in_turn]
                own = {"+".join(own): fused(in_turn, self.fuse, recipe.fusion, places, self._size)}
            for layer, map in own.items():
                found.append(_Maps(recipe, layer, map.numpy(force=True)))
            found += lost
        return found

    def _add_concepts(
        self, results: Sequence[list[Result]], images: Tensor, forward: Forward, seen: Tensor | None
    ) -> None:
        """The concepts of every image of which the network says anything."""
        if not any(recipe.of_concepts for recipe in self.recipes):
            return
        rows = [row for row in range(len(images)) if not _scores_of(forward.reading, row).isnan().any()]
        if not rows:
            return
        plan = self._plans[self._key(images)]
        for some in self._concepts(images, forward, plan, rows, seen):
            for row, result in zip(rows, some, strict=True):
                if isinstance(result, Explanation):
                    result = replace(result, placement=self.placement(result.layer, result.map))
                results[row].append(result)

    def _concepts(
        self, images: Tensor, forward: Forward, plan: Plan, rows: Sequence[int], seen: Tensor | None = None
    ) -> list[Sequence[Result]]:
        """Method by method, layer by layer, the concepts of some of the images."""
        # Where the scores are, so that masks are not brought there for each concept.
        device = forward.image.device
        all_of_it = torch.ones(images.shape[0], *images.shape[2:], dtype=torch.bool, device=device)
        inside = all_of_it if seen is None else seen.to(device)
        subjects = [Subject(0, torch.zeros((), device="cpu"), None, inside=inside[row], of_layer=True) for row in rows]
        evidence = Evidence(self._witness, plan, forward, subjects, rows)
        return [
            found_concepts(recipe, layer, evidence, self.fitted, len(rows), self._label)
            for recipe in self.recipes
            if recipe.of_concepts
            for layer in self.layers
        ]

    @property
    def _in_turn(self) -> list[str]:
        """The layers in running order."""
        assert self._checked is not None
        return list(self._plans[self._checked].runs)

    def _of_everything(self, plan: Plan, forward: Forward) -> Evidence:
        """Evidence for all that the network says of one image, to try things with."""
        rows, reading = range(len(forward.image)), forward.reading
        # A margin needs a rival, whoever that is.
        rivals = (min(1, (reading.classes or 1) - 1),) if self.outlet.score.against else ()
        subject = Subject(0, reading.total(), None, rivals=rivals)
        return Evidence(self._witness, plan, forward, [subject] * len(rows), rows)

    def _read(self, output: Any, images: int, seen: Tensor | None = None, region: Tensor | None = None) -> Reading:
        names = self.network.labels.names if self.network else ()
        return self.outlet.read(output, images, names, self.activation, seen, region)

    def _agreed(self, choose: Choose, reading: Reading, images: int) -> Choose:
        """Of a group with one prediction, what those of its images say that say anything, if they agree."""
        if not isinstance(reading, GroupPredictions):
            return choose

        scores = reading.scores(0)
        said: list[tuple[int, ...]] = []
        trouble: list[PictureError] = []
        if bool(scores.isfinite().all()):  # else the scores themselves are the trouble, and that is said of each image
            for row in range(images):
                try:
                    said.append(tuple(dict.fromkeys(classes_of(choose(row, scores)))))
                except PictureError as error:
                    trouble.append(error)
        if len(set(said)) > 1:
            reason = f"the model gives one prediction for the group, and {disagreement(said)}"
            said, trouble = [], [PictureError(reason, ONE_TARGET)]

        def agreed(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
            if trouble and not said:
                raise PictureError(trouble[0].message, trouble[0].hint)
            return said[0] if said else ()

        return agreed

    def _predicted(self, row: int, scores: Tensor) -> Sequence[int]:
        """The class with the greatest score, of those that can be explained."""
        return predicted(row, scores[: self.network.labels.open] if self.network else scores)

    def _chosen(
        self, choose: Choose, row: int, reading: Reading, images: Tensor, among: Sequence[int] = ()
    ) -> list[Subject | PictureError]:
        """What is explained of an image; of a class of which there is nothing, the reason stands in its place."""
        try:
            scores = reading.scores(row)
            # Where a model says what is in an image, -inf is what is not.
            broken = (
                scores.isfinite().logical_not()
                if self.outlet.task in ("classify", "features")
                else scores.isnan() | (scores == torch.inf)
            )
            if broken.any():
                raise PictureError(
                    "the network's scores hold NaN or infinite values on this picture" + self._culprit(images, row),
                    "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
                )
            if self._request.of_no_class:
                return []
            indices = list(dict.fromkeys(classes_of(choose(row, competing(scores, among)))))
            if not indices:
                raise PictureError(self.outlet.nothing())
            if self._request.of_layer:
                return [self._of_channel(index) for index in indices]
            check_classes(indices, len(scores), self.network.labels if self.network else Labels(()))
        except PictureError as error:
            return [error]
        subjects: list[Subject | PictureError] = []
        for index in indices:
            try:
                if among and index not in among:
                    raise PictureError(f"{self._label(index)!r} is none of its own {self._nouns}", "name one of them")
                subjects += reading.subjects(row, index, among)
            except PictureError as error:
                subjects.append(error)
        return subjects

    def says(self, region: bool = False) -> str:
        """What is explained, in words for people."""
        if self._request.of_layer:
            return "the channel named, of the layer, as it is"
        if self._request.of_no_class:
            return "what the layer says, as a sum of concepts; no class"
        network = self.network
        what = self.outlet.says(
            self.activation,
            len(network.labels) if network else 0,
            region,
            headless=network is not None and network.headless,
            cosine=network.cosine if network else None,
        )
        if self.strongest:
            return f"of {what}, what each of the {self.strongest} channels has in it that have most (act * grad)"
        return what

    def _of_channel(self, index: int) -> Subject:
        """A channel of the layer, of each if there are several."""
        self.check_channel(index)
        return Subject(index, torch.zeros((), device="cpu"), None, of_layer=True)

    def check_channel(self, index: int) -> None:
        """See that every layer has a channel.

        Raises:
            RequestError: one has not.
        """
        assert self._checked is not None
        for name, count in self._plans[self._checked].channels.items():
            if not 0 <= index < count:
                raise RequestError(
                    f"there is no channel {index} at the layer {name!r}",
                    f"it has {count} channels, counted from 0 to {count - 1}",
                )

    @property
    def _nouns(self) -> str:
        return self.network.labels.nouns if self.network else "classes"

    def _label(self, index: int) -> str:
        return self.network.labels.short(index) if self.network else str(index)

    def _result(self, maps: _Maps, at: int, subject: Subject, scores: Tensor, images: Tensor, row: int) -> Result:
        """One image's map of several, or why it is none."""
        recipe, map, index = maps.recipe, maps.map[at], subject.index
        layer = maps.layers[at] if maps.layers else maps.layer
        alone = subject.of_layer or (recipe.of_channel and not self.strongest)
        label = f"channel {index}" if alone else self._label(index)
        noun = self.network.labels.noun if self.network else "class"
        of = label if label == f"channel {index}" else f"{noun} {index} ({label})"
        where = f"the layer{'s' * ('+' in layer)} {layer!r}" if layer else "the input"
        if not layer and recipe.wants & ATTENTION:
            where = "the attention"
        if not np.isfinite(map).all():
            back = recipe.ruled or (recipe.wants & GOES_BACK and not recipe.wants & {"ask", "rest"})
            cause = "they come up on the way back from the score" if back else "what it divides by is nothing here"
            return PictureError(
                f"the map of {of} holds NaN or infinite values"
                + (self._culprit(images, row) or f"; {recipe.row.caveat or cause}"),
                "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
            )
        channel = maps.channels[at] if maps.channels else None
        if alone or (self.network and self.network.headless and channel is None):
            channel = index
        # A part of nothing, or of what the score owes nothing to, is a result: that the channel says nothing here.
        silent = (
            channel is not None
            and not map.any()
            and (recipe.of_channel or bool(maps.weights) or not subject.score.any())
        )
        if not map.any() and not silent:
            rectified = len(recipe.formulas) > 1 or self.fuse not in ("none", "sum") or recipe.wants & RECTIFIED
            why = "nothing at {} speaks for it here" if rectified else "{} has no part in its score here"
            hint = "try an earlier layer" if layer else "try a method that works at a layer"
            if recipe.wants & NEEDS_GRAPH or recipe.ruled:
                why, hint = self._silence(layer, subject, why, hint)
            return PictureError(f"the map of {of} is zero everywhere: {why.format(where)}", hint)
        return Explanation(
            map=map.astype(np.float32),
            method=recipe.row.name,
            layer=layer,
            index=index,
            label=label,
            score=float(map.mean() if alone else subject.score.detach()),
            probability=None if alone else subject.probability,
            notes=(
                *([f"channel {channel} is silent here: it is zero everywhere, and so is its map"] if silent else ()),
                *(() if silent else _remarks(map, where, scores)),
                *((subject.note,) if subject.note else ()),
            ),
            number=subject.number,
            box=subject.box,
            versus="" if alone else ", ".join(self._label(rival) for rival in subject.rivals),
            channel=channel,
            weight=maps.weights[at] if maps.weights else None,
            placement=self.placement(layer, map) if map.ndim == 2 else None,
        )

    def _silence(self, layer: str, subject: Subject, why: str, hint: str) -> tuple[str, str]:
        """Why there is no gradient of a score, and what can be done, where that is known better than ``why``."""
        sure = subject.probability
        if self.activation == "probabilities" and sure is not None and not SURE < sure < 1 - SURE:
            why = f"its probability is {sure:.7g}, where the gradient of a sigmoid or softmax vanishes"
            return (
                why,
                "explain the model without its last sigmoid or softmax, or choose a method that needs no gradient",
            )
        if layer in self._vanished:
            return (
                f"{why}, nor on noise",
                "see what makes the score: a head that is not trained, or a ReLU that is shut",
            )
        return why, hint

    def _culprit(self, images: Tensor, row: int) -> str:
        """Where NaN or infinite values come up in a forward of an image of a batch, as the end of a message."""
        if not images[row].isfinite().all():
            return "; the picture itself holds some"
        # The images of a group are seen together.
        given = images if self._request.group else images[row : row + 1]
        with self._witness.feed.about(None if self._request.group else [row]):
            first = first_not_finite(self.module, self._witness.leaf(given).detach())
        return f"; they come up at {first}" if first else ""

    # ---- checks, once for each size of image

    def _facts(self, image: Tensor) -> tuple[int | None, tuple[int, int] | None]:
        """What the source says of tokens: how many stand before the patches, and the patch grid of such an image."""
        if self.network is None:
            return None, None
        return self.network.prefix, self.network.grid_at((image.shape[2], image.shape[3]))

    def _survey(self, image: Tensor, heard: list[Any] | None = None) -> list[Layer]:
        """What every layer gives; what the network itself does is kept in ``heard``, if that is given."""

        def read(output: Any, images: int) -> Reading:
            if heard is not None:
                heard.append(output)
            return self._read(output, images)

        return survey(self.module, self._witness.leaf(image).detach(), *self._facts(image), read)

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
        if at_layer(self.module, name)[1] and shape[2:] == (1, 1):
            return Layout("nchw", (1, 1))
        count, size = len(image), (image.shape[2], image.shape[3])
        try:
            if self._asked:
                return asked(self._asked, shape, count)
            self._check_rows(shape, count)
            facts = self._facts(image)
            ways = readings(shape, size, *facts, count)
            # How the network's other layers lie may settle it, as it does in `camcli layers`.
            clear = len(ways) == 1 and ways[0].order != "ncl"
            layout = decide(
                ways, shape, frozenset() if clear else plain_layouts(self._survey(image), size, *facts, count)
            )
        except RequestError as error:
            raise RequestError(f"the layer {name!r}: {error.message}", error.hint) from None
        if layout.prefix and facts[0] is None:
            cells = "x".join(map(str, layout.grid))
            self._note(
                f"the layer {name!r} is read as {layout}, by its shape; "
                f"if those tokens stand behind the patches: --layout {layout.order}:0:{cells}"
            )
        return layout

    def _check_rows(self, shape: tuple[int, ...], count: int) -> None:
        """See that a layer says one thing of each picture, where a wrapper may have reshaped them."""
        frames = shape[0] * shape[2] if len(shape) == 5 else 0
        wrapper = self.network is not None and self.network.wrapped is not None
        if not (self._request.group or wrapper) or not shape or count in (shape[0], frames):
            return
        form = "x".join(map(str, shape))
        said = f"{frames} frames ({form})" if frames else f"{_count(shape[0], 'row')} ({form})"
        pictures = f"a group of {_count(count, 'picture')}" if self._request.group else _count(count, "picture")
        raise RequestError(
            f"its output has {said} for {pictures}, so its rows are no pictures",
            "choose a layer where each picture has a row of its own; a wrapper may reshape before and behind it as it "
            "likes",
        )

    def _plan_attention(self, plan: Plan, attending: Attending, image: Tensor) -> None:
        """See that as much of the attention can be read as the methods look at, and how its tokens lie."""
        wants, size = self._witness.wants, (image.shape[2], image.shape[3])
        if wants & CHAIN or (wants & BLOCKS and len(attending.seen) > 1):
            check_chain(attending)
        else:
            check_last(attending)
        plan.tokens = token_layout(self._survey(image), attending.tokens, size, *self._facts(image), len(image))
        plan.attentions = len(attending.seen)
        if wants & BLOCKS and (note := prepare_trunk(self._witness, plan, attending, image)):
            self._note(note)

    def _try_attention(self, plan: Plan, image: Tensor) -> None:
        """Explain noise by the methods that look at attention: what they cannot have of this network shows here."""
        forward = self._witness.forward(image, plan=plan)
        evidence = self._of_everything(plan, forward)
        for recipe in self.recipes:
            if recipe.wants & LOOKED:
                self._check_looked(recipe, evidence, forward)
            if recipe.wants & ALONE and plan.trunk and plan.trunk.alone:
                raise RequestError(
                    f"{recipe.row.name} asks for the score of each token by itself, and {plan.trunk.alone}", OTHERS
                )
            if recipe.wants & COSINES and evidence.get("cosines", "").abs().max() > FARTHEST:
                raise RequestError(
                    f"{recipe.row.name} compares cosines, and the scores that the model gives here come of none",
                    "leave the wrapper out that changes them, or choose legrad or maskclip",
                )
            if recipe.wants & ATTENTION:
                recipe(evidence, "")

    def _check_looked(self, recipe: Recipe, evidence: Evidence, forward: Forward) -> None:
        """See that the score reads one token behind the last attention, whose query is seen."""
        assert forward.attending is not None
        read = int(evidence.get("read", "")[0].sum())
        if read != 1:
            raise RequestError(
                f"{recipe.row.name} follows the one token that the score reads behind the last attention, and this "
                f"network's reads {read or 'none'}",
                OTHERS,
            )
        if forward.attending.seen[-1].queries is None:
            raise RequestError(
                f"{recipe.row.name} needs the queries and keys of the last attention, and what its softmax is of is no "
                "product of two factors",
                OTHERS,
            )

    def _note_attention(self, plan: Plan, attending: Attending, evidence: Evidence) -> None:
        """Say which attentions and which rows of theirs the maps are made of."""
        assert plan.tokens is not None
        every = self._witness.wants & (CHAIN | BLOCKS) and plan.attentions > 1
        pooled = not attending.seen[-1].square
        blocks = f"attention of {_count(plan.attentions - pooled, 'block')}" + (" and a pooling" if pooled else "")
        used = blocks if every else "the last attention"
        note = f"{used} is used, {plan.tokens}"
        if self._witness.wants & LAST_ATTENTION:
            rows = evidence.get("read", "")[0].nonzero().flatten().tolist()
            if not attending.seen[-1].square:
                read = f"{_count(len(rows), 'query', 'queries')} of the pooling behind them"
            elif all(row < plan.tokens.prefix for row in rows):
                read = f"the token{'' if len(rows) == 1 else 's'} {', '.join(map(str, rows))}"
            else:
                read = f"{len(rows)} of {attending.tokens} tokens, the mean of whose rows is shown"
            note += f"; the score reads {read}"
        self._note(note)
        for remark in remarks(attending) if self._witness.wants & CHAIN else ():
            self._note(remark)

    def _note_choice(self, name: str, taps: Taps) -> None:
        """Say which of a layer's runs and which of its tensors is explained, where there are several."""
        calls, parts = taps.calls[name], taps.parts[name]
        if calls > 1:
            turn = f"run {self._call}" if self._call else "the last"
            self._note(f"the layer {name!r} runs {_times(calls)} in one forward; {turn} is explained (--call N)")
        if parts > 1:
            place = self.places.get(name, 0)
            which = f"number {place + 1}, on which the score depends," if place else "the first"
            self._note(f"the layer {name!r} gives {parts} tensors; {which} is explained")

    def _note(self, text: str) -> None:
        self.notes = (*(one for one in self.notes if one != text), text)

    def _turned_two_sided(self, classes: int | None) -> bool:
        """Whether a network was found to give one score for two classes, which is then read as both."""
        if classes != 1 or self.network is None or not tells_apart(self.network, self.network.labels):
            return False
        self.network = two_sided(self.network, self.network.labels)
        self.outlet, self.activation = replace(self.outlet, two_sided=True), self.network.activation
        self._note(self.network.notes[-1])
        return True

    def _check_labels(self, classes: int | None) -> None:
        if classes is not None and self.network and len(self.network.labels) != classes:
            raise RequestError(
                f"the model gives {classes} scores, but {len(self.network.labels)} classes are named",
                "give the names of all its classes: --labels FILE, one name a line",
            )

    def _check_activations(self, met: RuledActivations, score: Tensor, image: Tensor) -> None:
        """See that the rules have something to hold at, and say where they hold beyond their papers."""
        if unseen := unseen_relus(score):
            names = " and ".join(recipe.row.name for recipe in self.recipes if recipe.ruled)
            raise RequestError(
                f"{names} needs to see every ReLU, and {unseen} of this network's are computed in compiled or scripted "
                "code, which hides them",
                f"explain the network as Python code, or {self._other_method(image)}",
            )
        for everywhere in (False, True):
            recipes = [recipe for recipe in self.recipes if recipe.ruled and recipe.everywhere == everywhere]
            if recipes:
                self._check_rule(" and ".join(recipe.row.name for recipe in recipes), met, everywhere, image)

    def _other_method(self, image: Tensor) -> str:
        """A method that works where there is no ReLU."""
        try:
            found_default(self.module, self._survey(image), self._witness.leaf(image).detach(), self._read)
        except RequestError:
            return "choose a method that needs neither a layer nor ReLUs, such as integrated-gradients"
        return "choose a method that works at a layer, such as gradcam"

    def _check_rule(self, named: str, met: RuledActivations, everywhere: bool, image: Tensor) -> None:
        others = ", ".join(sorted(met.others))
        if not met.count and not (everywhere and others):
            extend = "extend it by -o activations=all, which no paper does, or " if others else ""
            raise RequestError(
                f"{named} is defined by what it does at ReLUs, and this network meets none"
                + (f"; its activations are {others}" if others else ""),
                extend + self._other_method(image),
            )
        if others and everywhere:
            counts = ", ".join(f"{name} ({count})" for name, count in sorted(met.others.items()))
            self._note(
                f"the paper of {named} defines its rule at ReLUs only ({met.count or 'none'} here); extended by us, it "
                f"is followed at {counts} too"
            )
        elif others:
            self._note(f"{met.count} ReLUs follow the rule of {named}; {others} pass the plain gradient")

    def _check_gradient(self, evidence: Evidence, image: Tensor) -> None:
        if self._witness.wants & {"grad", "curve"}:
            reached = [name for name in self.layers if evidence.get("grad", name).any()]
            # Where maps are summed up a layer may say nothing, as levels do that no box is read from.
            for name in () if reached and self.fuse == "sum" else self.layers:
                if name not in reached:
                    self._check_zero(name, image)

    def _check_behind(self, plan: Plan, image: Tensor) -> None:
        """See that the score depends on the layers behind which the network is to run again.

        Raises:
            LayerError: it does not.
        """
        images = self._witness.leaf(image).detach()
        for name in self.layers if "rest" in self._witness.wants else ():
            here = Layer(name, "", layout=plan.layouts[name], part=self.places.get(name, 0))
            if not depends(self.module, here, images, self._read):
                raise cut_off(self.module, self._survey(image), name, gradient=False)

    def _check_zero(self, name: str, image: Tensor) -> None:
        """See whether a gradient that is zero on noise may be another on pictures, which decide then.

        Raises:
            LayerError: it is cut.
        """
        layers = self._survey(image)
        owner, _, part = name.partition(":")
        here = next(layer for layer in layers if layer.name == owner)
        images = self._witness.leaf(image).detach()
        if part or not here.vanished or not depends(self.module, here, images, self._read):
            raise no_gradient(self.module, layers, owner)
        self._vanished.add(name)
        self._note(
            f"on noise the score's gradient by the layer {name!r} is zero everywhere, though the score is made of it: "
            "by weights that are zero, a ReLU that is shut, or a sigmoid or softmax that is sure; each picture decides "
            "whether it has a map"
        )

    def _check_complete(self, evidence: Evidence) -> None:
        try:
            evidence.get("biases", "")
        except PictureError as error:
            named = " and ".join(recipe.row.name for recipe in self.recipes if "biases" in recipe.wants)
            raise RequestError(f"{named} cannot be had of this network: {error.message}", error.hint) from None


def _same(one: Any, other: Any) -> bool:
    """Whether two answers of a network to the same images differ by rounding alone."""
    pairs = zip(parts(one), parts(other), strict=False)
    return all(_alike(first.tensor, second.tensor) for first, second in pairs)


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return alike(one.cpu(), other.cpu(), max(SAME, ROUNDED * rounding(one)))


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def _check_shape(recipe: Recipe, map: Tensor) -> None:
    """See that a method gives one map for each image."""
    if map.ndim != 3 and not (map.ndim == 4 and recipe.at_input):
        form = ", ".join(str(size) for size in ("n", *map.shape[1:]))
        raise RequestError(
            f"the method {recipe.row.name!r} gives maps of shape ({form}), and not one for each image: (n, h, w)",
            "a method that finds several concepts in a picture is of kind concept, and returns Concepts",
        )


def _strongest(recipe: Recipe, layer: str, parts: Tensor, shares: Tensor, count: int) -> list[_Maps]:
    """The parts ``(n, c, h, w)`` of those channels that have the greatest shares in the score, greatest first."""
    weights, order = shares.sum((2, 3)).sort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(parts), device=parts.device)
    return [
        _Maps(
            recipe,
            layer,
            parts[rows, order[:, rank]].numpy(force=True),
            channels=tuple(order[:, rank].tolist()),
            weights=tuple(weights[:, rank].tolist()),
        )
        for rank in range(count)
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _check_batch(images: Tensor, network: Network | None) -> None:
    wanted = network.prepare.channels if network else None
    if images.ndim != 4 or not images.shape[1] or wanted not in (None, images.shape[1]):
        form = "x".join(map(str, images.shape))
        takes = f", and {network.name} takes {channels_in_words(wanted)}" if network and wanted else ""
        kind = f"(n, {wanted}, h, w)" if wanted else "(n, 3, h, w), or grey ones (n, 1, h, w)"
        raise RequestError(f"images of shape {form} were given{takes}", f"give a batch of images: {kind}")


def _remarks(map: np.ndarray, where: str, scores: Tensor) -> tuple[str, ...]:
    """What a reader of one map must know."""
    remarks = []
    if map.ndim == 2 and map.max() <= 0:
        remarks.append(f"nothing at {where} speaks for it: the whole map is negative (--save array keeps what it says)")
    if np.ptp(map) <= FLAT * np.abs(map).max():
        remarks.append(f"the map is the same everywhere at {where}, so it names no place")
    elif map.ndim == 2 and map.min() > MOSTLY_GROUND * map.max():
        remarks.append(
            f"every value is above {MOSTLY_GROUND:.0%} of the greatest, so the drawing is nearly one colour: "
            "--normalize range draws it from its least value on"
        )
    if len(scores) > 1 and scores.min() >= 0 and abs(float(scores.sum()) - 1) < 1e-3 and scores.max() > SATURATED:
        remarks.append(
            "the model's scores are probabilities and one is nearly 1, where their gradient vanishes: "
            "the map may be mostly rounding; a model that ends before its softmax is explained better"
        )
    return tuple(remarks)


def _scores_of(reading: Reading, row: int) -> Tensor:
    """The scores of an image; NaN where they cannot be read, which is told as that image's failure."""
    try:
        return reading.scores(row)
    except PictureError:
        return torch.full((1,), torch.nan)


def count_of(features: Features) -> int:
    """Of how many images there are features."""
    return len(features) if isinstance(features, Tensor) else min(map(len, features.values()), default=0)


def one_of(features: Features, row: int) -> Features:
    """The features of one image alone."""
    some = slice(row, row + 1)
    return features[some] if isinstance(features, Tensor) else {name: one[some] for name, one in features.items()}


def first_of(features: Features, count: int) -> Features:
    """The features of the first images."""
    return features[:count] if isinstance(features, Tensor) else {name: one[:count] for name, one in features.items()}
