"""Facts that the checks on noise have found so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from camcli.engine.forward import Plan
from camcli.engine.hooks.capture import Activations
from camcli.engine.layers.locate import GridLocation
from camcli.engine.layers.probe import LayerInfo
from camcli.engine.maps.augment import Augmentation
from camcli.engine.maps.places import PreparedPlan, read_grids
from camcli.engine.setup import SizeKey


@dataclass(slots=True)
class Findings:
    """Facts about a network, most of them for each size of images.

    Attributes:
        plans: by size.
        augmentations: by size, with their input sizes.
        last_key: the size that was checked last.
        sharing_keys: sizes for which there is one prediction for a whole group.
        locations: by size, where the cells of each layer lie.
        even_steps: by size, True if all steps of the network are even.
        activations: by size, outputs of the layers, kept for the next step.
        layer_infos: by size, facts about every layer's output, kept for the next step.
        scores_tried: True once the scores were tried: their kind, and whether they are the same in a second run.
        takes_default_layer: True if no layer was named, so that another can replace the default.
        failed_layers: default layers that did not work.
        vanished_layers: layers by which the score's gradient is zero on noise, though the score depends on them.
    """

    plans: dict[SizeKey, Plan] = field(default_factory=dict)
    augmentations: dict[SizeKey, list[Augmentation]] = field(default_factory=dict)
    last_key: SizeKey | None = None
    sharing_keys: set[SizeKey] = field(default_factory=set)
    locations: dict[SizeKey, dict[str, GridLocation]] = field(default_factory=dict)
    even_steps: dict[SizeKey, bool] = field(default_factory=dict)
    activations: dict[SizeKey, Activations] = field(default_factory=dict)
    layer_infos: dict[SizeKey, list[LayerInfo]] = field(default_factory=dict)
    scores_tried: bool = False
    takes_default_layer: bool = False
    failed_layers: list[str] = field(default_factory=list)
    vanished_layers: set[str] = field(default_factory=set)

    @property
    def plan(self) -> Plan:
        """The plan for the size that was checked last; an empty one before the first check."""
        return Plan() if self.last_key is None else self.plans[self.last_key]

    @property
    def shares_prediction(self) -> bool:
        """True if there is one prediction for a whole group of the size that was checked last."""
        return self.last_key in self.sharing_keys

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each layer's maps, and (key "") of maps over tokens, for the size checked last."""
        return read_grids(self.plan)

    def for_size(self, key: SizeKey) -> PreparedPlan:
        """Collect the facts that explaining images of a size needs."""
        count, *_ = key
        size = key[1:]
        augmentations = [(one, self.plans[count, *(one.size or size)]) for one in self.augmentations[key]]
        return PreparedPlan(size, self.plans[key], augmentations, self.vanished_layers)
