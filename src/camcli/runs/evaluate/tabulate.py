"""Tables of all images of an evaluation: means, curves, ranks, and what they say of the methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from camcli.base.errors import PictureError
from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.agreement import Agreement, compare_metrics
from camcli.runs.evaluate.columns import collect
from camcli.runs.evaluate.conclusion import Conclusion, draw_conclusion
from camcli.runs.evaluate.ranks import Rank, rank_methods
from camcli.runs.evaluate.summary import MeanCurve, TableRow, list_warnings, summarize


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables of all images.

    Attributes:
        images: number of images.
        rows: the table.
        curves: mean curves.
        warnings: where methods are not better than the controls.
        agreements: how far metrics agree on the order of maps.
        ranks: ranks of the methods by each metric.
        conclusion: what the numbers say of the methods.
    """

    images: int
    rows: list[TableRow]
    curves: list[MeanCurve]
    warnings: list[str]
    agreements: list[Agreement]
    ranks: list[Rank]
    conclusion: Conclusion

    def as_facts(self) -> dict[str, Any]:
        """Return them as plain values, for the record of the run."""
        return {
            "table": [one.as_dict() for one in self.rows],
            "curves": [one.as_dict() for one in self.curves],
            "ranks": [one.as_dict() for one in self.ranks],
            "agreements": [one.as_dict() for one in self.agreements],
            "conclusion": self.conclusion.as_dict(),
            "warnings": self.warnings,
        }


def tabulate(pictures: Iterable[Sequence[Evaluation]], layers: Sequence[str], seed: int) -> Tables:
    """Make the tables of all images; the same whatever the order of these.

    Args:
        pictures: the lines of each image.
        layers: the layers explained.
        seed: of the bootstrap.

    Raises:
        PictureError: no image could be done.
    """
    numbers = collect(pictures, len(layers) > 1)
    rows, curves = summarize(numbers, seed)
    if not rows:
        raise PictureError("no image could be processed, so there is nothing to tabulate")
    ranks = rank_methods(numbers, seed)
    return Tables(
        images=numbers.count,
        rows=rows,
        curves=curves,
        warnings=list_warnings(rows),
        agreements=compare_metrics(rows),
        ranks=ranks,
        conclusion=draw_conclusion(numbers, rows, ranks, seed),
    )
