"""Check that the network's attention provides what the methods need."""

from __future__ import annotations

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.checks.attention_chain import check_attention_chain, check_last_attention, list_notes
from camcli.engine.checks.layouts import pluralize, probe_network, read_source_layout
from camcli.engine.checks.rerun import prepare_blocks
from camcli.engine.forward import Forward, Plan
from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.layers.probe import find_token_layout
from camcli.engine.maps.compute import make_total_signals
from camcli.engine.maps.method import BoundMethod
from camcli.engine.needs import (
    NEEDS_ATTENTION,
    NEEDS_ATTENTION_CHAIN,
    NEEDS_BLOCKS,
    NEEDS_COSINES,
    NEEDS_LAST_ATTENTION,
    NEEDS_QUERY,
    NEEDS_TOKEN_SCORES,
)
from camcli.engine.setup import Setup
from camcli.engine.signals.lookup import Signals

# Greatest cosine: 1, with room for the rounding of half precision.
MAX_COSINE = 1.01
OTHER_METHODS = "choose legrad or gae, or a method that works at a layer, such as gradcam"


def plan_attention(setup: Setup, plan: Plan, capture: AttentionCapture, image: Tensor) -> None:
    """Check that the attention that the methods need was captured, and find the layout of its tokens."""
    signal_names, size = setup.signal_names, (image.shape[2], image.shape[3])
    if signal_names & NEEDS_ATTENTION_CHAIN or (signal_names & NEEDS_BLOCKS and len(capture.attentions) > 1):
        check_attention_chain(capture)
    else:
        check_last_attention(capture)
    plan.token_layout = find_token_layout(
        probe_network(setup, image), capture.token_count, size, *read_source_layout(setup, image), len(image)
    )
    plan.attention_count = len(capture.attentions)
    if signal_names & NEEDS_BLOCKS and (note := prepare_blocks(setup.runner, plan, capture, image)):
        setup.add_note(note)


def try_attention(setup: Setup, plan: Plan, image: Tensor) -> None:
    """Run the methods that use attention on noise, to find signals that this network cannot provide."""
    forward = setup.runner.run(image, plan=plan)
    signals = make_total_signals(setup, plan, forward)
    for method in setup.bound_methods:
        if method.signal_names & NEEDS_QUERY:
            _check_query(method, signals, forward)
        if method.signal_names & NEEDS_TOKEN_SCORES and plan.block_stack and plan.block_stack.no_token_score:
            raise RequestError(
                f"{method.row.name} needs the score of each single token, and {plan.block_stack.no_token_score}",
                OTHER_METHODS,
            )
        if method.signal_names & NEEDS_COSINES and signals.get("cosines", "").abs().max() > MAX_COSINE:
            raise RequestError(
                f"{method.row.name} compares cosine similarities, and the model's scores are not computed from any",
                "leave out the wrapper that changes them, or choose legrad or maskclip",
            )
        if method.signal_names & NEEDS_ATTENTION:
            method(signals, "")


def _check_query(method: BoundMethod, signals: Signals, forward: Forward) -> None:
    """Check that the score depends on one token after the last attention, and that its query was captured."""
    assert forward.attention_capture is not None
    read = int(signals.get("read", "")[0].sum())
    if read != 1:
        raise RequestError(
            f"{method.row.name} needs a score that reads one token after the last attention, and this network's reads "
            f"{read or 'none'}",
            OTHER_METHODS,
        )
    if forward.attention_capture.attentions[-1].queries is None:
        raise RequestError(
            f"{method.row.name} needs the queries and keys of the last attention, and the input of its softmax is not "
            "a product of two tensors",
            OTHER_METHODS,
        )


def note_attention(setup: Setup, plan: Plan, capture: AttentionCapture, signals: Signals) -> None:
    """Add a note on the attentions, and the rows of them, that the maps are made of."""
    assert plan.token_layout is not None
    every = setup.signal_names & (NEEDS_ATTENTION_CHAIN | NEEDS_BLOCKS) and plan.attention_count > 1
    pooled = not capture.attentions[-1].is_square
    blocks = f"attention of {pluralize(plan.attention_count - pooled, 'block')}" + (" and a pooling" if pooled else "")
    used = blocks if every else "the last attention"
    note = f"{used} is used, {plan.token_layout}"
    if setup.signal_names & NEEDS_LAST_ATTENTION:
        rows = signals.get("read", "")[0].nonzero().flatten().tolist()
        if not capture.attentions[-1].is_square:
            read = f"{pluralize(len(rows), 'query', 'queries')} of the pooling after them"
        elif all(row < plan.token_layout.prefix for row in rows):
            read = f"the token{'' if len(rows) == 1 else 's'} {', '.join(map(str, rows))}"
        else:
            read = f"{len(rows)} of {capture.token_count} tokens, the mean of whose rows is shown"
        note += f"; the score reads {read}"
    setup.add_note(note)
    for remark in list_notes(capture) if setup.signal_names & NEEDS_ATTENTION_CHAIN else ():
        setup.add_note(remark)
