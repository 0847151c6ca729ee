"""Evidence by name: what a method's parameters ask for, got from the network when it is asked for, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from camcli import attention, devices
from camcli.attention import Attending, Attention, averaged
from camcli.biases import Biases
from camcli.blocks import Call, Trunk, added, behind_attention, blocks_of, heard, no_blocks
from camcli.capture import Taps, at_work, frozen, lent, tapped
from camcli.errors import PictureError, RequestError
from camcli.extras import Feed
from camcli.layout import Layout, canonical, restored
from camcli.methods import EVIDENCE
from camcli.outlet import Reading, Subject
from camcli.recompute import WORTH, recomputed, saving, weighed
from camcli.replay import IMAGES, Recording, Way, expanded, needed, recorded, replayed
from camcli.ruled import Rule, RuledActivations

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
ATTENTION = frozenset({"attn", "attn_grad", "read", "spread", "cells"}) | LOOKED | BLOCKS
# Of these, what needs the gradient at the last attention alone.
LAST_ATTENTION = frozenset({"read", "spread"}) | LOOKED
# And what needs every attention to be one of a chain over the same tokens.
CHAIN = frozenset({"attn", "attn_grad", "spread"})
# What asks for the score again, of something changed.
AGAIN = frozenset({"ask", "slopes", "responses", "rest"})
# What runs again only what lies behind a layer.
BEHIND = frozenset({"rest", "rest_scores"})
# Of the score, how far a replay may be off.
SAME = 1e-4
# Of the score, how much FullGrad's parts may miss.
COMPLETE = 1e-2
# Of the greatest gradient, in units of rounding, how far two ways of computing it may differ.
UNMIXED = 256
COLOURS = 3
# In units of rounding, how far the scores of few and of many copies of a token may differ.
ROUNDED = 8
# Variants of an activation in one forward, however small they are.
MOST_ROWS = 1024


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

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The network frozen, and the graph on, whatever the caller has switched off."""
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.module):
            yield

    def leaf(self, images: Tensor, from_input: bool = False) -> Tensor:
        """The images where the network is and as it counts; the start of the graph if that is at the input."""
        like = next((one for one in self.module.parameters() if one.is_floating_point()), images)
        from_input |= self.from_input
        return self.laid(devices.copied_to(like, images.detach())).requires_grad_(from_input)

    @property
    def from_input(self) -> bool:
        """Whether the graph starts at the images."""
        return self.ruled or bool(self.wants & FROM_INPUT)

    def laid(self, images: Tensor) -> Tensor:
        """The images in the order in memory in which the network is fastest; what it says changes by rounding alone."""
        return images.contiguous(memory_format=self.format)

    def settle(self, image: Tensor) -> None:
        """Have the weights of convolutions lie in memory as their input does, if the network takes it so."""
        if self.format == torch.contiguous_format:
            return
        self.module.to(memory_format=self.format)
        try:
            self.module(self.leaf(image))
        except RuntimeError:  # if it is another one, it comes again
            self.format = torch.contiguous_format
            self.module.to(memory_format=self.format)

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
        layers = {name: self.module.get_submodule(name) for name in self.layers}
        with ExitStack() as watch:
            recordings: dict[str, Recording] = {}
            if plan and self.wants & BEHIND:
                for name, layer in layers.items():
                    record = recorded(self.module, layer, plan.runs[name], len(leaf), plan.ways[name].owned)
                    recordings[name] = watch.enter_context(record)
            taps = watch.enter_context(tapped(layers, self.call))
            ruled = watch.enter_context(RuledActivations(self.everywhere)) if self.ruled else None
            biases = watch.enter_context(Biases()) if "biases" in self.wants else None
            watch.enter_context(self._twice())
            calls: Mapping[nn.Module, Call] = {}
            ending = None
            if plan and (trunk := plan.trunk):
                calls = watch.enter_context(heard(trunk.blocks, trunk.copies))
                ending = watch.enter_context(recorded(self.module, trunk.end, 1, len(leaf), trunk.way.owned))
            if plan:
                watch.enter_context(recomputed(plan.parts, partial(self._likewise, ruled)))
            attending = None
            if self.wants & ATTENTION:
                running = watch.enter_context(at_work(self.module)) if plan is None else []
                attending = watch.enter_context(self._attending(len(leaf), plan, running))
            # A network may change its input in place, which a leaf of the graph does not allow.
            output = self.module(leaf.clone())
        reading = self.read(output, len(images), seen, region)
        return Forward(leaf, reading, taps, ruled, biases, recordings, attending, calls, ending)

    def _twice(self) -> AbstractContextManager[None]:
        """While it lasts, attention is computed so that its gradient has one too, if a method asks for curvature."""
        return attention.twice_differentiable() if "curve" in self.wants else nullcontext()

    @contextmanager
    def _likewise(self, ruled: RuledActivations | None) -> Iterator[None]:
        """While it lasts, parts that run again keep what they kept: the other modes do not change that."""
        with self._twice(), ruled.again() if ruled else nullcontext():
            yield

    def _attending(self, images: int, plan: Plan | None, running: Sequence[nn.Module]) -> Attending:
        """Of the first forward the chain is checked; then only the last attention need be in the graph, if any."""
        values = bool(self.wants & {"attn_grad", "value"} or (self.wants & BLOCKS and (plan is None or plan.pooled)))
        queries = bool(self.wants & LOOKED)
        if plan is None or "attn_grad" in self.wants:
            return Attending(images, values, queries=queries, running=running)
        last = self.wants & LAST_ATTENTION or plan.pooled
        return Attending(images, values, graph_from=plan.attentions - 1 if last else -1, queries=queries)

    # ---- which parts can be computed again on the way back

    def prepare_parts(self, plan: Plan, images: Tensor) -> str:
        """Choose the parts that are computed again on the way back, and prove them on one image or group.

        Returns:
            A note: what they are and save, or why there are none.
        """
        with weighed(self.module) as whole:
            before = self._gradients_of(plan, images)
        best = saving(whole)
        if not best.before:
            return self._without_parts(plan, "nothing is kept for a way back")
        if best.after > (1 - WORTH) * best.before:
            return self._without_parts(plan, "no part of the network keeps much more than what it is given")
        plan.parts = best.parts
        try:
            same = all(map(alike, before, self._gradients_of(plan, images)))
        except Exception as error:  # whatever it is, these parts cannot be computed again
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            return self._without_parts(plan, f"the parts of the network cannot be computed again: {said}")
        if not same:
            return self._without_parts(plan, "the parts of the network say something else when they are computed again")
        return best.words(self.module, "group" if len(images) > 1 else "picture")

    def _without_parts(self, plan: Plan, reason: str) -> str:
        plan.parts = ()
        return f"--checkpoint changes nothing here: {reason}"

    def _gradients_of(self, plan: Plan, images: Tensor) -> list[Tensor]:
        """Gradients of all that the network says, where methods take them."""
        forward = self.forward(images, plan=plan, from_input="slopes" in self.wants)
        return _back(forward.reading.total(), _points(forward))

    # ---- how the part behind a layer can be run again

    def prepare_rest(self, plan: Plan, name: str, images: Tensor) -> str:
        """Find the way for one layer, and prove it on one image; a note if the whole network must run.

        The unchanged activation must bring the scores back, and the halved one those of the whole network.
        """
        layer, leaf = self.module.get_submodule(name), self.leaf(images).detach()
        reading, recording, owned = self._recorded(layer, plan.runs[name], leaf)
        act = recording.tensor
        pair = restored(torch.cat([cells := canonical(act, plan.layouts[name]), cells / 2]), plan.layouts[name], act)
        run = partial(self.again, layer, recording, images=leaf)
        way = plan.ways[name] = self._way(layer, reading, recording, owned, leaf, pair, run)
        before, behind = recording.biggest
        larger = 1 if way.whole else max(before, behind) // behind
        plan.rows[name] = min(MOST_ROWS, self.rows * larger)
        if not way.whole:
            return ""
        return (
            f"what lies behind the layer {name!r} cannot be run alone, so the whole network runs again for each "
            "change of what it says: slower, and the same maps"
        )

    def _recorded(self, layer: nn.Module, call: int, leaf: Tensor) -> tuple[Reading, Recording, frozenset[nn.Module]]:
        """What the network says, what is needed to run again what lies behind a layer, and which outputs are copies."""
        owned: frozenset[nn.Module] = frozenset()
        for _ in range(3):
            with recorded(self.module, layer, call, 1, owned) as recording, torch.no_grad():
                reading = self.read(self.module(leaf.clone()), 1)
            if not (changed := recording.changed()):
                break
            owned |= changed
        return reading, recording, owned

    def _way(
        self,
        layer: nn.Module,
        reading: Reading,
        recording: Recording,
        owned: frozenset[nn.Module],
        leaf: Tensor,
        pair: Tensor,
        run: Callable[..., Reading],
    ) -> Way:
        """How what lies behind a layer is run again: of a pair the first is what is, the second is changed."""
        changed = run(given=pair[1:], way=Way(whole=True)).scores(0)

        def proven(way: Way) -> bool:
            try:
                again = run(given=pair, way=way)
                pairs = [(reading.scores(0), again.scores(0)), (changed, again.scores(1))]
            except Exception:  # whatever it is, this way is none
                return False
            return all(map(alike, *zip(*pairs, strict=True)))

        # Features come with the images, so these are given anew for each variant.
        ways = [Way(owned)] if self.feed.on else [Way(owned, self._needed(layer, recording, leaf)), Way(owned)]
        return next((way for way in ways if proven(way)), Way(whole=True))

    def _needed(self, layer: nn.Module, recording: Recording, leaf: Tensor) -> frozenset[int] | None:
        try:
            return needed(layer, recording, leaf, lambda images: self.read(self.module(images), 1).total())
        except Exception:  # the way that needs to know this will not do then
            return None

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

    # ---- how blocks and what lies behind them can be run again

    def prepare_trunk(self, plan: Plan, attending: Attending, images: Tensor) -> str:
        """Find the blocks, and prove on one image that they and their end can be run again; a note if all must run.

        Each block must hand on again what it did, the unchanged tokens bring the scores back, and the halved ones those
        of the whole network.

        Raises:
            RequestError: they cannot be told apart, or not be run again.
        """
        leaf, met = self.leaf(images).detach(), attending.seen
        blocks = tuple(blocks_of(met)) if len(met) > 1 else ()
        end = blocks[-1] if blocks else met[0].inside[-1]
        with heard(blocks) as calls, Attending(1, values=False, graph_from=-1):
            reading, recording, owned = self._recorded(end, 1, leaf)
        copies = any(call.changed for call in calls.values())
        if copies:
            with heard(blocks, copies) as calls, torch.no_grad():
                self.module(leaf.clone())
        self._check_blocks(blocks, calls, recording.tensor)
        trunk = Trunk(blocks, end, Way(whole=True), self.rows, pools=not met[-1].square, copies=copies)
        values = met[-1].of_heads(met[-1].values) if met[-1].values is not None else None
        if blocks:
            pair = torch.cat([recording.tensor, recording.tensor / 2])
            own = recording.tensor[0].numel()
        else:
            assert values is not None
            pair = torch.cat([met[0].weights @ values, values[:, :, :1].expand_as(values)])
            own = values[0].numel()
        run = partial(self.at_end, trunk, recording, images=leaf)
        way = self._way(end, reading, recording, owned, leaf, pair, run)
        larger = 1 if way.whole else max(1, max(recording.biggest) // own)
        trunk = replace(trunk, way=way, rows=min(MOST_ROWS, self.rows * larger))
        if blocks and self.wants & {"own", "path"}:
            asked = blocks if "path" in self.wants else () if trunk.pools else blocks[-1:]
            trunk = replace(trunk, behind={block: behind_attention(block, calls[block]) for block in asked})
        plan.trunk = self._alone(trunk, recording, leaf, plan) if self.wants & ALONE else trunk
        return (
            "what lies behind the last block cannot be run alone, so the whole network runs again for all that is "
            "asked of it: slower, and the same maps"
            if way.whole
            else ""
        )

    def _check_blocks(self, blocks: Sequence[nn.Module], calls: Mapping[nn.Module, Call], said: Tensor) -> None:
        if not blocks and said.ndim != 2:
            raise no_blocks("it has one attention alone, so nothing tells which of the modules around it is its block")
        shapes = {tuple(tensor.shape) for call in calls.values() for tensor in (call.tokens, call.output)}
        forms = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes))
        if len(shapes) > 1:
            raise no_blocks(f"what they are handed and hand on has several shapes ({forms})")
        if any(shape[0] != 1 for shape in shapes):
            raise no_blocks(f"what they hand on is {forms} for one image, so its rows are no images")
        for block in blocks:
            with torch.no_grad(), Attending(1, values=False, graph_from=-1):
                again = calls[block].run(block)
            if not alike(again, calls[block].output):
                raise no_blocks(f"run again on the same tokens, a {type(block).__name__} hands on others")

    def _alone(self, trunk: Trunk, recording: Recording, leaf: Tensor, plan: Plan) -> Trunk:
        """See what a token by itself is to the end: as few copies as there are tokens for one patch, or as many as all.

        Where both can be, they must come to the same.
        """
        if not trunk.blocks:
            return trunk
        tokens, layout = recording.tensor, plan.tokens
        assert layout is not None
        if tokens.ndim != 3:
            return replace(trunk, alone="its blocks hand on maps, and no sequences of which one token could be all")
        found: dict[int, Tensor] = {}
        # A patch that is not the first, since the first token may be the one that the end reads anyhow.
        token = tokens[:, layout.prefix + 1]
        for length in (layout.prefix + 1 + layout.suffix, tokens.shape[1]):
            try:
                given = token.unsqueeze(1).expand(-1, length, -1)
                found[length] = self.at_end(trunk, recording, given, leaf).scores(0)
            except Exception:  # whatever it is, so many will not do
                continue
        if not found:
            return replace(trunk, alone="what lies behind its blocks cannot be run on copies of one token")
        few, many = found[min(found)], found[max(found)]
        if not alike(few, many, max(SAME, ROUNDED * torch.finfo(tokens.dtype).eps)):
            return replace(trunk, alone="what lies behind its blocks tells tokens by their places, or mixes neighbours")
        shorter = 1 if trunk.way.whole else tokens.shape[1] // min(found)
        return replace(trunk, length=min(found), rows=min(MOST_ROWS, trunk.rows * shorter))

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
            attention.Ruled(given),
            replayed(trunk.end, recording, None, way, len(given) // recording.images),
        ):
            return self._behind(recording, len(given), images, way)


class Evidence:
    """What one class's score of each image is made of. Each method but ``ruled`` is a name of :data:`EVIDENCE`.

    Args:
        witness: the network.
        plan: for this size of images.
        forward: of the batch.
        subjects: what is explained, one for each of ``rows``.
        rows: which images of the batch.
        last: whether nothing else goes back from this forward.
    """

    def __init__(
        self,
        witness: Witness,
        plan: Plan,
        forward: Forward,
        subjects: Sequence[Subject],
        rows: Sequence[int],
        last: bool = False,
    ) -> None:
        self._witness, self._plan, self._forward, self._last = witness, plan, forward, last
        self._subjects, self._rows = list(subjects), list(rows)
        self._kept: dict[tuple[str, str], Any] = {}
        # Samples do not mix in evaluation mode, so the gradient of the sum holds every image's own. A score that
        # several images of a group share counts once.
        turns = {id(subject.score): turn for turn, subject in reversed(list(enumerate(self._subjects)))}
        self._once = sorted(turns.values())
        self._sum = torch.stack([self._subjects[turn].score for turn in self._once]).sum()

    def get(self, name: str, layer: str) -> Any:
        """The evidence of this name, at this layer if it lies at one."""
        key = name, layer if EVIDENCE[name][0] == "layer" else ""
        if key not in self._kept:
            own = getattr(self, name)
            self._kept[key] = own(layer) if key[1] else own()
        return self._kept[key]

    # ---- of the one forward

    def act(self, layer: str) -> Float[Tensor, "n c h w"]:
        """The layer's output A."""
        return self._cells(self._forward.taps[layer].detach(), layer)

    def images(self) -> Float[Tensor, "n 3 h w"]:
        """What the network was given."""
        return wide(self._some(self._forward.image.detach()))

    def score(self) -> Float[Tensor, " n"]:
        """The score that is explained."""
        return wide(torch.stack([subject.score.detach() for subject in self._subjects]))

    def logits(self) -> Float[Tensor, "n classes"]:
        """The score of every class."""
        return wide(self._every_score().detach())

    def index(self) -> Int[Tensor, " n"]:
        """The class, or the channel, that is explained."""
        return torch.tensor([subject.index for subject in self._subjects], device=self._forward.image.device)

    channel = index

    # ---- of one way back

    def grad(self, layer: str) -> Float[Tensor, "n c h w"]:
        """The gradient of the score by the layer's output."""
        return self._cells(self._gradients[layer].detach(), layer)

    def input_grad(self) -> Float[Tensor, "n 3 h w"]:
        """The gradient of the score by the images."""
        return wide(self._some(self._gradients[""].detach()))

    def curve(self, layer: str) -> Float[Tensor, "n c h w"]:
        """H A: the gradient by A of the sum of g A, where A beside g stands still."""
        point = self._forward.taps[layer]
        gradient = self._gradients[layer]
        (along,) = _back((gradient * point.detach()).sum(), [point], keep=True)
        return self._cells(along.detach(), layer)

    def grad_of(self, layer: str) -> Callable[[Tensor], Tensor]:
        """From weights of the scores to the gradient, by the layer's output, of their weighted sum."""
        point, scores = self._forward.taps[layer], self._every_score()

        def grad_of(weights: Float[Tensor, "n classes"]) -> Float[Tensor, "n c h w"]:
            weighted = (scores * weights.to(scores)).sum(1)
            (gradient,) = _back(weighted[self._once].sum(), [point], keep=True)
            return self._cells(gradient, layer)

        return grad_of

    def biases(self) -> list[Tensor]:
        """For each bias in the network the bias times the gradient of the score by it, ``(n, c, ...)``.

        Raises:
            PictureError: together with the input times its gradient they are not the score.
        """
        assert self._forward.biases is not None
        count = len(self._forward.biases.points)
        gradients = [self._gradients[f"bias {number}"] for number in range(count)]
        everyones = [wide(term) for term in self._forward.biases.terms(gradients)]
        terms = [self._some(term) for term in everyones]
        alone = len(self._once) == 1
        # One score is made of all images of a group; of others of a batch, which have no part in it, the sum is 0.
        given = wide(self._forward.image.detach() * self._gradients[""].detach())
        parts = [given, *everyones] if alone else [self._some(given), *terms]
        sums = torch.stack([part.flatten(1).sum(1) for part in parts])
        score = self.score()
        if alone:
            score, sums = score[:1], sums.sum(1, keepdim=True)
        missing = score - sums.sum(0)
        # Beside the share, the rounding of what is added up.
        allowed = COMPLETE * score.abs() + 1e-5 * sums.abs().sum(0)
        if bool((missing.abs() > allowed).any()):
            share = float((missing / score).abs().max())
            raise PictureError(
                f"input times gradient and biases times gradients are not the score: {share:.0%} of it is missing",
                "layer norms, attention and gates (squeeze and excitation) multiply values, which is no bias; "
                "choose another method, such as gradcam or hirescam",
            )
        return terms

    def attn(self) -> list[Tensor]:
        """Of each attention its weights, ``(n, heads, queries, keys)``."""
        return [self._some(one.weights) for one in self._attentions]

    def attn_grad(self) -> list[Tensor]:
        """The gradient of the score by them."""
        gradients = [self._gradients[f"attention {number}"] for number in range(len(self._attentions))]
        return [self._some(one.gradient(gradient)) for one, gradient in zip(self._attentions, gradients, strict=True)]

    def cells(self) -> Callable[[Tensor], Tensor]:
        """What puts a number for each token on the grid of the patches."""
        layout = self._plan.tokens
        assert layout is not None

        def cells(numbers: Float[Tensor, "n t"]) -> Float[Tensor, "n h w"]:
            return canonical(numbers.unsqueeze(2), layout).squeeze(1)

        return cells

    def spread(self) -> Callable[[Tensor], Tensor]:
        """What puts the relevance of tokens on their grid."""
        cells, read = self.get("cells", ""), self.get("read", "")

        def spread(relevance: Tensor) -> Float[Tensor, "n h w"]:
            """Relevance ``(n, t)``, or ``(n, q, t)`` of which the rows that the score reads count, on the grid."""
            on_grid: Tensor = cells(relevance if relevance.ndim == 2 else averaged(relevance, read))
            return on_grid

        return spread

    def read(self) -> Bool[Tensor, "n q"]:
        """Which rows of the last attention the score reads."""
        last = len(self._attentions) - 1
        return self._some(self._attentions[last].read(self._gradients[f"attention {last}"]))

    @property
    def _attentions(self) -> list[Attention]:
        assert self._forward.attending is not None
        return self._forward.attending.seen

    # ---- of the token that the score reads behind the last attention

    def query(self) -> Float[Tensor, "n heads d"]:
        """Its query."""
        queries = self._attentions[-1].queries
        assert queries is not None
        return self._row(wide(self._some(queries)))

    def key(self) -> Float[Tensor, "n heads t d"]:
        """The keys that it meets."""
        last = self._attentions[-1]
        assert last.keys is not None
        return self._some(last.of_heads(last.keys))

    def value(self) -> Float[Tensor, "n heads t d"]:
        """The values of the tokens that it looks at."""
        return self._some(self._last_values)

    def told_grad(self) -> Float[Tensor, "n heads d"]:
        """The gradient of the score by what it is told."""
        number = len(self._attentions) - 1
        told = wide(self._attentions[-1].to_heads(self._gradients[f"attention {number}"]))
        return self._row(self._some(told))

    def _row(self, rows: Float[Tensor, "n heads q d"]) -> Float[Tensor, "n heads d"]:
        """The row of the token that the score reads, which is one; any where it reads none."""
        read = self.get("read", "").int().argmax(1)
        return rows[torch.arange(len(rows), device=rows.device), :, read]

    @property
    def _last_values(self) -> Float[Tensor, "n heads t d"]:
        last = self._attentions[-1]
        assert last.values is not None
        return last.of_heads(last.values)

    # ---- of the blocks, and of what lies behind them

    def stopped(self) -> Callable[[str], Iterator[Tensor]]:
        """From how tokens are pooled to the gradients, by their own attention, of scores that end behind each block."""
        trunk, forward = self._trunk, self._forward

        def stopped(pool: str = "head") -> Iterator[Float[Tensor, "n heads q t"]]:
            """The last block first; ``pool`` is head, or mean for the mean of all tokens in the place of each."""
            if pool == "mean" and (trunk.pools or not trunk.blocks):
                raise RequestError(
                    "this network pools its tokens by attention, which a mean in their place would leave nothing to do",
                    "leave pool=head",
                )
            if not trunk.blocks:
                number = len(self._attentions) - 1
                yield self._some(self._attentions[-1].gradient(self._gradients[f"attention {number}"]))
            for block in reversed(trunk.blocks):
                yield self._stopped(block, forward.calls[block], pool)

        return stopped

    def _stopped(self, block: nn.Module, call: Call, pool: str) -> Float[Tensor, "n heads q t"]:
        trunk = self._trunk
        with torch.enable_grad(), self._about():
            if trunk.pools:
                tokens = self._some(call.output)
                with Attending(len(tokens)) as met:
                    scores = self._ended(tokens, graph=True)
            else:
                with Attending(len(call.tokens)) as met:
                    tokens = self._some(call.run(block))
                if pool == "mean":
                    tokens = tokens.mean(1, keepdim=True).expand_as(tokens)
                scores = self._ended(tokens, graph=True)
            [attention] = met.seen
            assert attention.output is not None
            (grad,) = _back(_asked(scores, self._subjects, 1).sum(), [attention.output])
        found = attention.gradient(grad)
        return found if trunk.pools else self._some(found)

    def own(self) -> Float[Tensor, "n t c"]:
        """What the last attention adds to each token if this looks at itself alone; of a pooling, each token."""
        trunk, calls = self._trunk, self._forward.calls
        if not trunk.blocks:
            return self._kept_tokens("own", lambda: _joined(self._last_values))
        block = trunk.blocks[-1]
        if trunk.pools:
            return self._kept_tokens("own", lambda: wide(calls[block].output))
        return self._kept_tokens("own", lambda: wide(added(block, trunk.behind[block], calls[block], _itself)))

    def path(self) -> Callable[[attention.Rule, int], Tensor]:
        """From a rule and a number of blocks to the tokens of a path beside them, to which attention adds by it."""
        trunk, calls = self._trunk, self._forward.calls

        def sums(rule: attention.Rule, blocks: Sequence[nn.Module]) -> Tensor:
            tokens = wide(calls[blocks[0]].tokens)
            for block in blocks:
                tokens = tokens + wide(added(block, trunk.behind[block], calls[block], rule))
            return tokens

        def path(rule: attention.Rule, depth: int) -> Float[Tensor, "n t c"]:
            if not trunk.blocks:
                return self._kept_tokens((rule, 0), lambda: _joined(rule(self._last_values)))
            return self._kept_tokens((rule, depth), lambda: sums(rule, trunk.blocks[-depth:]))

        return path

    def alone(self) -> Callable[[Tensor], Tensor]:
        """From tokens to the score of each by itself."""

        def alone(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t"]:
            return self._each_alone(self._readings(tokens)) - self._witness.shift

        return alone

    def alone_cosines(self) -> Callable[[Tensor], Tensor]:
        """From tokens to the cosines of each with every prompt."""

        def alone_cosines(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t prompts"]:
            return self._to_cosines(self._each_alone(self._readings(tokens), _all_scores))

        return alone_cosines

    def alone_blank(self) -> Callable[[Tensor], Tensor]:
        """From tokens to the cosine of each with the empty prompt."""

        def alone_blank(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t"]:
            with self._witness.of_blank():
                readings = self._run_alone(tokens)
            return self._to_cosines(self._each_alone(readings, _all_scores)).squeeze(2)

        return alone_blank

    def cosines(self) -> Float[Tensor, "n prompts"]:
        """Those of the images with every prompt."""
        return self._to_cosines(self.get("logits", ""))

    def _to_cosines(self, scores: Tensor) -> Tensor:
        assert self._witness.cosine is not None
        scale, bias = self._witness.cosine
        return (scores - bias) / scale

    @property
    def _trunk(self) -> Trunk:
        assert self._plan.trunk is not None
        return self._plan.trunk

    def _kept_tokens(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """Tokens of the images that are explained, made once for all of the forward."""
        kept = self._forward.kept
        if key not in kept:
            kept[key] = make()
        return self._some(kept[key])

    def _readings(self, tokens: Tensor) -> list[tuple[Reading, int]]:
        """The answers for each token alone, kept as long as the tokens are: every class asks the same."""
        known = self._forward.alone
        if tokens not in known:
            known[tokens] = self._run_alone(tokens)
        found: list[tuple[Reading, int]] = known[tokens]
        return found

    def _run_alone(self, tokens: Tensor) -> list[tuple[Reading, int]]:
        trunk = self._trunk
        found = []
        with self._about():
            for some in self._chunks(tokens.unbind(1), trunk.rows):
                if trunk.blocks:
                    given = some.unsqueeze(1).expand(-1, trunk.length, -1)
                else:
                    _, heads, queries, _ = self._attentions[-1].weights.shape
                    given = some.reshape(len(some), heads, 1, -1).expand(-1, -1, queries, -1)
                found.append((self._ended(given), len(given) // len(self._rows)))
        return found

    def _each_alone(
        self,
        readings: Sequence[tuple[Reading, int]],
        what: Callable[[Reading, int, Subject], Tensor] = lambda reading, row, subject: reading.answer(row, subject),
    ) -> Float[Tensor, "n t *classes"]:
        with torch.inference_mode():
            found = [_asked(reading, self._subjects, each, what) for reading, each in readings]
        # Copies outside of inference mode.
        return torch.cat([wide(one.clone()).reshape(len(self._rows), -1, *one.shape[1:]) for one in found], 1)

    def _ended(self, given: Tensor, graph: bool = False) -> Reading:
        """What the network says of tokens behind its last block, of the images that are explained."""
        assert self._forward.ending is not None
        recording = self._forward.ending.of(self._rows)
        images = self._some(self._forward.image.detach())
        return self._witness.at_end(self._trunk, recording, given, images, graph=graph)

    def ruled(self, name: str, rule: Rule, everywhere: bool = False) -> Float[Tensor, "n 3 h w"]:
        """The gradient by the input that follows a rule, known by its name, at every ReLU or everywhere."""
        assert self._forward.ruled is not None
        if ("", name) not in self._kept:
            with self._forward.ruled.following(rule, everywhere):
                (gradient,) = _back(self._sum, [self._forward.image], keep=True)
            self._kept["", name] = wide(self._some(gradient))
        found: Tensor = self._kept["", name]
        return found

    @cached_property
    def _gradients(self) -> dict[str, Tensor]:
        """Of all that is wanted in one backward: by each layer, by the input (""), by what has a bias."""
        wants, forward = self._witness.wants, self._forward
        points: dict[str, Tensor] = {}
        if wants & {"grad", "curve"}:
            points = {name: forward.taps[name] for name in self._witness.layers}
        if wants & FROM_INPUT:
            points[""] = forward.image
        if forward.biases is not None:
            points |= {f"bias {number}": output for number, (output, _) in enumerate(forward.biases.points)}
        if forward.attending is not None:
            met = enumerate(forward.attending.seen)
            points |= {f"attention {number}": one.output for number, one in met if one.output is not None}
        curved = "curve" in wants
        keep = not self._last or curved or "grad_of" in wants or forward.ruled is not None
        return dict(zip(points, _back(self._sum, list(points.values()), keep, curved), strict=True))

    # ---- of variants

    def ask(self) -> Callable[[Iterable[Tensor]], Iterator[Tensor]]:
        """From variants of the images to the score of each."""

        def ask(variants: Iterable[Tensor]) -> Iterator[Float[Tensor, " n"]]:
            for images in map(self._witness.laid, self._chunks(variants, self._witness.rows)):
                with torch.inference_mode(), self._about():
                    scores = self._scores(images, self._witness.module(images))
                yield from _each(scores, len(self._rows))

        return ask

    def slopes(self) -> Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]]:
        """From variants of the images to the score of each, and its gradient by it."""

        def slopes(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
            for images in map(self._witness.laid, self._chunks(variants, self._witness.rows)):
                images.requires_grad_()
                with torch.enable_grad(), self._about(), recomputed(self._plan.parts, nullcontext):
                    scores = self._scores(images, self._witness.module(images.clone()))
                    (gradients,) = _back(scores.sum(), [images])
                yield from zip(_each(scores, len(self._rows)), _each(gradients, len(self._rows)), strict=True)

        return slopes

    def responses(self, layer: str) -> Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]]:
        """From variants of the images to the layer's output for each, and its gradient."""
        module = {layer: self._witness.module.get_submodule(layer)}

        def responses(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
            for images in map(self._witness.laid, self._chunks(variants, self._witness.rows)):
                with torch.enable_grad(), self._about():
                    with recomputed(self._plan.parts, nullcontext), tapped(module, self._witness.call) as taps:
                        scores = self._scores(images, self._witness.module(images))
                    (gradients,) = _back(scores.sum(), [taps[layer]])
                pair = (canonical(one, self._plan.layouts[layer]) for one in (taps[layer].detach(), gradients))
                yield from zip(*(_each(one, len(self._rows)) for one in pair), strict=True)

        return responses

    def rest(self, layer: str) -> Callable[[Iterable[Tensor]], Iterator[Tensor]]:
        """From variants of the layer's output to the score where the layer says this."""
        return self._behind(layer, lambda reading, each: _asked(reading, self._subjects, each))

    def rest_scores(self, layer: str) -> Callable[[Iterable[Tensor]], Iterator[Tensor]] | None:
        """From variants of the layer's output to the scores of every class, ``(n, classes)`` for each."""
        if "rest_scores" not in self._witness.wants:
            return None
        return self._behind(layer, lambda reading, each: _asked(reading, self._subjects, each, _all_scores))

    def _behind(
        self, layer: str, said: Callable[[Reading, int], Tensor]
    ) -> Callable[[Iterable[Tensor]], Iterator[Tensor]]:
        module, plan = self._witness.module.get_submodule(layer), self._plan
        recording = self._forward.recordings[layer].of(self._rows)
        images = self._some(self._forward.image.detach())

        def rest(variants: Iterable[Tensor]) -> Iterator[Tensor]:
            for cells in self._chunks(variants, plan.rows[layer]):
                given = restored(cells, plan.layouts[layer], recording.tensor)
                with self._about():
                    reading = self._witness.again(module, recording, given, images, plan.ways[layer])
                with torch.inference_mode():
                    scores = said(reading, len(given) // len(self._rows))
                yield from _each(scores, len(self._rows))

        return rest

    def _about(self) -> AbstractContextManager[None]:
        """While it lasts, the network is run on variants of the images that are explained."""
        return self._witness.feed.about(self._rows)

    def _chunks(self, variants: Iterable[Tensor], rows: int) -> Iterator[Tensor]:
        """Variants ``(n, ...)`` of all images together, as many as fit, those of the first image first."""
        like, source = self._forward.image, iter(variants)
        while some := list(islice(source, max(1, rows // len(self._rows)))):
            yield torch.stack(some, 1).flatten(0, 1).detach().to(like.device, like.dtype)

    def _scores(self, images: Tensor, output: Any) -> Tensor:
        """What is explained, in each of the variants of each image: ``(n * k,)``."""
        reading, each = self._witness.read(output, len(images)), len(images) // len(self._subjects)
        return _asked(reading, self._subjects, each)

    # ---- small parts

    def _every_score(self) -> Tensor:
        reading, pairs = self._forward.reading, zip(self._rows, self._subjects, strict=True)
        return torch.stack([reading.answers(row, subject) for row, subject in pairs])

    def _some(self, tensor: Tensor) -> Tensor:
        """The rows that are explained."""
        return tensor if len(self._rows) == len(tensor) else tensor[self._rows]

    def _cells(self, tensor: Tensor, layer: str) -> Tensor:
        cells, images = canonical(wide(tensor), self._plan.layouts[layer]), len(self._forward.image)
        if len(cells) != images:
            raise PictureError(
                f"the layer {layer!r} gives {len(cells)} row(s) for {images} images: the network takes them one by "
                "one, or joins them",
                "give it one at a time: --batch-size 1",
            )
        return self._some(cells)


def mixes(evidence: Evidence) -> bool:
    """Whether any of the scores explained depends on more than its own image, by the gradients of this very forward.

    Each score is weighted differently: where images do not mix, the gradient at each is its own, so many times.
    """
    forward, count = evidence._forward, len(evidence._rows)
    points = _points(forward)
    layouts = [evidence._plan.layouts[name] for name in forward.taps] + [None] * len(points)
    # No two alike, and most of them far from one another.
    weights = torch.tensor([2.0 ** (row % 7 - 3) * (1 + (row // 7) / count) for row in range(count)])
    scores = torch.stack([subject.score for subject in evidence._subjects])
    plain = _back(scores.sum(), points, keep=True)
    weighted = _back((scores * weights.to(scores)).sum(), points, keep=True)
    for one, other, layout in zip(plain, weighted, layouts, strict=False):
        pair = [wide(one), wide(other)] if layout is None else [canonical(wide(back), layout) for back in (one, other)]
        images = len(forward.image)
        if len(pair[0]) % images:
            return True  # not row by row, so it cannot be told
        own, given = (evidence._some(back.reshape(images, -1)) for back in pair)
        own = own * weights.to(own)[:, None]
        allowed = UNMIXED * torch.finfo(scores.dtype).eps * own.abs().amax(1)
        if not bool(((own - given).abs().amax(1) <= allowed).all()):
            return True
    return False


def _quickest(module: nn.Module) -> torch.memory_format:
    """Channels last where a convolution looks at features, and not at the image alone as that of patches does."""
    if any(parameter.device.type == "mps" for parameter in module.parameters()):
        return torch.contiguous_format
    looks = any(isinstance(one, nn.Conv2d) and one.in_channels > COLOURS for one in module.modules())
    return torch.channels_last if looks else torch.contiguous_format


def _points(forward: Forward) -> list[Tensor]:
    """Where gradients can be taken, the layers first."""
    points = list(forward.taps.values()) + ([forward.image] if forward.image.requires_grad else [])
    if forward.attending is not None:
        points += [one.output for one in forward.attending.seen if one.output is not None]
    return points


def wide(tensor: Tensor) -> Tensor:
    """At least float32, since sums over half-precision products lose the map."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _back(score: Tensor, points: Sequence[Tensor], keep: bool = False, curved: bool = False) -> list[Tensor]:
    """The gradient of a score by each point; zeros where it owes nothing to it."""
    found: Sequence[Tensor | None] = [None] * len(points)
    if score.requires_grad and points:
        found = torch.autograd.grad(score, points, retain_graph=keep, create_graph=curved, allow_unused=True)
    return [torch.zeros_like(one) if back is None else back for one, back in zip(points, found, strict=True)]


def _asked(
    reading: Reading,
    subjects: Sequence[Subject],
    each: int,
    what: Callable[[Reading, int, Subject], Tensor] = lambda reading, row, subject: reading.answer(row, subject),
) -> Tensor:
    """The score of each subject in each of its variants, those of the first together: ``(n * each,)``."""
    rows = ((row * each + turn, subject) for row, subject in enumerate(subjects) for turn in range(each))
    return torch.stack([what(reading, row, subject) for row, subject in rows])


def _itself(values: Tensor) -> Tensor:
    """What attention says if every token looks at itself alone."""
    return values


def _joined(heads: Float[Tensor, "n heads t d"]) -> Float[Tensor, "n t c"]:
    return heads.transpose(1, 2).flatten(2)


def _all_scores(reading: Reading, row: int, subject: Subject) -> Tensor:
    return reading.answers(row, subject)


def _each(values: Tensor, images: int) -> Iterator[Tensor]:
    """Values of variants, those of the first image first, variant by variant: each ``(n, ...)``."""
    # A copy outside of inference mode, so that a method may change it in place.
    values = wide(values.detach().clone())
    return iter(values.reshape(images, -1, *values.shape[1:]).unbind(1))


def alike(one: Tensor, other: Tensor, same: float = SAME) -> bool:
    """Whether two tensors are the same to rounding, where they are finite."""
    finite = one.isfinite() & other.isfinite()
    return bool(finite.any()) and bool((one - other)[finite].abs().max() <= same * one[finite].abs().max())
