"""What was found out on noise so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from camcli.engine.forward import Plan
from camcli.engine.hooks.capture import Taps
from camcli.engine.layers.locate import Located
from camcli.engine.layers.probe import Layer
from camcli.engine.maps.augment import Pass
from camcli.engine.maps.places import Prepared, grids_of
from camcli.engine.setup import Key


@dataclass(slots=True)
class Findings:
    """What was found out about a network, most of it for each size of images.

    Attributes:
        plans: for images of a size.
        passes: how images of a size are shown to the network.
        checked: for which images all was found out last.
        shared_by: for which images there is one prediction for a whole group.
        located: where the cells of each layer lie.
        even: whether all steps of the network are even.
        taps: what the layers gave, kept for the next step.
        surveyed: what every layer gives, likewise.
        tried: whether it is known what the scores are, and whether the network says the same twice.
        default: whether nobody named a layer, so that another may take its place.
        failed: the layers that did not do in its place.
        vanished: those by which the score's gradient is zero on noise, though it is made of them.
    """

    plans: dict[Key, Plan] = field(default_factory=dict)
    passes: dict[Key, list[Pass]] = field(default_factory=dict)
    checked: Key | None = None
    shared_by: set[Key] = field(default_factory=set)
    located: dict[Key, dict[str, Located]] = field(default_factory=dict)
    even: dict[Key, bool] = field(default_factory=dict)
    taps: dict[Key, Taps] = field(default_factory=dict)
    surveyed: dict[Key, list[Layer]] = field(default_factory=dict)
    tried: bool = False
    default: bool = False
    failed: list[str] = field(default_factory=list)
    vanished: set[str] = field(default_factory=set)

    @property
    def plan(self) -> Plan:
        """That for the images that were checked last; an empty one before."""
        return Plan() if self.checked is None else self.plans[self.checked]

    @property
    def shared(self) -> bool:
        """Whether there is one prediction for a whole group, of those that were checked last."""
        return self.checked in self.shared_by

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each layer's maps, and ("") of those over tokens, for images checked last."""
        return grids_of(self.plan)

    def prepared(self, key: Key) -> Prepared:
        """All that is needed to explain images."""
        count, *_ = key
        size = key[1:]
        turns = [(one, self.plans[count, *(one.size or size)]) for one in self.passes[key]]
        return Prepared(size, self.plans[key], turns, self.vanished)
