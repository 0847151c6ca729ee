"""Lookup of signals by name: each is computed from the network on demand and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from jaxtyping import Float
from torch import Tensor

from camcli.base.passes import Counted, read_group
from camcli.engine.hooks.relu import BackwardRule
from camcli.engine.signals import attention, blocks, gradients, variants
from camcli.engine.signals.scored import ScoredForward
from camcli.methods import SIGNALS

# Number of queries of a method that are answered while it is on trial.
TRIAL_ANSWERS = 4
# The function of each signal, called with the forward, and with a layer for signals of layers: those of
# :data:`SIGNALS`, and ``read``, which no method uses.
SIGNAL_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "act": gradients.act,
    "grad": gradients.grad,
    "hvp": gradients.hvp,
    "grad_of": gradients.grad_of,
    "act_and_grad": variants.act_and_grad,
    "score_from_layer": variants.score_from_layer,
    "logits_from_layer": variants.logits_from_layer,
    "onto_input": gradients.onto_input,
    "images": gradients.images,
    "input_grad": gradients.input_grad,
    "score_of": variants.score_of,
    "score_and_grad": variants.score_and_grad,
    "biases": gradients.biases,
    "attn": attention.attn,
    "attn_grad": attention.attn_grad,
    "read": attention.find_used_rows,
    "rows_to_grid": attention.rows_to_grid,
    "to_grid": attention.to_grid,
    "query": attention.query,
    "key": attention.key,
    "value": attention.value,
    "attn_out_grad": attention.attn_out_grad,
    "early_exit_grads": blocks.early_exit_grads,
    "value_tokens": blocks.value_tokens,
    "value_path": blocks.value_path,
    "token_score": blocks.token_score,
    "token_cosines": blocks.token_cosines,
    "token_cosine_blank": blocks.token_cosine_blank,
    "cosines": blocks.cosines,
    "block_tokens": blocks.block_tokens,
    "cosine_and_grad": blocks.cosine_and_grad,
    "score": gradients.score,
    "logits": gradients.logits,
    "index": gradients.index,
    "channel": gradients.index,
}
# Signals to which a method may make thousands of queries.
QUERY_SIGNALS = frozenset({"score_of", "score_and_grad", "act_and_grad", "score_from_layer", "logits_from_layer"})


class Signals:
    """The signals of one class's score of each image, by the names of :data:`camcli.methods.SIGNALS`.

    Args:
        scored: the forward, and the scores in it.
    """

    def __init__(self, scored: ScoredForward) -> None:
        self.scored = scored
        self._cache: dict[tuple[str, str], Any] = {}

    def get(self, name: str, layer: str) -> Any:
        """Return the signal of this name, at this layer if it is a signal of layers."""
        key = name, layer if SIGNALS.get(name, ("",))[0] == "layer" else ""
        if key not in self._cache:
            self._cache[key] = self._make(*key)
        return self._cache[key]

    def gradient_by_rule(self, name: str, rule: BackwardRule, everywhere: bool = False) -> Float[Tensor, "n d h w"]:
        """Return the gradient by the input with a rule, cached by its name, at every ReLU or everywhere."""
        if ("", name) not in self._cache:
            self._cache["", name] = gradients.gradient_by_rule(self.scored, rule, everywhere)
        made: Tensor = self._cache["", name]
        return made

    def _make(self, name: str, layer: str) -> Any:
        return SIGNAL_FUNCTIONS[name](self.scored, layer) if layer else SIGNAL_FUNCTIONS[name](self.scored)


class TrialEnded(Exception):  # noqa: N818 - the end of a trial, not an error
    """Raised when a method on trial has used all the answers of a query signal."""


class TrialSignals(Signals):
    """Signals that answer a few queries only, to try a method that may make thousands.

    Raises:
        TrialEnded: the method makes more queries.
    """

    def _make(self, name: str, layer: str) -> Any:
        made = super()._make(name, layer)
        return _limit_answers(made) if name in QUERY_SIGNALS and made is not None else made


def _limit_answers(answers: Callable[[Iterable[Tensor]], Iterator[Any]]) -> Callable[[Iterable[Tensor]], Iterator[Any]]:
    def answer_some(variants: Iterable[Tensor]) -> Iterator[Any]:
        source = iter(variants)
        yield from answers(Counted(islice(source, TRIAL_ANSWERS), 0, read_group(variants)))
        if next(source, None) is not None:
            raise TrialEnded

    return answer_some
