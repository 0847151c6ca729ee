"""Plots of an evaluation: what is drawn, and that it is the numbers."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import do
from shared import BLUE, RED, Paint

from camcli.metrics.bootstrap import bootstrap_curve, bootstrap_mean
from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.columns import collect
from camcli.runs.evaluate.plots import draw_curves, draw_metrics, write_plots
from camcli.runs.evaluate.summary import summarize

CURVES = {"method": (0.9, 0.2, 0.1), "blurred": (0.9, 0.3, 0.1), "control": (0.9, 0.8, 0.1)}


def made(image: int, kind: str, metric: str, value: float | None) -> Evaluation:
    given = {"source": str(image), "name": str(image), "stamp": "", "job": "", "run": "", "measured": "probability"}
    map = "edges" if kind == "control" else "gradcam"
    curve = tuple(one + 0.01 * image for one in CURVES[kind]) if metric != "sparseness" and value is not None else ()
    return Evaluation(**given, kind=kind, map=map, metric=metric, value=value, curve=curve)


def summary(*metrics: str, images: int = 3):
    pictures = [
        [
            made(at, kind, metric, None if (kind, metric) == ("control", "irof") else float(np.mean(CURVES[kind])) + at)
            for metric in metrics
            for kind in CURVES
        ]
        for at in range(images)
    ]
    return summarize(collect(pictures, several_layers=False))


def test_the_interval_of_each_point_is_that_of_its_mean() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    low, high = bootstrap_curve(values, draws=20_000)
    for at in range(3):
        assert (low[at], high[at]) == pytest.approx(bootstrap_mean(values[:, at], draws=20_000), abs=0.02)
    assert bootstrap_curve(values[:1]) is None
    _, curves = summary("deletion-mean", images=1)
    assert curves[0].low == ()
    _, curves = summary("deletion-mean")
    assert all(
        low <= mean <= high for one in curves for low, mean, high in zip(one.low, one.curve, one.high, strict=True)
    )


def test_curves_are_drawn_where_their_points_are() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    rows, curves = summary("deletion-mean", "road-most")
    first, second = draw_curves(rows, curves).axes
    for panel, at in ((first, [0, 0.5, 1]), (second, [1 / 6, 0.5, 5 / 6])):
        lines = {tuple(np.round(one.get_ydata(), 6)): one for one in panel.lines if len(one.get_xdata()) == 3}
        assert {*lines} == {one.curve for one in curves}
        assert all(one.get_xdata() == pytest.approx(at) for one in lines.values())
    # The best first: less is better.
    assert [one.get_text().split(maxsplit=1)[1] for one in first.texts] == ["gradcam", "gradcam, blurred", "edges"]
    assert first.get_title(loc="left") == "deletion-mean (lower is better)"
    assert (first.get_xlabel(), first.get_ylabel()) == ("share of the pixels removed", "probability")


def test_a_panel_for_each_metric() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    rows, _ = summary("deletion-mean", "irof", "sparseness", "road-least")
    figure = draw_metrics(rows)
    assert [one.get_title(loc="left") for one in figure.axes] == [
        "deletion-mean (lower is better)",
        "irof (higher is better)",
        "sparseness",
        "road-least (higher is better)",
    ]
    assert [one.get_text() for one in figure.axes[0].get_yticklabels()] == ["gradcam", "gradcam, blurred", "edges"]
    dots = [float(one.get_xdata()[0]) for one in figure.axes[0].lines if one.get_marker() == "o"]
    assert dots == pytest.approx([row.mean for row in rows if row.metric == "deletion-mean"])
    assert [one.get_text() for one in figure.axes[1].texts] == ["undefined"]


def test_the_line_is_the_best_control_that_proves_something() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    numbers = {"gradcam": 0.25, "edges": 0.5, "uniform": 0.0}
    pictures = [
        [
            replace(made(at, "method" if map == "gradcam" else "control", "average-drop", value), map=map, curve=())
            for map, value in numbers.items()
        ]
        for at in range(2)
    ]
    [panel] = draw_metrics(summarize(collect(pictures, several_layers=False))[0]).axes
    [line] = [one for one in panel.lines if [*one.get_ydata()] == [0, 1] and one.get_marker() != "o"]
    assert [*line.get_xdata()] == [0.5, 0.5]


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    rows, curves = summary("deletion-mean", "sparseness")
    written = write_plots(rows, curves, "a model, 3 images", tmp_path, ("svg", "png", "pdf"))
    assert len({one.name for one in written}) == 6
    before = {one: one.read_bytes() for one in written}
    assert write_plots(rows, curves, "a model, 3 images", tmp_path, ("svg", "png", "pdf")) == written
    assert {one: one.read_bytes() for one in written} == before
    only = write_plots(*summary("sparseness"), "a model, 3 images", tmp_path / "only", ("svg",))
    assert [one.name for one in only] == ["evaluation-metrics.svg"]
    assert write_plots(rows, curves, "", tmp_path / "none", ()) == []


def test_the_command_draws(tiny: str, paint: Paint) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    paint("in/a.png", RED, box=(3, 3, 14, 14), ground=BLUE)
    words = (
        "in",
        "--model",
        tiny,
        "--target",
        "red",
        "--metrics",
        "deletion-mean",
        "--method",
        "gradcam",
        "--out",
        "out",
    )
    result = do("evaluate", *words, "--plots", "svg,png")
    assert result.exit_code == 0, result.output
    for name in ("curves.svg", "metrics.svg", "curves.png", "metrics.png"):
        assert Path(f"out/evaluation-{name}").stat().st_size > 1000
        assert f"out/evaluation-{name}" in result.stderr.replace("\n", "")


def test_what_cannot_be_drawn(tiny: str, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("in/a.png", RED)
    result = do("evaluate", "in", "--model", tiny, "--plots", "jpeg")
    assert (result.exit_code, "there are: png, svg, pdf" in result.stderr) == (2, True)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = do("evaluate", "in", "--model", tiny, "--plots", "png")
    assert result.exit_code == 2
    assert "pip install 'camcli-vision[plots]'" in " ".join(result.stderr.split())
