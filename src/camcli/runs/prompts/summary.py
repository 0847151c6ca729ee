"""What all pictures of an inquiry say together: which prompts agree, and in which pictures they do not."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float, Float64

from camcli.runs.prompts import Compared, Measure

MEASURES: tuple[Measure, ...] = get_args(Measure)
DIGITS = 6

# A similarity of each two prompts, NaN where it is not defined; which pairs are meant.
Matrix = Float64[np.ndarray, "k k"]
Pairs = Bool[np.ndarray, "k k"]


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """One prompt over all pictures.

    Attributes:
        prompt, text: as in :class:`camcli.runs.prompts.Said`.
        score: the mean of its scores; None where it has none.
        best: in how many pictures it is the highest, of those in which every prompt has a map.
        agreement: for each measure the mean similarity to the prompts that it is compared with.
    """

    prompt: str
    text: int
    score: float | None
    best: int
    agreement: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Summary:
    """All pictures of an inquiry.

    Attributes:
        pictures: how many have a map at all.
        similarity: for each measure the mean over the pictures, None where it is defined in none.
        defined: for each measure in how many pictures each pair has it.
        agreement, apart: for each measure the means over all pairs and pictures: see
            :class:`camcli.runs.prompts.Compared`.
        prompts: in order.
        unstable: the pictures of the lowest agreement by one measure, the lowest first.
    """

    pictures: int
    similarity: dict[str, list[list[float | None]]]
    defined: dict[str, list[list[int]]]
    agreement: dict[str, float | None]
    apart: dict[str, float | None]
    prompts: tuple[PromptSummary, ...]
    unstable: tuple[Compared, ...]


def compared_pairs(texts: Sequence[int]) -> Pairs:
    """Which pairs of prompts shall agree: those of one text, where any has several; else all."""
    others = ~np.eye(len(texts), dtype=bool)
    same = np.equal.outer(texts, texts) & others
    return np.asarray(same if same.any() else others)


def several_texts(pairs: Pairs) -> bool:
    """Whether there are pairs that need not agree, being of different texts."""
    return not bool((pairs | np.eye(len(pairs), dtype=bool)).all())


def means(similarity: dict[str, Matrix], pairs: Pairs) -> dict[str, float | None]:
    """For each measure the mean over these pairs, as far as it is defined; None where it is for none."""
    known = {name: values[pairs & ~np.isnan(values)] for name, values in similarity.items()}
    return {name: rounded(values.mean()) if values.size else None for name, values in known.items()}


def of_one(pairs: Pairs, number: int) -> Pairs:
    """The pairs of one prompt."""
    return np.asarray(pairs & (np.arange(len(pairs)) == number)[:, np.newaxis])


def least_alike(values: Matrix, pairs: Pairs) -> tuple[int, int]:
    """The pair of the lowest similarity; of equal ones the first."""
    one, other = np.unravel_index(np.where(pairs & ~np.isnan(values), values, np.inf).argmin(), values.shape)
    return int(one), int(other)


def summary(
    pictures: Callable[[], Iterable[Compared]],
    prompts: Sequence[str],
    texts: Sequence[int],
    measure: Measure,
    shown: int,
) -> Summary:
    """What all pictures say together; what is held does not grow with them.

    Args:
        pictures: goes over their lines, anew each time that it is called; all of them have maps.
        prompts: in order.
        texts: for each which of the texts asked about it says.
        measure: by which pictures are unstable.
        shown: how many of the least stable are given.
    """
    pairs, sums = compared_pairs(texts), _Sums(len(prompts))
    for one in pictures():
        sums.add(one)
    defined = (one for one in pictures() if one.agreement[measure] is not None)
    return Summary(
        pictures=sums.pictures,
        similarity={name: plain(values) for name, values in sums.similarity().items()},
        defined={name: counts.tolist() for name, counts in sums.counts.items()},
        agreement=sums.means(pairs),
        apart=sums.means(~pairs & ~np.eye(len(pairs), dtype=bool)) if several_texts(pairs) else {},
        prompts=tuple(
            PromptSummary(prompt, text, sums.score(number), int(sums.best[number]), sums.means(of_one(pairs, number)))
            for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
        ),
        unstable=tuple(heapq.nsmallest(shown, defined, key=lambda one: one.agreement[measure] or 0.0)),
    )


class _Sums:
    """What is kept of all pictures: sums, and how many numbers are in them."""

    def __init__(self, prompts: int) -> None:
        self.pictures = 0
        self.counts = {name: np.zeros((prompts, prompts), np.int64) for name in MEASURES}
        self.best = np.zeros(prompts, np.int64)
        self._sums = {name: np.zeros((prompts, prompts)) for name in MEASURES}
        self._scores, self._scored = np.zeros(prompts), np.zeros(prompts, np.int64)

    def add(self, record: Compared) -> None:
        """One more picture."""
        self.pictures += 1
        for name in MEASURES:
            values = with_nan(record.similarity[name])
            self._sums[name] += np.nan_to_num(values)
            self.counts[name] += ~np.isnan(values)
        scores = with_nan([said.score for said in record.prompts])
        self._scores += np.nan_to_num(scores)
        self._scored += ~np.isnan(scores)
        if not np.isnan(scores).any():
            self.best[scores.argmax()] += 1

    def similarity(self) -> dict[str, Matrix]:
        """For each measure the mean over the pictures; NaN where it is defined in none."""
        return {
            name: np.where(self.counts[name] > 0, self._sums[name] / np.maximum(self.counts[name], 1), np.nan)
            for name in MEASURES
        }

    def means(self, pairs: Pairs) -> dict[str, float | None]:
        """For each measure the mean over pairs and pictures; None where it is defined for none."""
        counts = {name: self.counts[name][pairs].sum() for name in MEASURES}
        return {
            name: rounded(self._sums[name][pairs].sum() / counts[name]) if counts[name] else None for name in MEASURES
        }

    def score(self, number: int) -> float | None:
        """The mean of a prompt's scores."""
        return rounded(self._scores[number] / self._scored[number]) if self._scored[number] else None


def rounded(value: float | np.floating[Any]) -> float:
    """A number as it stands in the files."""
    return round(float(value), DIGITS)


def plain(values: Matrix) -> list[list[float | None]]:
    """A matrix for JSON, which knows no NaN."""
    return [[None if np.isnan(value) else rounded(value) for value in row] for row in values]


def with_nan(values: Sequence[Any]) -> Float[np.ndarray, "..."]:
    """The other way."""
    return np.array(values, np.float64)
