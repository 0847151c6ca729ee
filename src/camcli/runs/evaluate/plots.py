"""Mean curves, and a chart of the metrics, to be printed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError
from camcli.metrics import CONTROLS, METRICS
from camcli.runs.evaluate import PLOT_FORMATS
from camcli.runs.evaluate.columns import ORDER, MapKey
from camcli.runs.evaluate.summary import MeanCurve, TableRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours without black and yellow: told apart by colour-blind people too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
GREY = "#767676"
# Dashes of the controls, in the order of the registry: grey alone would not tell them apart.
DASHES = ((0, (1, 1.2)), (0, (3, 1.5)), (0, (6, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 2, 2)))
# Inches: width of a panel, of what stands beside it, its height, and the height of a row.
PANEL_WIDTH, NAME_WIDTH, PANEL_HEIGHT, ROW_HEIGHT = 2.6, 1.9, 2.5, 0.17
COLUMNS = 3
# Characters of the caption in an inch.
CHARACTERS = 16
STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "svg.hashsalt": "camcli",
    "pdf.fonttype": 42,
}
CAPTIONS = {
    "metrics": "Dots: means over the images, with 95% intervals. Vertical line: the best control or blurred copy, "
    "which methods have to beat, but for those that the metric favours by construction.",
    "curves": "Means over the images; shaded: 95% intervals of the methods. Numbers: those of the table, best first.",
}
NO_DATE: Mapping[str, Mapping[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def check_can_plot() -> None:
    """Check that matplotlib is there.

    Raises:
        RequestError: it is not.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"--plots needs matplotlib, which cannot be imported: {error}", "pip install 'camcli-vision[plots]'"
        ) from error


def write_plots(
    rows: Sequence[TableRow], curves: Sequence[MeanCurve], about: str, out: Path, formats: Sequence[str]
) -> list[Path]:
    """Write ``evaluation-metrics`` and, if a metric has curves, ``evaluation-curves`` in each format; return the paths.

    Args:
        rows: the table.
        curves: the mean curves.
        about: what the plots are of, in words.
        out: folder of the files.
        formats: of :data:`camcli.runs.evaluate.PLOT_FORMATS`.

    Raises:
        OutputError: a file cannot be written.
    """
    if not formats:
        return []
    import matplotlib as mpl

    written = list[Path]()
    with mpl.rc_context({**STYLE}):
        figures = {"metrics": draw_metrics(rows)}
        drawn = [one for one in curves if METRICS.find(one.metric).axes]
        if drawn:
            figures["curves"] = draw_curves(rows, drawn)
        for name, figure in figures.items():
            caption = fill(f"{about}. {CAPTIONS[name]}", int(CHARACTERS * figure.get_figwidth()))
            figure.supxlabel(caption, size=7, color=GREY, x=0.01, ha="left")
            for suffix in formats:
                content, path = io.BytesIO(), out / f"evaluation-{name}.{suffix}"
                figure.savefig(content, format=suffix, dpi=PLOT_FORMATS[suffix], metadata=NO_DATE.get(suffix))
                try:
                    atomic.write(path, content.getvalue())
                except OSError as error:
                    raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
                written.append(path)
    return written


def draw_metrics(rows: Sequence[TableRow]) -> Figure:
    """Draw the mean of each metric and map with its interval, a panel for each metric.

    A line shows the best of the controls and blurred copies, which methods have to beat, without controls that the
    metric favours by construction.
    """
    from matplotlib.figure import Figure

    keys = sorted(dict.fromkeys(row.key for row in rows), key=lambda key: ORDER[key[0]])
    looks = _choose_looks(keys)
    metrics = [*dict.fromkeys(row.metric for row in rows)]
    columns = min(COLUMNS, len(metrics))
    lines = ceil(len(metrics) / columns)
    height = 0.25 + lines * (0.75 + ROW_HEIGHT * len(keys))
    figure = Figure((NAME_WIDTH + columns * PANEL_WIDTH, height), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for panel, metric in zip(panels.flat, metrics, strict=False):
        _draw_metric(panel, [row for row in rows if row.metric == metric], keys, looks)
    for panel in panels.flat[len(metrics) :]:
        panel.remove()
    first = panels[0, 0]
    first.set_yticks(range(len(keys)), [_name(key) for key in keys])
    first.set_ylim(len(keys) - 0.5, -0.5)
    return figure


def draw_curves(rows: Sequence[TableRow], curves: Sequence[MeanCurve]) -> Figure:
    """Draw the mean curves of methods, with their intervals, and of what they have to beat, a panel for each metric.

    Beside each panel the maps are named in the order of their numbers, best first.
    """
    from matplotlib.figure import Figure

    looks = _choose_looks([*dict.fromkeys(row.key for row in rows)])
    metrics = [*dict.fromkeys(one.metric for one in curves)]
    columns = min(2, len(metrics))
    lines = ceil(len(metrics) / columns)
    most = max(sum(one.metric == metric for one in curves) for metric in metrics)
    height = 0.25 + lines * max(PANEL_HEIGHT, 0.7 + ROW_HEIGHT * most)
    figure = Figure((columns * (PANEL_WIDTH + NAME_WIDTH + 0.5), height), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel, metric in zip(panels.flat, metrics, strict=False):
        own = [row for row in rows if row.metric == metric]
        _draw_curves(panel, own, [one for one in curves if one.metric == metric], looks)
    for panel in panels.flat[len(metrics) :]:
        panel.remove()
    return figure


def _draw_metric(
    panel: Axes, rows: Sequence[TableRow], keys: Sequence[MapKey], looks: Mapping[MapKey, Mapping[str, Any]]
) -> None:
    better = rows[0].better
    panel.set_title(f"{rows[0].metric}{f' ({better} is better)' if better else ''}", loc="left")
    rivals = [row.mean for row in rows if row.kind != "method" and not row.favoured and row.mean is not None]
    if better and rivals:
        panel.axvline(max(rivals) if better == "higher" else min(rivals), color=GREY, linewidth=0.7, zorder=0)
    for row in rows:
        place, colour = keys.index(row.key), looks[row.key]["color"]
        if row.mean is None:
            whites = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            at = panel.get_yaxis_transform()
            panel.text(0.02, place, "undefined", color=GREY, size=7, va="center", transform=at, bbox=whites)
            continue
        if row.low is not None and row.high is not None:
            panel.plot([row.low, row.high], [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
        filled = "white" if row.kind == "blurred" else colour
        panel.plot(row.mean, place, "o", color=colour, markerfacecolor=filled, markersize=4)
    for place in range(len(keys)):
        panel.axhline(place, color="#e6e6e6", linewidth=0.5, zorder=-1)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)


def _draw_curves(
    panel: Axes, rows: Sequence[TableRow], curves: Sequence[MeanCurve], looks: Mapping[MapKey, Mapping[str, Any]]
) -> None:
    row = METRICS.find(rows[0].metric)
    assert row.axes is not None
    for one in reversed(curves):  # methods on top
        count = len(one.curve)
        at = (np.arange(count) + 0.5) / count if row.middles else np.linspace(0, 1, count)
        panel.plot(at, one.curve, **looks[one.key])
        if one.kind == "method" and one.low:
            panel.fill_between(at, one.low, one.high, color=looks[one.key]["color"], alpha=0.15, linewidth=0)
    panel.set_title(f"{row.name} ({row.better} is better)", loc="left")
    panel.set_xlabel(row.axes[0])
    panel.set_ylabel(row.axes[1].format(measured=rows[0].measured or "score"))
    panel.set_xlim(0, 1)
    drawn = {one.key for one in curves}
    numbers = [(named.mean, named.key) for named in rows if named.key in drawn and named.mean is not None]
    ordered = sorted(numbers, key=lambda number: number[0], reverse=row.better == "higher")
    for place, (mean, key) in enumerate(ordered):
        top, look = 1 - (place + 0.5) / max(len(ordered), 10), looks[key]
        panel.plot([1.04, 1.13], [top, top], transform=panel.transAxes, clip_on=False, **look)
        words = f"{mean:#.3g}  {_name(key)}"
        panel.text(1.15, top, words, color=look["color"], va="center", transform=panel.transAxes)


def _choose_looks(keys: Sequence[MapKey]) -> dict[MapKey, dict[str, Any]]:
    """Return how the line of each map is drawn: a method and its blurred copy in one colour, controls in grey."""
    colours = dict(zip([key[1:] for key in keys if key[0] == "method"], cycle(COLOURS), strict=False))
    dashes = dict(zip(CONTROLS.names(), cycle(DASHES), strict=False))
    looks = dict[MapKey, dict[str, Any]]()
    for kind, name, layer in keys:
        if kind == "control":
            look = {"color": GREY, "linestyle": dashes.get(name, "-"), "linewidth": 1.0}
        else:
            dash = "-" if kind == "method" else (0, (1.5, 1))
            look = {"color": colours[name, layer], "linestyle": dash, "linewidth": 1.7 if kind == "method" else 1.1}
        looks[kind, name, layer] = look
    return looks


def _name(key: MapKey) -> str:
    kind, name, layer = key
    return f"{name}{f' at {layer}' if layer else ''}{', blurred' if kind == 'blurred' else ''}"
