"""Dry run: try everything on noise before the first image."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.engine.checks.attention_use import note_attention, plan_attention, try_attention
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.gradients import check_completeness, check_gradient, check_score_depends
from camcli.engine.checks.images import check_input_channels, providing_extras
from camcli.engine.checks.layer_choice import choose_layer, choose_tensors, take_default_layer
from camcli.engine.checks.layouts import probe_network, read_layout
from camcli.engine.checks.order import check_order
from camcli.engine.checks.places import locate_cells
from camcli.engine.checks.rerun import prepare_checkpointing, prepare_replay
from camcli.engine.checks.rules import check_rules
from camcli.engine.checks.scores import check_box_scores, check_labels, read_as_two_sided, try_boxes, try_scores
from camcli.engine.checks.transformer_rules import check_transformer_rules
from camcli.engine.choose import default_selector, parse_classes
from camcli.engine.forward import Forward, Plan
from camcli.engine.hooks.input_size import notes
from camcli.engine.layers.layout import to_nchw
from camcli.engine.layers.probe import noise_like
from camcli.engine.layers.refusals import LayerError, lacks_graph, no_grad_fn_error
from camcli.engine.maps.augment import Augmentation, list_sizes, make_augmentations
from camcli.engine.maps.compute import compute_map, make_total_signals
from camcli.engine.maps.concepts import find_concepts_in_rows
from camcli.engine.maps.fuse import split_by_channel
from camcli.engine.maps.places import PreparedPlan
from camcli.engine.needs import NEEDS_ATTENTION, RERUNS_FROM_LAYER
from camcli.engine.setup import Setup, SizeKey
from camcli.engine.signals.lookup import TrialSignals
from camcli.engine.signals.scored import ScoredForward
from camcli.images.features import Features
from camcli.methods import METHODS
from camcli.targets.readers.classification import GroupPredictions
from camcli.targets.readers.torchvision_boxes import unfiltered


def prepare(
    setup: Setup, findings: Findings, image: Float[Tensor, "n d h w"], extras: Features | None = None
) -> PreparedPlan:
    """Try everything on one image or group: choose the layer, detect its layout, check that gradients reach it.

    Args:
        setup: settings of the explainer.
        findings: facts known so far; new ones are added.
        image: noise.
        extras: features of these images, or of more images, of which the first are used.

    Raises:
        RequestError: no map can be made, with the reason.
    """
    key = setup.size_key(image)
    if findings.last_key != key:
        try:
            try_scores(setup, findings, image, extras)
            with providing_extras(setup, image, extras):
                _try_layers(setup, findings, image)
                _try_augmentations(setup, findings, image, key)
        except CamcliError:
            raise
        except Exception:
            check_input_channels(setup, image)
            raise
        findings.last_key = key
    return findings.for_size(key)


def prepare_for(setup: Setup, findings: Findings, images: Tensor, extras: Features | None = None) -> PreparedPlan:
    """Return the facts about images of this size, running the checks on noise if the size is new."""
    key = setup.size_key(images)
    if findings.last_key == key:
        return findings.for_size(key)
    return prepare(setup, findings, noise_like(images, count=key[0]), extras)


def _try_augmentations(setup: Setup, findings: Findings, image: Tensor, key: SizeKey) -> None:
    """Find the sizes of the augmentations."""
    if key not in findings.augmentations:
        found = [
            _fit_augmentation(setup, findings, one, image) for one in make_augmentations(setup.scales, setup.flips)
        ]
        # Scales that round to the same size are merged.
        findings.augmentations[key] = list({(one.size, one.flips): one for one in found}.values())
        others = {
            f"{one.size[0]}x{one.size[1]}" for one in findings.augmentations[key] if one.size not in (None, key[1:])
        }
        if others:
            setup.add_note(f"maps are averaged over further input sizes: {', '.join(sorted(others))}")
    for words in notes(setup.module):
        setup.add_note(words)


def _try_layers(setup: Setup, findings: Findings, image: Tensor) -> None:
    """Try images of a size, with the next default layer if one does not work."""
    while True:
        try:
            return _try_size(setup, findings, image)
        except LayerError:
            if not findings.takes_default_layer or findings.plans:
                raise
            findings.failed_layers += setup.layers
            findings.locations.clear()
            take_default_layer(setup, findings, "", image)


def _try_size(setup: Setup, findings: Findings, image: Tensor) -> None:
    """Find the plan for images of a size, unless there is one."""
    key = setup.size_key(image)
    if key in findings.plans:
        return
    choose_layer(setup, findings, image)
    plan = Plan()
    with setup.runner.ready(), unfiltered(setup.module):
        forward = _run_first_forward(setup, findings, image)
        _read_layers(setup, findings, plan, forward, image)
        activations = forward.activations
        # The methods can reuse this forward, unless one with a plan captures more.
        planned = setup.recompute or setup.signal_names & (RERUNS_FROM_LAYER | NEEDS_ATTENTION)
        reusable = None if planned or findings.plans else forward
        del forward
        plan.locations = locate_cells(setup, findings, plan.layouts, image, activations)
        if len(image) > 1:
            check_order(setup, plan, image)
        _prepare_reruns(setup, findings, plan, image)
        if any(method.finds_concepts for method in setup.bound_methods):
            find_concepts_in_rows(setup, plan, setup.runner.run(image, plan=plan), [0])
        if plan.token_layout is not None:
            try_attention(setup, plan, image)
        if not findings.plans:
            _try_methods(setup, plan, reusable or setup.runner.run(image, plan=plan))
    findings.plans[key] = plan
    _note_better_method(setup, plan)


def _run_first_forward(setup: Setup, findings: Findings, image: Tensor) -> Forward:
    """Run a forward, and again if the first one shows that the output or a layer must be read in another way."""
    if rules := setup.runner.transformer_rules:
        rules.counts.clear()
    forward = setup.runner.run(image)
    if read_as_two_sided(setup, forward.predictions.classes):
        forward = setup.runner.run(image)
    check_labels(setup, forward.predictions.classes)
    check_box_scores(setup, forward.predictions)
    try_boxes(setup, findings, forward.predictions, image)
    if choose_tensors(setup, forward.activations, image):
        forward = setup.runner.run(image)
    if (
        setup.needs_graph
        and not forward.predictions.sum_scores().requires_grad
        and lacks_graph(probe_network(setup, image))
    ):
        raise no_grad_fn_error()
    if isinstance(forward.predictions, GroupPredictions):
        findings.sharing_keys.add(setup.size_key(image))
    if forward.backward_rules is not None:
        check_rules(setup, forward.backward_rules, forward.predictions.sum_scores(), image)
    check_transformer_rules(setup, forward.predictions.sum_scores())
    return forward


def _read_layers(setup: Setup, findings: Findings, plan: Plan, forward: Forward, image: Tensor) -> None:
    """Detect the layout of the layers and of attention, and check that the score depends on them."""
    for name in setup.layers:
        plan.layouts[name] = read_layout(setup, name, forward.activations, image)
        plan.channel_counts[name] = to_nchw(forward.activations[name], plan.layouts[name]).shape[1]
    plan.calls = {name: setup.call or forward.activations.calls[name] for name in forward.activations}
    if forward.attention_capture is not None:
        plan_attention(setup, plan, forward.attention_capture, image)
    signals = make_total_signals(setup, plan, forward)
    if forward.attention_capture is not None:
        note_attention(setup, plan, forward.attention_capture, signals)
    check_gradient(setup, findings, signals, image)
    if "biases" in setup.signal_names:
        check_completeness(setup, signals)
    if setup.eigen_smooth or setup.top_channels:
        for method in setup.bound_methods:
            for layer in setup.layers or ("",):
                split_by_channel(method.row.name, method.formulas, signals, layer)
                _check_top_channels(setup, layer, plan)


def _prepare_reruns(setup: Setup, findings: Findings, plan: Plan, image: Tensor) -> None:
    """Find the parts of the network that can be rerun alone, if the setup needs reruns."""
    if setup.recompute:
        note = prepare_checkpointing(setup.runner, plan, image)
        # For further sizes only a failure is worth a note.
        if not (plan.checkpointed_modules and findings.plans):
            setup.add_note(note)
    if setup.signal_names & RERUNS_FROM_LAYER:
        check_score_depends(setup, plan, image)
        for name in setup.layers:
            if note := prepare_replay(setup.runner, plan, name, image):
                setup.add_note(note)


def _fit_augmentation(setup: Setup, findings: Findings, augmentation: Augmentation, image: Tensor) -> Augmentation:
    """Return an augmentation with a size that the model takes; raises RequestError if there is none."""
    own = (image.shape[2], image.shape[3])
    first: Exception | None = None
    for size in list_sizes(own, augmentation.scale):
        try:
            _try_size(setup, findings, noise_like(image, size))
        except Exception as error:  # any error means that this size does not work
            first = first or error
        else:
            return replace(augmentation, size=size)
    reason = (str(first).strip() or type(first).__name__).splitlines()[0]
    raise RequestError(
        f"the model does not accept its input of {own[0]}x{own[1]} scaled by {augmentation.scale:g}: {reason}",
        "leave --scales out, or choose a model that accepts other input sizes",
    ) from first


def _check_top_channels(setup: Setup, layer: str, plan: Plan) -> None:
    """Check that a layer has the requested number of channels."""
    if setup.top_channels > plan.channel_counts.get(layer, setup.top_channels):
        raise RequestError(
            f"the {setup.top_channels} strongest channels are requested, and the layer {layer!r} has "
            f"{plan.channel_counts[layer]}",
            "request fewer: --target channels:top:5",
        )


def _note_better_method(setup: Setup, plan: Plan) -> None:
    """Add a note if another method does better for the same cost."""
    methods = {method.row.name for method in setup.bound_methods}
    tokens = any(layout.order == "tokens" for layout in plan.layouts.values())
    if tokens and "gradcam" in methods and "hirescam" not in methods:
        setup.add_note(
            "for tokens, hirescam costs the same as gradcam and puts more of its heat on the target, though not more "
            "of its peaks: docs/methods.md"
        )


def _try_methods(setup: Setup, plan: Plan, forward: Forward) -> None:
    """Run the methods on noise, with a few queries at most, so that their errors show before the first image.

    Methods of other packages, which may count their calls or keep state, are left out.

    Raises:
        RequestError: a method raises it. Other errors may be due to the noise, and are ignored.
    """
    if setup.explains_channels or setup.finds_concepts:
        return
    try:
        select = default_selector(setup)
        scores = forward.predictions.scores(0)
        index = next(iter(parse_classes(select(0, scores))), None)
        if index is None or scores.isnan().any():
            return
        [target, *_] = forward.predictions.find_targets(0, index)
    except PictureError:
        return
    signals = TrialSignals(ScoredForward(setup.runner, plan, forward, [target], [0]))
    for method in setup.bound_methods:
        for layer in setup.layers if method.uses_layer else ("",):
            try:
                if not method.finds_concepts and method.row in METHODS.builtin_rows:
                    compute_map(setup, method, signals, layer)
            except RequestError:
                raise
            except Exception:
                continue
