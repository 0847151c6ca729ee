"""Signals of attention blocks and of the part after them: early exits, value paths, scores of single tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.forward import compute_gradients
from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.attention_override import AttentionRule
from camcli.engine.hooks.state import swap_buffer
from camcli.engine.hooks.tensors import at_least_float32
from camcli.engine.layers.blocks import BlockCall, BlockStack, attention_update
from camcli.engine.signals.attention import get_last_gradient, get_last_values
from camcli.engine.signals.gradients import logits
from camcli.engine.signals.scored import ScoredForward, read_class_scores, read_target_score, score_variants
from camcli.engine.signals.variants import ComputeVariantPairs
from camcli.targets.target import Predictions, Target

# For each batch of tokens the predictions, and the number of tokens per image.
TokenAnswers = Sequence[tuple[Predictions, int]]


def early_exit_grads(scored: ScoredForward) -> Callable[[str], Iterator[Tensor]]:
    """Return a function from a pooling to the gradients, by each block's attention, of the score after that block."""
    block_stack = _get_block_stack(scored)

    def early_exit_grads(pool: str = "head") -> Iterator[Float[Tensor, "n heads q t"]]:
        """Iterate from the last block to the first; ``pool="mean"`` replaces every token by the mean of all tokens."""
        if pool == "mean" and (block_stack.pools_by_attention or not block_stack.blocks):
            raise RequestError(
                "this network pools its tokens by attention, which pool=mean would bypass",
                "keep pool=head",
            )
        if not block_stack.blocks:
            yield scored.select(scored.attentions[-1].gradient(get_last_gradient(scored)))
        for block in reversed(block_stack.blocks):
            yield _compute_early_exit_gradient(scored, block, scored.forward.block_calls[block], pool)

    return early_exit_grads


def _compute_early_exit_gradient(
    scored: ScoredForward, block: nn.Module, call: BlockCall, pool: str
) -> Float[Tensor, "n heads q t"]:
    block_stack = _get_block_stack(scored)
    with torch.enable_grad(), scored.restricting_extras():
        if block_stack.pools_by_attention:
            tokens = scored.select(call.output)
            with AttentionCapture(len(tokens)) as capture:
                predictions = _run_tail(scored, tokens, with_graph=True)
        else:
            with AttentionCapture(len(call.tokens)) as capture:
                tokens = scored.select(call.run(block))
            if pool == "mean":
                tokens = tokens.mean(1, keepdim=True).expand_as(tokens)
            predictions = _run_tail(scored, tokens, with_graph=True)
        [attention] = capture.attentions
        assert attention.output is not None
        (grad,) = compute_gradients(score_variants(predictions, scored.targets, 1).sum(), [attention.output])
    gradient = attention.gradient(grad)
    return gradient if block_stack.pools_by_attention else scored.select(gradient)


def value_tokens(scored: ScoredForward) -> Float[Tensor, "n t c"]:
    """Return what the last attention adds to each token if each attends to itself alone; for a pooling, each token."""
    block_stack, calls = _get_block_stack(scored), scored.forward.block_calls
    if not block_stack.blocks:
        return _get_or_make(scored, "value_tokens", lambda: _join_heads(get_last_values(scored)))
    block = block_stack.blocks[-1]
    if block_stack.pools_by_attention:
        return _get_or_make(scored, "value_tokens", lambda: at_least_float32(calls[block].output))
    return _get_or_make(
        scored,
        "value_tokens",
        lambda: at_least_float32(
            attention_update(block, block_stack.after_attention[block], calls[block], _attend_to_itself)
        ),
    )


def value_path(scored: ScoredForward) -> Callable[[AttentionRule, int], Tensor]:
    """Return a function from a rule and a number of blocks to the tokens of a parallel path, updated by that rule."""
    block_stack, calls = _get_block_stack(scored), scored.forward.block_calls

    def sum_updates(rule: AttentionRule, blocks: Sequence[nn.Module]) -> Tensor:
        tokens = at_least_float32(calls[blocks[0]].tokens)
        for block in blocks:
            tokens = tokens + at_least_float32(
                attention_update(block, block_stack.after_attention[block], calls[block], rule)
            )
        return tokens

    def value_path(rule: AttentionRule, depth: int) -> Float[Tensor, "n t c"]:
        if not block_stack.blocks:
            return _get_or_make(scored, (rule, 0), lambda: _join_heads(rule(get_last_values(scored))))
        return _get_or_make(scored, (rule, depth), lambda: sum_updates(rule, block_stack.blocks[-depth:]))

    return value_path


def token_score(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """Return a function from tokens to the score of each token alone."""

    def token_score(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t"]:
        return _score_by_token(scored, _get_single_token_answers(scored, tokens)) - scored.runner.score_shift

    return token_score


def token_cosines(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """Return a function from tokens to the cosines of each with every prompt."""

    def token_cosines(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t prompts"]:
        return _to_cosines(
            scored, _score_by_token(scored, _get_single_token_answers(scored, tokens), read_class_scores)
        )

    return token_cosines


def token_cosine_blank(scored: ScoredForward) -> Callable[[Tensor], Tensor]:
    """Return a function from tokens to the cosine of each with the empty prompt."""

    def token_cosine_blank(tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t"]:
        with _with_blank_prompt(scored.runner.module):
            answered = _run_single_tokens(scored, tokens)
        return _to_cosines(scored, _score_by_token(scored, answered, read_class_scores)).squeeze(2)

    return token_cosine_blank


def _with_blank_prompt(module: nn.Module) -> AbstractContextManager[None]:
    """Use the empty prompt in place of the only prompt of a network while the block runs.

    Raises:
        RequestError: the network has no embedding of the empty prompt.
    """
    for part in module.modules():
        blank = part._buffers.get("blank")
        if blank is not None and "prompts" in part._buffers:
            return swap_buffer(part, "prompts", blank.reshape(1, -1))
    raise RequestError(
        "there is a single prompt, and the network cannot embed the empty prompt that it is compared with",
        "give several: --text 'a cat' --text 'a dog'",
    )


def cosines(scored: ScoredForward) -> Float[Tensor, "n prompts"]:
    """Return the cosines of the images with every prompt."""
    return _to_cosines(scored, logits(scored))


def block_tokens(scored: ScoredForward) -> Callable[[int], Tensor]:
    """Return a function from a number of last blocks to the tokens that enter the first of them."""

    def block_tokens(depth: int) -> Float[Tensor, "n t c"]:
        """Raise RequestError where there are not so many blocks, or what enters them is no sequence."""
        [first, *_] = _take_last_blocks(scored, depth)
        tokens = scored.select(scored.forward.block_calls[first].tokens)
        if tokens.ndim != 3:
            raise RequestError(
                "the blocks of this network take maps, not sequences of tokens", "choose a method that works at a layer"
            )
        return at_least_float32(tokens)

    return block_tokens


def cosine_and_grad(scored: ScoredForward) -> Callable[[int], ComputeVariantPairs]:
    """Return a function from a number of last blocks to one from variants of the tokens that enter them to cosines.

    Each variant gets the cosine of the image and its prompt, and the gradient of that by the variant.
    """
    runner, calls = scored.runner, scored.forward.block_calls

    def cosine_and_grad(depth: int) -> ComputeVariantPairs:
        blocks = _take_last_blocks(scored, depth)

        def answer(variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
            for given in scored.batch_variants(variants, runner.batch_size, "samples"):
                given.requires_grad_()
                with torch.enable_grad(), scored.restricting_extras():
                    tokens = given
                    for block in blocks:
                        tokens = calls[block].run_variants(block, tokens, scored.rows)
                    predictions = _run_tail(scored, tokens, with_graph=True)
                    scores = score_variants(predictions, scored.targets, len(given) // len(scored.rows))
                    cosines = _to_cosines(scored, scores)
                    (gradients,) = compute_gradients(cosines.sum(), [given])
                yield from zip(scored.split_variants(cosines), scored.split_variants(gradients), strict=True)

        return answer

    return cosine_and_grad


def _take_last_blocks(scored: ScoredForward, depth: int) -> Sequence[nn.Module]:
    blocks = _get_block_stack(scored).blocks
    if not 1 <= depth <= len(blocks):
        raise RequestError(
            f"depth is {depth}, and the network has {len(blocks) or 'no'} blocks"
            + (" before its pooling by attention" if not blocks else ""),
            f"give a number of last blocks from 1 to {len(blocks)}"
            if blocks
            else "choose a method that works at a layer",
        )
    return blocks[-depth:]


def _to_cosines(scored: ScoredForward, scores: Tensor) -> Tensor:
    assert scored.runner.cosine_scaling is not None
    scale, bias = scored.runner.cosine_scaling
    return (scores - bias) / scale


def _get_block_stack(scored: ScoredForward) -> BlockStack:
    assert scored.plan.block_stack is not None
    return scored.plan.block_stack


def _get_or_make(scored: ScoredForward, key: Any, make: Callable[[], Tensor]) -> Tensor:
    """Return tokens of the explained images, computed once for all images of the forward."""
    cache = scored.forward.token_cache
    if key not in cache:
        cache[key] = make()
    return scored.select(cache[key])


def _get_single_token_answers(scored: ScoredForward, tokens: Tensor) -> TokenAnswers:
    """Return the predictions for each token alone, cached as long as the tokens live: all classes use the same."""
    cache = scored.forward.answer_cache
    if tokens not in cache:
        cache[tokens] = _run_single_tokens(scored, tokens)
    answers: TokenAnswers = cache[tokens]
    return answers


def _run_single_tokens(scored: ScoredForward, tokens: Tensor) -> TokenAnswers:
    block_stack = _get_block_stack(scored)
    answered = []
    with scored.restricting_extras():
        for some in scored.batch_variants(tokens.unbind(1), block_stack.batch_size):
            if block_stack.blocks:
                given = some.unsqueeze(1).expand(-1, block_stack.single_token_length, -1)
            else:
                _, heads, queries, _ = scored.attentions[-1].weights.shape
                given = some.reshape(len(some), heads, 1, -1).expand(-1, -1, queries, -1)
            answered.append((_run_tail(scored, given), len(given) // len(scored.rows)))
    return answered


def _score_by_token(
    scored: ScoredForward,
    answered: TokenAnswers,
    score_in: Callable[[Predictions, int, Target], Tensor] = read_target_score,
) -> Float[Tensor, "n t *classes"]:
    with torch.inference_mode():
        scores = [score_variants(predictions, scored.targets, each, score_in) for predictions, each in answered]
    # Copies outside inference mode.
    return torch.cat([at_least_float32(one.clone()).reshape(len(scored.rows), -1, *one.shape[1:]) for one in scores], 1)


def _run_tail(scored: ScoredForward, given: Tensor, with_graph: bool = False) -> Predictions:
    """Predict from tokens after the last block, for the images that are explained."""
    assert scored.forward.tail_recording is not None
    recording = scored.forward.tail_recording.select(scored.rows)
    return scored.runner.run_tail(_get_block_stack(scored), recording, given, scored.images(), with_graph=with_graph)


def _attend_to_itself(values: Tensor) -> Tensor:
    """Return attention's output if every token attends to itself alone: the values."""
    return values


def _join_heads(heads: Float[Tensor, "n heads t d"]) -> Float[Tensor, "n t c"]:
    return heads.transpose(1, 2).flatten(2)
