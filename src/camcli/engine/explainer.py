"""The explainer, which turns batches of images into maps for given layers, targets and methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from camcli.base.deprecated import accept_old_arguments, warn_renamed, with_old_names
from camcli.base.errors import PictureError
from camcli.engine import OLD_ARGUMENTS, OLD_ATTRIBUTES, Place
from camcli.engine.checks.compatibility import check_setup, list_caveats
from camcli.engine.checks.dry_run import prepare, prepare_for
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.images import check_batch, check_call, check_input_channels
from camcli.engine.checks.places import locate_layers
from camcli.engine.choose import (
    Batch,
    ClassIndex,
    TargetsArgument,
    TargetSelector,
    as_selector,
    as_shared_selector,
    as_tuple,
    check_channel,
    choose_classes,
    choose_targets,
    default_selector,
    one_of,
    parse_classes,
)
from camcli.engine.delegated import Delegated
from camcli.engine.explanation import Explanation
from camcli.engine.layers.layout import Layout
from camcli.engine.layers.locate import GridLocation
from camcli.engine.layers.paths import name_modules
from camcli.engine.maps.compute import compute_maps, make_total_signals
from camcli.engine.maps.concepts import FittedConcepts, find_concepts, fit_concepts, sample_cells
from camcli.engine.maps.method import BoundMethod, bind_methods, default_method
from camcli.engine.maps.places import PreparedPlan
from camcli.engine.maps.result import Result, to_results
from camcli.engine.network import Network
from camcli.engine.setup import Setup, describe_explainer, describe_target, make_score
from camcli.engine.speed import tune
from camcli.engine.speed.compiling import CompileReport
from camcli.images.features import Features
from camcli.targets import AUTO
from camcli.targets.readers.spec import OutputSpec
from camcli.targets.target import Activation

# One layer or several: paths, or modules of the model.
Layers = str | nn.Module | Sequence[str | nn.Module]


@with_old_names(OLD_ARGUMENTS, OLD_ATTRIBUTES)
class Explainer:
    """Explains batches of images by one or several methods, at one or several layers of one network.

    The network is used as it is, on its device and in its precision, and is left unchanged.

    Args:
        model: a network, or a bare module that maps ``(n, 3, h, w)`` (or another number of channels) to scores
            ``(n, classes)``, possibly nested in tuples, mappings or dataclasses.
        layer: one or several layers: paths (see :func:`camcli.engine.layers.paths.resolve`), or modules of the model.
            Empty for the default layer, which is chosen at the first batch; for odam, hirescam and layercam on boxes,
            the levels that the boxes are read from. Must be empty for methods that work at the input alone.
        layers: the same by another name.
        method: one or several rows of ``camcli methods``; several share the forward, and the backward where they need
            one. ``auto`` is gradcam, and odam for boxes.
        options: of the methods: ``{"samples": 8}``, or words such as ``samples=8`` and ``smoothgrad.samples=8``.
        output: path of the scores in the model's output, such as ``logits`` or ``0``, where it is not obvious.
        layout: memory layout of the layers' output (see :attr:`camcli.Job.layout`); empty to detect it.
        call: the call that counts of a layer that is called several times in one forward, from 1 on; 0 for the last.
        fuse: how the maps of several layers are joined: ``none``, ``mean``, ``max``, ``product``, ``sum``, or
            ``paper``.
        scales: factors of the input's size at which maps are made; the result is their mean.
        augment: mirrored images to explain too: ``flip``, ``flip-vertical``; the result is the mean of all maps.
        flips: the same by another name.
        eigen_smooth: replace the sum of the channels' parts of a map by their first principal component.
        batch_size: number of images per forward where a method scores variants of the images.
        score: the number of a class that is explained: a row of :data:`camcli.targets.scores.SCORES`.
        versus: the classes that a ``margin`` is over; empty for the highest-scoring other class of each image.
        counterfactual: negate the score, to explain what lowers it.
        top_channels: instead of the map, return the parts of this many of the layer's channels: those that contribute
            most to the score, to first order (activation times gradient, summed over the cells).
        recompute: checkpoint parts of the network, i.e. recompute them in the backward: slower, less memory. The parts
            are chosen, and the saving measured, for each size of images.
        group: True if the images of a call belong together: the model is given exactly these at once, and may give one
            row of scores for all of them. Where scores depend on several images, each score has a backward of its own.
        placement: position of the layer's cells in the input: ``measured`` on noise, or ``even``, as if they shared the
            input evenly whatever the network's padding.
        backward: rules for the gradient's way through a transformer, whichever method uses it: ``plain`` (the
            derivative), ``cp``, ``libra``, ``attnlrp`` (see :mod:`camcli.engine.hooks.transformer_rules`).

    Attributes:
        layers: full names of the layers explained.
        methods: rows of the methods.
        bound_methods: the methods with their functions and options.
        top_channels: number of channels whose parts are returned instead of the map; 0 for the map.
        fuse: how the maps of several layers are joined; ``sum`` where the levels of a pyramid were chosen.
        fits_concepts: True if a method finds concepts in several images together.
        fitted_concepts: by method and layer, what such a method was fitted to; while it is empty, the method is fitted
            to the images of each call. Filled by :meth:`fit`, and may be set.
        activation: the function that turns scores into probabilities; may be corrected by the first check.
        one_by_one: True if each image is explained in a batch of its own, since other images would change its scores.
        keeps_much: True if more of each image is kept than belongs to the last part of the network.
        device: device of the network.
        notes: remarks that hold for all maps.
        layouts: layout of each layer's output, for the image size that was checked last.
        calls: for that size, the call of each layer that is explained, from 1 on; the layers in running order.
        locations: for that size, where each layer's cells lie in the input, if that was measured.
        channel_counts: for that size, the number of channels of each layer.
        grids: for that size, rows and columns of each layer's maps, and (key "") of maps over tokens.
        shares_prediction: for that size, True if the model returns one prediction for the whole group.
        tensor_indices: for layers that return several tensors, the index of the one explained, from 0 on; the first if
            a layer is missing.

    Raises:
        RequestError: there is no such method, option or layer, or they do not go together.
    """

    network = Delegated[Network | None]()
    module = Delegated[nn.Module]()
    output_spec = Delegated[OutputSpec]()
    activation = Delegated[Activation]()
    bound_methods = Delegated[tuple[BoundMethod, ...]]()
    top_channels = Delegated[int]()
    fuse = Delegated[str]()
    layers = Delegated[tuple[str, ...]]()
    fits_concepts = Delegated[bool]()
    fitted_concepts = Delegated[FittedConcepts]()
    one_by_one = Delegated[bool]()
    keeps_much = Delegated[bool]()
    device = Delegated[torch.device]()
    notes = Delegated[tuple[str, ...]]()
    layouts = Delegated[dict[str, Layout]]("findings.plan")
    calls = Delegated[dict[str, int]]("findings.plan")
    locations = Delegated[dict[str, GridLocation]]("findings.plan")
    channel_counts = Delegated[dict[str, int]]("findings.plan")
    grids = Delegated[dict[str, tuple[int, int]]]("findings")
    shares_prediction = Delegated[bool]("findings")
    tensor_indices = Delegated[dict[str, int]]("setup.runner")

    __repr__ = describe_explainer

    def __init__(
        self,
        model: Network | nn.Module,
        *,
        layer: Layers = (),
        layers: Layers = (),
        method: str | Sequence[str] = AUTO,
        options: Mapping[str, Any] | Sequence[str] = (),
        layout: str = "",
        call: int = 0,
        output: str = "",
        fuse: str = "none",
        scales: int | float | Sequence[int | float] = (1.0,),
        augment: str | Sequence[str] = (),
        flips: str | Sequence[str] = (),
        eigen_smooth: bool = False,
        batch_size: int = 8,
        score: str = "logit",
        versus: ClassIndex | Sequence[ClassIndex] = (),
        counterfactual: bool = False,
        top_channels: int = 0,
        recompute: bool = False,
        group: bool = False,
        placement: Place = "measured",
        backward: str = "plain",
    ) -> None:
        network = model if isinstance(model, Network) else None
        output_spec = network.output_spec if network else OutputSpec()
        score_args = score, parse_classes(versus), counterfactual
        score_spec = make_score(*score_args, network, network.activation if network else "none")
        bound_methods = bind_methods(method, options, default_method(network))
        self.methods = tuple(bound.row for bound in bound_methods)
        self.setup = Setup(
            module=model.module if isinstance(model, Network) else model,
            network=network,
            output_spec=replace(output_spec, path=output or output_spec.path, score=score_spec, group=group),
            activation=network.activation if network else "softmax",
            bound_methods=bound_methods,
            score_args=score_args,
            fuse=fuse,
            eigen_smooth=eigen_smooth,
            scales=as_tuple(scales),
            flips=as_tuple(one_of("augment", augment, "flips", flips)),
            top_channels=top_channels,
            group=group,
            layout=layout,
            call=call,
            recompute=recompute,
            placement=placement,
            batch_size=batch_size,
            backward=backward,
        )
        self.findings = Findings()
        named = name_modules(self.setup.module, one_of("layer", layer, "layers", layers))
        self.setup.layers = check_setup(self.setup, named)
        for words in list_caveats(self.setup):
            self.setup.add_note(words)

    def __call__(
        self,
        images: Float[Tensor, "n d h w"],
        targets: TargetsArgument = None,
        region: Bool[Tensor, "n h w"] | None = None,
        extras: Features | None = None,
        *,
        target: ClassIndex | str | Sequence[ClassIndex | str] = (),
    ) -> list[list[Explanation]]:
        """Explain a batch.

        Args:
            images: preprocessed for the model.
            targets: None for the predicted class, and for each box of a detector; one class for all images; one class
                per image (a list, tensor or array); several classes per image; or a function from the image's row and
                its scores to its classes. For a group with one prediction a list of one is enough, and longer ones must
                agree.
            region: for models that score every pixel: the pixels to sum over, at the images' size; None for those where
                the class is predicted.
            extras: for a model that takes (images, features): a tensor ``(n, ...)``, or several by name.
            target: one class or several, each explained in every image; by name too if the explainer has a network.

        Returns:
            For each image its explanations: those that belong to no class first, then class by class (box by box),
                method by method, layer by layer.

        Raises:
            RequestError: these are no images, the targets do not fit them or the classes, or no map can be made at the
                layer.
            PictureError: an image has no map; the message names its row and the reason.
        """
        everything: list[list[Explanation]] = []
        check_batch(images, self.network)
        if len(images):
            prepare_for(self.setup, self.findings, images, extras)
        labels = self.network.labels if self.network else None
        shared = as_shared_selector(target, targets, labels)
        select = shared or as_selector(targets, len(images), self.shares_prediction)
        for row, results in enumerate(self.results(images, select, region=region, extras=extras)):
            for result in results:
                if isinstance(result, PictureError):
                    raise PictureError(f"image {row} of the batch: {result.message}", result.hint)
            everything.append(cast("list[Explanation]", results))
        return everything

    @accept_old_arguments({"choose": "select", "seen": "picture_mask", "among": "competing"})
    def results(
        self,
        images: Float[Tensor, "n d h w"],
        select: TargetSelector | None = None,
        picture_mask: Bool[Tensor, "n h w"] | None = None,
        region: Bool[Tensor, "n h w"] | None = None,
        extras: Features | None = None,
        competing: Callable[[int], Sequence[int]] = lambda row: (),
    ) -> list[list[Result]]:
        """Explain a batch like a call, but return the error in the place of a map that cannot be made.

        Args:
            images: as in a call.
            select: from an image's row and its scores to its classes; None for the predicted classes.
            picture_mask: for models that score every pixel: True where the input shows the image and not padding.
            region: as in a call.
            extras: as in a call.
            competing: from an image's row to the classes that compete in it, the only ones that can be explained; empty
                for all.
        """
        check_batch(images, self.network)
        if not len(images):
            return []
        check_call(self.setup, select is not None, region)
        return self._explain_or_split(
            Batch(images, select or default_selector(self.setup), picture_mask, region, extras, competing)
        )

    def _explain_or_split(self, batch: Batch) -> list[list[Result]]:
        """Explain a batch, or image by image if images affect each other or one of them fails."""
        setup, several = self.setup, len(batch.images) > 1
        prepared = prepare_for(setup, self.findings, batch.images, batch.extras)
        reason = ""
        if not (setup.one_by_one and several):
            try:
                return self._explain_batch(prepared, batch)
            except PictureError as error:
                # Explaining one by one isolates the image that fails. A group fails as a whole.
                if setup.group or not several:
                    raise
                reason = error.message
        one_by_one = [self._explain_or_split(batch.single(row))[0] for row in range(len(batch.images))]
        if reason and not any(isinstance(one, PictureError) for some in one_by_one for one in some):
            setup.add_note(f"a batch failed and was processed image by image: {reason}")
        return one_by_one

    def _explain_batch(self, prepared: PreparedPlan, batch: Batch) -> list[list[Result]]:
        """Explain a batch of a size that was checked.

        Raises:
            PictureError: one of several images has no map by one of the methods.
        """
        setup, plan, images = self.setup, prepared.plan, batch.images
        with setup.runner.ready(), setup.runner.extra_inputs.providing(batch.extras):
            forward = setup.runner.run(images, batch.picture_mask, batch.region_mask, plan)
            targets = choose_targets(setup, plan, forward.predictions, batch)
            concepts = find_concepts(
                setup, plan, forward, batch.picture_mask, lambda: choose_classes(setup, forward.predictions, batch)
            )
            maps = compute_maps(setup, prepared, images, forward, targets)
            return to_results(setup, prepared, images, forward, targets, maps, concepts)

    def sample_cells(self, images: Float[Tensor, "n d h w"], pictures: int) -> dict[str, Float[Tensor, "n m c"]]:
        """Sample cells of each layer's output for :meth:`fit`; ``pictures`` is the number of images used in all."""
        check_batch(images, self.network)
        plan = prepare_for(self.setup, self.findings, images).plan
        with self.setup.runner.ready():
            signals = make_total_signals(self.setup, plan, self.setup.runner.run(images))
            return {layer: sample_cells(signals.get("act", layer), pictures) for layer in self.layers}

    def fit(self, samples: Iterable[Mapping[str, Float[Tensor, "n m c"]]]) -> None:
        """Fit concepts to cells of several images; they are used for every image explained from now on.

        ``explainer.fit(explainer.sample_cells(batch, 500) for batch in batches)``

        Args:
            samples: the results of :meth:`sample_cells`, batch by batch.
        """
        self.fitted_concepts = fit_concepts(self.bound_methods, samples)

    def rearrange(self, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> int:
        """Deprecated: use :func:`camcli.engine.speed.tune.optimize_weights`."""
        warn_renamed("Explainer.rearrange", "camcli.engine.speed.tune.optimize_weights")
        return tune.optimize_weights(self, image, extras)

    def compile(self, images: Float[Tensor, "n d h w"], least: float = 0.0) -> CompileReport:
        """Deprecated: use :func:`camcli.engine.speed.tune.compile_prefix`."""
        warn_renamed("Explainer.compile", "camcli.engine.speed.tune.compile_prefix")
        return tune.compile_prefix(self, images, least)

    def on(self, device: torch.device, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> Explainer:
        """Deprecated: use :func:`camcli.engine.speed.tune.copy_to`."""
        warn_renamed("Explainer.on", "camcli.engine.speed.tune.copy_to")
        return tune.copy_to(self, device, image, extras)

    def check(self, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> None:
        """Try everything on one image or group: choose the layer, detect its layout, check that gradients reach it.

        Runs automatically at the first batch of each size, on noise. Called earlier, it finds mistakes before the first
        image.

        Args:
            image: noise.
            extras: features of these images, or of more images, of which the first are used.

        Raises:
            RequestError: no map can be made, with the reason.
        """
        prepare(self.setup, self.findings, image, extras)

    def check_channels(self, image: Float[Tensor, "n d h w"]) -> None:
        """Check, after the network has failed on images, that their number of channels is not the reason.

        Raises:
            RequestError: the network takes another number of channels.
        """
        check_input_channels(self.setup, image)

    def locate(self, image: Float[Tensor, "n d h w"], extras: Features | None = None) -> None:
        """Measure where the layers' cells lie in the input, in the network's current precision.

        Runs in :meth:`check` unless it was called before.

        Args:
            image: noise, as for :meth:`check`.
            extras: features, as for :meth:`check`.

        Raises:
            RequestError: the layer cannot be chosen or read.
        """
        locate_layers(self.setup, self.findings, image, extras)

    def describe_target(self, region: bool = False) -> str:
        """Describe in words what is explained."""
        return describe_target(self.setup, region)

    def check_channel(self, index: int) -> None:
        """Check that every layer has a channel of this index.

        Raises:
            RequestError: a layer has not.
        """
        check_channel(self.findings.plan, index)
