"""Signals of changed images and of changed activations: their scores and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from camcli.engine.forward import compute_gradients
from camcli.engine.hooks.capture import capture_activations
from camcli.engine.hooks.checkpointing import checkpointed
from camcli.engine.layers.layout import from_nchw, to_nchw
from camcli.engine.signals.scored import ScoredForward, read_class_scores, read_target_score, score_variants
from camcli.targets.readers.torchvision_boxes import giving_candidates
from camcli.targets.target import Predictions, Target

# From variants to a result for each.
ScoreVariants = Callable[[Iterable[Tensor]], Iterator[Tensor]]
ComputeVariantPairs = Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]]


def score_of(scored: ScoredForward) -> ScoreVariants:
    """Return a function from variants of the images to the score of each."""
    runner = scored.runner

    def score_of(variants: Iterable[Tensor]) -> Iterator[Tensor]:
        for images in _batch_images(scored, variants):
            with torch.inference_mode(), scored.restricting_extras(), giving_candidates(runner.module):
                scores = _read_scores(scored, images, runner.module(images))
            yield from scored.split_variants(scores)

    return score_of


def score_and_grad(scored: ScoredForward) -> ComputeVariantPairs:
    """Return a function from variants of the images to the score of each and its gradient by the variant."""
    runner = scored.runner

    def score_and_grad(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for images in _batch_images(scored, variants, "samples"):
            images.requires_grad_()
            with (
                torch.enable_grad(),
                scored.restricting_extras(),
                checkpointed(scored.plan.checkpointed_modules, runner.recompute_context),
            ):
                scores = _read_scores(scored, images, runner.module(images.clone()))
                (gradients,) = compute_gradients(scores.sum(), [images])
            yield from zip(scored.split_variants(scores), scored.split_variants(gradients), strict=True)

    return score_and_grad


def act_and_grad(scored: ScoredForward, layer: str) -> ComputeVariantPairs:
    """Return a function from variants of the images to the layer's output for each and the score's gradient by it."""
    runner = scored.runner
    module = {layer: runner.module.get_submodule(layer)}

    def act_and_grad(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for images in _batch_images(scored, variants, "samples"):
            with torch.enable_grad(), scored.restricting_extras():
                capturing = capture_activations(module, runner.call, runner.tensor_indices)
                with checkpointed(scored.plan.checkpointed_modules, runner.recompute_context), capturing as activations:
                    scores = _read_scores(scored, images, runner.module(images))
                (gradients,) = compute_gradients(scores.sum(), [activations[layer]])
            pair = (to_nchw(one, scored.plan.layouts[layer]) for one in (activations[layer].detach(), gradients))
            yield from zip(*map(scored.split_variants, pair), strict=True)

    return act_and_grad


def score_from_layer(scored: ScoredForward, layer: str) -> ScoreVariants:
    """Return a function from variants of the layer's output to the score of each."""
    return _make_score_from_layer(scored, layer, read_target_score)


def logits_from_layer(scored: ScoredForward, layer: str) -> ScoreVariants | None:
    """Return a function from variants of the layer's output to the scores of all classes, ``(n, classes)`` for each."""
    return (
        _make_score_from_layer(scored, layer, read_class_scores)
        if "logits_from_layer" in scored.runner.signal_names
        else None
    )


def _make_score_from_layer(
    scored: ScoredForward, layer: str, read_score: Callable[[Predictions, int, Target], Tensor]
) -> ScoreVariants:
    module, plan = scored.runner.module.get_submodule(layer), scored.plan
    recording = scored.forward.recordings[layer].select(scored.rows)
    images = scored.images()

    def score_variant_cells(variants: Iterable[Tensor]) -> Iterator[Tensor]:
        for cells in scored.batch_variants(variants, plan.batch_sizes[layer]):
            given = from_nchw(cells, plan.layouts[layer], recording.tensor)
            with scored.restricting_extras():
                predictions = scored.runner.run_from_layer(module, recording, given, images, plan.replay_plans[layer])
            with torch.inference_mode():
                scores = score_variants(predictions, scored.targets, len(given) // len(scored.rows), read_score)
            yield from scored.split_variants(scores)

    return score_variant_cells


def _batch_images(scored: ScoredForward, variants: Iterable[Tensor], noun: str = "masks") -> Iterator[Tensor]:
    """Batch variants of the images, ``batch_size`` at once, in the network's fastest memory format."""
    return map(scored.runner.to_fast_layout, scored.batch_variants(variants, scored.runner.batch_size, noun))


def _read_scores(scored: ScoredForward, images: Tensor, output: Any) -> Tensor:
    """Read the explained score of each variant of each image: ``(n * k,)``."""
    predictions = scored.runner.read_predictions(output, len(images))
    return score_variants(predictions, scored.targets, len(images) // len(scored.targets))
