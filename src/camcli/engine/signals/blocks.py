"""Signals of the blocks of attention and of what lies behind them: early exits, value paths, a token by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.forward import gradients_at
from camcli.engine.hooks.attention import Attending
from camcli.engine.hooks.attention_override import Rule
from camcli.engine.hooks.tensors import wide
from camcli.engine.layers.blocks import Call, Trunk, added
from camcli.engine.signals.attention import last_gradient, last_values
from camcli.engine.signals.gradients import logits
from camcli.engine.signals.scored import ScoredForward, answers, score_in, scores_in
from camcli.targets.target import Reading, Subject

# For each batch of tokens the answers, and how many tokens of an image they are for.
Answers = Sequence[tuple[Reading, int]]


def stopped(scored: ScoredForward) -> Callable[[str], Iterator[Tensor]]:
    """From how tokens are pooled to the gradients, by their own attention, of scores that end behind each block."""
    trunk = _trunk(scored)

    def stopped(pool: str = "head") -> Iterator[Float[Tensor, "n heads q t"]]:
        """The last block first; ``pool`` is head, or mean for the mean of all tokens in the place of each."""
        if pool == "mean" and (trunk.pools or not trunk.blocks):
            raise RequestError(
                "this network pools its tokens by attention, which a mean in their place would leave nothing to do",
                "leave pool=head",
            )
        if not trunk.blocks:
            yield scored.select(scored.attentions[-1].gradient(last_gradient(scored)))
        for block in reversed(trunk.blocks):
            yield _stopped_behind(scored, block, scored.forward.calls[block], pool)

    return stopped


def _stopped_behind(scored: ScoredForward, block: nn.Module, call: Call, pool: str) -> Float[Tensor, "n heads q t"]:
    trunk = _trunk(scored)
    with torch.enable_grad(), scored.feeding():
        if trunk.pools:
            tokens = scored.select(call.output)
            with Attending(len(tokens)) as met:
                scores = _run_end(scored, tokens, graph=True)
        else:
            with Attending(len(call.tokens)) as met:
                tokens = scored.select(call.run(block))
            if pool == "mean":
                tokens = tokens.mean(1, keepdim=True).expand_as(tokens)
            scores = _run_end(scored, tokens, graph=True)
        [seen] = met.seen
        assert seen.output is not None
        (grad,) = gradients_at(answers(scores, scored.subjects, 1).sum(), [seen.output])
    gradient = seen.gradient(grad)
    return gradient if trunk.pools else scored.select(gradient)


def own(scored: ScoredForward) -> Float[Tensor, "n t c"]:
    """What the last attention adds to each token if this looks at itself alone; of a pooling, each token."""
    trunk, calls = _trunk(scored), scored.forward.calls
    if not trunk.blocks:
        return _kept(scored, "own", lambda: _joined(last_values(scored)))
    block = trunk.blocks[-1]
    if trunk.pools:
        return _kept(scored, "own", lambda: wide(calls[block].output))
    return _kept(scored, "own", lambda: wide(added(block, trunk.behind[block], calls[block], _itself)))


def path(scored: ScoredForward) -> Callable[[Rule, int], Tensor]:
    """From a rule and a number of blocks to the tokens of a path beside them, to which attention adds by it."""
    trunk, calls = _trunk(scored), scored.forward.calls

    def sums(rule: Rule, blocks: Sequence[nn.Module]) -> Tensor:
        tokens = wide(calls[blocks[0]].tokens)
        for block in blocks:
            tokens = tokens + wide(added(block, trunk.behind[block], calls[block], rule))
        return tokens

    def path(rule: Rule, depth: int) -> Float[Tensor, "n t c"]:
        if not trunk.blocks:
            return _kept(scored, (rule, 0), lambda: _joined(rule(last_values(scored))))
        return _kept(scored, (rule, depth), lambda: sums(rule, trunk.blocks[-depth:]))

    return path


def alone(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """From tokens to the score of each by itself."""

    def alone(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t"]:
        return _by_token(scored, _answers_alone(scored, tokens)) - scored.witness.shift

    return alone


def alone_cosines(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """From tokens to the cosines of each with every prompt."""

    def alone_cosines(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t prompts"]:
        return _to_cosines(scored, _by_token(scored, _answers_alone(scored, tokens), scores_in))

    return alone_cosines


def alone_blank(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """From tokens to the cosine of each with the empty prompt."""

    def alone_blank(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t"]:
        with scored.witness.of_blank():
            answered = _run_alone(scored, tokens)
        return _to_cosines(scored, _by_token(scored, answered, scores_in)).squeeze(2)

    return alone_blank


def cosines(scored: ScoredForward) -> Float[Tensor, "n prompts"]:
    """The cosines of the images with every prompt."""
    return _to_cosines(scored, logits(scored))


def _to_cosines(scored: ScoredForward, scores: Tensor) -> Tensor:
    assert scored.witness.cosine is not None
    scale, bias = scored.witness.cosine
    return (scores - bias) / scale


def _trunk(scored: ScoredForward) -> Trunk:
    assert scored.plan.trunk is not None
    return scored.plan.trunk


def _kept(scored: ScoredForward, key: Any, make: Callable[[], Tensor]) -> Tensor:
    """Tokens of the images that are explained, made once for all of the forward."""
    kept = scored.forward.kept
    if key not in kept:
        kept[key] = make()
    return scored.select(kept[key])


def _answers_alone(scored: ScoredForward, tokens: Tensor) -> Answers:
    """The answers for each token alone, kept as long as the tokens are: every class asks the same."""
    known = scored.forward.alone
    if tokens not in known:
        known[tokens] = _run_alone(scored, tokens)
    answered: Answers = known[tokens]
    return answered


def _run_alone(scored: ScoredForward, tokens: Tensor) -> Answers:
    trunk = _trunk(scored)
    answered = []
    with scored.feeding():
        for some in scored.batches(tokens.unbind(1), trunk.rows):
            if trunk.blocks:
                given = some.unsqueeze(1).expand(-1, trunk.length, -1)
            else:
                _, heads, queries, _ = scored.attentions[-1].weights.shape
                given = some.reshape(len(some), heads, 1, -1).expand(-1, -1, queries, -1)
            answered.append((_run_end(scored, given), len(given) // len(scored.rows)))
    return answered


def _by_token(
    scored: ScoredForward, answered: Answers, what: Callable[[Reading, int, Subject], Tensor] = score_in
) -> Float[Tensor, "n t *classes"]:
    with torch.inference_mode():
        scores = [answers(reading, scored.subjects, each, what) for reading, each in answered]
    # Copies outside of inference mode.
    return torch.cat([wide(one.clone()).reshape(len(scored.rows), -1, *one.shape[1:]) for one in scores], 1)


def _run_end(scored: ScoredForward, given: Tensor, graph: bool = False) -> Reading:
    """What the network says of tokens behind its last block, of the images that are explained."""
    assert scored.forward.ending is not None
    recording = scored.forward.ending.of(scored.rows)
    return scored.witness.at_end(_trunk(scored), recording, given, scored.images(), graph=graph)


def _itself(values: Tensor) -> Tensor:
    """What attention says if every token looks at itself alone."""
    return values


def _joined(heads: Float[Tensor, "n heads t d"]) -> Float[Tensor, "n t c"]:
    return heads.transpose(1, 2).flatten(2)
