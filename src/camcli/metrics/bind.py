"""Metrics with their settings, and what each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64

from camcli.base.errors import RequestError
from camcli.base.signature import format_value, parse_options, positional_names, read_options
from camcli.metrics import METRICS, OBJECT_NAMES, MetricRow
from camcli.metrics.superpixels import divide

# Size of the noise that metrics are tried on.
TRIAL_SIZE = (16, 16)


@dataclass(frozen=True, slots=True)
class BoundMetric:
    """A metric with its settings.

    Attributes:
        row: its row.
        function: its function.
        settings: values of the function's settings.
    """

    row: MetricRow
    function: Callable[..., Any]
    settings: Mapping[str, Any]

    @property
    def given_names(self) -> tuple[str, ...]:
        """Names of what the function is given."""
        return positional_names(self.function)

    @property
    def setting(self) -> str:
        """Settings in words: ``fill=mean steps=10``."""
        return " ".join(f"{name}={format_value(value)}" for name, value in self.settings.items())

    def __call__(self, given: Mapping[str, Any]) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n t"] | None]:
        """Compute the number of each map, NaN where it is undefined, and its curve, if the metric has one."""
        found = self.function(*(given[name] for name in self.given_names), **self.settings)
        return found if isinstance(found, tuple) else (found, None)

    def count_passes(self, maps: int) -> int:
        """Count the changed images that go through the network for so many maps of an image, by a trial on noise."""
        if not {"score_of", "explain_again"} & {*self.given_names}:
            return 0
        counted: list[int] = []
        noise = np.random.default_rng(0).random((maps, *TRIAL_SIZE), np.float32)

        def score_of(variants: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            for one in variants:
                counted.append(len(one))
                yield np.ones(len(one))

        def explain_again(variants: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            return (noise for _ in score_of(variants))

        given = {"maps": noise, "image": noise[:1], "region": noise[0] > 0, "boxes": np.empty((0, 4))}
        given |= {"colours": noise[:1], "from_colours": np.asarray, "divide": partial(divide, noise[:1])}
        self({**given, "score_of": score_of, "explain_again": explain_again})
        return sum(counted)


def bind_metrics(names: Sequence[str], words: Sequence[str], with_objects: bool) -> tuple[BoundMetric, ...]:
    """Return metrics with their settings.

    Args:
        names: names of rows; empty for those that are computed by default, of what is given.
        words: settings, each ``name=value`` or ``metric.name=value``.
        with_objects: True if it is given where objects lie.

    Raises:
        RequestError: there is no such metric or setting, or a metric needs a region and there is none.
    """
    rows = [METRICS.find(name) for name in dict.fromkeys(names)] or [row for row in METRICS.rows if row.default]
    functions = {row.name: METRICS.load(row.name) for row in rows}
    needing = [row.name for row in rows if OBJECT_NAMES & {*positional_names(functions[row.name])}]
    if names and needing and not with_objects:
        raise RequestError(
            f"{needing[0]} compares maps with objects, and nothing says where these lie",
            "give boxes of them, --boxes FILE, or masks, --masks FOLDER",
        )
    rows = [row for row in rows if with_objects or row.name not in needing]
    options = {row.name: read_options(functions[row.name]) for row in rows}
    # What a row sets is its identity, as the fill of insertion-blur.
    free = {
        row.name: {name: one for name, one in options[row.name].items() if name not in row.settings} for row in rows
    }
    given = parse_options(words, free)
    return tuple(
        BoundMetric(
            row,
            functions[row.name],
            {**{name: one.default for name, one in options[row.name].items()}, **row.settings, **given[row.name]},
        )
        for row in rows
    )
