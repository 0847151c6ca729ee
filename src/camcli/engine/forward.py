"""The network as it is asked: what is prepared for images of a size, one forward, and parts of it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from camcli.base.errors import RequestError
from camcli.engine import devices
from camcli.engine.hooks.attention import Attending
from camcli.engine.hooks.attention_override import Ruled, twice_differentiable
from camcli.engine.hooks.biases import Biases
from camcli.engine.hooks.capture import Taps, at_layer, run_until, tapped
from camcli.engine.hooks.checkpointing import recomputed
from camcli.engine.hooks.relu import RuledActivations
from camcli.engine.hooks.replay import IMAGES, Recording, Way, expanded, recorded, replayed
from camcli.engine.hooks.state import frozen, lent
from camcli.engine.hooks.watch import at_work
from camcli.engine.layers.blocks import Call, Trunk, heard
from camcli.engine.layers.layout import Layout, canonical
from camcli.engine.layers.locate import Located
from camcli.images.features import Feed
from camcli.targets.target import Reading

# What needs a graph from the input on.
FROM_INPUT = frozenset({"input_grad", "biases"})
# What needs the one token that the score reads behind the last attention, and what it looks for.
LOOKED = frozenset({"query", "key", "value", "told_grad"})
# What needs the blocks of attention, or what lies behind them, to run again.
ALONE = frozenset({"alone", "alone_cosines", "alone_blank"})
BLOCKS = frozenset({"stopped", "own", "path"}) | ALONE
# What needs scores that are cosines.
COSINES = frozenset({"cosines", "alone_cosines", "alone_blank"})
# What is seen of attention.
ATTENTION = frozenset({"attn", "attn_grad", "spread", "cells"}) | LOOKED | BLOCKS
# Of these, what needs the gradient at the last attention alone.
LAST_ATTENTION = frozenset({"spread"}) | LOOKED
# And what needs every attention to be one of a chain over the same tokens.
CHAIN = frozenset({"attn", "attn_grad", "spread"})
# What asks for the score again, of something changed.
AGAIN = frozenset({"ask", "slopes", "responses", "rest"})
# What runs again only what lies behind a layer.
BEHIND = frozenset({"rest", "rest_scores"})
# Of the score, how far a replay may be off.
SAME = 1e-4
COLOURS = 3
# In units of rounding, how far the scores of few and of many copies of a token may differ.
ROUNDED = 8


@dataclass(slots=True)
class Plan:
    """What was found out about a network for one size of images.

    Attributes:
        layouts: of each layer's output.
        runs: which of each layer's runs counts, from 1 on; the layers in running order.
        ways: how the part behind each layer is run again, if a method asks for that.
        rows: how many variants of each layer's output that takes at once.
        channels: of each layer, how many it has.
        tokens: how the tokens of attention lie on their grid, if a method asks for that.
        attentions: how many there are in one forward.
        parts: the modules that are computed again on the way back, if that is asked for.
        trunk: their blocks, if a method asks for what these say.
        mixes: whether the score of one picture of a group was seen to depend on another.
        located: where each layer's cells lie in the input, if that was measured.
    """

    layouts: dict[str, Layout] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    ways: dict[str, Way] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    tokens: Layout | None = None
    attentions: int = 0
    parts: tuple[nn.Module, ...] = ()
    trunk: Trunk | None = None
    mixes: bool = False
    located: dict[str, Located] = field(default_factory=dict)

    @property
    def pooled(self) -> bool:
        """Whether blocks were asked for, and the only attention is a pooling."""
        return self.trunk is not None and not self.trunk.blocks


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward of a batch, and what is needed to go back.

    Attributes:
        image: what the network was given; the start of the graph if something at the input is wanted.
        reading: what the network returned, read.
        taps: the output of each layer that ran.
        ruled: how gradients pass the activations, if a method has a rule for them.
        biases: what is added on the way, if a method wants to know.
        recordings: by layer, what is needed to run again what lies behind it.
        attending: the attentions that were met, if a method wants to know.
        calls: how each block was called, if a method wants to run it again.
        ending: what is needed to run again what lies behind the last block.
        kept: what was made of these for all images, by what it is.
        alone: for tokens the answers for each by itself, and how many tokens each answer is for.
    """

    image: Tensor
    reading: Reading
    taps: Taps
    ruled: RuledActivations | None
    biases: Biases | None
    recordings: Mapping[str, Recording]
    attending: Attending | None = None
    calls: Mapping[nn.Module, Call] = field(default_factory=dict)
    ending: Recording | None = None
    kept: dict[Any, Tensor] = field(default_factory=dict)
    alone: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)


class Witness:
    """A network that gives evidence: every run of it is made here.

    Args:
        module: takes ``(n, 3, h, w)``.
        read: from what it returns for a number of images to what can be explained.
        wants: the names of all evidence that any method wants.
        ruled: whether a method has a rule for the gradient at ReLUs.
        everywhere: whether it has one for other activations too.
        call: which run of a layer counts that runs several times; 0 for the last.
        rows: how many images are given to the network at once where a method asks about variants of them.
        cosine: the scale and the bias by which scores follow from cosines, if they do.
        shift: what every score has beyond what a picture says, which is no place's.

    Attributes:
        layers: the names of the layers that are looked at; may be set later.
        places: of those that give several tensors, which is looked at, from 0 on; the first where none is named.
        feed: hands the module extra features of the images, if there are some.
    """

    def __init__(
        self,
        module: nn.Module,
        read: Callable[..., Reading],
        wants: frozenset[str],
        ruled: bool = False,
        everywhere: bool = False,
        call: int = 0,
        rows: int = 8,
        cosine: tuple[float, float] | None = None,
        shift: float = 0.0,
    ) -> None:
        self.module, self.read, self.wants, self.call, self.rows = module, read, wants, call, rows
        self.cosine, self.shift = cosine, shift
        self.feed = Feed(module)
        self.format = _quickest(module)
        self.ruled, self.everywhere = ruled, everywhere
        self.layers: tuple[str, ...] = ()
        self.places: dict[str, int] = {}

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The network frozen, and the graph on, whatever the caller has switched off.

        Attention is computed so that its gradient has one too, if a method asks for curvature.
        """
        twice = twice_differentiable() if "curve" in self.wants else nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.module), twice:
            yield

    def leaf(self, images: Tensor, from_input: bool = False) -> Tensor:
        """The images where the network is and as it counts; the start of the graph if that is at the input."""
        from_input |= self.from_input
        return self.laid(devices.copied_to(self.module, images.detach())).requires_grad_(from_input)

    @property
    def from_input(self) -> bool:
        """Whether the graph starts at the images."""
        return self.ruled or bool(self.wants & FROM_INPUT)

    def laid(self, images: Tensor) -> Tensor:
        """The images in the order in memory in which the network is fastest; what it says changes by rounding alone."""
        return images.contiguous(memory_format=self.format)

    def settle(self, run: Callable[[], None], always: bool = False) -> None:
        """Have the weights of convolutions lie in memory as their input does, if the network takes it so.

        Args:
            run: one forward, to see that.
            always: run it also where nothing is to be seen.
        """
        if self.format == torch.contiguous_format:
            return run() if always else None
        self.module.to(memory_format=self.format)
        try:
            return run()
        except RuntimeError:  # if it is another one, it comes again
            self.format = torch.contiguous_format
            self.module.to(memory_format=self.format)
            return run()

    def forward(
        self,
        images: Tensor,
        seen: Tensor | None = None,
        region: Tensor | None = None,
        plan: Plan | None = None,
        from_input: bool = False,
    ) -> Forward:
        """One forward that keeps what the evidence wanted needs, and no more; perhaps all from the input on.

        The first (without a plan) finds out whether the network takes its channels last in memory: one that looks at
        how its features lie, as ``view`` does, may refuse that.
        """
        if plan is None and self.format == torch.channels_last:
            try:
                return self._forward(images, seen, region, plan, from_input)
            except RuntimeError:  # if it is another one, it comes again
                self.format = torch.contiguous_format
        return self._forward(images, seen, region, plan, from_input)

    def _forward(
        self, images: Tensor, seen: Tensor | None, region: Tensor | None, plan: Plan | None, from_input: bool
    ) -> Forward:
        leaf = self.leaf(images, from_input)
        layers = {name: at_layer(self.module, name)[0] for name in self.layers}
        with ExitStack() as watch:
            recordings: dict[str, Recording] = {}
            if plan and self.wants & BEHIND:
                # Before its way is found out nothing behind a layer runs again.
                for name, way in plan.ways.items():
                    part = self.places.get(name, 0)
                    record = recorded(self.module, layers[name], plan.runs[name], len(leaf), way.owned, part)
                    recordings[name] = watch.enter_context(record)
            taps = watch.enter_context(self.tapping(self.layers))
            ruled = watch.enter_context(RuledActivations(self.everywhere)) if self.ruled else None
            biases = watch.enter_context(Biases()) if "biases" in self.wants else None
            calls: Mapping[nn.Module, Call] = {}
            ending = None
            if plan and (trunk := plan.trunk):
                calls = watch.enter_context(heard(trunk.blocks, trunk.copies))
                ending = watch.enter_context(recorded(self.module, trunk.end, 1, len(leaf), trunk.way.owned))
            if plan:
                watch.enter_context(recomputed(plan.parts, ruled.again if ruled else nullcontext))
            attending = None
            if self.wants & ATTENTION:
                running = watch.enter_context(at_work(self.module)) if plan is None else []
                attending = watch.enter_context(self._attending(len(leaf), plan, running))
            # A network may change its input in place, which a leaf of the graph does not allow.
            output = self.module(leaf.clone())
        reading = self.read(output, len(images), seen, region)
        return Forward(leaf, reading, taps, ruled, biases, recordings, attending, calls, ending)

    def tapping(self, names: Iterable[str]) -> AbstractContextManager[Taps]:
        """While it lasts, forwards leave these layers' outputs: see :func:`camcli.engine.hooks.capture.tapped`."""
        places = {name: at_layer(self.module, name) for name in names}
        layers, parts = ({name: place[turn] for name, place in places.items()} for turn in (0, 1))
        return tapped(cast("dict[str, nn.Module]", layers), self.call, self.places, cast("dict[str, str]", parts))

    def cells(self, images: Tensor, layouts: Mapping[str, Layout], once: bool = False) -> dict[str, Tensor]:
        """Each layer's cells ``(n, c, h, w)`` for images, in the graph that starts at these if they ask for one.

        Args:
            images: what the network is given.
            layouts: of the layers.
            once: whether each of them runs once, so that nothing need be computed when all have.

        Raises:
            ValueError: they do not go by images.
        """
        with self.tapping(layouts) as taps:
            if once:
                run_until({at_layer(self.module, name)[0] for name in layouts}, lambda: self.module(images.clone()))
            else:
                self.module(images.clone())
        found = {name: canonical(taps[name], layout) for name, layout in layouts.items()}
        if any(len(cells) != len(images) for cells in found.values()):
            raise ValueError("what it gives does not go by images")
        return found

    def _attending(self, images: int, plan: Plan | None, running: Sequence[nn.Module]) -> Attending:
        """Of the first forward the chain is checked; then only the last attention need be in the graph, if any."""
        values = bool(self.wants & {"attn_grad", "value"} or (self.wants & BLOCKS and (plan is None or plan.pooled)))
        queries = bool(self.wants & LOOKED)
        if plan is None or "attn_grad" in self.wants:
            return Attending(images, values, queries=queries, running=running)
        last = self.wants & LAST_ATTENTION or plan.pooled
        return Attending(images, values, graph_from=plan.attentions - 1 if last else -1, queries=queries)

    # ---- what lies behind a layer, or behind the blocks, run again

    def again(
        self, layer: nn.Module, recording: Recording, given: Tensor, images: Tensor, way: Way, graph: bool = False
    ) -> Reading:
        """The answer for each of ``given``, which the layer says in place of its own output."""
        with nullcontext() if graph else torch.inference_mode(), replayed(layer, recording, given, way):
            return self._behind(recording, len(given), images, way)

    def _behind(self, recording: Recording, count: int, images: Tensor, way: Way) -> Reading:
        if way.whole or way.needed is None or IMAGES in way.needed:
            images = expanded(images, recording.images, count // recording.images)
        # The copy is the network's own, to change in place.
        return self.read(self.module(images.clone()), count)

    def of_blank(self) -> AbstractContextManager[None]:
        """While it lasts, a network of one prompt answers for the empty prompt in its place.

        Raises:
            RequestError: it does not know that.
        """
        for part in self.module.modules():
            blank = part._buffers.get("blank")
            if blank is not None and "prompts" in part._buffers:
                return lent(part, "prompts", blank.reshape(1, -1))
        raise RequestError(
            "there is one prompt, and the network does not know the empty one, which it is compared with",
            "give several: --text 'a cat' --text 'a dog'",
        )

    def at_end(
        self,
        trunk: Trunk,
        recording: Recording,
        given: Tensor,
        images: Tensor,
        way: Way | None = None,
        graph: bool = False,
    ) -> Reading:
        """The answer for tokens behind the last block ``(m, t, c)``; or for O of a pooling ``(m, heads, q, d)``."""
        way = way or trunk.way
        if trunk.blocks:
            return self.again(trunk.end, recording, given, images, way, graph)
        with (
            torch.inference_mode(),
            Ruled(given),
            replayed(trunk.end, recording, None, way, len(given) // recording.images),
        ):
            return self._behind(recording, len(given), images, way)


def _quickest(module: nn.Module) -> torch.memory_format:
    """Channels last where a convolution looks at features, and not at the image alone as that of patches does."""
    if any(parameter.device.type == "mps" for parameter in module.parameters()):
        return torch.contiguous_format
    looks = any(isinstance(one, nn.Conv2d) and one.in_channels > COLOURS for one in module.modules())
    return torch.channels_last if looks else torch.contiguous_format


def points_of(forward: Forward) -> list[Tensor]:
    """Where gradients can be taken, the layers first."""
    points = list(forward.taps.values()) + ([forward.image] if forward.image.requires_grad else [])
    if forward.attending is not None:
        points += [one.output for one in forward.attending.seen if one.output is not None]
    return points


def gradients_at(score: Tensor, points: Sequence[Tensor], keep: bool = False, curved: bool = False) -> list[Tensor]:
    """The gradient of a score by each point; zeros where it owes nothing to it."""
    found: Sequence[Tensor | None] = [None] * len(points)
    if score.requires_grad and points:
        found = torch.autograd.grad(score, points, retain_graph=keep, create_graph=curved, allow_unused=True)
    return [torch.zeros_like(one) if back is None else back for one, back in zip(points, found, strict=True)]


def alike(one: Tensor, other: Tensor, same: float = SAME) -> bool:
    """Whether two tensors are the same to rounding, where they are finite."""
    finite = one.isfinite() & other.isfinite()
    return bool(finite.any()) and bool((one - other)[finite].abs().max() <= same * one[finite].abs().max())
