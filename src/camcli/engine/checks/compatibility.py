"""Checks of a setup that need no forward."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.base.errors import RequestError
from camcli.engine import FUSES
from camcli.engine.checks.transformer_rules import check_methods_for_rules, list_rule_caveats
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.layers.paths import canonicalize_names, resolve
from camcli.engine.maps.method import bind_methods
from camcli.engine.needs import NEEDS_ATTENTION, NEEDS_BLOCKS, NEEDS_COSINES, RERUNS_FROM_LAYER, RESCORES
from camcli.engine.setup import NEEDS_GRAPH, Setup
from camcli.engine.volumes import find_slices
from camcli.methods import METHODS
from camcli.targets.readers.detection import CANNOT_RESCORE_BOXES

# Methods that give each channel one weight, from the gradients of all its cells.
ONE_WEIGHT_PER_CHANNEL = frozenset({"gradcam", "gradcam++", "xgradcam", "shapleycam"})
# Methods that keep the place of a box, cell by cell, at every level of the pyramid that it is read from.
CELL_BY_CELL = frozenset({"odam", "hirescam", "layercam"})
# Signals of methods that treat all positions alike, whatever the arrangement of these.
ALIKE_EVERYWHERE = frozenset(
    {
        *("act", "grad", "hvp", "grad_of", "act_and_grad", "images", "input_grad", "score_and_grad"),
        *("score", "logits", "index", "channel"),
    }
)
# What methods ask for that need no more of changed images than how similar the boxes found there are (D-RISE).
ASKS_FOR_SIMILARITY = frozenset({"images", "score_of"})
# Signals that another library than PyTorch does not give.
SEES_OPERATIONS = NEEDS_GRAPH | NEEDS_ATTENTION
# Signals that need to see every operation of a network, with the reason.
_NEEDS_ALL_OPERATIONS = {
    NEEDS_ATTENTION: "follows attention through every operation",
    frozenset({"score_from_layer"}): "reruns only the part of the network after a layer",
    frozenset({"biases"}): "needs the bias of every operation",
}


def check_setup(setup: Setup, layers: Sequence[str]) -> tuple[str, ...]:
    """Check that all settings go together; return the full names of the layers.

    Raises:
        RequestError: some do not, or there is no such layer.
    """
    check_arguments(setup, layers)
    check_not_opaque(setup)
    named = resolve(setup.module, layers, setup.network.wrapped_module if setup.network else None)
    names = tuple(canonicalize_names(setup.module, named))
    check_layers_not_opaque(setup, names)
    check_combination(setup, names)
    _check_volumes(setup)
    return names


def _check_volumes(setup: Setup) -> None:
    """Check that methods, and what is around them, treat all positions alike, if the network takes volumes.

    Raises:
        RequestError: they resample maps or images in the plane, where slices stand one above the other.
    """
    if not find_slices(setup.module):
        return
    for method in setup.bound_methods:
        if method.signal_names - ALIKE_EVERYWHERE or (method.has_rule and method.uses_layer):
            raise RequestError(
                f"{method.row.name} works in the image plane or with tokens, and this network takes volumes",
                "choose a method that treats all positions alike, such as gradcam, hirescam, layercam, eigencam, "
                "saliency or integrated-gradients",
            )
    around = {"--scales": setup.scales != (1.0,), "--augment": bool(setup.flips), "--fuse": setup.fuse != "none"}
    around |= {"--group": setup.group, "--layout": bool(setup.layout)}
    if asked := next((words for words, is_asked in around.items() if is_asked), ""):
        raise RequestError(f"{asked} is of images, and this network takes volumes", f"leave {asked} out")
    if setup.output_spec.task != "classify":
        raise RequestError(
            f"the network takes volumes, and its output is one to {setup.output_spec.task}",
            "networks of volumes are explained by scores of classes: --output names another part of what it returns",
        )


def list_caveats(setup: Setup) -> list[str]:
    """List remarks on the methods that hold for all maps, whatever the network's output."""
    rows = [method.row for method in setup.bound_methods]
    notes = [row.caveat if len(rows) == 1 else f"{row.name}: {row.caveat}" for row in rows if row.caveat]
    if forgotten := describe_lost_box_places(setup):
        notes.append(forgotten)
    notes += list_rule_caveats(setup)
    if similar := compares_boxes(setup):
        notes.append(
            f"of boxes {' and '.join(similar)} is D-RISE: what is explained is the greatest similarity (overlap times "
            "the cosine of the class probabilities, times the objectness) of any box found in a changed image"
        )
    if unnamed := setup.why_concepts_unnamed:
        notes.append(f"concepts are not labelled with classes: {unnamed}")
    return list(dict.fromkeys(notes))


def check_arguments(setup: Setup, layers: Sequence[str]) -> None:
    """Check that the layers, their layout and their call mean something to the methods.

    Raises:
        RequestError: they do not.
    """
    if layers and not setup.uses_layer:
        named = " and ".join(repr(method.row.name) for method in setup.bound_methods)
        of_tokens = any(method.signal_names & NEEDS_ATTENTION for method in setup.bound_methods)
        place = "with all attention of a network" if of_tokens else "at the input"
        raise RequestError(
            f"the method {named} works {place}, and takes no layer ({', '.join(layers)})",
            "leave the layer out, or choose another method",
        )
    if (setup.layout or setup.call) and not layers:
        given = f"the layout {setup.layout}" if setup.layout else f"call {setup.call}"
        raise RequestError(
            f"{given} was given without a layer",
            "name the layer: --layer PATH",
        )


def check_not_opaque(setup: Setup) -> None:
    """Refuse methods that need to see every operation if compiled or scripted code hides some.

    Raises:
        RequestError: a method needs that, and code is hidden.
    """
    closed = find_opaque_modules(setup.module)
    for method in setup.bound_methods:
        needs = next((why for names, why in _NEEDS_ALL_OPERATIONS.items() if method.signal_names & names), "")
        needs = "changes how gradients pass each ReLU" if method.has_rule else needs
        needs = needs or f"with --backward {setup.backward} needs every operation" * (setup.backward != "plain")
        if closed and needs:
            raise RequestError(
                f"{method.row.name} {needs}, and {closed[0].description}, which hides its operations",
                f"{closed[0].remedy}, or choose a method that needs only a layer, such as gradcam",
            )
    if setup.uses_layer and closed and not closed[0].name:
        hint = f"{closed[0].remedy}; or choose a method that needs no layer, such as saliency or rise"
        raise RequestError(f"no layer can be hooked: {closed[0].description}", hint)


def explains_pyramid(setup: Setup) -> bool:
    """Return whether boxes are explained in a way that keeps their place, at every level of the pyramid."""
    named = {method.row.name for method in setup.bound_methods}
    return (
        setup.output_spec.task == "detect"
        and named <= CELL_BY_CELL
        and not setup.eigen_smooth
        and not setup.top_channels
    )


def compares_boxes(setup: Setup) -> list[str]:
    """List the methods that compare the boxes found in changed images with the one that is explained: D-RISE."""
    if setup.output_spec.task != "detect":
        return []
    return [one.row.name for one in setup.bound_methods if one.signal_names == ASKS_FOR_SIMILARITY]


def describe_lost_box_places(setup: Setup) -> str:
    """Describe in words that a method forgets where a box is; empty if none does."""
    if setup.output_spec.task != "detect":
        return ""
    formulas = {one.row.name for method in setup.bound_methods for one in method.formulas} & ONE_WEIGHT_PER_CHANNEL
    if not formulas:
        return ""
    return (
        f"{' and '.join(sorted(formulas))} gives each channel a single weight, so maps of boxes of the same class "
        "look alike; odam, the default, keeps their positions"
    )


def check_single_tensors(setup: Setup, layers: Sequence[str]) -> None:
    """Refuse methods that change a layer's output if the layer is one of several tensors that a module returns.

    Raises:
        RequestError: such a method is used at such a layer.
    """
    module_names = {name for name, _ in setup.module.named_modules()}
    named = next((name for name in layers if name not in module_names), "")
    changing = [
        method.row.name
        for method in setup.bound_methods
        if method.signal_names & (RERUNS_FROM_LAYER | {"act_and_grad"})
    ]
    if named and changing:
        raise RequestError(
            f"{' and '.join(changing)} changes a layer's output, and {named!r} is one of several tensors that a "
            "module returns",
            "name the inner module that computes it, or choose another method, such as hirescam",
        )


def check_layers_not_opaque(setup: Setup, layers: Sequence[str]) -> None:
    """Check that no compiled or scripted code hides these layers, by their full names.

    Raises:
        RequestError: some does.
    """
    for name in layers:
        for closed in find_opaque_modules(setup.module):
            if closed.hides(name):
                raise RequestError(
                    f"the layer {name!r} cannot be hooked: {closed.description}",
                    f"{closed.remedy}, or choose a layer outside",
                )


def check_combination(setup: Setup, layers: Sequence[str]) -> None:
    """Refuse settings that do not go together; ``layers`` are full names, empty for the default layer.

    Raises:
        RequestError: some settings do not go together.
    """
    _check_gradients(setup)
    _check_rescoring(setup)
    _check_scores(setup)
    _check_top_channels(setup)
    _check_concepts(setup)
    _check_channels(setup)
    check_single_tensors(setup, layers)
    _check_fuse(setup, layers)
    check_methods_for_rules(setup)


def check_fusion(setup: Setup, layers: Sequence[str]) -> None:
    """Check that there are several layers to fuse, once the layers are known.

    Raises:
        RequestError: maps of several layers are to be fused, but there is only one.
    """
    if setup.fuse != "none" and len(layers) < 2:
        raise RequestError(
            f"maps of several layers are fused, but there is one: {layers[0]}",
            "name several: --layer layer3 --layer layer4",
        )


def _check_gradients(setup: Setup) -> None:
    """Refuse methods that need gradients or attention if another library computes the network."""
    reason = setup.network.without_gradient if setup.network else ""
    needing = [one.row.name for one in setup.bound_methods if one.has_rule or one.signal_names & SEES_OPERATIONS]
    if reason and (setup.top_channels or setup.backward != "plain"):
        needing.append(f"--backward {setup.backward}" if setup.backward != "plain" else "--target channels:top:N")
    if reason and needing:
        able = [row.name for row in METHODS.builtin_rows if _needs_outputs_alone(row.name)]
        raise RequestError(
            f"{' and '.join(needing)} needs gradients or attention, and {reason}",
            f"methods that work: {', '.join(able)}",
        )


def _needs_outputs_alone(name: str) -> bool:
    [method] = bind_methods(name)
    return not (method.has_rule or method.signal_names & (SEES_OPERATIONS | NEEDS_COSINES))


def _check_rescoring(setup: Setup) -> None:
    signal_names = setup.signal_names
    if by_similarity := compares_boxes(setup):
        if not setup.output_spec.score.is_plain_logit:
            raise RequestError(
                f"{' and '.join(by_similarity)} explains how similar the boxes found are, which is no score of a class",
                "leave --score, --versus and --counterfactual out",
            )
        others = (method for method in setup.bound_methods if method.row.name not in by_similarity)
        signal_names = frozenset(name for method in others for name in method.signal_names)
    rescores = signal_names & (RESCORES | NEEDS_BLOCKS | {"logits", "grad_of"}) or setup.scales != (1.0,) or setup.flips
    if rescores and setup.output_spec.task == "detect":
        raise RequestError(*CANNOT_RESCORE_BOXES)
    if setup.group and setup.output_spec.task == "detect":
        raise RequestError("a detector takes each image separately, so --group cannot be used", "leave --group out")
    if setup.group and (parts := [one.row.name for one in setup.bound_methods if one.signal_names & NEEDS_BLOCKS]):
        raise RequestError(
            f"{' and '.join(parts)} reruns parts of the network on other batches, and a group's score needs exactly "
            "its images",
            "choose a method with a single forward pass, such as gradcam or gae, or leave --group out",
        )
    if setup.group and (
        rescoring := [one.row.name for one in setup.bound_methods if one.signal_names & (RESCORES | RERUNS_FROM_LAYER)]
    ):
        raise RequestError(
            f"{' and '.join(rescoring)} scores many changed images at a time, and a group's score needs exactly its "
            "images",
            "choose a method with a single forward pass, such as gradcam or hirescam, or leave --group out",
        )


def _check_scores(setup: Setup) -> None:
    signal_names = setup.signal_names
    if signal_names & NEEDS_COSINES and (setup.network is None or setup.network.cosine is None):
        named = " and ".join(method.row.name for method in setup.bound_methods if method.signal_names & NEEDS_COSINES)
        raise RequestError(
            f"{named} compares an image with prompts, and this network has none",
            "use it with a CLIP model and prompts (--text), or choose another method, such as legrad or maskclip",
        )
    if not setup.output_spec.score.is_plain_logit and (own := signal_names & ({"logits", "grad_of"} | NEEDS_COSINES)):
        named = " and ".join(method.row.name for method in setup.bound_methods if own & method.signal_names)
        raise RequestError(
            f"{named} builds its own score from those of all classes, so it supports --score logit only",
            "leave --score, --versus and --counterfactual out, or choose another method, such as gradcam",
        )


def _check_top_channels(setup: Setup) -> None:
    if setup.top_channels and (setup.fuse != "none" or setup.eigen_smooth):
        raise RequestError(
            "the strongest channels are shown separately, so they cannot be fused or smoothed",
            "leave --fuse and --eigen-smooth out, or name a class as the target",
        )


def _check_channels(setup: Setup) -> None:
    shown = [method.row.name for method in setup.bound_methods if method.explains_channel]
    of_classes = setup.network and not setup.network.headless and not setup.top_channels
    if of_classes and 0 < len(shown) < len(setup.bound_methods):
        raise RequestError(
            f"{shown[0]} shows a channel of the layer, and the other methods explain a class",
            "run them separately; or explain features: --head none --target channel:12",
        )


def _check_fuse(setup: Setup, layers: Sequence[str]) -> None:
    if setup.fuse not in FUSES:
        raise RequestError(f"fuse cannot be {setup.fuse!r}", f"there are: {', '.join(FUSES)}")
    if setup.fuse != "none" and not setup.uses_layer:
        raise RequestError("the maps of several layers can be fused, but the method works at the input")
    if layers:
        check_fusion(setup, layers)
    for method in setup.bound_methods:
        if setup.fuse == "paper" and method.uses_layer and method.fusion is None:
            able = ", ".join(one.row.name for one in setup.bound_methods if one.row.fuse) or "none of those named"
            raise RequestError(
                f"the paper of {method.row.name} does not define how maps of several layers are fused (methods whose "
                f"paper does: {able})",
                "choose --fuse mean, max or product",
            )
        if setup.fuse != "none" and method.has_rule and method.uses_layer:
            raise RequestError(
                f"the maps of {method.row.name} are signed and have colours at the input, so they cannot be fused",
                "leave --fuse out, or choose a method that works only at a layer",
            )


def _check_concepts(setup: Setup) -> None:
    """Check settings that do not go together with methods that find concepts."""
    named = next((method.row.name for method in setup.bound_methods if method.finds_concepts), "")
    around = {
        "--scales": setup.scales != (1.0,),
        "--augment": bool(setup.flips),
        "--fuse": setup.fuse != "none",
        "--eigen-smooth": setup.eigen_smooth,
        "--target channels:top:N": bool(setup.top_channels),
        "--score, --versus or --counterfactual": setup.finds_concepts and not setup.output_spec.score.is_plain_logit,
    }
    if asked := [words for words, is_asked in around.items() if named and is_asked]:
        raise RequestError(
            f"{named} finds concepts in the activations of the unchanged image and explains no class, so it cannot be "
            f"combined with {asked[0]}",
            f"leave {asked[0]} out, or choose another method",
        )
