"""The explanation of an image: a map with all facts about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from camcli.methods import METHODS

if TYPE_CHECKING:
    import numpy as np

    from camcli.images.placement import Placement
    from camcli.images.view import View


@dataclass(frozen=True, slots=True)
class ConceptClass:
    """A class whose score a concept raises.

    Attributes:
        index: the class.
        label: its name.
        rise: increase of its score if the layer's output is this concept's part alone, compared to an output of zero.
    """

    index: int
    label: str
    rise: float


@dataclass(frozen=True, slots=True)
class ConceptImportance:
    """Importance of a concept for the score of a class.

    Attributes:
        index: the class.
        label: its name.
        total: the concept's total Sobol index: the share of the variance of the score, while concepts are weakened at
            random, that it has a part in; None where no concept changes the score.
    """

    index: int
    label: str
    total: float | None


@dataclass(frozen=True, slots=True)
class Concept:
    """One of the concepts that a layer's activation consists of in an image.

    Attributes:
        number: from 1 on, the same in all images that were factorised together; its place in the map.
        share: share of the concept in the image: the sum of its map over the sum of all concepts' maps.
        classes: those whose scores it raises, strongest first; empty if it raises none, or none can be named.
        importances: for the classes that are explained; empty if that was not asked for.
    """

    number: int
    share: float
    classes: tuple[ConceptClass, ...] = ()
    importances: tuple[ConceptImportance, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Concept:
        """Build a concept from its JSON values."""
        classes = tuple(ConceptClass(**one) for one in values["classes"])
        importances = tuple(ConceptImportance(**one) for one in values.get("importances", ()))
        return cls(values["number"], values["share"], classes, importances)


@dataclass(frozen=True, slots=True)
class Explanation:
    """One map of one image for one class at one layer; or the concepts of an image, which belong to no class.

    Attributes:
        map: float32, signed, as the method gave it: ``(h, w)`` at the layer's size, or ``(3, H, W)`` at the model's
            input for methods that work there; for concepts ``(k, h, w)`` at the layer's size (not
            signed, except components).
        method: name of the method.
        layer: full name of the layer, empty for methods at the input; several fused layers are joined by ``+``.
        index: the class explained; None for concepts.
        label: name of the class; for concepts their number.
        score: the number that is explained: by default the model's output for the class, before softmax or sigmoid;
            summed over a region, or the score of a box, for models with such; for a channel of the layer its mean; for
            concepts their share of the layer's positive activation (1 minus the sum of squares of what they miss over
            that of the activation).
        probability: the class's probability; the mean over the region; None if the model returns no probabilities.
        notes: remarks that help to read the map.
        number: number of the image's box that is explained, the best being 1; 0 if none is.
        box: its x0, y0, x1, y1, in pixels of the image (of the model's input, if there is no image).
        true_box: the true box that it stands for, in the same pixels, if a file of true boxes is explained.
        concepts: one for each entry of the map's first dimension, if the method finds concepts.
        versus: the classes that the class is compared with, if the score is a margin.
        channel: the channel of the layer or of the backbone that is shown; None for a class's whole map.
        weight: the channel's contribution to the class's score, to first order: activation times gradient, summed over
            the layer's cells.
        source: the image file, if the map came from a stream of files.
        view: the part of the image that the model saw, and where the map's cells lie in it, if the map came from a
            stream.
        placement: where the map's cells lie in the model's input; None if they share it evenly.
        page: page of the file, from 1 on, if several are explained; else 0.
        predicted: the class with the highest score, of those that compete in the image; None unless the model has one
            score for each of several classes.
        predicted_label: its name.
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
    true_box: tuple[float, float, float, float] | None = None
    concepts: tuple[Concept, ...] = ()
    versus: str = ""
    channel: int | None = None
    weight: float | None = None
    source: str = ""
    view: View | None = None
    placement: Placement | None = None
    page: int = 0
    predicted: int | None = None
    predicted_label: str | None = None

    def __repr__(self) -> str:
        about = f"{self.index} {self.label}" if self.index is not None else self.label
        where = f" at {self.layer}" if self.layer else ""
        size = "x".join(map(str, self.map.shape))
        sure = "" if self.probability is None else f", probability {self.probability:.3g}"
        source = f"{self.source}: " if self.source else ""
        return f"{type(self).__name__}({source}{about}, {self.method}{where}, map {size}, score {self.score:.4g}{sure})"

    @property
    def drawn(self) -> np.ndarray:
        """The map; for concepts the strongest at each cell, for components the first, ``(h, w)``."""
        if not self.concepts:
            return self.map
        shown: np.ndarray = self.map[0] if self.finds == "components" else self.map.max(0)
        return shown

    @property
    def finds(self) -> str:
        """Kind of what the method found instead of a class: concepts, components or segments; empty if nothing such."""
        named = (row.finds for row in METHODS.rows if row.name == self.method)
        return next(named, "concepts") if self.concepts else ""
