"""Everything tried on noise before the first picture."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.engine.checks.attention_use import note_attention, plan_attention, try_attention
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.gradients import check_behind, check_complete, check_gradient
from camcli.engine.checks.images import check_input_channels, feeding
from camcli.engine.checks.layer_choice import choose_layer, choose_tensors, take_default
from camcli.engine.checks.layouts import layout_of, survey_layers
from camcli.engine.checks.order import check_order
from camcli.engine.checks.places import locate_cells
from camcli.engine.checks.rerun import prepare_parts, prepare_rest
from camcli.engine.checks.rules import check_rules
from camcli.engine.checks.scores import check_labels, try_boxes, try_scores, turn_two_sided
from camcli.engine.choose import classes_of, predicted_by
from camcli.engine.forward import ATTENTION, BEHIND, Forward, Plan
from camcli.engine.hooks.input_size import told
from camcli.engine.layers.layout import canonical
from camcli.engine.layers.probe import noise_like
from camcli.engine.layers.refusals import LayerError, no_grad_fn, no_graph
from camcli.engine.maps.augment import Pass, passes, sizes
from camcli.engine.maps.compute import compute_map, evidence_of_total
from camcli.engine.maps.concepts import concepts_of
from camcli.engine.maps.fuse import channel_parts
from camcli.engine.maps.places import Prepared
from camcli.engine.setup import Key, Setup
from camcli.engine.signals.evidence import Trying
from camcli.engine.signals.scored import ScoredForward
from camcli.images.features import Features
from camcli.methods import METHODS
from camcli.targets.readers.classification import GroupPredictions
from camcli.targets.readers.detection import unfiltered


def prepare(
    setup: Setup, findings: Findings, image: Float[Tensor, "n d h w"], extras: Features | None = None
) -> Prepared:
    """Try everything on one image or one group: choose the layer, read its layout, see that gradient reaches it.

    Args:
        setup: what is asked.
        findings: what is known so far; what is found out is added.
        image: noise.
        extras: features of these images, or of others, of which the first count.

    Raises:
        RequestError: no map can be made, with the reason.
    """
    key = setup.key(image)
    if findings.checked != key:
        try:
            try_scores(setup, findings, image, extras)
            with feeding(setup, image, extras):
                _try_layers(setup, findings, image)
                _try_passes(setup, findings, image, key)
        except CamcliError:
            raise
        except Exception:
            check_input_channels(setup, image)
            raise
        findings.checked = key
    return findings.prepared(key)


def prepare_for(setup: Setup, findings: Findings, images: Tensor, extras: Features | None = None) -> Prepared:
    """What was found out on noise like these images; tried now if that is new."""
    key = setup.key(images)
    if findings.checked == key:
        return findings.prepared(key)
    return prepare(setup, findings, noise_like(images, count=key[0]), extras)


def _try_passes(setup: Setup, findings: Findings, image: Tensor, key: Key) -> None:
    """Find the sizes at which the images are explained too."""
    if key not in findings.passes:
        found = [_fit_pass(setup, findings, one, image) for one in passes(setup.scales, setup.flips)]
        # Of factors that come to the same size one is enough.
        findings.passes[key] = list({(one.size, one.flips): one for one in found}.values())
        others = {f"{one.size[0]}x{one.size[1]}" for one in findings.passes[key] if one.size not in (None, key[1:])}
        if others:
            setup.note(f"explained at other input sizes too: {', '.join(sorted(others))}; the maps' mean is given")
    for words in told(setup.module):
        setup.note(words)


def _try_layers(setup: Setup, findings: Findings, image: Tensor) -> None:
    """Try images of a size; a default layer that will not do gives way to the next."""
    while True:
        try:
            return _try_size(setup, findings, image)
        except LayerError:
            if not findings.default or findings.plans:
                raise
            findings.failed += setup.layers
            findings.located.clear()
            take_default(setup, findings, "", image)


def _try_size(setup: Setup, findings: Findings, image: Tensor) -> None:
    """Find the plan for images of a size, if there is none yet."""
    key = setup.key(image)
    if key in findings.plans:
        return
    choose_layer(setup, findings, image)
    plan = Plan()
    with setup.witness.ready(), unfiltered(setup.module):
        forward = _first_forward(setup, findings, image)
        _read_layers(setup, findings, plan, forward, image)
        taps = forward.taps
        # Unless more is kept of a forward that is planned, this one will do for the methods too.
        planned = setup.recompute or setup.wants & (BEHIND | ATTENTION)
        one = None if planned or findings.plans else forward
        del forward
        plan.located = locate_cells(setup, findings, plan.layouts, image, taps)
        if len(image) > 1:
            check_order(setup, plan, image)
        _prepare_reruns(setup, findings, plan, image)
        if any(recipe.of_concepts for recipe in setup.recipes):
            concepts_of(setup, plan, setup.witness.forward(image, plan=plan), [0])
        if plan.tokens is not None:
            try_attention(setup, plan, image)
        if not findings.plans:
            _try_methods(setup, plan, one or setup.witness.forward(image, plan=plan))
    findings.plans[key] = plan
    _note_tokens(setup, plan)


def _first_forward(setup: Setup, findings: Findings, image: Tensor) -> Forward:
    """A forward that is read as the network turns out to be."""
    forward = setup.witness.forward(image)
    if turn_two_sided(setup, forward.reading.classes):
        forward = setup.witness.forward(image)
    check_labels(setup, forward.reading.classes)
    try_boxes(setup, findings, forward.reading, image)
    if choose_tensors(setup, forward.taps, image):
        forward = setup.witness.forward(image)
    if setup.needs_graph and not forward.reading.total().requires_grad and no_graph(survey_layers(setup, image)):
        raise no_grad_fn()
    if isinstance(forward.reading, GroupPredictions):
        findings.shared_by.add(setup.key(image))
    if forward.ruled is not None:
        check_rules(setup, forward.ruled, forward.reading.total(), image)
    return forward


def _read_layers(setup: Setup, findings: Findings, plan: Plan, forward: Forward, image: Tensor) -> None:
    """Find out how what the methods look at lies in memory, and that the score depends on it."""
    for name in setup.layers:
        plan.layouts[name] = layout_of(setup, name, forward.taps, image)
        plan.channels[name] = canonical(forward.taps[name], plan.layouts[name]).shape[1]
    plan.runs = {name: setup.call or forward.taps.calls[name] for name in forward.taps}
    if forward.attending is not None:
        plan_attention(setup, plan, forward.attending, image)
    evidence = evidence_of_total(setup, plan, forward)
    if forward.attending is not None:
        note_attention(setup, plan, forward.attending, evidence)
    check_gradient(setup, findings, evidence, image)
    if "biases" in setup.wants:
        check_complete(setup, evidence)
    if setup.smooth or setup.strongest:
        for recipe in setup.recipes:
            for layer in setup.layers or ("",):
                channel_parts(recipe.row.name, recipe.formulas, evidence, layer)
                _check_strongest(setup, layer, plan)


def _prepare_reruns(setup: Setup, findings: Findings, plan: Plan, image: Tensor) -> None:
    """Find out which parts of the network can run again by themselves, where that is asked for."""
    if setup.recompute:
        note = prepare_parts(setup.witness, plan, image)
        # Of other sizes it is enough to say where nothing can be done.
        if not (plan.parts and findings.plans):
            setup.note(note)
    if setup.wants & BEHIND:
        check_behind(setup, plan, image)
        for name in setup.layers:
            if note := prepare_rest(setup.witness, plan, name, image):
                setup.note(note)


def _fit_pass(setup: Setup, findings: Findings, one: Pass, image: Tensor) -> Pass:
    """A pass with a size that the model takes; raises RequestError if there is none."""
    own = (image.shape[2], image.shape[3])
    first: Exception | None = None
    for size in sizes(own, one.scale):
        try:
            _try_size(setup, findings, noise_like(image, size))
        except Exception as error:  # whatever it is, this size will not do
            first = first or error
        else:
            return replace(one, size=size)
    reason = (str(first).strip() or type(first).__name__).splitlines()[0]
    raise RequestError(
        f"the model does not take its input of {own[0]}x{own[1]} scaled by {one.scale:g}: {reason}",
        "leave --scales out, or choose a model that takes other sizes",
    ) from first


def _check_strongest(setup: Setup, layer: str, plan: Plan) -> None:
    """See that a layer has as many channels as are asked for."""
    if setup.strongest > plan.channels.get(layer, setup.strongest):
        raise RequestError(
            f"the {setup.strongest} strongest channels are asked for, and the layer {layer!r} has "
            f"{plan.channels[layer]}",
            "ask for fewer: --target channels:top:5",
        )


def _note_tokens(setup: Setup, plan: Plan) -> None:
    """Say where another method does better for the same cost."""
    methods = {recipe.row.name for recipe in setup.recipes}
    tokens = any(layout.order == "tokens" for layout in plan.layouts.values())
    if tokens and "gradcam" in methods and "hirescam" not in methods:
        setup.note(
            "of tokens hirescam costs the same as gradcam, with more of its heat on what is asked for, though not "
            "more of its peaks: docs/methods.md"
        )


def _try_methods(setup: Setup, plan: Plan, forward: Forward) -> None:
    """Run the methods on noise, those that ask often a few times: what they refuse must show before a picture.

    Those of other packages, which may count their calls or keep something, are left alone.

    Raises:
        RequestError: one does. What fails in another way may be noise's own affair.
    """
    if setup.of_layer or setup.of_no_class:
        return
    try:
        choose = predicted_by(setup)
        scores = forward.reading.scores(0)
        index = next(iter(classes_of(choose(0, scores))), None)
        if index is None or scores.isnan().any():
            return
        [subject, *_] = forward.reading.subjects(0, index)
    except PictureError:
        return
    evidence = Trying(ScoredForward(setup.witness, plan, forward, [subject], [0]))
    for recipe in setup.recipes:
        for layer in setup.layers if recipe.at_layer else ("",):
            try:
                if not recipe.of_concepts and recipe.row in METHODS.own:
                    compute_map(setup, recipe, evidence, layer)
            except RequestError:
                raise
            except Exception:
                continue
