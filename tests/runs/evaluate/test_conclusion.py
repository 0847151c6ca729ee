"""What is concluded of methods and controls: by hand."""

import pytest

from camcli.metrics import CONTROLS, METRICS
from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.columns import collect
from camcli.runs.evaluate.conclusion import Conclusion, draw_conclusion
from camcli.runs.evaluate.differences import MIN_IMAGES
from camcli.runs.evaluate.ranks import rank_methods
from camcli.runs.evaluate.summary import TableRow, list_warnings, summarize

Numbers = dict[tuple[str, str, str], list[float | None]]


def made(image: int, metric: str, kind: str, map: str, value: float | None) -> Evaluation:
    given = {"source": str(image), "name": str(image), "stamp": "", "job": "", "run": ""}
    return Evaluation(**given, metric=metric, kind=kind, map=map, value=value)


def conclude(given: Numbers) -> tuple[list[TableRow], Conclusion]:
    count = len(next(iter(given.values())))
    numbers = collect([[made(at, *key, some[at]) for key, some in given.items()] for at in range(count)], False)
    rows, _ = summarize(numbers)
    return rows, draw_conclusion(numbers, rows, rank_methods(numbers))


def numbers(count: int) -> Numbers:
    """Return numbers of two methods by two metrics, of which lower and higher is better."""
    wavering = [0.3, 0.9] * (count // 2) + [0.5] * (count % 2)
    return {
        ("road-most", "method", "good"): [0.1] * count,
        ("road-most", "method", "poor"): [0.2] * count,
        ("road-most", "blurred", "good"): [0.1] * count,
        ("road-most", "blurred", "poor"): [0.3] * count,
        ("road-most", "control", "centre"): [0.15] * count,
        ("road-most", "control", "edges"): [0.9] * count,
        ("road-least", "method", "good"): wavering,
        ("road-least", "method", "poor"): [0.5] * count,
        ("road-least", "blurred", "good"): [0.0] * count,
        ("road-least", "control", "centre"): [0.2] * count,
    }


def test_two_methods_and_their_controls() -> None:
    rows, found = conclude(numbers(8))
    first, second = found.standings
    # In road-most "good" is as good as its blurred copy; in road-least it is better than "poor" in every other image.
    assert (first.map, first.judged, first.above_controls) == (
        "good",
        ("road-most", "road-least"),
        ("road-most", "road-least"),
    )
    assert first.above_blurred == ("road-least",)
    assert (second.map, second.above_controls, second.above_blurred) == ("poor", ("road-least",), ("road-most",))
    [duel] = found.duels
    assert (duel.map, duel.other, duel.better, duel.worse) == ("good", "poor", ("road-most",), ())
    assert [*found.lines][1:] == [
        "  good beats every control by 2 of 2 metrics (road-most, road-least), and its blurred copy by road-least",
        "  poor beats every control by 1 of 2 metrics (road-least), and its blurred copy by road-most",
        "  good beats poor by 1 of 2 metrics (road-most); poor beats good by none",
    ]
    assert list_warnings(rows) == [
        "good is not surely better than its blurred copy (road-most)",
        "poor is worse than centre (road-most)",
    ]
    assert found.as_dict()["words"][3] == "good beats poor by 1 of 2 metrics (road-most); poor beats good by none"


def test_methods_that_images_do_not_separate() -> None:
    same: Numbers = {
        ("road-most", "method", "one"): [0.1, 0.3] * 3,
        ("road-most", "method", "two"): [0.3, 0.1] * 3,
    }
    _, found = conclude(same)
    assert [*found.lines][1:] == [
        "  one: no metric can judge it",
        "  two: no metric can judge it",
        "  6 images do not separate one and two: by no metric is one better, image by image",
    ]


@pytest.mark.parametrize("count", [1, MIN_IMAGES - 1])
def test_few_images_show_nothing(count: int) -> None:
    rows, found = conclude(numbers(count))
    assert not any(one.judged for one in (*found.standings, *found.duels))
    images = "1 image" if count == 1 else "5 images"
    assert [*found.lines] == [f"conclusion: none from {images}; methods are judged from 6 images on"]
    assert not any(" is worse than " in one for one in list_warnings(rows))


def test_images_without_a_number_do_not_count() -> None:
    given = numbers(8)
    given["road-most", "method", "poor"] = [0.2] * (MIN_IMAGES - 1) + [None] * (9 - MIN_IMAGES)
    _, found = conclude(given)
    assert found.standings[1].judged == ("road-least",)
    assert found.duels[0].judged == ("road-least",)


def test_the_best_is_compared_with_each_other_method() -> None:
    given: Numbers = {
        ("road-most", "method", name): [value] * 6 for name, value in zip("abc", (0.3, 0.1, 0.2), strict=True)
    }
    _, found = conclude(given)
    assert [one.map for one in found.standings] == ["b", "c", "a"]
    assert [(one.map, one.other, one.better) for one in found.duels] == [
        ("b", "c", ("road-most",)),
        ("b", "a", ("road-most",)),
    ]


def test_controls_that_a_metric_favours_are_not_held_against_methods() -> None:
    given: Numbers = {
        ("average-drop", "method", "good"): [0.1] * 8,
        ("average-drop", "control", "uniform"): [0.0] * 8,
        ("average-drop", "control", "edges"): [0.5] * 8,
    }
    rows, found = conclude(given)
    assert list_warnings(rows) == []
    assert found.standings[0].above_controls == ("average-drop",)
    assert [bool(row.favoured) for row in rows] == [False, True, False]
    # Where nothing else is left, nothing is judged.
    del given["average-drop", "control", "edges"]
    assert conclude(given)[1].standings[0].judged == ()


def test_favoured_controls_are_controls() -> None:
    for row in METRICS.rows:
        assert {*row.favours} <= {*CONTROLS.names()}, row.name
        assert row.better or not row.favours


def test_all_metrics_are_not_listed_one_by_one() -> None:
    rows, _ = conclude(
        {
            (metric, kind, map): [value] * 6
            for metric in ("road-least", "insertion-mean")
            for kind, map, value in (("method", "one", 0.2), ("blurred", "one", 0.4), ("control", "edges", 0.2))
        }
    )
    assert list_warnings(rows) == [
        "one is worse than its blurred copy (all 2 metrics); not surely better than edges (all 2 metrics)"
    ]


def test_one_metric_is_counted_in_the_singular() -> None:
    alone = {key: values for key, values in numbers(20).items() if key[0] == "road-most"}
    words = conclude(alone)[1].as_dict()["words"]
    assert "good beats every control by 1 of 1 metric (road-most), and its blurred copy by none" in words
    assert "poor beats every control by none of 1 metric, and its blurred copy by road-most" in words
