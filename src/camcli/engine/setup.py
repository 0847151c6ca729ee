"""What is asked of one network, and what all that explain with it know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine import Place, devices
from camcli.engine.forward import ATTENTION, BLOCKS, LOOKED, Witness
from camcli.engine.hooks.capture import at_layer
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.network import Network
from camcli.targets.readers.detection import NO_BOX_AGAIN
from camcli.targets.readers.spec import Outlet
from camcli.targets.scores import SCORES
from camcli.targets.target import Activation, Reading, Score

if TYPE_CHECKING:
    from camcli.engine.maps.concepts import Fitted
    from camcli.engine.maps.method import Recipe

# How many images are given at once (1 where they are no group), and their rows and columns.
Key = tuple[int, int, int]
# Evidence that is a gradient.
GOES_BACK = frozenset(
    {"grad", "curve", "grad_of", "input_grad", "slopes", "responses", "biases", "attn_grad", "told_grad", "stopped"}
)
# Evidence that needs a gradient, whatever it is.
NEEDS_GRAPH = GOES_BACK | {"spread"} | LOOKED | BLOCKS
# What a channel's share in the score is made of.
SHARE = frozenset({"act", "grad"})
# Of a network's modules, how many come before a layer behind which little is left.
LATE = 0.7


@dataclass(slots=True)
class Setup:
    """What is asked of one network.

    Attributes:
        module: that runs.
        network: of which it is, if more is known than the module.
        outlet: where its scores are, and which number of them is explained.
        activation: what makes probabilities of the scores.
        recipes: the methods.
        score: the words for the number of a class that is explained, as :func:`score_of` takes them.
        fuse: how the maps of several layers become one.
        smooth: of the channels' parts of a map the first principal component is wanted, instead of their sum.
        scales, flips: how the images are changed before they are explained too.
        strongest: of how many channels the parts are wanted, instead of the map; 0 for the map.
        group: whether the images of a call belong together.
        layout: how the layers' output lies in memory, if somebody said so.
        call: which run of a layer counts that runs several times in one forward, from 1 on; 0 for the last.
        recompute: whether parts of the network are computed again on the way back.
        place: where the layers' cells are taken to lie in the input.
        rows: how many variants of images the network is given at once.
        fitted: what methods that find concepts in several pictures together were fitted to.
        one_by_one: whether each image is explained in a batch of its own.
        notes: what a reader of all the maps must know.
        wants: the names of all evidence.
        witness: the network as it is run.
    """

    module: nn.Module
    network: Network | None
    outlet: Outlet
    activation: Activation
    recipes: tuple[Recipe, ...]
    score: tuple[str, tuple[int, ...], bool]
    fuse: str
    smooth: bool
    scales: tuple[int | float, ...]
    flips: tuple[str, ...]
    strongest: int
    group: bool
    layout: str
    call: int
    recompute: bool
    place: Place
    rows: int
    fitted: Fitted = field(default_factory=dict)
    one_by_one: bool = False
    notes: tuple[str, ...] = ()
    wants: frozenset[str] = field(init=False)
    witness: Witness = field(init=False)

    def __post_init__(self) -> None:
        wanted = frozenset(name for recipe in self.recipes for name in recipe.wants)
        self.wants = (wanted | (SHARE if self.strongest else set())) - ({"rest_scores"} if self.unnamed else set())
        ruled, everywhere = (any(getattr(one, what) for one in self.recipes) for what in ("ruled", "everywhere"))
        cosine = self.network.cosine if self.network else None
        shift = cosine[1] if cosine and self.outlet.score.plain else 0.0
        self.witness = Witness(
            self.module, self.read, self.wants, ruled, everywhere, self.call, self.rows, cosine, shift
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """The full names of the layers explained."""
        return self.witness.layers

    @layers.setter
    def layers(self, names: tuple[str, ...]) -> None:
        self.witness.layers = names

    @property
    def at_layer(self) -> bool:
        """Whether a method looks at a layer."""
        return any(recipe.at_layer for recipe in self.recipes)

    @property
    def of_layer(self) -> bool:
        """Whether channels of the layer are asked for, and no scores."""
        return not self.strongest and all(recipe.of_channel for recipe in self.recipes)

    @property
    def of_no_class(self) -> bool:
        """Whether concepts are asked for, and no scores."""
        return all(recipe.of_concepts for recipe in self.recipes)

    @property
    def fits(self) -> bool:
        """Whether a method finds concepts in several pictures together."""
        return any(recipe.fit for recipe in self.recipes)

    @property
    def needs_graph(self) -> bool:
        """Whether a method needs a gradient."""
        return self.witness.ruled or bool(self.wants & NEEDS_GRAPH)

    @property
    def unnamed(self) -> str:
        """Why the classes cannot be named that a concept speaks for; empty where they can, or there are none."""
        if not any(recipe.of_concepts for recipe in self.recipes):
            return ""
        if self.outlet.task == "detect":
            return NO_BOX_AGAIN[0]
        if self.network and self.network.headless:
            return "the network has no head, and so no classes"
        closed = closed_parts(self.module)
        return f"{closed[0].words}, so what lies behind the layer cannot be run alone" if closed else ""

    @property
    def keeps_much(self) -> bool:
        """Whether more than what belongs to the last part of the network is kept of each image until its map is made.

        So it is with attention, with a graph from the images on, or from an early layer on, as far as that can be told
        by the order in which the modules were made.
        """
        if self.witness.from_input or self.wants & ({"slopes"} | ATTENTION) or not self.layers:
            return True
        places = {module: place for place, module in enumerate(self.module.modules())}
        ends = [max(places[part] for part in at_layer(self.module, name)[0].modules()) for name in self.layers]
        return min(ends) < LATE * len(places)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return devices.home(self.module)

    def key(self, images: Tensor) -> Key:
        """What things are found out for once, of images like these."""
        return len(images) if self.group else 1, images.shape[2], images.shape[3]

    def note(self, text: str) -> None:
        """Say this to a reader of all the maps, once."""
        self.notes = (*(one for one in self.notes if one != text), text)

    def read(self, output: Any, images: int, seen: Tensor | None = None, region: Tensor | None = None) -> Reading:
        """What the module returned for a batch, read."""
        names = self.network.labels.names if self.network else ()
        return self.outlet.read(output, images, names, self.activation, seen, region)

    def label(self, index: int) -> str:
        """The name of a class, or its number."""
        return self.network.labels.short(index) if self.network else str(index)


def explained_in_words(setup: Setup, region: bool = False) -> str:
    """What is explained, in words for people."""
    if setup.of_layer:
        return "the channel named, of the layer, as it is"
    if setup.of_no_class:
        return "the layer's activations as a sum of concepts; no class"
    network = setup.network
    what = setup.outlet.says(
        setup.activation,
        len(network.labels) if network else 0,
        region,
        headless=network is not None and network.headless,
        cosine=network.cosine if network else None,
    )
    if setup.strongest:
        return f"of {what}, what each of the {setup.strongest} channels has in it that have most (act * grad)"
    return what


def score_of(
    name: str, versus: Sequence[int], counterfactual: bool, network: Network | None, activation: Activation = "none"
) -> Score:
    """The number of a class that is explained.

    Args:
        name: a row of :data:`camcli.targets.scores.SCORES`.
        versus: the classes that it is over, if it is over any.
        counterfactual: its sign is turned.
        network: of which it is, if that is known.
        activation: what makes probabilities of its scores; ``none`` also where that is not known.

    Raises:
        RequestError: there is no such score, of this network; or it is over no others.
    """
    row = SCORES.find(name)
    if versus and not row.against:
        able = ", ".join(one.name for one in SCORES.rows if one.against)
        raise RequestError(
            f"the score {name!r} compares a class with no other, so --versus means nothing to it",
            f"leave it out, or choose --score {able}",
        )
    if row.cosine and (network is None or network.cosine is None):
        raise RequestError(
            f"the score {name!r} is the cosine of a picture and a prompt, and "
            f"{network.name if network else 'this model'} compares pictures with no prompts",
            "leave it out, or choose a model of open_clip with --text, or give prompts and a text tower: --text-tower",
        )
    noun = network.labels.noun if network else "class"
    summary = row.summary.replace("a class's", f"a {noun}'s").replace("other class", f"other {noun}")
    if activation == "probabilities":
        summary = summary.replace(": what softmax or sigmoid makes of its score", ", as the model gives it")
        summary = summary.replace("score minus", "probability, as the model gives it, minus")
    elif activation != "none":
        summary = summary.replace("softmax or sigmoid", activation)
    words = "" if name == "logit" else summary
    if versus:
        named = " and ".join(dict.fromkeys(network.labels.short(one) if network else str(one) for one in versus))
        words = f"a {noun}'s {name} over {named}"
    cosine = network.cosine if network and row.cosine else None
    return Score(name, SCORES.load(name), words, row.against, tuple(versus), cosine, -1 if counterfactual else 1)
