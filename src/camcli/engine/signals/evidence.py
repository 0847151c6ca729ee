"""Evidence by name: what a method's parameters ask for, got from the network when it is asked for, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from jaxtyping import Float
from torch import Tensor

from camcli.engine.hooks.relu import Rule
from camcli.engine.signals import attention, blocks, gradients, variants
from camcli.engine.signals.scored import ScoredForward
from camcli.methods import EVIDENCE

# How many questions of a method are answered while it is tried.
FEW = 4
# What makes each signal of a forward, and of a layer where it lies at one: those of :data:`EVIDENCE`, and ``read``, for
# which no method asks.
SIGNALS: dict[str, Callable[..., Any]] = {
    "act": gradients.act,
    "grad": gradients.grad,
    "curve": gradients.curve,
    "grad_of": gradients.grad_of,
    "responses": variants.responses,
    "rest": variants.rest,
    "rest_scores": variants.rest_scores,
    "onto_input": gradients.onto_input,
    "images": gradients.images,
    "input_grad": gradients.input_grad,
    "ask": variants.ask,
    "slopes": variants.slopes,
    "biases": gradients.biases,
    "attn": attention.attn,
    "attn_grad": attention.attn_grad,
    "read": attention.read,
    "spread": attention.spread,
    "cells": attention.cells,
    "query": attention.query,
    "key": attention.key,
    "value": attention.value,
    "told_grad": attention.told_grad,
    "stopped": blocks.stopped,
    "own": blocks.own,
    "path": blocks.path,
    "alone": blocks.alone,
    "alone_cosines": blocks.alone_cosines,
    "alone_blank": blocks.alone_blank,
    "cosines": blocks.cosines,
    "score": gradients.score,
    "logits": gradients.logits,
    "index": gradients.index,
    "channel": gradients.index,
}
# Those of which a method may ask thousands of questions.
ASKING = frozenset({"ask", "slopes", "responses", "rest", "rest_scores"})


class Evidence:
    """What one class's score of each image is made of, by the names of :data:`EVIDENCE`.

    Args:
        scored: the forward, and the scores in it.
    """

    def __init__(self, scored: ScoredForward) -> None:
        self.scored = scored
        self._kept: dict[tuple[str, str], Any] = {}

    def get(self, name: str, layer: str) -> Any:
        """The evidence of this name, at this layer if it lies at one."""
        key = name, layer if EVIDENCE.get(name, ("",))[0] == "layer" else ""
        if key not in self._kept:
            self._kept[key] = self._make(*key)
        return self._kept[key]

    def ruled(self, name: str, rule: Rule, everywhere: bool = False) -> Float[Tensor, "n d h w"]:
        """The gradient by the input that follows a rule, known by its name, at every ReLU or everywhere."""
        if ("", name) not in self._kept:
            self._kept["", name] = gradients.ruled(self.scored, rule, everywhere)
        made: Tensor = self._kept["", name]
        return made

    def _make(self, name: str, layer: str) -> Any:
        return SIGNALS[name](self.scored, layer) if layer else SIGNALS[name](self.scored)


class Enough(Exception):  # noqa: N818 - no error, but the end of a trial
    """A method has asked as often as it is answered while it is tried."""


class Trying(Evidence):
    """Evidence that answers a few questions only, to try a method that may ask thousands.

    Raises:
        Enough: more is asked.
    """

    def _make(self, name: str, layer: str) -> Any:
        made = super()._make(name, layer)
        return _few(made) if name in ASKING and made is not None else made


def _few(answers: Callable[[Iterable[Tensor]], Iterator[Any]]) -> Callable[[Iterable[Tensor]], Iterator[Any]]:
    def few(variants: Iterable[Tensor]) -> Iterator[Any]:
        source = iter(variants)
        yield from answers(islice(source, FEW))
        if next(source, None) is not None:
            raise Enough

    return few
