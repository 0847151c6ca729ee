"""Model, layer, target and method meet here: images in, maps out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from operator import attrgetter
from typing import Any, Generic, TypeVar, cast, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from camcli.base.errors import PictureError
from camcli.engine import Place
from camcli.engine.checks.compatibility import check_setup, words_of
from camcli.engine.checks.dry_run import prepare, prepare_for
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.images import check_batch, check_call, check_input_channels
from camcli.engine.checks.places import locate_layers
from camcli.engine.choose import (
    Batch,
    Choose,
    Class,
    Targets,
    check_channel,
    choice,
    choose_targets,
    classes_of,
    one_or_several,
    predicted_by,
)
from camcli.engine.explanation import Explanation
from camcli.engine.layers.layout import Layout
from camcli.engine.layers.locate import Located
from camcli.engine.maps.compute import compute_maps, evidence_of_total
from camcli.engine.maps.concepts import Fitted, find_concepts, fitted, sampled
from camcli.engine.maps.method import Recipe, recipes
from camcli.engine.maps.places import Prepared
from camcli.engine.maps.result import Result, to_results
from camcli.engine.network import Network
from camcli.engine.setup import Setup, explained_in_words, score_of
from camcli.engine.speed import tune
from camcli.engine.speed.compiling import Compilation
from camcli.images.features import Features
from camcli.targets import AUTO
from camcli.targets.readers.spec import Outlet
from camcli.targets.target import Activation

T = TypeVar("T")


class _Of(Generic[T]):
    """An attribute that is kept elsewhere: in the setup, or in what was found out."""

    def __init__(self, place: str = "setup") -> None:
        self._place = place

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, explainer: None, owner: type) -> _Of[T]: ...

    @overload
    def __get__(self, explainer: Explainer, owner: type) -> T: ...

    def __get__(self, explainer: Explainer | None, owner: type) -> T | _Of[T]:
        return self if explainer is None else cast("T", getattr(attrgetter(self._place)(explainer), self._name))

    def __set__(self, explainer: Explainer, value: T) -> None:
        setattr(attrgetter(self._place)(explainer), self._name, value)


class Explainer:
    """Explains batches of images by one or several methods, at one or several layers of one network.

    The network is used as it stands, on its device and in its precision, and is left exactly as it was.

    Args:
        model: a network, or a bare module that takes ``(n, 3, h, w)`` (or as many other channels as it likes) to scores
            ``(n, classes)``, perhaps somewhere in tuples, mappings or dataclasses.
        layers: layer paths (see :func:`camcli.engine.layers.paths.resolve`); empty for the default layer, chosen at the
            first batch, or where hirescam explains boxes for the levels that they are read from. Must be empty for
            methods that work at the input alone.
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
        fits: whether a method finds concepts in several pictures together.
        fitted: by method and layer, what such a method was fitted to; while it is empty, the images of each call are
            taken together. Filled by :meth:`fit`, and may be set.
        activation: what makes probabilities of the scores; what was found out about them at the first check.
        one_by_one: whether each image is explained in a batch of its own, since others would change what is said of it.
        keeps_much: whether more of each image is kept than what belongs to the last part of the network.
        device: where the network is.
        notes: what a reader of all the maps must know.
        layouts: how each layer's output lies in memory, for images of the size that was checked last.
        runs: which of each layer's runs is explained, from 1 on, likewise; the layers in running order.
        located: where each layer's cells lie in the input, likewise, if that was measured.
        channels: how many channels each layer has, likewise.
        grids: rows and columns of each layer's maps, and ("") of those over tokens, likewise.
        shared: whether the model gives one prediction for the whole group, likewise.
        places: of layers that give several tensors, which of them is explained, from 0 on; the first where none stands.

    Raises:
        RequestError: there is no such method, option or layer, or they do not go together.
    """

    network = _Of[Network | None]()
    module = _Of[nn.Module]()
    outlet = _Of[Outlet]()
    activation = _Of[Activation]()
    recipes = _Of[tuple[Recipe, ...]]()
    strongest = _Of[int]()
    fuse = _Of[str]()
    layers = _Of[tuple[str, ...]]()
    fits = _Of[bool]()
    fitted = _Of[Fitted]()
    one_by_one = _Of[bool]()
    keeps_much = _Of[bool]()
    device = _Of[torch.device]()
    notes = _Of[tuple[str, ...]]()
    layouts = _Of[dict[str, Layout]]("findings.plan")
    runs = _Of[dict[str, int]]("findings.plan")
    located = _Of[dict[str, Located]]("findings.plan")
    channels = _Of[dict[str, int]]("findings.plan")
    grids = _Of[dict[str, tuple[int, int]]]("findings")
    shared = _Of[bool]("findings")
    places = _Of[dict[str, int]]("setup.witness")

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
        network = model if isinstance(model, Network) else None
        outlet = network.outlet if network else Outlet()
        scored = score, classes_of(versus), counterfactual
        explained = score_of(*scored, network, network.activation if network else "none")
        named = recipes(method, options, outlet.task == "detect")
        self.methods = tuple(recipe.row for recipe in named)
        self.setup = Setup(
            module=model.module if isinstance(model, Network) else model,
            network=network,
            outlet=replace(outlet, path=output or outlet.path, score=explained, group=group),
            activation=network.activation if network else "softmax",
            recipes=named,
            score=scored,
            fuse=fuse,
            smooth=eigen_smooth,
            scales=one_or_several(scales),
            flips=one_or_several(flips),
            strongest=channels,
            group=group,
            layout=layout,
            call=call,
            recompute=recompute,
            place=placement,
            rows=rows,
        )
        self.findings = Findings()
        self.setup.layers = check_setup(self.setup, one_or_several(layers))
        for words in words_of(self.setup):
            self.setup.note(words)

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
        check_batch(images, self.network)
        if len(images):
            prepare_for(self.setup, self.findings, images, extras)
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
        check_batch(images, self.network)
        if not len(images):
            return []
        check_call(self.setup, choose is not None, region)
        return self._results(Batch(images, choose or predicted_by(self.setup), seen, region, extras, among))

    def _results(self, batch: Batch) -> list[list[Result]]:
        """The results of a batch; image by image where others would change them, or one is in trouble."""
        setup, several = self.setup, len(batch.images) > 1
        prepared = prepare_for(setup, self.findings, batch.images, batch.extras)
        reason = ""
        if not (setup.one_by_one and several):
            try:
                return self._explain(prepared, batch)
            except PictureError as error:
                # One image's trouble: it is found, and the others stand. A group fails as a whole.
                if setup.group or not several:
                    raise
                reason = error.message
        alone = [self._results(batch.alone(row))[0] for row in range(len(batch.images))]
        if reason and not any(isinstance(one, PictureError) for some in alone for one in some):
            setup.note(f"a batch failed and was done picture by picture: {reason}")
        return alone

    def _explain(self, prepared: Prepared, batch: Batch) -> list[list[Result]]:
        """Explain a batch whose size was tried.

        Raises:
            PictureError: one of several images has no map by one of the methods.
        """
        setup, plan, images = self.setup, prepared.plan, batch.images
        with setup.witness.ready(), setup.witness.feed.giving(batch.extras):
            forward = setup.witness.forward(images, batch.seen, batch.region, plan)
            targets = choose_targets(setup, plan, forward.reading, batch)
            concepts = find_concepts(setup, plan, forward, batch.seen)
            maps = compute_maps(setup, prepared, images, forward, targets)
            return to_results(setup, prepared, images, forward, targets, maps, concepts)

    def cells(self, images: Float[Tensor, "n d h w"], pictures: int) -> dict[str, Float[Tensor, "m c"]]:
        """Of each layer cells of a batch, for :meth:`fit`; ``pictures`` is how many are looked at in all."""
        check_batch(images, self.network)
        plan = prepare_for(self.setup, self.findings, images).plan
        with self.setup.witness.ready():
            evidence = evidence_of_total(self.setup, plan, self.setup.witness.forward(images))
            return {layer: sampled(evidence.get("act", layer), pictures) for layer in self.layers}

    def fit(self, samples: Iterable[Mapping[str, Float[Tensor, "m c"]]]) -> None:
        """Find concepts in cells of several pictures; those of every image explained from now on.

        ``explainer.fit(explainer.cells(batch, 500) for batch in batches)``

        Args:
            samples: what :meth:`cells` gives, batch by batch.
        """
        self.fitted = fitted(self.recipes, samples)

    def rearrange(self, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> int:
        """Make the network faster and its numbers the same to rounding: :func:`camcli.engine.speed.tune.rearrange`."""
        return tune.rearrange(self.setup, self.findings, image, extras)

    def compile(self, images: Float[Tensor, "n d h w"], least: float = 0.0) -> Compilation:
        """Compile what no gradient passes, where that is faster: :func:`camcli.engine.speed.tune.compile_prefix`."""
        return tune.compile_prefix(self.setup, self.findings, images, least)

    def on(self, device: torch.device, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> Explainer:
        """Another explainer like this one, whose network is a copy on a device; the two may work at the same time.

        Args:
            device: where the copy is.
            image: noise to try it with, as for :meth:`check`.
            extras: likewise.

        Raises:
            RequestError: no map can be made with the copy: see :func:`camcli.engine.speed.tune.copy_to`.
            Exception: whatever a network says that cannot be copied, or has no place on the device.
        """
        other = copy(self)
        other.setup, other.findings = tune.copy_to(self.setup, self.findings, device, image, extras)
        return other

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
        prepare(self.setup, self.findings, image, extras)

    def check_channels(self, image: Float[Tensor, "n d h w"]) -> None:
        """Where the network fails on images, see that it is not for their channels.

        Raises:
            RequestError: it takes another number of them.
        """
        check_input_channels(self.setup, image)

    def locate(self, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> None:
        """Measure where the layers' cells lie in the input, in the precision that the network has now.

        Done by :meth:`check` where it was not done before.

        Args:
            image: noise, as for :meth:`check`.
            extras: likewise.

        Raises:
            RequestError: the layer cannot be chosen or read.
        """
        locate_layers(self.setup, self.findings, image, extras)

    def says(self, region: bool = False) -> str:
        """What is explained, in words for people."""
        return explained_in_words(self.setup, region)

    def check_channel(self, index: int) -> None:
        """See that every layer has a channel.

        Raises:
            RequestError: one has not.
        """
        check_channel(self.findings.plan, index)
