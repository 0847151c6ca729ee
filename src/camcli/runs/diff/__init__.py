"""Comparison of two finished runs: what it says of each map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from camcli.runs.record.rows import ColumnType

# Which of the runs have the map.
Presence = Literal["both", "base", "new", "none"]

MEASURES = ("pearson", "ssim", "overlap", "moved", "moved_pixels", "score_change", "probability_change")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapChange:
    """Change of one map from the first run, the base, to the second, the new one.

    Attributes:
        name: the image's output name.
        source: the image, as the new run was given it; as the base was, where the new run has none.
        page: page of its file; 0 where pages are not counted.
        there: which runs have a map.
        method, layer: those of the new map, or of the only one.
        base_label, new_label: the class that each explains.
        pearson, ssim, overlap: similarity of the maps; None where undefined.
        equal: the maps are equal to the bit.
        moved: distance of the peaks, as a share of the image's diagonal.
        moved_pixels: distance of the peaks in pixels of the image.
        base_score, new_score, score_change: the number that is explained, and its change.
        base_probability, new_probability, probability_change: the probability of the class, and its change.
        base_predicted, new_predicted: the class that the model predicts.
        changed: that is another class; None where the model predicts none.
        grid: what similarity is computed over: the layer's ``cells``, or the ``image`` where the runs' cells differ.
        reasons: why something is undefined or missing.
        base_error, new_error: why a run has no map.
    """

    name: str
    source: str
    page: int = 0
    there: Presence = "both"
    method: str = ""
    layer: str = ""
    base_label: str | None = None
    new_label: str | None = None
    pearson: float | None = None
    ssim: float | None = None
    overlap: float | None = None
    equal: bool | None = None
    moved: float | None = None
    moved_pixels: float | None = None
    base_score: float | None = None
    new_score: float | None = None
    score_change: float | None = None
    base_probability: float | None = None
    new_probability: float | None = None
    probability_change: float | None = None
    base_predicted: str | None = None
    new_predicted: str | None = None
    changed: bool | None = None
    grid: str = ""
    reasons: tuple[str, ...] = ()
    base_error: str | None = None
    new_error: str | None = None

    def as_row(self) -> Mapping[str, Any]:
        """Return it as a row of the table."""
        return asdict(self)

    @property
    def label(self) -> str:
        """The class in words: ``tabby``, or ``tabby -> tiger cat``."""
        one, other = self.base_label or "", self.new_label or ""
        return f"{one} -> {other}" if one and other and one != other else other or one

    @property
    def title(self) -> str:
        """Image and class in words."""
        return f"{self.name} ({self.label})" if self.label else self.name


_TEXTS = ("name", "source", "there", "method", "layer", "base_label", "new_label", "base_predicted", "new_predicted")
_TYPES: dict[str, ColumnType] = {
    **dict.fromkeys((*_TEXTS, "grid", "base_error", "new_error"), "text"),
    "page": "integer",
    **dict.fromkeys(("equal", "changed"), "truth"),
    "reasons": "texts",
}
COLUMNS: Mapping[str, ColumnType] = {name: _TYPES.get(name, "number") for name in MapChange.__dataclass_fields__}
