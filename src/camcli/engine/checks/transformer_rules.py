"""Check that a transformer's backward rules go with the methods, and that there is something for them to change."""

from __future__ import annotations

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.engine.hooks.transformer_rules import RULES, count_hidden_operations
from camcli.engine.setup import GRADIENT_SIGNALS, Setup

# Signals whose gradients the rules do not define, with the reason.
_UNDEFINED = {
    "hvp": "takes second derivatives, and the rules are no derivative",
}
# What attnlrp gives half of a gradient to, where the method reads all of it.
_HALVED = frozenset({"attn_grad", "early_exit_grads"})


def check_methods_for_rules(setup: Setup) -> None:
    """Check that each method takes gradients that the rules can change.

    Raises:
        RequestError: one does not.
    """
    if setup.backward == "plain":
        return
    for method in setup.bound_methods:
        if reason := _why_unsuitable(setup, method.signal_names, method.has_rule):
            able = "choose another method, such as hirescam or input-x-gradient"
            raise RequestError(
                f"--backward {setup.backward} cannot be used with {method.row.name}, which {reason}",
                f"leave --backward out, or {able}",
            )


def _why_unsuitable(setup: Setup, signal_names: frozenset[str], has_rule: bool) -> str:
    if has_rule:
        return "has backward rules of its own"
    if not signal_names & GRADIENT_SIGNALS and not setup.top_channels:
        return "takes no gradient of the score"
    if setup.backward == "attnlrp" and signal_names & _HALVED:
        return "reads gradients at the attention weights, where attnlrp's are shared with the values (use libra or cp)"
    return next((why for name, why in _UNDEFINED.items() if name in signal_names), "")


def list_rule_caveats(setup: Setup) -> list[str]:
    """List what a method's own law loses by the rules."""
    if setup.backward == "plain":
        return []
    return [
        f"with --backward {setup.backward}, maps of {method.row.name} do not sum to the difference of scores: the "
        "rules' gradient is not a derivative"
        for method in setup.bound_methods
        if method.row.name == "integrated-gradients"
    ]


def check_transformer_rules(setup: Setup, score: Tensor) -> None:
    """Check that the rules have changed something between the score and where gradients are taken.

    Raises:
        RequestError: they have not, or compiled or scripted code hides operations from them.
    """
    rules = setup.runner.transformer_rules
    if rules is None:
        return
    if hidden := count_hidden_operations(score, rules):
        raise RequestError(
            f"--backward {setup.backward} changes the gradient of every operation, and {hidden} are inside compiled or "
            "scripted code",
            "explain the network as Python code, or leave --backward out",
        )
    if not rules.counts:
        where = f" after the layer {setup.layers[0]!r}" if setup.layers else ""
        raise RequestError(
            f"--backward {setup.backward} changes nothing: there is no attention, normalisation layer"
            f"{', GELU, SiLU or gate' if RULES[rules.name].gated_activations else ''}{where}",
            "leave --backward out, or choose an earlier layer or another model: it is for transformers",
        )
    counts = ", ".join(count_of(count, name.removesuffix("s")) for name, count in sorted(rules.counts.items()))
    setup.add_note(f"gradients follow the rules of {setup.backward}: {counts}")
