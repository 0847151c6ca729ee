"""Blocks of a transformer, found by the modules that its attentions run in, and rerun one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.attention import Attention
from camcli.engine.hooks.attention_override import AttentionOverride, AttentionRule
from camcli.engine.hooks.replay import ReplayPlan, count_inplace_writes
from camcli.engine.hooks.tensors import first_tensor, replace_tensor, tree_map
from camcli.engine.hooks.watch import capture_input

# The tolerance of a sum, in units of its rounding.
TOLERANCE_EPS = 8
_OTHER_METHODS = "choose gae or rollout, or a method that works at a layer, such as gradcam"


@dataclass(frozen=True, slots=True)
class BlockCall:
    """One recorded run of a block.

    Attributes:
        args: its positional arguments, detached.
        kwargs: its keyword arguments, detached.
        output: the tokens of its output.
        versions: how often these tensors had been changed in place when they were recorded, in total.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor
    versions: int

    @property
    def tokens(self) -> Tensor:
        """The tokens of its input."""
        found = first_tensor([*self.args, *self.kwargs.values()])
        assert found is not None
        return found

    @property
    def changed(self) -> bool:
        """True if a recorded tensor has been changed in place since."""
        return count_inplace_writes([self.args, dict(self.kwargs), self.output]) != self.versions

    def run(self, block: nn.Module, tokens: Tensor | None = None) -> Tensor:
        """Rerun the block on the recorded input, or on these tokens in its place."""
        given: Any = (self.args, dict(self.kwargs))
        if tokens is not None:
            given = replace_tensor(given, self.tokens, tokens)
        # Copies, since the block may change its inputs in place.
        inputs, named = tree_map(given, Tensor.clone)
        found = first_tensor(block(*inputs, **named))
        assert found is not None
        return found

    def run_variants(self, block: nn.Module, tokens: Tensor, rows: Sequence[int]) -> Tensor:
        """Rerun the block on variants of the tokens of the images ``rows``, those of the first image first."""
        own, each = self.tokens, len(tokens) // len(rows)

        def take(tensor: Tensor) -> Tensor:
            if tensor is own:
                return tokens.clone()
            # What does not come by image is the same for all, such as positions.
            of_images = tensor.ndim and len(tensor) == len(own)
            return tensor[list(rows)].repeat_interleave(each, 0) if of_images else tensor.clone()

        inputs, named = tree_map((self.args, dict(self.kwargs)), take)
        found = first_tensor(block(*inputs, **named))
        assert found is not None
        return found


@contextmanager
def record_blocks(blocks: Sequence[nn.Module], keep_copies: bool = False) -> Iterator[dict[nn.Module, BlockCall]]:
    """Record each block's call while the block of code runs a forward.

    Args:
        blocks: modules that run once.
        keep_copies: whether to keep copies, since the blocks' inputs are changed in place.
    """
    calls: dict[nn.Module, BlockCall] = {}
    begun: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any], int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        return tensor.detach().clone() if keep_copies else tensor.detach()

    def begin(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        kept = tree_map(inputs, keep), tree_map(named, keep)
        begun[module] = *kept, count_inplace_writes(list(kept))

    def end(module: nn.Module, _inputs: Any, output: Any) -> None:
        inputs, named, versions = begun.pop(module)
        tensor = first_tensor(output)
        if tensor is not None:
            tokens = keep(tensor)
            calls[module] = BlockCall(inputs, named, tokens, versions + count_inplace_writes(tokens))

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(begin, with_kwargs=True).remove)
            hooks.callback(block.register_forward_hook(end).remove)
        yield calls


def find_blocks(attentions: Sequence[Attention]) -> list[nn.Module]:
    """Find the block of each attention: the outermost module that ran for it and for no other.

    Args:
        attentions: several, of one forward with a module stack; the last may be an attention pooling, without a block.

    Raises:
        RequestError: some are computed in the same module.
    """
    body = attentions if attentions[-1].is_square else attentions[:-1]
    blocks = []
    for number, one in enumerate(body, start=1):
        others = {module for other in attentions if other is not one for module in other.module_stack}
        own = [module for module in one.module_stack if module not in others]
        if not own:
            raise no_blocks_error(
                f"its attention {number} is computed by {type(one.module_stack[-1]).__name__}, which computes others "
                "too"
            )
        blocks.append(own[0])
    return blocks


def module_after_attention(block: nn.Module, call: BlockCall) -> nn.Module:
    """Find the module in a block whose input is the residual sum: the block's tokens plus the attention's output.

    If the tokens change and the attention's output is held fixed, this module's input changes by the same amount.

    Raises:
        RequestError: there is no such module.
    """
    recorded_values: list[Tensor] = []

    def record_values(values: Tensor) -> Tensor:
        recorded_values.append(values)
        return values

    plain = _inputs_after_attention(block, call, call.tokens, record_values)
    noise = torch.randn(call.tokens.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    noise = noise.to(call.tokens) * call.tokens.std()
    moved = _inputs_after_attention(block, call, call.tokens + noise, lambda _: recorded_values[0])
    for (module, tokens), (_, others) in zip(plain, moved, strict=True):
        if tokens.shape != noise.shape:
            continue
        allowed = TOLERANCE_EPS * torch.finfo(tokens.dtype).eps * (tokens.abs() + others.abs()).max()
        if bool((others - tokens - noise).abs().max() <= allowed):
            return module
    raise no_blocks_error(
        f"in a {type(block).__name__} no module takes the tokens right after attention is added, so the contribution "
        "of attention cannot be separated"
    )


def _inputs_after_attention(
    block: nn.Module, call: BlockCall, tokens: Tensor, rule: AttentionRule
) -> list[tuple[nn.Module, Tensor]]:
    """Return the first input of each module in a block that starts after its attention, in running order."""
    found: list[tuple[nn.Module, Tensor]] = []
    begun: set[nn.Module] = set()

    def begin(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensor = first_tensor([*inputs, *named.values()])
        if ruled.count and tensor is not None and module not in begun:
            found.append((module, tensor.detach().clone()))
        begun.add(module)

    with ExitStack() as hooks, torch.no_grad():
        for module in block.modules():
            hooks.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
        with AttentionOverride(rule) as ruled:
            call.run(block, tokens)
    return found


def attention_update(
    block: nn.Module, after: nn.Module, call: BlockCall, rule: AttentionRule
) -> Float[Tensor, "n t c"]:
    """Compute what a block's attention adds to the tokens if its output follows a rule."""
    with torch.no_grad(), AttentionOverride(rule):
        return capture_input(after, lambda: call.run(block)) - call.tokens


@dataclass(frozen=True, slots=True)
class BlockStack:
    """Blocks of a network, and the part after the last of them.

    Attributes:
        blocks: in running order; empty where the only attention is a pooling.
        tail: the last block, after which the network is replayed; or the attention pooling.
        replay_plan: the plan for replaying the part after ``tail``.
        batch_size: the number of token sequences that this part takes at once.
        pools_by_attention: whether this part pools the blocks' tokens by attention.
        after_attention: by block the module whose input is the residual sum after attention, where it is needed.
        single_token_length: how many copies of a token make a sequence that holds this token only.
        no_token_score: why a single token has no score; empty where it has one.
        keep_copies: whether copies of the blocks' inputs are kept.
    """

    blocks: tuple[nn.Module, ...]
    tail: nn.Module
    replay_plan: ReplayPlan
    batch_size: int
    pools_by_attention: bool = False
    after_attention: Mapping[nn.Module, nn.Module] = field(default_factory=dict)
    single_token_length: int = 1
    no_token_score: str = ""
    keep_copies: bool = False


def no_blocks_error(reason: str) -> RequestError:
    """Return the error for a network whose blocks cannot be rerun by themselves."""
    return RequestError(f"the blocks of this network cannot be run separately: {reason}", _OTHER_METHODS)
