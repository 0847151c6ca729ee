"""Measures of one map of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from camcli.base.errors import PictureError, RequestError
from camcli.images.objects.boxes import Boxes
from camcli.images.objects.entry import Box
from camcli.images.objects.masks import read_region
from camcli.images.region import Region
from camcli.images.source import PictureSource
from camcli.images.view import View
from camcli.metrics import METRICS, NO_OBJECT, NO_POSITIVE
from camcli.metrics.bind import BoundMetric, bind_metrics
from camcli.metrics.localisation import energy_in_box
from camcli.metrics.similarity import is_constant
from camcli.runs.check import BORDER_WIDTH, Rule
from camcli.runs.check.judge import NO_PREDICTION, Value, list_class_names
from camcli.runs.record.finished import RecordedMap
from camcli.runs.record.outcome import Outcome
from camcli.targets.labels import normalize_name

# Part of an image.
Part = Box | Region


def make_part(settings: Mapping[str, Any], folder: Path, where: str) -> Part:
    """Make the part of an image that a rule is about.

    Args:
        settings: ``region`` or ``mask``.
        folder: folder that the path of a mask starts from.
        where: place of the rule.

    Raises:
        RequestError: the mask cannot be read, or is black everywhere.
    """
    if "region" in settings:
        x0, y0, x1, y1 = map(float, settings["region"])
        return Box((x0, y0, x1, y1), relative=True)
    try:
        return read_region(folder / settings["mask"])
    except PictureError as error:
        raise RequestError(f"{where}: the mask {settings['mask']!r}: {error.message}", error.hint) from error


class LabelledBoxes:
    """Boxes of objects, looked up by the labels of their classes.

    Args:
        file: the file or folder; see :class:`camcli.images.objects.boxes.Boxes`.
        folders: folders that images are taken from.

    Raises:
        RequestError: it cannot be read.
    """

    def __init__(self, file: Path, folders: Sequence[Path]) -> None:
        self._numbers: dict[str, int] = {}
        self.boxes = Boxes(file, self._number, self._number, folders)

    def _number(self, label: str) -> int:
        return self._numbers.setdefault(normalize_name(label), len(self._numbers))

    def find_region(self, outcome: Outcome, view: View) -> Bool[np.ndarray, "h w"]:
        """Return the pixels of the model's input in boxes of the map's class; see :func:`list_class_names`."""
        names = list_class_names(outcome.label or "", outcome.index)
        known = [self._numbers[name] for name in sorted(names) if name in self._numbers]
        source = PictureSource(outcome.source, outcome.name, page=outcome.page)
        return np.asarray(
            np.logical_or.reduce([self.boxes.find_region(source, number, view) for number in known or [-1]])
        )


@dataclass(frozen=True)
class MapMeasures:
    """A map of a finished run, measured when asked; what several rules need is computed once.

    Attributes:
        recorded: the map.
    """

    recorded: RecordedMap

    @cached_property
    def map(self) -> Float32[np.ndarray, "h w"]:
        """The map at the layer's size."""
        return self.recorded.load()

    @cached_property
    def view(self) -> View:
        """View of the image."""
        return self.recorded.view

    @cached_property
    def at_input(self) -> Float32[np.ndarray, "h w"]:
        """The map at the model's input size, enlarged as for drawing."""
        return np.ascontiguousarray(self.view.view_of_input().enlarge(self.map))

    def find_inside(self, part: Part) -> Bool[np.ndarray, "h w"]:
        """Return the pixels of the input whose centres lie in a part of the image.

        Raises:
            PictureError: the part is a mask for images of another size.
        """
        return part.contains(*self.view.pixel_centres(), self.view.picture)

    def compute_energy(self, inside: Bool[np.ndarray, "h w"]) -> Value:
        """Compute the share of the positive values in some pixels of the input, of which there may be none."""
        if not (self.at_input > 0).any():
            return Value(None, NO_POSITIVE)
        return Value(float(energy_in_box(self.at_input[None], inside)[0]) if inside.any() else 0.0)

    def find_border(self, width: float) -> Bool[np.ndarray, "h w"]:
        """Return the pixels at the border of what the model sees of the image.

        Args:
            width: width of the border, as a share of the shorter side.
        """
        border = np.zeros(self.view.input, bool)
        rows, columns = self.view.visible_window(self.view.input)
        edge = width * min(rows.stop - rows.start, columns.stop - columns.start)
        border[rows, columns] = True
        inner = np.s_[round(rows.start + edge) : round(rows.stop - edge)]
        border[inner, round(columns.start + edge) : round(columns.stop - edge)] = False
        return border

    def find_peak(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the peak's x and y in pixels of the image; None if no value is positive.

        Raises:
            PictureError: its line does not say where it is.
            RequestError: its line does not have the image's size.
        """
        height, width = self.view.picture
        if self.map.max() <= 0:
            return None
        peak = self.recorded.outcome.peak
        if peak is None:
            raise PictureError("the record does not say where the map's peak is")
        # A peak at the very edge is in the last pixel.
        x, y = (min(one, float(np.nextafter(side, 0))) for one, side in zip(peak, (width, height), strict=True))
        return np.array([x]), np.array([y])


# From a map to its value; None where the rule is not about it.
Compute = Callable[[MapMeasures], Value | None]


@dataclass(frozen=True, slots=True)
class BoundRule:
    """A rule with what computes its measure."""

    rule: Rule
    compute: Compute

    def measure(self, measures: MapMeasures) -> Value | None:
        """Return the value of a map; None where the rule is not about it, as for maps that failed."""
        outcome = measures.recorded.outcome
        if self.rule.measure.name == "failed":
            return Value(outcome.error is not None, outcome.error or "")
        if not measures.recorded.has_map:
            return None
        try:
            return self.compute(measures)
        except PictureError as error:
            return Value(None, error.message)


def bind_rule(rule: Rule, folder: Path, boxes: LabelledBoxes | None) -> BoundRule:
    """Return a rule with what computes its measure.

    Args:
        rule: the rule.
        folder: folder that paths in the rule start from.
        boxes: boxes of objects, if they are known.

    Raises:
        RequestError: a setting is wrong.
    """
    settings = rule.settings
    match rule.measure.name:
        case "energy-in-region":
            part = make_part(settings, folder, rule.where)
            return BoundRule(rule, lambda one: one.compute_energy(one.find_inside(part)))
        case "energy-in-border":
            width = float(settings.get("width", BORDER_WIDTH))
            return BoundRule(rule, lambda one: one.compute_energy(one.find_border(width)))
        case "peak-in-region":
            return BoundRule(rule, _PeakInRegion(make_part(settings, folder, rule.where)))
        case "constant":
            return BoundRule(rule, lambda one: Value(is_constant(one.map)))
        case "predicted":
            return BoundRule(rule, _compute_predicted)
        case "probability" | "score" as name:
            return BoundRule(rule, lambda one: _read_number(one, name))
        case "failed":
            return BoundRule(rule, lambda one: None)
    words = [f"{rule.measure.name}.{name}={value:g}" for name, value in settings.items()]
    try:
        [metric] = bind_metrics([rule.measure.name], words, with_objects=True)
    except RequestError as error:
        raise RequestError(f"{rule.where}: {error.message}", error.hint) from error
    return BoundRule(rule, _MetricValue(metric, boxes))


@dataclass(frozen=True, slots=True)
class _PeakInRegion:
    part: Part

    def __call__(self, one: MapMeasures) -> Value:
        peak = one.find_peak()
        if peak is None:
            return Value(None, NO_POSITIVE)
        return Value(bool(self.part.contains(*peak, one.view.picture)[0, 0]))


@dataclass(frozen=True, slots=True)
class _MetricValue:
    metric: BoundMetric
    boxes: LabelledBoxes | None
    undefined: Mapping[str, str] = field(
        default_factory=lambda: {row.name: row.undefined.replace(f"{NO_OBJECT}, or ", "") for row in METRICS.rows}
    )

    def __call__(self, one: MapMeasures) -> Value | None:
        given: dict[str, Any] = {"maps": one.at_input[None]}
        if "region" in self.metric.given_names:
            assert self.boxes is not None  # a file without boxes has no such rule
            region = self.boxes.find_region(one.recorded.outcome, one.view)
            if not region.any():
                return None
            given["region"] = region
        numbers, _ = self.metric(given)
        number = float(numbers[0])
        return Value(None, self.undefined[self.metric.row.name]) if np.isnan(number) else Value(number)


def _compute_predicted(one: MapMeasures) -> Value:
    outcome = one.recorded.outcome
    if outcome.predicted is None or outcome.index is None:
        return Value(None, NO_PREDICTION)
    hit = outcome.predicted == outcome.index
    return Value(hit, "" if hit else f"{outcome.predicted_label} is predicted")


def _read_number(one: MapMeasures, name: str) -> Value:
    number = getattr(one.recorded.outcome, name)
    return Value(None, f"the model returns no {name}") if number is None else Value(float(number))
