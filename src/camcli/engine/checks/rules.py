"""Check that backward rules have activation functions to act on, and note where they act."""

from __future__ import annotations

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.checks.layouts import probe_network
from camcli.engine.hooks.relu import BackwardRules, count_hidden_relus
from camcli.engine.layers.default_layer import find_default_layer
from camcli.engine.setup import Setup


def check_rules(setup: Setup, rules: BackwardRules, score: Tensor, image: Tensor) -> None:
    """Check that the backward rules have ReLUs to act on, and note where they act beyond their papers."""
    if unseen := count_hidden_relus(score):
        names = " and ".join(method.row.name for method in setup.bound_methods if method.has_rule)
        raise RequestError(
            f"{names} changes the gradient of every ReLU, and {unseen} of this network's are inside compiled or "
            "scripted code",
            f"explain the network as Python code, or {_suggest_method(setup, image)}",
        )
    for everywhere in (False, True):
        methods = [
            method for method in setup.bound_methods if method.has_rule and method.rule_is_everywhere == everywhere
        ]
        if methods:
            _check_rule(setup, " and ".join(method.row.name for method in methods), rules, everywhere, image)


def _check_rule(setup: Setup, named: str, rules: BackwardRules, everywhere: bool, image: Tensor) -> None:
    others = ", ".join(sorted(rules.other_activations))
    if not rules.count and not (everywhere and others):
        extend = "extend it by -o activations=all, which no paper does, or " if others else ""
        raise RequestError(
            f"{named} is defined by a rule for ReLUs, and this network has none"
            + (f"; its activations are {others}" if others else ""),
            extend + _suggest_method(setup, image),
        )
    if others and everywhere:
        counts = ", ".join(f"{name} ({count})" for name, count in sorted(rules.other_activations.items()))
        setup.add_note(
            f"the paper of {named} defines its rule at ReLUs only ({rules.count or 'none'} here); as our extension, "
            f"it is applied at {counts} too"
        )
    elif others:
        setup.add_note(f"{rules.count} ReLUs follow the rule of {named}; {others} pass the plain gradient")


def _suggest_method(setup: Setup, image: Tensor) -> str:
    """Suggest a method that works without ReLUs."""
    try:
        find_default_layer(
            setup.module, probe_network(setup, image), setup.runner.make_leaf(image).detach(), setup.read_predictions
        )
    except RequestError:
        return "choose a method that needs neither a layer nor ReLUs, such as integrated-gradients"
    return "choose a method that works at a layer, such as gradcam"
