"""The blocks of a transformer, found by where its attentions run, and each run again by itself."""

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
from camcli.engine.hooks.attention_override import Rule, Ruled
from camcli.engine.hooks.replay import Way, changes, mapped
from camcli.engine.hooks.tensors import first_tensor, replaced
from camcli.engine.hooks.watch import handed

# Of what is added up, in units of rounding, how far a sum may be off.
ROUNDED = 8
_OTHER_METHODS = "choose gae or rollout, or a method that works at a layer, such as gradcam"


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a block, as it was met in a forward.

    Attributes:
        inputs: what it was handed, detached.
        named: likewise, by name.
        output: the tokens that it handed on.
        versions: how often each of these had been changed in place when it was kept, in all.
    """

    inputs: tuple[Any, ...]
    named: Mapping[str, Any]
    output: Tensor
    versions: int

    @property
    def tokens(self) -> Tensor:
        """Those that it was handed."""
        found = first_tensor([*self.inputs, *self.named.values()])
        assert found is not None
        return found

    @property
    def changed(self) -> bool:
        """Whether something changed in place what is kept here."""
        return changes([self.inputs, dict(self.named), self.output]) != self.versions

    def run(self, block: nn.Module, tokens: Tensor | None = None) -> Tensor:
        """What the block hands on if it is handed the same again, or these tokens in the place of its own."""
        given: Any = (self.inputs, dict(self.named))
        if tokens is not None:
            given = replaced(given, self.tokens, tokens)
        # Copies, which are the block's own, to change in place.
        inputs, named = mapped(given, Tensor.clone)
        found = first_tensor(block(*inputs, **named))
        assert found is not None
        return found


@contextmanager
def heard(blocks: Sequence[nn.Module], copies: bool = False) -> Iterator[dict[nn.Module, Call]]:
    """While it lasts, a forward leaves here how each block was called.

    Args:
        blocks: modules that run once.
        copies: whether copies are kept, since something changes in place what a block is handed.
    """
    calls: dict[nn.Module, Call] = {}
    begun: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any], int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        return tensor.detach().clone() if copies else tensor.detach()

    def begin(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        kept = mapped(inputs, keep), mapped(named, keep)
        begun[module] = *kept, changes(list(kept))

    def end(module: nn.Module, _inputs: Any, output: Any) -> None:
        inputs, named, versions = begun.pop(module)
        tensor = first_tensor(output)
        if tensor is not None:
            tokens = keep(tensor)
            calls[module] = Call(inputs, named, tokens, versions + changes(tokens))

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(begin, with_kwargs=True).remove)
            hooks.callback(block.register_forward_hook(end).remove)
        yield calls


def blocks_of(attentions: Sequence[Attention]) -> list[nn.Module]:
    """The block of each attention: the outermost module that ran for it and for no other.

    Args:
        attentions: of one forward that was told which modules were at work; several, the last perhaps a pooling, which
            has no block.

    Raises:
        RequestError: some are computed in the same module.
    """
    body = attentions if attentions[-1].square else attentions[:-1]
    blocks = []
    for number, one in enumerate(body, start=1):
        others = {module for other in attentions if other is not one for module in other.inside}
        own = [module for module in one.inside if module not in others]
        if not own:
            raise no_blocks(
                f"its attention {number} is computed in {type(one.inside[-1]).__name__} itself, which computes others "
                "too"
            )
        blocks.append(own[0])
    return blocks


def behind_attention(block: nn.Module, call: Call) -> nn.Module:
    """The module in a block that is handed the tokens as its attention left them: what it was handed, and the addition.

    If attention says the same and the tokens are others, what this module is handed changes by as much.

    Raises:
        RequestError: there is none.
    """
    said: list[Tensor] = []

    def first(values: Tensor) -> Tensor:
        said.append(values)
        return values

    plain = _handed_on(block, call, call.tokens, first)
    noise = torch.randn(call.tokens.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    noise = noise.to(call.tokens) * call.tokens.std()
    moved = _handed_on(block, call, call.tokens + noise, lambda _: said[0])
    for (module, tokens), (_, others) in zip(plain, moved, strict=True):
        if tokens.shape != noise.shape:
            continue
        allowed = ROUNDED * torch.finfo(tokens.dtype).eps * (tokens.abs() + others.abs()).max()
        if bool((others - tokens - noise).abs().max() <= allowed):
            return module
    raise no_blocks(
        f"in a {type(block).__name__} no module is handed the tokens as attention left them, so what attention adds to "
        "them cannot be told from what else is added"
    )


def _handed_on(block: nn.Module, call: Call, tokens: Tensor, rule: Rule) -> list[tuple[nn.Module, Tensor]]:
    """What each module inside a block is handed that begins behind its attention, in their order."""
    found: list[tuple[nn.Module, Tensor]] = []
    begun: set[nn.Module] = set()

    def begin(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensor = first_tensor([*inputs, *named.values()])
        if ruled.met and tensor is not None and module not in begun:
            found.append((module, tensor.detach().clone()))
        begun.add(module)

    with ExitStack() as hooks, torch.no_grad():
        for module in block.modules():
            hooks.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
        with Ruled(rule) as ruled:
            call.run(block, tokens)
    return found


def added(block: nn.Module, behind: nn.Module, call: Call, rule: Rule) -> Float[Tensor, "n t c"]:
    """What a block's attention adds to the tokens if it follows a rule."""
    with torch.no_grad(), Ruled(rule):
        return handed(behind, lambda: call.run(block)) - call.tokens


@dataclass(frozen=True, slots=True)
class Trunk:
    """The blocks of a network, and its end, which is what lies behind the last of them.

    Attributes:
        blocks: in running order; none where the only attention is a pooling, which is then the end.
        behind: of the blocks that this was asked of, the module that is handed the tokens as attention left them.
        end: the last block, behind which the end begins; or the pooling.
        way: how the end is run again.
        rows: how many sequences of tokens the end takes at once.
        pools: whether the end looks at the tokens of the blocks by attention.
        length: how many copies of a token are a sequence that holds nothing but this one.
        alone: why a token has no score of its own; empty where it has.
        copies: whether copies are kept of what the blocks are handed.
    """

    blocks: tuple[nn.Module, ...]
    end: nn.Module
    way: Way
    rows: int
    pools: bool = False
    behind: Mapping[nn.Module, nn.Module] = field(default_factory=dict)
    length: int = 1
    alone: str = ""
    copies: bool = False


def no_blocks(reason: str) -> RequestError:
    """That something cannot be had of this network's blocks."""
    return RequestError(f"the blocks of this network cannot be run by themselves: {reason}", _OTHER_METHODS)
