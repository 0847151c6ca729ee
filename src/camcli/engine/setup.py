"""The settings of an explainer for one network, and the facts that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine import Place, devices
from camcli.engine.forward import Runner
from camcli.engine.hooks.capture import find_layer
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.hooks.transformer_rules import TransformerRules
from camcli.engine.needs import NEEDS_ATTENTION, NEEDS_BLOCKS, NEEDS_QUERY
from camcli.engine.network import Network
from camcli.targets.readers.detection import CANNOT_RESCORE_BOXES
from camcli.targets.readers.spec import OutputSpec
from camcli.targets.scores import SCORES
from camcli.targets.target import Activation, Predictions, Score

if TYPE_CHECKING:
    from camcli.engine.maps.concepts import FittedConcepts
    from camcli.engine.maps.method import BoundMethod

# Number of images given at once (1 unless they are a group), and their rows and columns.
SizeKey = tuple[int, int, int]
# Signals that are a gradient.
GRADIENT_SIGNALS = frozenset(
    {
        "grad",
        "hvp",
        "grad_of",
        "input_grad",
        "score_and_grad",
        "act_and_grad",
        "biases",
        "attn_grad",
        "attn_out_grad",
        "early_exit_grads",
        "cosine_and_grad",
    }
)
# Signals that need a gradient.
NEEDS_GRAPH = GRADIENT_SIGNALS | {"rows_to_grid"} | NEEDS_QUERY | NEEDS_BLOCKS
# Signals that a channel's contribution to the score is made of.
CONTRIBUTION_SIGNALS = frozenset({"act", "grad"})
# Share of a network's modules that come before a layer for the layer to count as late.
LATE_SHARE = 0.7


@dataclass(slots=True)
class Setup:
    """Settings of an explainer for one network.

    Attributes:
        module: the module that runs.
        network: the network of the module, if more is known than the module.
        output_spec: where the scores are in the module's output, and which number of a class is explained.
        activation: the function that turns scores into probabilities.
        bound_methods: the methods.
        score_args: name, compared classes and sign of the score, as :func:`make_score` takes them.
        fuse: how the maps of several layers are joined.
        eigen_smooth: True to replace the sum of the channels' parts of a map by their first principal component.
        scales, flips: augmentations whose maps are averaged with that of the image.
        top_channels: number of channels whose parts are returned instead of the map; 0 for the map.
        group: True if the images of a call belong together.
        layout: memory layout of the layers' output, if it was given.
        call: the call that counts of a layer that is called several times in one forward, from 1 on; 0 for the last.
        recompute: True to recompute parts of the network in the backward.
        placement: position of the layers' cells in the input: measured or even.
        batch_size: number of variants of images per forward.
        backward: rules for the gradient's way through a transformer; ``plain`` for none.
        fitted_concepts: what methods that find concepts in several images together were fitted to.
        one_by_one: True if each image is explained in a batch of its own.
        notes: remarks that hold for all maps.
        signal_names: names of all signals that the methods need.
        runner: runs the module.
    """

    module: nn.Module
    network: Network | None
    output_spec: OutputSpec
    activation: Activation
    bound_methods: tuple[BoundMethod, ...]
    score_args: tuple[str, tuple[int, ...], bool]
    fuse: str
    eigen_smooth: bool
    scales: tuple[int | float, ...]
    flips: tuple[str, ...]
    top_channels: int
    group: bool
    layout: str
    call: int
    recompute: bool
    placement: Place
    batch_size: int
    backward: str = "plain"
    fitted_concepts: FittedConcepts = field(default_factory=dict)
    one_by_one: bool = False
    notes: tuple[str, ...] = ()
    signal_names: frozenset[str] = field(init=False)
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        wanted = frozenset(name for method in self.bound_methods for name in method.signal_names)
        self.signal_names = (wanted | (CONTRIBUTION_SIGNALS if self.top_channels else set())) - (
            {"logits_from_layer"} if self.why_concepts_unnamed else set()
        )
        has_rules = any(method.has_rule for method in self.bound_methods)
        rules_everywhere = any(method.rule_is_everywhere for method in self.bound_methods)
        cosine = self.network.cosine if self.network else None
        shift = cosine[1] if cosine and self.output_spec.score.is_plain_logit else 0.0
        self.runner = Runner(
            self.module,
            self.read_predictions,
            self.signal_names,
            has_rules,
            rules_everywhere,
            self.call,
            self.batch_size,
            cosine,
            shift,
            None if self.backward == "plain" else TransformerRules(self.backward),
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Full names of the layers explained."""
        return self.runner.layers

    @layers.setter
    def layers(self, names: tuple[str, ...]) -> None:
        self.runner.layers = names

    @property
    def uses_layer(self) -> bool:
        """True if a method uses a layer."""
        return any(method.uses_layer for method in self.bound_methods)

    @property
    def explains_channels(self) -> bool:
        """True if the methods explain a channel of the layer instead of a score."""
        return not self.top_channels and all(method.explains_channel for method in self.bound_methods)

    @property
    def finds_concepts(self) -> bool:
        """True if the methods find concepts instead of explaining a score."""
        return all(method.finds_concepts for method in self.bound_methods)

    @property
    def fits_concepts(self) -> bool:
        """True if a method finds concepts in several images together."""
        return any(method.fit for method in self.bound_methods)

    @property
    def needs_graph(self) -> bool:
        """True if a method needs a gradient."""
        return self.runner.has_rules or bool(self.signal_names & NEEDS_GRAPH)

    @property
    def why_concepts_unnamed(self) -> str:
        """Reason why concepts cannot be labelled with classes; empty if they can, or if there are no concepts."""
        if not any(
            "logits_from_layer" in method.signal_names for method in self.bound_methods if method.finds_concepts
        ):
            return ""
        if self.output_spec.task == "detect":
            return CANNOT_RESCORE_BOXES[0]
        if self.network and self.network.headless:
            return "the network has no head, and so no classes"
        closed = find_opaque_modules(self.module)
        return f"{closed[0].description}, so the part after the layer cannot be run alone" if closed else ""

    @property
    def keeps_much(self) -> bool:
        """True if more than the last part of the network is kept of each image until its map is made.

        That is so with attention, with a graph from the images on, or with an early layer, as far as the order of the
        modules' creation tells.
        """
        if self.runner.starts_at_input or self.signal_names & ({"score_and_grad"} | NEEDS_ATTENTION) or not self.layers:
            return True
        places = {module: place for place, module in enumerate(self.module.modules())}
        ends = [max(places[part] for part in find_layer(self.module, name)[0].modules()) for name in self.layers]
        return min(ends) < LATE_SHARE * len(places)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return devices.device_of(self.module)

    def size_key(self, images: Tensor) -> SizeKey:
        """Return the key under which facts about images of this size are stored."""
        return len(images) if self.group else 1, images.shape[2], images.shape[3]

    def add_note(self, text: str) -> None:
        """Add a remark for all maps, unless it is there already."""
        self.notes = (*(one for one in self.notes if one != text), text)

    def read_predictions(
        self, output: Any, images: int, picture_mask: Tensor | None = None, region_mask: Tensor | None = None
    ) -> Predictions:
        """Parse the module's output for a batch."""
        names = self.network.labels.names if self.network else ()
        return self.output_spec.read(output, images, names, self.activation, picture_mask, region_mask)

    def label(self, index: int) -> str:
        """Return the name of a class, or its index."""
        return self.network.labels.short(index) if self.network else str(index)


def describe_explainer(explainer: Any) -> str:
    """Describe an explainer in one line, for its repr."""
    setup: Setup = explainer.setup
    name = setup.network.name if setup.network else type(setup.module).__name__
    methods = ", ".join(one.row.name for one in setup.bound_methods)
    return f"Explainer({name}: {methods}{f' at {chr(44).join(setup.layers)}' if setup.layers else ''})"


def describe_target(setup: Setup, region: bool = False) -> str:
    """Describe in words what is explained."""
    if setup.explains_channels:
        return "the named channel of the layer, unchanged"
    if setup.finds_concepts:
        return f"the layer's activations as {' and '.join(one.row.finds for one in setup.bound_methods)}; no class"
    network = setup.network
    what = setup.output_spec.describe_score(
        setup.activation,
        len(network.labels) if network else 0,
        region,
        headless=network is not None and network.headless,
        cosine=network.cosine if network else None,
    )
    if setup.top_channels:
        return f"the contribution (act * grad) of each of the {setup.top_channels} strongest channels to: {what}"
    return what


def make_score(
    name: str, versus: Sequence[int], counterfactual: bool, network: Network | None, activation: Activation = "none"
) -> Score:
    """Build the score of a class that is explained.

    Args:
        name: a row of :data:`camcli.targets.scores.SCORES`.
        versus: the classes that the score is compared with, if it is compared with any.
        counterfactual: negate the score.
        network: the network, if it is known.
        activation: the function that turns the network's scores into probabilities; ``none`` also if it is unknown.

    Raises:
        RequestError: there is no such score, or the network does not have it; or it compares a class with no others.
    """
    row = SCORES.find(name)
    if versus and not row.has_rivals:
        able = ", ".join(one.name for one in SCORES.rows if one.has_rivals)
        raise RequestError(
            f"the score {name!r} does not compare classes, so --versus cannot be used with it",
            f"leave it out, or choose --score {able}",
        )
    if row.is_cosine and (network is None or network.cosine is None):
        raise RequestError(
            f"the score {name!r} is the cosine of an image and a prompt, and "
            f"{network.name if network else 'this model'} compares images with no prompts",
            "leave it out, or choose a model of open_clip with --text, or give prompts and a text tower: --text-tower",
        )
    if row.of_box and (network is None or network.output_spec.task != "detect"):
        raise RequestError(
            f"the score {name!r} is an edge of a box, and {network.name if network else 'this model'} finds none",
            "leave it out, or choose a detector",
        )
    noun = network.labels.noun if network else "class"
    words = "" if name == "logit" else row.describe(noun, activation)
    if versus:
        named = " and ".join(dict.fromkeys(network.labels.short(one) if network else str(one) for one in versus))
        words = f"{noun} {name} over {named}"
    cosine = network.cosine if network and row.is_cosine else None
    sign: Literal[1, -1] = -1 if counterfactual else 1
    return Score(name, SCORES.load(name), words, row.has_rivals, tuple(versus), cosine, sign, row.of_box)
