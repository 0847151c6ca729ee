"""What an explainer is asked for, and what of it does not go together: all that is known before the network has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from camcli.base.errors import RequestError
from camcli.engine import FUSES
from camcli.engine.forward import AGAIN, ATTENTION, BEHIND, BLOCKS, COSINES
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.maps.method import Recipe
from camcli.engine.network import Network
from camcli.targets.readers.detection import NO_BOX_AGAIN
from camcli.targets.readers.spec import Outlet
from camcli.targets.scores import SCORES
from camcli.targets.target import Activation, Score

# Methods that give each channel one weight: what all its cells' gradients come to.
ONE_WEIGHT = frozenset({"gradcam", "gradcam++", "xgradcam", "shapleycam"})
# What a channel's share in the score is made of.
SHARE = frozenset({"act", "grad"})
# Evidence that is found by seeing every operation of a network, and why.
_SEES_ALL = {
    ATTENTION: "follows attention through every operation",
    frozenset({"rest"}): "runs the part of the network behind a layer alone",
    frozenset({"biases"}): "needs the bias of every operation",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of one network.

    Attributes:
        module: that runs.
        network: of which it is, if more is known than the module.
        outlet: where its scores are, and which number of them is explained.
        recipes: the methods.
        fuse: how the maps of several layers become one.
        smooth: of the channels' parts of a map the first principal component is wanted, instead of their sum.
        scales, flips: how the images are changed before they are explained too.
        strongest: of how many channels the parts are wanted, instead of the map; 0 for the map.
        group: whether the images of a call belong together.
    """

    module: nn.Module
    network: Network | None
    outlet: Outlet
    recipes: tuple[Recipe, ...]
    fuse: str
    smooth: bool
    scales: tuple[int | float, ...]
    flips: tuple[str, ...]
    strongest: int
    group: bool

    @property
    def wants(self) -> frozenset[str]:
        """The names of all evidence."""
        wanted = frozenset(name for recipe in self.recipes for name in recipe.wants)
        return (wanted | (SHARE if self.strongest else set())) - ({"rest_scores"} if self.unnamed else set())

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

    def check_meant(self, layers: Sequence[str], layout: str, call: int) -> None:
        """See that layers, and what is said of them, mean something to the methods.

        Raises:
            RequestError: they do not.
        """
        if layers and not self.at_layer:
            named = " and ".join(repr(recipe.row.name) for recipe in self.recipes)
            of_tokens = any(recipe.wants & ATTENTION for recipe in self.recipes)
            place = "with all attention of a network" if of_tokens else "at the input"
            raise RequestError(
                f"the method {named} works {place}, so a layer ({', '.join(layers)}) means nothing to it",
                "name no layer, or choose another method",
            )
        if (layout or call) and not layers:
            raise RequestError(
                f"{f'the layout {layout}' if layout else f'call {call}'} was given without the layer it is meant for",
                "name the layer: --layer PATH",
            )

    def check_open(self) -> None:
        """Refuse what has to see every operation of a network where some are hidden in compiled or scripted code.

        Raises:
            RequestError: that is so.
        """
        closed = closed_parts(self.module)
        for recipe in self.recipes:
            needs = next((why for names, why in _SEES_ALL.items() if recipe.wants & names), "")
            needs = "changes how gradients pass each ReLU" if recipe.ruled else needs
            if closed and needs:
                raise RequestError(
                    f"{recipe.row.name} {needs}, and {closed[0].words}, which hides what happens inside",
                    f"{closed[0].remedy}, or choose a method that needs no more than a layer, such as gradcam",
                )
        if self.at_layer and closed and not closed[0].name:
            raise RequestError(f"no layer can be looked at: {closed[0].words}", closed[0].remedy)

    @property
    def levelled(self) -> bool:
        """Whether boxes are explained in the way that keeps their place: HiResCAM at every level of the pyramid."""
        named = [recipe.row.name for recipe in self.recipes]
        return self.outlet.task == "detect" and named == ["hirescam"] and not self.smooth and not self.strongest

    def forgotten(self) -> str:
        """What is to be said where a method forgets where a box is; empty where none does."""
        if self.outlet.task != "detect":
            return ""
        formulas = {one.row.name for recipe in self.recipes for one in recipe.formulas} & ONE_WEIGHT
        if not formulas:
            return ""
        return (
            f"{' and '.join(sorted(formulas))} gives each channel one weight, which forgets where a box is, so maps of "
            "boxes of one class look alike; hirescam, the default, keeps the place"
        )

    def check_tensors(self, layers: Sequence[str]) -> None:
        """Refuse methods that change what a layer says where it is one of several tensors that a module gives.

        Raises:
            RequestError: such a method is asked for at such a layer.
        """
        module_names = {name for name, _ in self.module.named_modules()}
        named = next((name for name in layers if name not in module_names), "")
        changing = [recipe.row.name for recipe in self.recipes if recipe.wants & (BEHIND | {"responses"})]
        if named and changing:
            raise RequestError(
                f"{' and '.join(changing)} changes what a layer says, and {named!r} is one of several tensors that a "
                "module gives",
                "name the module inside that makes it, or choose another method, such as hirescam",
            )

    def check_layers_open(self, layers: Sequence[str]) -> None:
        """See that nothing hides these layers, by their full names.

        Raises:
            RequestError: something does.
        """
        for name in layers:
            for closed in closed_parts(self.module):
                if closed.hides(name):
                    raise RequestError(
                        f"the layer {name!r} cannot be looked at: {closed.words}",
                        f"{closed.remedy}, or choose a layer outside",
                    )

    def check_together(self, layers: Sequence[str]) -> None:
        """Refuse what does not go together; of ``layers`` their full names, none where one will be chosen.

        Raises:
            RequestError: something does not.
        """
        self._check_asking_again()
        self._check_scores()
        self._check_strongest()
        self._check_concepts_alone()
        self._check_channels()
        self.check_tensors(layers)
        self._check_fuse(layers)

    def check_fused(self, layers: Sequence[str]) -> None:
        """See that there is something to fuse, once the layers are known.

        Raises:
            RequestError: there is one layer, and maps of several are to be fused.
        """
        if self.fuse != "none" and len(layers) < 2:
            raise RequestError(
                f"maps of several layers are fused, but there is one: {layers[0]}",
                "name several: --layer layer3 --layer layer4",
            )

    def _check_asking_again(self) -> None:
        wants = self.wants
        again = wants & (AGAIN | BLOCKS | {"logits", "grad_of"}) or self.scales != (1.0,) or self.flips
        if again and self.outlet.task == "detect":
            raise RequestError(*NO_BOX_AGAIN)
        if self.group and self.outlet.task == "detect":
            raise RequestError(
                "a detector looks at each picture by itself, so a group means nothing to it", "leave --group out"
            )
        if self.group and (parts := [one.row.name for one in self.recipes if one.wants & BLOCKS]):
            raise RequestError(
                f"{' and '.join(parts)} runs parts of the network again by themselves, and a group's score is of "
                "exactly its pictures together",
                "choose a method that needs one forward, such as gradcam or gae, or leave --group out",
            )
        if self.group and (asking := [one.row.name for one in self.recipes if one.wants & (AGAIN | BEHIND)]):
            raise RequestError(
                f"{' and '.join(asking)} asks for the score of changed pictures, many at a time, and a group's score "
                "is of exactly its pictures together",
                "choose a method that needs one forward, such as gradcam or hirescam, or leave --group out",
            )

    def _check_scores(self) -> None:
        wants = self.wants
        if wants & COSINES and (self.network is None or self.network.cosine is None):
            named = " and ".join(recipe.row.name for recipe in self.recipes if recipe.wants & COSINES)
            raise RequestError(
                f"{named} compares a picture with prompts, and this network has none",
                "choose it for a CLIP model with prompts (--text), or another method, such as legrad or maskclip",
            )
        if not self.outlet.score.plain and (own := wants & ({"logits", "grad_of"} | COSINES)):
            named = " and ".join(recipe.row.name for recipe in self.recipes if own & recipe.wants)
            raise RequestError(
                f"{named} makes what it explains of all classes' scores itself, so it goes with --score logit alone",
                "leave --score, --versus and --counterfactual out, or choose another method, such as gradcam",
            )
        if self.outlet.task == "detect" and self.outlet.score.name != "logit":
            raise RequestError(
                f"a box has one score, which is a probability already: there is no {self.outlet.score.name} of it",
                "leave --score out",
            )

    def _check_strongest(self) -> None:
        if self.strongest and (self.fuse != "none" or self.smooth):
            raise RequestError(
                "the strongest channels are shown each by itself, neither fused nor smoothed",
                "leave --fuse and --eigen-smooth out, or name a class as the target",
            )

    def _check_channels(self) -> None:
        shown = [recipe.row.name for recipe in self.recipes if recipe.of_channel]
        of_classes = self.network and not self.network.headless and not self.strongest
        if of_classes and 0 < len(shown) < len(self.recipes):
            raise RequestError(
                f"{shown[0]} shows a channel of the layer, and the other methods explain a class",
                "ask for them one after the other; or for features: --head none --target channel:12",
            )

    def _check_fuse(self, layers: Sequence[str]) -> None:
        if self.fuse not in FUSES:
            raise RequestError(f"fuse cannot be {self.fuse!r}", f"there are: {', '.join(FUSES)}")
        if self.fuse != "none" and not self.at_layer:
            raise RequestError("the maps of several layers can be fused, but the method works at the input")
        if layers:
            self.check_fused(layers)
        for recipe in self.recipes:
            if self.fuse == "paper" and recipe.at_layer and recipe.fusion is None:
                able = ", ".join(one.row.name for one in self.recipes if one.row.fuse) or "none of those asked for"
                raise RequestError(
                    f"the paper of {recipe.row.name} does not say how maps of several layers are fused (it does of: "
                    f"{able})",
                    "choose --fuse mean, max or product",
                )
            if self.fuse != "none" and recipe.ruled and recipe.at_layer:
                raise RequestError(
                    f"the maps of {recipe.row.name} are signed, for each colour at the input, and are not fused",
                    "leave --fuse out, or choose a method that works at a layer alone",
                )

    def _check_concepts_alone(self) -> None:
        """What does not go together with methods that find concepts."""
        named = next((recipe.row.name for recipe in self.recipes if recipe.of_concepts), "")
        around = {
            "--scales": self.scales != (1.0,),
            "--augment": bool(self.flips),
            "--fuse": self.fuse != "none",
            "--eigen-smooth": self.smooth,
            "--target channels:top:N": bool(self.strongest),
            "--score, --versus or --counterfactual": self.of_no_class and not self.outlet.score.plain,
        }
        if asked := [words for words, is_asked in around.items() if named and is_asked]:
            raise RequestError(
                f"{named} finds concepts in what a layer says of the picture as it is, and explains no class, so "
                f"{asked[0]} means nothing to it",
                f"leave {asked[0]} out, or choose another method",
            )


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
