"""What does not go together: all that is known before the network has run."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.base.errors import RequestError
from camcli.engine import FUSES
from camcli.engine.forward import AGAIN, ATTENTION, BEHIND, BLOCKS, COSINES
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.layers.paths import first_names, resolve
from camcli.engine.setup import Setup
from camcli.targets.readers.detection import NO_BOX_AGAIN

# Methods that give each channel one weight: what all its cells' gradients come to.
ONE_WEIGHT = frozenset({"gradcam", "gradcam++", "xgradcam", "shapleycam"})
# Evidence that is found by seeing every operation of a network, and why.
_SEES_ALL = {
    ATTENTION: "follows attention through every operation",
    frozenset({"rest"}): "runs the part of the network behind a layer alone",
    frozenset({"biases"}): "needs the bias of every operation",
}


def check_setup(setup: Setup, layers: Sequence[str]) -> tuple[str, ...]:
    """See that all that is asked for goes together; gives the full names of the layers.

    Raises:
        RequestError: something does not, or there is no such layer.
    """
    check_meant(setup, layers)
    check_open(setup)
    named = resolve(setup.module, layers, setup.network.wrapped if setup.network else None)
    names = tuple(first_names(setup.module, named))
    check_layers_open(setup, names)
    check_together(setup, names)
    return names


def words_of(setup: Setup) -> list[str]:
    """What a reader of all maps must know of the methods asked for, whatever the network says."""
    rows = [recipe.row for recipe in setup.recipes]
    notes = [row.caveat if len(rows) == 1 else f"{row.name}: {row.caveat}" for row in rows if row.caveat]
    if forgotten := forgotten_places(setup):
        notes.append(forgotten)
    if unnamed := setup.unnamed:
        notes.append(f"no classes are named that a concept speaks for: {unnamed}")
    return list(dict.fromkeys(notes))


def check_meant(setup: Setup, layers: Sequence[str]) -> None:
    """See that layers, and what is said of them, mean something to the methods.

    Raises:
        RequestError: they do not.
    """
    if layers and not setup.at_layer:
        named = " and ".join(repr(recipe.row.name) for recipe in setup.recipes)
        of_tokens = any(recipe.wants & ATTENTION for recipe in setup.recipes)
        place = "with all attention of a network" if of_tokens else "at the input"
        raise RequestError(
            f"the method {named} works {place}, so a layer ({', '.join(layers)}) means nothing to it",
            "name no layer, or choose another method",
        )
    if (setup.layout or setup.call) and not layers:
        given = f"the layout {setup.layout}" if setup.layout else f"call {setup.call}"
        raise RequestError(
            f"{given} was given without the layer it is meant for",
            "name the layer: --layer PATH",
        )


def check_open(setup: Setup) -> None:
    """Refuse what has to see every operation of a network where some are hidden in compiled or scripted code.

    Raises:
        RequestError: that is so.
    """
    closed = closed_parts(setup.module)
    for recipe in setup.recipes:
        needs = next((why for names, why in _SEES_ALL.items() if recipe.wants & names), "")
        needs = "changes how gradients pass each ReLU" if recipe.ruled else needs
        if closed and needs:
            raise RequestError(
                f"{recipe.row.name} {needs}, and {closed[0].words}, which hides what happens inside",
                f"{closed[0].remedy}, or choose a method that needs no more than a layer, such as gradcam",
            )
    if setup.at_layer and closed and not closed[0].name:
        raise RequestError(f"no layer can be looked at: {closed[0].words}", closed[0].remedy)


def levelled(setup: Setup) -> bool:
    """Whether boxes are explained in the way that keeps their place: HiResCAM at every level of the pyramid."""
    named = [recipe.row.name for recipe in setup.recipes]
    return setup.outlet.task == "detect" and named == ["hirescam"] and not setup.smooth and not setup.strongest


def forgotten_places(setup: Setup) -> str:
    """What is to be said where a method forgets where a box is; empty where none does."""
    if setup.outlet.task != "detect":
        return ""
    formulas = {one.row.name for recipe in setup.recipes for one in recipe.formulas} & ONE_WEIGHT
    if not formulas:
        return ""
    return (
        f"{' and '.join(sorted(formulas))} gives each channel one weight, which forgets where a box is, so maps of "
        "boxes of one class look alike; hirescam, the default, keeps the place"
    )


def check_tensors(setup: Setup, layers: Sequence[str]) -> None:
    """Refuse methods that change what a layer says where it is one of several tensors that a module gives.

    Raises:
        RequestError: such a method is asked for at such a layer.
    """
    module_names = {name for name, _ in setup.module.named_modules()}
    named = next((name for name in layers if name not in module_names), "")
    changing = [recipe.row.name for recipe in setup.recipes if recipe.wants & (BEHIND | {"responses"})]
    if named and changing:
        raise RequestError(
            f"{' and '.join(changing)} changes a layer's output, and {named!r} is one of several tensors that a "
            "module gives",
            "name the module inside that makes it, or choose another method, such as hirescam",
        )


def check_layers_open(setup: Setup, layers: Sequence[str]) -> None:
    """See that nothing hides these layers, by their full names.

    Raises:
        RequestError: something does.
    """
    for name in layers:
        for closed in closed_parts(setup.module):
            if closed.hides(name):
                raise RequestError(
                    f"the layer {name!r} cannot be looked at: {closed.words}",
                    f"{closed.remedy}, or choose a layer outside",
                )


def check_together(setup: Setup, layers: Sequence[str]) -> None:
    """Refuse what does not go together; of ``layers`` their full names, none where one will be chosen.

    Raises:
        RequestError: something does not.
    """
    _check_asking_again(setup)
    _check_scores(setup)
    _check_strongest(setup)
    _check_concepts_alone(setup)
    _check_channels(setup)
    check_tensors(setup, layers)
    _check_fuse(setup, layers)


def check_fused(setup: Setup, layers: Sequence[str]) -> None:
    """See that there is something to fuse, once the layers are known.

    Raises:
        RequestError: there is one layer, and maps of several are to be fused.
    """
    if setup.fuse != "none" and len(layers) < 2:
        raise RequestError(
            f"maps of several layers are fused, but there is one: {layers[0]}",
            "name several: --layer layer3 --layer layer4",
        )


def _check_asking_again(setup: Setup) -> None:
    wants = setup.wants
    again = wants & (AGAIN | BLOCKS | {"logits", "grad_of"}) or setup.scales != (1.0,) or setup.flips
    if again and setup.outlet.task == "detect":
        raise RequestError(*NO_BOX_AGAIN)
    if setup.group and setup.outlet.task == "detect":
        raise RequestError(
            "a detector looks at each picture by itself, so a group means nothing to it", "leave --group out"
        )
    if setup.group and (parts := [one.row.name for one in setup.recipes if one.wants & BLOCKS]):
        raise RequestError(
            f"{' and '.join(parts)} runs parts of the network again by themselves, and a group's score is of "
            "exactly its pictures together",
            "choose a method that needs one forward, such as gradcam or gae, or leave --group out",
        )
    if setup.group and (asking := [one.row.name for one in setup.recipes if one.wants & (AGAIN | BEHIND)]):
        raise RequestError(
            f"{' and '.join(asking)} asks for the score of changed pictures, many at a time, and a group's score "
            "is of exactly its pictures together",
            "choose a method that needs one forward, such as gradcam or hirescam, or leave --group out",
        )


def _check_scores(setup: Setup) -> None:
    wants = setup.wants
    if wants & COSINES and (setup.network is None or setup.network.cosine is None):
        named = " and ".join(recipe.row.name for recipe in setup.recipes if recipe.wants & COSINES)
        raise RequestError(
            f"{named} compares a picture with prompts, and this network has none",
            "choose it for a CLIP model with prompts (--text), or another method, such as legrad or maskclip",
        )
    if not setup.outlet.score.plain and (own := wants & ({"logits", "grad_of"} | COSINES)):
        named = " and ".join(recipe.row.name for recipe in setup.recipes if own & recipe.wants)
        raise RequestError(
            f"{named} makes what it explains of all classes' scores itself, so it goes with --score logit alone",
            "leave --score, --versus and --counterfactual out, or choose another method, such as gradcam",
        )
    if setup.outlet.task == "detect" and setup.outlet.score.name != "logit":
        raise RequestError(
            f"a box has one score, which is a probability already: there is no {setup.outlet.score.name} of it",
            "leave --score out",
        )


def _check_strongest(setup: Setup) -> None:
    if setup.strongest and (setup.fuse != "none" or setup.smooth):
        raise RequestError(
            "the strongest channels are shown each by itself, neither fused nor smoothed",
            "leave --fuse and --eigen-smooth out, or name a class as the target",
        )


def _check_channels(setup: Setup) -> None:
    shown = [recipe.row.name for recipe in setup.recipes if recipe.of_channel]
    of_classes = setup.network and not setup.network.headless and not setup.strongest
    if of_classes and 0 < len(shown) < len(setup.recipes):
        raise RequestError(
            f"{shown[0]} shows a channel of the layer, and the other methods explain a class",
            "ask for them one after the other; or for features: --head none --target channel:12",
        )


def _check_fuse(setup: Setup, layers: Sequence[str]) -> None:
    if setup.fuse not in FUSES:
        raise RequestError(f"fuse cannot be {setup.fuse!r}", f"there are: {', '.join(FUSES)}")
    if setup.fuse != "none" and not setup.at_layer:
        raise RequestError("the maps of several layers can be fused, but the method works at the input")
    if layers:
        check_fused(setup, layers)
    for recipe in setup.recipes:
        if setup.fuse == "paper" and recipe.at_layer and recipe.fusion is None:
            able = ", ".join(one.row.name for one in setup.recipes if one.row.fuse) or "none of those asked for"
            raise RequestError(
                f"the paper of {recipe.row.name} does not say how maps of several layers are fused (it does of: "
                f"{able})",
                "choose --fuse mean, max or product",
            )
        if setup.fuse != "none" and recipe.ruled and recipe.at_layer:
            raise RequestError(
                f"the maps of {recipe.row.name} are signed, for each colour at the input, and are not fused",
                "leave --fuse out, or choose a method that works at a layer alone",
            )


def _check_concepts_alone(setup: Setup) -> None:
    """What does not go together with methods that find concepts."""
    named = next((recipe.row.name for recipe in setup.recipes if recipe.of_concepts), "")
    around = {
        "--scales": setup.scales != (1.0,),
        "--augment": bool(setup.flips),
        "--fuse": setup.fuse != "none",
        "--eigen-smooth": setup.smooth,
        "--target channels:top:N": bool(setup.strongest),
        "--score, --versus or --counterfactual": setup.of_no_class and not setup.outlet.score.plain,
    }
    if asked := [words for words, is_asked in around.items() if named and is_asked]:
        raise RequestError(
            f"{named} finds concepts in a layer's activations of the unchanged image, and explains no class, so "
            f"{asked[0]} means nothing to it",
            f"leave {asked[0]} out, or choose another method",
        )
