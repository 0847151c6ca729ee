"""Scores of changed images, for a class that was explained before."""

from __future__ import annotations

from collections import deque
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

Variants = Iterable[Float32[np.ndarray, "_ d h w"]]
ScoreArrays = Callable[[Variants], Iterator[Float64[np.ndarray, " _"]]]


def make_score_of_arrays(
    runner: Runner,
    image: Float32[np.ndarray, "d h w"],
    index: int,
    competing: Sequence[int] = (),
    score: Score | None = None,
    rows: int = 1,
) -> ScoreArrays:
    """Return a function from arrays of changed images to the scores of each, computed ``rows`` at once.

    Rivals and competing classes are those of the image itself, whatever changes. To be used within
    :meth:`Runner.ready`.

    Args:
        runner: the network, which scores classes.
        image: the image, as the network takes it.
        index: the class.
        competing: the classes that compete; empty for all.
        score: the number of a class that is read; None for the one that is explained.
        rows: number of images that go through the network at once.

    Raises:
        PictureError: the class has no score in the image.
    """
    target = _predict(runner, image[None], score).find_targets(0, index, competing)[0]

    def score_of(variants: Variants) -> Iterator[Float64[np.ndarray, " _"]]:
        lengths, scores = deque[int](), np.empty(0)

        def iter_images() -> Iterator[Float32[np.ndarray, "d h w"]]:
            for one in variants:
                lengths.append(len(one))
                yield from one

        source = iter_images()
        while some := list(islice(source, rows)):
            found = score_variants(_predict(runner, np.stack(some), score), [target], len(some))
            scores = np.concatenate([scores, found.double().cpu().numpy()])
            while lengths and len(scores) >= lengths[0]:
                part, scores = np.split(scores, [lengths.popleft()])
                yield part

    return score_of


def _predict(runner: Runner, images: Float32[np.ndarray, "m d h w"], score: Score | None) -> Predictions:
    # Not in inference mode: a part that was compiled for ordinary tensors would be compiled again.
    with torch.no_grad():
        given: Tensor = devices.copy_to_module(runner.module, torch.from_numpy(images))
        output: Any = runner.module(runner.to_fast_layout(given))
        predictions = runner.read_predictions(output, len(images))
    if score is not None and isinstance(predictions, ClassPredictions):
        return replace(predictions, score=score)
    return predictions
