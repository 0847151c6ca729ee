"""Scores of changed images, for classes that were explained before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from camcli.engine import devices
from camcli.engine.forward import Runner
from camcli.engine.signals.scored import score_variants
from camcli.targets.readers.classification import ClassPredictions
from camcli.targets.target import Predictions, Score

Variants = Iterable[Float32[np.ndarray, "n d h w"]]
ScoreArrays = Callable[[Variants], Iterator[Float64[np.ndarray, " n"]]]


def make_score_of_arrays(
    runner: Runner,
    images: Float32[np.ndarray, "n d h w"],
    indices: Sequence[int],
    competing: Sequence[Sequence[int]],
    score: Score | None = None,
    rows: int = 1,
) -> ScoreArrays:
    """Return a function from variants of the images to the scores of each, computed as many at once as fit.

    Rivals and competing classes are those of the images themselves, whatever changes. To be used within
    :meth:`Runner.ready`.

    Args:
        runner: the network, which scores classes.
        images: the images, as the network takes them.
        indices: the class of each.
        competing: the classes that compete in each; empty for all.
        score: the number of a class that is read; None for the one that is explained.
        rows: number of images that go through the network at once, if there are not more images.

    Raises:
        PictureError: a class has no score in its image.
    """
    predictions = _predict(runner, images, score)
    targets = [
        predictions.find_targets(row, index, among)[0]
        for row, (index, among) in enumerate(zip(indices, competing, strict=True))
    ]

    def score_of(variants: Variants) -> Iterator[Float64[np.ndarray, " n"]]:
        source = iter(variants)
        while some := list(islice(source, max(1, rows // len(images)))):
            changed = np.stack(some, 1).reshape(-1, *images.shape[1:])
            found = score_variants(_predict(runner, changed, score), targets, len(some))
            yield from found.double().cpu().numpy().reshape(len(images), -1).T

    return score_of


def _predict(runner: Runner, images: Float32[np.ndarray, "m d h w"], score: Score | None) -> Predictions:
    with torch.inference_mode():
        given: Tensor = devices.copy_to_module(runner.module, torch.from_numpy(images))
        output: Any = runner.module(runner.to_fast_layout(given))
        predictions = runner.read_predictions(output, len(images))
    if score is not None and isinstance(predictions, ClassPredictions):
        return replace(predictions, score=score)
    return predictions
