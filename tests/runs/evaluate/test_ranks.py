"""Ranks of the methods: by hand."""

import pytest

from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.columns import collect
from camcli.runs.evaluate.ranks import describe_ranks, rank_methods


def made(image: int, map: str, value: float | None, metric: str = "deletion-mean", kind: str = "method") -> Evaluation:
    given = {"source": str(image), "name": str(image), "stamp": "", "job": "", "run": ""}
    return Evaluation(**given, kind=kind, map=map, metric=metric, value=value)


def rank(numbers: dict[str, list[float | None]], **words: str):
    count = len(next(iter(numbers.values())))
    pictures = [[made(at, map, values[at], **words) for map, values in numbers.items()] for at in range(count)]
    return rank_methods(collect(pictures, several_layers=False))


def test_ranks_by_hand() -> None:
    # Lower is better. In the third image two tie for the best, and in the last one has no number.
    numbers = {"one": [0.1, 0.5, 0.2, 0.1], "two": [0.3, 0.2, 0.2, None], "three": [0.2, 0.9, 0.4, 0.1]}
    found = rank(numbers)
    assert [(one.map, one.rank, one.best, one.images) for one in found] == [
        ("one", pytest.approx((1 + 2 + 1.5) / 3), pytest.approx(1.5 / 3), 3),
        ("two", pytest.approx((3 + 1 + 1.5) / 3), pytest.approx(1.5 / 3), 3),
        ("three", pytest.approx((2 + 3 + 3) / 3), 0, 3),
    ]
    assert all(1 <= one.low <= one.rank <= one.high <= 3 for one in found)
    assert [*describe_ranks(found[2:])] == ["deletion-mean: three 2.7 (2.0 to 3.0, best in 0%)"]
    assert [one.map for one in rank(numbers, metric="road-least")] == ["three", "two", "one"]


def test_what_has_no_ranks() -> None:
    assert rank({"one": [0.1, 0.2]}) == []
    both = {"one": [0.1, 0.2], "two": [0.3, 0.1]}
    assert rank(both, metric="sparseness") == []
    assert rank(both, metric="max-box-acc") == []
    assert rank(both, kind="control") == []
    assert rank({"one": [0.1, None], "two": [None, 0.1]}) == []
    assert [one.low for one in rank({"one": [0.1], "two": [0.3]})] == [None, None]
