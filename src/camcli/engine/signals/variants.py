"""Signals of changed images and of changed activations: the score again, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from camcli.engine.forward import gradients_at
from camcli.engine.hooks.capture import tapped
from camcli.engine.hooks.checkpointing import recomputed
from camcli.engine.layers.layout import canonical, restored
from camcli.engine.signals.scored import ScoredForward, answers, score_in, scores_in
from camcli.targets.target import Reading, Subject

# From variants, one after the other, to an answer for each.
Ask = Callable[[Iterable[Tensor]], Iterator[Tensor]]
AskTwo = Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]]


def ask(scored: ScoredForward) -> Ask:
    """From variants of the images to the score of each."""
    witness = scored.witness

    def ask(variants: Iterable[Tensor]) -> Iterator[Tensor]:
        for images in _laid(scored, variants):
            with torch.inference_mode(), scored.feeding():
                scores = _scores(scored, images, witness.module(images))
            yield from scored.each(scores)

    return ask


def slopes(scored: ScoredForward) -> AskTwo:
    """From variants of the images to the score of each, and its gradient by it."""
    witness = scored.witness

    def slopes(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for images in _laid(scored, variants):
            images.requires_grad_()
            with torch.enable_grad(), scored.feeding(), recomputed(scored.plan.parts, nullcontext):
                scores = _scores(scored, images, witness.module(images.clone()))
                (gradients,) = gradients_at(scores.sum(), [images])
            yield from zip(scored.each(scores), scored.each(gradients), strict=True)

    return slopes


def responses(scored: ScoredForward, layer: str) -> AskTwo:
    """From variants of the images to the layer's output for each, and its gradient."""
    witness = scored.witness
    module = {layer: witness.module.get_submodule(layer)}

    def responses(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for images in _laid(scored, variants):
            with torch.enable_grad(), scored.feeding():
                tap = tapped(module, witness.call, witness.places)
                with recomputed(scored.plan.parts, nullcontext), tap as taps:
                    scores = _scores(scored, images, witness.module(images))
                (gradients,) = gradients_at(scores.sum(), [taps[layer]])
            pair = (canonical(one, scored.plan.layouts[layer]) for one in (taps[layer].detach(), gradients))
            yield from zip(*map(scored.each, pair), strict=True)

    return responses


def rest(scored: ScoredForward, layer: str) -> Ask:
    """From variants of the layer's output to the score where the layer says this."""
    return _behind(scored, layer, score_in)


def rest_scores(scored: ScoredForward, layer: str) -> Ask | None:
    """From variants of the layer's output to the scores of every class, ``(n, classes)`` for each."""
    return _behind(scored, layer, scores_in) if "rest_scores" in scored.witness.wants else None


def _behind(scored: ScoredForward, layer: str, what: Callable[[Reading, int, Subject], Tensor]) -> Ask:
    module, plan = scored.witness.module.get_submodule(layer), scored.plan
    recording = scored.forward.recordings[layer].of(scored.rows)
    images = scored.images()

    def rest(variants: Iterable[Tensor]) -> Iterator[Tensor]:
        for cells in scored.batches(variants, plan.rows[layer]):
            given = restored(cells, plan.layouts[layer], recording.tensor)
            with scored.feeding():
                reading = scored.witness.again(module, recording, given, images, plan.ways[layer])
            with torch.inference_mode():
                scores = answers(reading, scored.subjects, len(given) // len(scored.rows), what)
            yield from scored.each(scores)

    return rest


def _laid(scored: ScoredForward, variants: Iterable[Tensor]) -> Iterator[Tensor]:
    """Variants of the images, as many as the network takes at once, in the order in memory that it is fast with."""
    return map(scored.witness.laid, scored.batches(variants, scored.witness.rows))


def _scores(scored: ScoredForward, images: Tensor, output: Any) -> Tensor:
    """What is explained, in each of the variants of each image: ``(n * k,)``."""
    reading = scored.witness.read(output, len(images))
    return answers(reading, scored.subjects, len(images) // len(scored.subjects))
