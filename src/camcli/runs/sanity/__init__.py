"""Job of ``camcli sanity``, and what it says of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from camcli.base.errors import RequestError, did_you_mean
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option
from camcli.runs.record.rows import ColumnType

# The tests, each with what it changes.
TESTS: Mapping[str, str] = {
    "cascade": "the network's parts are drawn anew one after another, from the output to the input, and stay so",
    "bottom-up": "the same from the input to the output",
    "independent": "one part at a time is drawn anew, and the others are as they were",
    "full": "all parts are drawn anew at once, as in the last step of cascade",
    "class": "another class, drawn at random, is explained",
    "shift": "a constant is added to the input, and taken off again before the network",
    "repeat": "nothing: the same maps are made again",
}
# Those that are done only if they are named.
_ON_REQUEST = ("bottom-up", "independent", "full")
# Median similarity up to which the map of a changed network, or of another class, counts as another map; and from which
# on that of a shifted input counts as the same.
SAME_FROM, SHIFTED_FROM = 0.5, 0.99
DEFAULT_NOISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SanityJob:
    """Job of ``camcli sanity``: what the maps of one or several methods depend on.

    Attributes:
        job: model, images, methods and targets, as for ``camcli explain``.
    """

    job: Job
    tests: tuple[str, ...] = option(
        (),
        MODEL,
        help="Tests, joined by commas: {names}",
        metavar="NAMES",
        show_default="all but bottom-up, independent and full",
        commas=True,
        names=lambda: [*TESTS],
        env=False,
    )
    shift: float = option(
        1.0,
        MODEL,
        help="Constant that is added to the preprocessed input by the test shift",
        metavar="NUMBER",
        env=False,
    )
    samples: int = option(
        0,
        MODEL,
        help="Compare the means of maps over N noisy copies of each image (sMPRT), by any method, at N times the cost; "
        "0 = the maps of the image itself",
        metavar="N",
        min=0,
        env=False,
    )
    noise: float = option(
        DEFAULT_NOISE,
        MODEL,
        help="Standard deviation of the noise of --samples, as a share of the range of the preprocessed image's values",
        metavar="SHARE",
        env=False,
    )
    to: str = option(
        "", OUTPUT, help="Write the rows of all steps to a file: .csv, .jsonl or .parquet", metavar="FILE", env=False
    )

    def __post_init__(self) -> None:
        """Raise RequestError for invalid options."""
        for name in self.tests:
            if name not in TESTS:
                near = did_you_mean(name, TESTS) or f"there are: {', '.join(TESTS)}"
                raise RequestError(f"there is no test {name!r}", near)
        if not self.shift or not math.isfinite(self.shift):
            raise RequestError(f"--shift cannot be {self.shift:g}: it tests nothing", "give another number, such as 1")
        if self.samples < 0:
            raise RequestError(
                f"--samples cannot be {self.samples}", "give the number of copies, such as 50; 0 for none"
            )
        if not 0 < self.noise < math.inf:
            raise RequestError(f"--noise cannot be {self.noise:g}", "give a share of the image's range, such as 0.1")
        if self.noise != DEFAULT_NOISE and not self.samples:
            raise RequestError("--noise is that of noisy copies, and there are none", "add --samples 50")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The tests that are done, in the order of :data:`TESTS`."""
        wanted = self.tests or [name for name in TESTS if name not in _ON_REQUEST]
        return tuple(name for name in TESTS if name in wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class SanityRow:
    """One method's maps before and after one step of a test: how similar they are, medians over the maps.

    Attributes:
        test: the test.
        step: number of the step, from 1 on.
        part: the part of the network that was drawn anew in this step, ``(all)`` for all at once; empty in other tests.
        share: share of the network's parameters that are drawn anew by now.
        method, layer: those of the maps.
        pearson: Pearson's r over the map's cells that show the image; None if it is undefined for every map.
        spearman: Spearman's rank correlation over them.
        ssim: structural similarity at the model's input size.
        rise: relative rise of the map's complexity; in ``full`` and the last step of ``cascade`` it is eMPRT.
        maps: number of maps that are compared.
        undefined: number of those without a similarity: they are constant, could not be made, or have no other class.
        equal: number of maps that are equal to the bit.
    """

    test: str
    step: int = 1
    part: str = ""
    share: float = 0.0
    method: str = ""
    layer: str = ""
    pearson: float | None = None
    spearman: float | None = None
    ssim: float | None = None
    rise: float | None = None
    maps: int = 0
    undefined: int = 0
    equal: int = 0

    def as_row(self) -> Mapping[str, Any]:
        """Return it as a row of the table."""
        return asdict(self)


_TEXTS, _INTEGERS = ("test", "part", "method", "layer"), ("step", "maps", "undefined", "equal")
COLUMNS: Mapping[str, ColumnType] = {
    name: "text" if name in _TEXTS else "integer" if name in _INTEGERS else "number"
    for name in SanityRow.__dataclass_fields__
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict of a test on a method at a layer.

    Attributes:
        test, method, layer: what it is of.
        passes: None where that cannot be told.
        value: the number that decides; None if it is undefined.
        words: the number, its limit, and what it means.
    """

    test: str
    method: str
    layer: str
    passes: bool | None
    value: float | None
    words: str
