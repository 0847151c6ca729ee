"""What comes out: a map with everything that is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from camcli.images.placement import Placement
    from camcli.images.view import View


@dataclass(frozen=True, slots=True)
class Spoken:
    """A class that a concept speaks for.

    Attributes:
        index: the class.
        label: its name.
        rise: how much its score rises when the layer gives this concept's part alone, and nothing else, over what it
            is when the layer gives nothing.
    """

    index: int
    label: str
    rise: float


@dataclass(frozen=True, slots=True)
class Concept:
    """One of the concepts that a layer's activation is made of in a picture.

    Attributes:
        number: from 1 on, and the same in all pictures that were factorised together; its place in the map.
        share: its part of all that the concepts have in this picture: the sum of its map over the sum of all.
        classes: those it speaks for, strongest first; empty where none rises, or none can be named.
    """

    number: int
    share: float
    classes: tuple[Spoken, ...] = ()

    @classmethod
    def read(cls, values: dict[str, Any]) -> Concept:
        """A concept as JSON has it."""
        return cls(values["number"], values["share"], tuple(Spoken(**one) for one in values["classes"]))


@dataclass(frozen=True, slots=True)
class Explanation:
    """One map of one picture for one class at one layer; or the concepts of a picture, which are of no class.

    Attributes:
        map: float32, signed, as the method gave it: ``(h, w)`` at the layer's size, or ``(3, H, W)`` at the model's
            input for methods that work there; of concepts ``(k, h, w)`` at the layer's size.
        method: the row that made it.
        layer: the layer's full name, or empty for methods at the input; several fused are joined by ``+``.
        index: the class explained; None of concepts.
        label: the class's name; of concepts how many there are.
        score: the number that is explained: the model's output for it, before softmax or sigmoid, unless another
            was asked for; summed over a region, or that of a box, where the model gives such; of a channel of the
            layer its mean; of concepts the share of the layer's positive activation that they hold together (1 minus
            the sum of squares of what they miss over that of the activation).
        probability: after it; the mean over the region; None where the model gives no probability.
        notes: what a reader of the map must know.
        number: which of the picture's boxes is explained, the best being 1; 0 if none is.
        box: its x0, y0, x1, y1, in pixels of the picture (of the model's input, where there is no picture).
        concepts: what the map's first dimension counts, where the method finds concepts.
        versus: what the class is compared with, where the score is a margin.
        channel: the channel of the layer or of the backbone that is shown; None where it is a class's whole map.
        weight: the channel's share in the class's score, to first order: activation times gradient, summed over the
            layer's cells.
        source: the picture, where the map came out of a stream of them.
        view: which part of it the model saw, likewise, and where the map's cells lie in it.
        placement: where the map's cells lie in the model's input; None where they share it evenly.
        page: which page of its file it is, from 1 on, where several are asked for; else 0.
    """

    map: np.ndarray
    method: str
    layer: str
    index: int | None
    label: str
    score: float
    probability: float | None
    notes: tuple[str, ...] = ()
    number: int = 0
    box: tuple[float, float, float, float] | None = None
    concepts: tuple[Concept, ...] = ()
    versus: str = ""
    channel: int | None = None
    weight: float | None = None
    source: str = ""
    view: View | None = None
    placement: Placement | None = None
    page: int = 0

    @property
    def drawn(self) -> np.ndarray:
        """The map; of concepts at each cell the strongest, ``(h, w)``."""
        return self.map.max(0) if self.concepts else self.map
