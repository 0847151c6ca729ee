"""How far metrics agree: Kendall's tau by hand, and of a table."""

import numpy as np
import pytest

from camcli.runs.evaluate.agreement import compare_metrics, compute_kendall
from camcli.runs.evaluate.summary import TableRow


def row(metric: str, map: str, mean: float | None, better: str = "higher", favoured: str = "") -> TableRow:
    given = {"setting": "", "measured": "", "kind": "control", "layer": "", "low": None, "high": None}
    return TableRow(metric=metric, map=map, mean=mean, better=better, images=9, undefined=0, favoured=favoured, **given)


def test_kendall_by_hand() -> None:
    order = np.arange(5.0)
    assert compute_kendall(order, 10 * order) == 1
    assert compute_kendall(order, -order) == -1
    # Of ten pairs one is turned.
    assert compute_kendall(order, np.array([0.0, 2, 1, 3, 4])) == pytest.approx(0.8)
    # Of ten pairs one ties in the second: nine agree, over the root of 10 times 9.
    assert compute_kendall(order, np.array([0.0, 1, 1, 3, 4])) == pytest.approx(9 / 90**0.5)
    assert np.isnan(compute_kendall(order, np.ones(5)))


def test_each_metric_counts_in_its_own_direction() -> None:
    rows = [
        row("road-most", name, mean, "lower") for name, mean in zip("abcde", [5.0, 4.0, 3.0, 2.0, 1.0], strict=True)
    ]
    rows += [row("iou-50", name, mean) for name, mean in zip("abcde", [1.0, 2.0, 3.0, 4.0, 5.0], strict=True)]
    # One has no number, and one metric has no better direction, or too few numbers.
    rows += [row("saco", name, mean) for name, mean in zip("abcde", [4.0, 3.0, 2.0, 1.0, None], strict=True)]
    rows += [row("entropy", name, 1.0, "") for name in "abcde"]
    rows += [row("infidelity", name, mean, "lower") for name, mean in zip("abc", [1.0, 2.0, 3.0], strict=True)]
    found = {(one.metric, one.other): (one.tau, one.maps) for one in compare_metrics(rows)}
    assert found == {("road-most", "iou-50"): (1, 5), ("road-most", "saco"): (-1, 4), ("iou-50", "saco"): (-1, 4)}


def test_a_control_that_a_metric_favours_by_construction_does_not_count() -> None:
    rows = [row("iou-50", name, mean) for name, mean in zip("abcde", [1.0, 2.0, 3.0, 4.0, 0.0], strict=True)]
    rows += [row("average-drop", name, mean, "lower") for name, mean in zip("abcd", [4.0, 3.0, 2.0, 1.0], strict=True)]
    rows += [row("average-drop", "e", 0.0, "lower", favoured="it loses nothing")]
    [found] = compare_metrics(rows)
    assert (found.tau, found.maps) == (1, 4)
