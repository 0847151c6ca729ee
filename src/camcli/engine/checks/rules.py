"""Rules of the way back: where they hold, and that they have something to hold at."""

from __future__ import annotations

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.checks.layouts import survey_layers
from camcli.engine.hooks.relu import RuledActivations, unseen_relus
from camcli.engine.layers.default_layer import found_default
from camcli.engine.setup import Setup


def check_rules(setup: Setup, met: RuledActivations, score: Tensor, image: Tensor) -> None:
    """See that the rules have something to hold at, and say where they hold beyond their papers."""
    if unseen := unseen_relus(score):
        names = " and ".join(recipe.row.name for recipe in setup.recipes if recipe.ruled)
        raise RequestError(
            f"{names} needs to see every ReLU, and {unseen} of this network's are computed in compiled or scripted "
            "code, which hides them",
            f"explain the network as Python code, or {_other_method(setup, image)}",
        )
    for everywhere in (False, True):
        recipes = [recipe for recipe in setup.recipes if recipe.ruled and recipe.everywhere == everywhere]
        if recipes:
            _check_rule(setup, " and ".join(recipe.row.name for recipe in recipes), met, everywhere, image)


def _check_rule(setup: Setup, named: str, met: RuledActivations, everywhere: bool, image: Tensor) -> None:
    others = ", ".join(sorted(met.others))
    if not met.count and not (everywhere and others):
        extend = "extend it by -o activations=all, which no paper does, or " if others else ""
        raise RequestError(
            f"{named} is defined by what it does at ReLUs, and this network meets none"
            + (f"; its activations are {others}" if others else ""),
            extend + _other_method(setup, image),
        )
    if others and everywhere:
        counts = ", ".join(f"{name} ({count})" for name, count in sorted(met.others.items()))
        setup.note(
            f"the paper of {named} defines its rule at ReLUs only ({met.count or 'none'} here); extended by us, it "
            f"is followed at {counts} too"
        )
    elif others:
        setup.note(f"{met.count} ReLUs follow the rule of {named}; {others} pass the plain gradient")


def _other_method(setup: Setup, image: Tensor) -> str:
    """A method that works where there is no ReLU."""
    try:
        found_default(setup.module, survey_layers(setup, image), setup.witness.leaf(image).detach(), setup.read)
    except RequestError:
        return "choose a method that needs neither a layer nor ReLUs, such as integrated-gradients"
    return "choose a method that works at a layer, such as gradcam"
