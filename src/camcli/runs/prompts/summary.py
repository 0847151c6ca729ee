"""Summary of a job's images: which prompts agree, and in which images they do not."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from camcli.runs.prompts import Measure, PromptComparison
from camcli.runs.worker.map_similarity import (
    MEASURES,
    Matrix,
    MeanSimilarity,
    nan_to_none,
    none_to_nan,
    round_value,
)

# A mask of pairs.
Pairs = Bool[np.ndarray, "k k"]


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """Summary of one prompt over all images.

    Attributes:
        prompt, text: as in :class:`camcli.runs.prompts.PromptResult`.
        score: the mean of its scores; None if it has none.
        best: number of images in which its score is the highest, of those in which every prompt has a map.
        agreement: for each measure the mean similarity to the prompts that it is compared with.
    """

    prompt: str
    text: int
    score: float | None
    best: int
    agreement: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of all images of a job.

    Attributes:
        pictures: number of images that have any map.
        similarity: for each measure the mean over the images, None where it is defined in none.
        defined: for each measure and pair the number of images in which it is defined.
        agreement, apart: for each measure the means over all pairs and images: see
            :class:`camcli.runs.prompts.PromptComparison`.
        prompts: summaries of the prompts, in order.
        unstable: the images of the lowest agreement by one measure, the lowest first.
    """

    pictures: int
    similarity: dict[str, list[list[float | None]]]
    defined: dict[str, list[list[int]]]
    agreement: dict[str, float | None]
    apart: dict[str, float | None]
    prompts: tuple[PromptSummary, ...]
    unstable: tuple[PromptComparison, ...]


def find_compared_pairs(texts: Sequence[int]) -> Pairs:
    """Return the pairs of prompts that should agree: those of one text, if any text has several; else all."""
    others = ~np.eye(len(texts), dtype=bool)
    same = np.equal.outer(texts, texts) & others
    return np.asarray(same if same.any() else others)


def has_several_texts(pairs: Pairs) -> bool:
    """Return whether there are pairs of different texts, which need not agree."""
    return not bool((pairs | np.eye(len(pairs), dtype=bool)).all())


def average_pairs(similarity: dict[str, Matrix], pairs: Pairs) -> dict[str, float | None]:
    """Return, for each measure, the mean over these pairs where it is defined; None if it is for none."""
    known = {name: values[pairs & ~np.isnan(values)] for name, values in similarity.items()}
    return {name: round_value(values.mean()) if values.size else None for name, values in known.items()}


def select_prompt_pairs(pairs: Pairs, number: int) -> Pairs:
    """Return the pairs of one prompt."""
    return np.asarray(pairs & (np.arange(len(pairs)) == number)[:, np.newaxis])


def find_least_alike(values: Matrix, pairs: Pairs) -> tuple[int, int]:
    """Return the pair of the lowest similarity; of equal ones the first."""
    one, other = np.unravel_index(np.where(pairs & ~np.isnan(values), values, np.inf).argmin(), values.shape)
    return int(one), int(other)


def summarize(
    pictures: Callable[[], Iterable[PromptComparison]],
    prompts: Sequence[str],
    texts: Sequence[int],
    measure: Measure,
    shown: int,
) -> Summary:
    """Summarize all images; memory does not grow with them.

    Args:
        pictures: iterates over their lines, anew at each call; all of them have maps.
        prompts: the prompts, in order.
        texts: for each prompt the index of its text.
        measure: measure of stability.
        shown: number of least stable images to return.
    """
    pairs, sums = find_compared_pairs(texts), _Sums(len(prompts))
    for one in pictures():
        sums.add(one)
    defined = (one for one in pictures() if one.agreement[measure] is not None)
    return Summary(
        pictures=sums.pictures,
        similarity={name: nan_to_none(values) for name, values in sums.similarity.average().items()},
        defined={name: counts.tolist() for name, counts in sums.similarity.counts.items()},
        agreement=sums.similarity.average_pairs(pairs),
        apart=sums.similarity.average_pairs(~pairs & ~np.eye(len(pairs), dtype=bool))
        if has_several_texts(pairs)
        else {},
        prompts=tuple(
            PromptSummary(
                prompt,
                text,
                sums.average_score(number),
                int(sums.best[number]),
                sums.similarity.average_pairs(select_prompt_pairs(pairs, number)),
            )
            for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
        ),
        unstable=tuple(heapq.nsmallest(shown, defined, key=lambda one: one.agreement[measure] or 0.0)),
    )


class _Sums:
    """Sums over all images, with the number of values in each."""

    def __init__(self, prompts: int) -> None:
        self.pictures = 0
        self.similarity = MeanSimilarity(prompts)
        self.best = np.zeros(prompts, np.int64)
        self._scores, self._scored = np.zeros(prompts), np.zeros(prompts, np.int64)

    def add(self, record: PromptComparison) -> None:
        """Add an image."""
        self.pictures += 1
        self.similarity.add({name: none_to_nan(record.similarity[name]) for name in MEASURES})
        scores = none_to_nan([result.score for result in record.prompts])
        self._scores += np.nan_to_num(scores)
        self._scored += ~np.isnan(scores)
        if not np.isnan(scores).any():
            self.best[scores.argmax()] += 1

    def average_score(self, number: int) -> float | None:
        """Return the mean of a prompt's scores."""
        return round_value(self._scores[number] / self._scored[number]) if self._scored[number] else None
