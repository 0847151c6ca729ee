"""Evidence by name: what a method's parameters ask for, got from the network when it is asked for, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from camcli.base.errors import PictureError, RequestError
from camcli.engine.forward import FROM_INPUT, ROUNDED, Forward, Plan, Witness, gradients_at, points_of, wide
from camcli.engine.hooks import attention
from camcli.engine.hooks.attention import Attending, Attention, averaged
from camcli.engine.hooks.capture import tapped
from camcli.engine.hooks.checkpointing import recomputed
from camcli.engine.hooks.relu import Rule
from camcli.engine.layers.blocks import Call, Trunk, added
from camcli.engine.layers.layout import canonical, restored
from camcli.images.placement import at_pixels
from camcli.methods import EVIDENCE
from camcli.methods.rounding import coarse
from camcli.targets.target import Reading, Subject

# Of the score, how much FullGrad's parts may miss.
COMPLETE = 1e-2
# How many questions of a method are answered while it is tried.
FEW = 4
# Of the greatest gradient, in units of rounding, how far two ways of computing it may differ.
UNMIXED = 256


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

    def onto_input(self, layer: str) -> Callable[[Tensor], Tensor]:
        """What brings maps of the layer's cells to the input's pixels: bilinear between the cells' centres."""
        size = (self._forward.image.shape[2], self._forward.image.shape[3])
        located = self._plan.located.get(layer)
        return partial(at_pixels, size=size, own=located.placement if located else None)

    def images(self) -> Float[Tensor, "n d h w"]:
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

    def input_grad(self) -> Float[Tensor, "n d h w"]:
        """The gradient of the score by the images."""
        return wide(self._some(self._gradients[""].detach()))

    def curve(self, layer: str) -> Float[Tensor, "n c h w"]:
        """H A: the gradient by A of the sum of g A, where A beside g stands still."""
        point = self._forward.taps[layer]
        gradient = self._gradients[layer]
        (along,) = gradients_at((gradient * point.detach()).sum(), [point], keep=True)
        return self._cells(along.detach(), layer)

    def grad_of(self, layer: str) -> Callable[[Tensor], Tensor]:
        """From weights of the scores to the gradient, by the layer's output, of their weighted sum."""
        point, scores = self._forward.taps[layer], self._every_score()

        def grad_of(weights: Float[Tensor, "n classes"]) -> Float[Tensor, "n c h w"]:
            weighted = (scores * weights.to(scores)).sum(1)
            (gradient,) = gradients_at(weighted[self._once].sum(), [point], keep=True)
            return self._cells(gradient, layer)

        return grad_of

    def biases(self) -> list[Tensor]:
        """For each bias in the network the bias times the gradient of the score by it, ``(n, c, ...)``.

        Raises:
            PictureError: together with the input times its gradient they are not the score; or some are no image's own.
        """
        assert self._forward.biases is not None
        images = len(self._forward.image)
        other = next((one for one, _ in self._forward.biases.points if not one.ndim or len(one) != images), None)
        if other is not None:
            form = "x".join(map(str, other.shape))
            raise PictureError(
                f"one of its biases is added to {form} for {images} image(s), such as regions, windows or a table of "
                "positions, which is no place of one image",
                "choose another method, such as gradcam or hirescam",
            )
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
        allowed = COMPLETE * score.abs() + max(1e-5, coarse(sums.device)) * sums.abs().sum(0)
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
            (grad,) = gradients_at(_asked(scores, self._subjects, 1).sum(), [attention.output])
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

    def ruled(self, name: str, rule: Rule, everywhere: bool = False) -> Float[Tensor, "n d h w"]:
        """The gradient by the input that follows a rule, known by its name, at every ReLU or everywhere."""
        assert self._forward.ruled is not None
        if ("", name) not in self._kept:
            with self._forward.ruled.following(rule, everywhere):
                (gradient,) = gradients_at(self._sum, [self._forward.image], keep=True)
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
        return dict(zip(points, gradients_at(self._sum, list(points.values()), keep, curved), strict=True))

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
                    (gradients,) = gradients_at(scores.sum(), [images])
                yield from zip(_each(scores, len(self._rows)), _each(gradients, len(self._rows)), strict=True)

        return slopes

    def responses(self, layer: str) -> Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]]:
        """From variants of the images to the layer's output for each, and its gradient."""
        module = {layer: self._witness.module.get_submodule(layer)}

        def responses(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
            for images in map(self._witness.laid, self._chunks(variants, self._witness.rows)):
                with torch.enable_grad(), self._about():
                    tap = tapped(module, self._witness.call, self._witness.places)
                    with recomputed(self._plan.parts, nullcontext), tap as taps:
                        scores = self._scores(images, self._witness.module(images))
                    (gradients,) = gradients_at(scores.sum(), [taps[layer]])
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


class Enough(Exception):  # noqa: N818 - no error, but the end of a trial
    """A method has asked as often as it is answered while it is tried."""


class Trying(Evidence):
    """Evidence that answers a few questions only, to try a method that may ask thousands.

    Raises:
        Enough: more is asked.
    """

    def ask(self) -> Any:
        """As in :class:`Evidence`, and so on."""
        return _few(super().ask())

    def slopes(self) -> Any:  # noqa: D102
        return _few(super().slopes())

    def responses(self, layer: str) -> Any:  # noqa: D102
        return _few(super().responses(layer))

    def rest(self, layer: str) -> Any:  # noqa: D102
        return _few(super().rest(layer))

    def rest_scores(self, layer: str) -> Any:  # noqa: D102
        answers = super().rest_scores(layer)
        return None if answers is None else _few(answers)


def _few(answers: Callable[[Iterable[Tensor]], Iterator[Any]]) -> Callable[[Iterable[Tensor]], Iterator[Any]]:
    def few(variants: Iterable[Tensor]) -> Iterator[Any]:
        source = iter(variants)
        yield from answers(islice(source, FEW))
        if next(source, None) is not None:
            raise Enough

    return few


def mixes(evidence: Evidence) -> bool:
    """Whether any of the scores explained depends on more than its own image, by the gradients of this very forward.

    Each score is weighted differently: where images do not mix, the gradient at each is its own, so many times.
    """
    forward, count = evidence._forward, len(evidence._rows)
    points = points_of(forward)
    layouts = [evidence._plan.layouts[name] for name in forward.taps] + [None] * len(points)
    # No two alike, and most of them far from one another.
    weights = torch.tensor([2.0 ** (row % 7 - 3) * (1 + (row // 7) / count) for row in range(count)], device="cpu")
    scores = torch.stack([subject.score for subject in evidence._subjects])
    plain = gradients_at(scores.sum(), points, keep=True)
    weighted = gradients_at((scores * weights.to(scores)).sum(), points, keep=True)
    for one, other, layout in zip(plain, weighted, layouts, strict=False):
        pair = [wide(one), wide(other)] if layout is None else [canonical(wide(back), layout) for back in (one, other)]
        images = len(forward.image)
        if len(pair[0]) % images:
            return True  # not row by row, so it cannot be told
        own, given = (evidence._some(back.reshape(images, -1)) for back in pair)
        own = own * weights.to(own)[:, None]
        unit = max(UNMIXED * torch.finfo(scores.dtype).eps, ROUNDED * coarse(scores.device))
        allowed = unit * own.abs().amax(1)
        if not bool(((own - given).abs().amax(1) <= allowed).all()):
            return True
    return False


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
