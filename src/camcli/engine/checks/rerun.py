"""Find the parts of a network that can be rerun alone, and check the reruns on noise before the first image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from camcli.engine import devices
from camcli.engine.forward import COPY_TOLERANCE_EPS, Plan, Runner, compute_gradients, gradient_points
from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.checkpointing import MIN_SAVING, choose_parts, measure_kept
from camcli.engine.hooks.replay import Recording, ReplayPlan, record, required_outputs
from camcli.engine.hooks.tensors import REPLAY_TOLERANCE, are_close
from camcli.engine.layers.blocks import (
    BlockCall,
    BlockStack,
    find_blocks,
    module_after_attention,
    no_blocks_error,
    record_blocks,
)
from camcli.engine.layers.layout import from_nchw, to_nchw
from camcli.engine.needs import NEEDS_TOKEN_SCORES
from camcli.methods.rounding import reduced_precision_eps
from camcli.targets.target import Predictions

# Greatest number of variants of an activation in one forward, however small they are.
MAX_BATCH_SIZE = 1024


def prepare_checkpointing(runner: Runner, plan: Plan, images: Tensor) -> str:
    """Choose the modules that are recomputed in the backward, and check them on one image or group.

    Returns:
        A note: the modules and their saving, or the reason why there are none.
    """
    with measure_kept(runner.module) as whole:
        before = _compute_gradients(runner, plan, images)
    best = choose_parts(whole)
    if not best.bytes_before:
        return _skip_checkpointing(plan, "no activations are stored for a backward pass")
    if best.bytes_after > (1 - MIN_SAVING) * best.bytes_before:
        return _skip_checkpointing(plan, "no part of the network stores much more than its input")
    plan.checkpointed_modules = best.parts
    try:
        same = all(map(partial(_agrees, runner), before, _compute_gradients(runner, plan, images)))
    except Exception as error:  # any error means that these parts cannot be recomputed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return _skip_checkpointing(plan, f"the parts of the network cannot be recomputed: {reason}")
    if not same:
        return _skip_checkpointing(plan, "the parts of the network give a different output when they are recomputed")
    return best.describe(runner.module, "group" if len(images) > 1 else "image")


def _skip_checkpointing(plan: Plan, reason: str) -> str:
    plan.checkpointed_modules = ()
    return f"--recompute has no effect here: {reason}"


def _compute_gradients(runner: Runner, plan: Plan, images: Tensor) -> list[Tensor]:
    """Compute the gradients of the sum of all scores, at the points that methods use."""
    forward = runner.run(images, plan=plan, from_input="score_and_grad" in runner.signal_names)
    return compute_gradients(forward.predictions.sum_scores(), gradient_points(forward))


def prepare_replay(runner: Runner, plan: Plan, name: str, images: Tensor) -> str:
    """Find and check the replay plan of a layer on one image; return a note if the whole network must be rerun.

    The unchanged activation must give the same scores again, and the halved one those of a rerun of the whole network.
    """
    layer, leaf = runner.module.get_submodule(name), runner.make_leaf(images).detach()
    predictions, recording, copied = _record(runner, layer, plan.calls[name], leaf, runner.tensor_indices.get(name, 0))
    act = recording.tensor
    pair = from_nchw(torch.cat([cells := to_nchw(act, plan.layouts[name]), cells / 2]), plan.layouts[name], act)
    run = partial(runner.run_from_layer, layer, recording, images=leaf)
    replay_plan = _find_replay_plan(runner, layer, predictions, recording, copied, leaf, pair, run)
    plan.replay_plans[name] = replay_plan
    before, behind = recording.largest_sizes
    larger = 1 if replay_plan.whole_network else max(before, behind) // behind
    plan.batch_sizes[name] = min(MAX_BATCH_SIZE, runner.batch_size * larger)
    if not replay_plan.whole_network:
        return ""
    return (
        f"the part of the network after the layer {name!r} cannot be run alone, so the whole network runs for each "
        "change of its output: slower, with the same maps"
    )


def _record(
    runner: Runner, layer: nn.Module, call: int, leaf: Tensor, part: int = 0
) -> tuple[Predictions, Recording, frozenset[nn.Module]]:
    """Run the network and record what a rerun after a layer needs; return also the modules whose output is copied."""
    copied: frozenset[nn.Module] = frozenset()
    for _ in range(3):
        with record(runner.module, layer, call, 1, copied, part) as recording, torch.no_grad():
            predictions = runner.read_predictions(runner.module(leaf.clone()), 1)
        if not (changed := recording.find_changed_modules()):
            break
        copied |= changed
    return predictions, recording, copied


def _find_replay_plan(
    runner: Runner,
    layer: nn.Module,
    predictions: Predictions,
    recording: Recording,
    copied: frozenset[nn.Module],
    leaf: Tensor,
    pair: Tensor,
    run: Callable[..., Predictions],
) -> ReplayPlan:
    """Find a plan that correctly reruns the part after a layer, for a pair of an unchanged and a changed output."""
    changed = run(given=pair[1:], replay_plan=ReplayPlan(whole_network=True)).scores(0)

    def is_correct(replay_plan: ReplayPlan) -> bool:
        try:
            replayed = run(given=pair, replay_plan=replay_plan)
            pairs = [(predictions.scores(0), replayed.scores(0)), (changed, replayed.scores(1))]
        except Exception:  # any error means that this plan does not work
            return False
        return all(map(partial(_agrees, runner), *zip(*pairs, strict=True)))

    # Extra features belong to the images, so the images are given again for each variant.
    candidates = (
        [ReplayPlan(copied)]
        if runner.extra_inputs.is_active
        else [ReplayPlan(copied, _find_required_calls(runner, layer, recording, leaf)), ReplayPlan(copied)]
    )
    return next((plan for plan in candidates if is_correct(plan)), ReplayPlan(whole_network=True))


def _find_required_calls(runner: Runner, layer: nn.Module, recording: Recording, leaf: Tensor) -> frozenset[int] | None:
    try:
        return required_outputs(
            layer, recording, leaf, lambda images: runner.read_predictions(runner.module(images), 1).sum_scores()
        )
    except Exception:  # the plan without required calls is checked next
        return None


def prepare_blocks(runner: Runner, plan: Plan, capture: AttentionCapture, images: Tensor) -> str:
    """Find the attention blocks and check their reruns on one image; return a note if the whole network must be rerun.

    Each block must return the same output again, the unchanged tokens must give the same scores again, and the halved
    ones those of a rerun of the whole network.

    Raises:
        RequestError: the blocks cannot be found, or cannot be rerun.
    """
    leaf, attentions = runner.make_leaf(images).detach(), capture.attentions
    blocks = tuple(find_blocks(attentions)) if len(attentions) > 1 else ()
    tail = blocks[-1] if blocks else attentions[0].module_stack[-1]
    with record_blocks(blocks) as calls, AttentionCapture(1, with_values=False, graph_from=-1):
        predictions, recording, copied = _record(runner, tail, 1, leaf)
    copies = any(call.changed for call in calls.values())
    if copies:
        with record_blocks(blocks, copies) as calls, torch.no_grad():
            runner.module(leaf.clone())
    _check_blocks(runner, blocks, calls, recording.tensor)
    block_stack = BlockStack(
        blocks,
        tail,
        ReplayPlan(whole_network=True),
        runner.batch_size,
        pools_by_attention=not attentions[-1].is_square,
        keep_copies=copies,
    )
    last = attentions[-1]
    values = last.expand_to_heads(last.values) if last.values is not None else None
    if blocks:
        pair = torch.cat([recording.tensor, recording.tensor / 2])
        own = recording.tensor[0].numel()
    else:
        assert values is not None
        pair = torch.cat([attentions[0].weights @ values, values[:, :, :1].expand_as(values)])
        own = values[0].numel()
    run = partial(runner.run_tail, block_stack, recording, images=leaf)
    replay_plan = _find_replay_plan(runner, tail, predictions, recording, copied, leaf, pair, run)
    larger = 1 if replay_plan.whole_network else max(1, max(recording.largest_sizes) // own)
    batch_size = min(MAX_BATCH_SIZE, runner.batch_size * larger)
    block_stack = replace(block_stack, replay_plan=replay_plan, batch_size=batch_size)
    if blocks and runner.signal_names & {"value_tokens", "value_path"}:
        last_block = () if block_stack.pools_by_attention else blocks[-1:]
        needed = blocks if "value_path" in runner.signal_names else last_block
        block_stack = replace(
            block_stack, after_attention={block: module_after_attention(block, calls[block]) for block in needed}
        )
    plan.block_stack = (
        _probe_single_token(runner, block_stack, recording, leaf, plan)
        if runner.signal_names & NEEDS_TOKEN_SCORES
        else block_stack
    )
    return (
        "the part of the network after the last block cannot be run alone, so the whole network runs for each of its "
        "evaluations: slower, with the same maps"
        if replay_plan.whole_network
        else ""
    )


def _check_blocks(
    runner: Runner, blocks: Sequence[nn.Module], calls: Mapping[nn.Module, BlockCall], output: Tensor
) -> None:
    if not blocks and output.ndim != 2:
        raise no_blocks_error("it has a single attention, so it is unknown which of the modules around it is its block")
    shapes = {tuple(tensor.shape) for call in calls.values() for tensor in (call.tokens, call.output)}
    forms = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes))
    if len(shapes) > 1:
        raise no_blocks_error(f"their inputs and outputs have several shapes ({forms})")
    if any(shape[0] != 1 for shape in shapes):
        raise no_blocks_error(f"their output is {forms} for one image, so its rows do not correspond to images")
    for block in blocks:
        with torch.no_grad(), AttentionCapture(1, with_values=False, graph_from=-1):
            rerun_output = calls[block].run(block)
        if not _agrees(runner, rerun_output, calls[block].output):
            raise no_blocks_error(f"rerun on the same tokens, a {type(block).__name__} returns different ones")


def _probe_single_token(
    runner: Runner, block_stack: BlockStack, recording: Recording, leaf: Tensor, plan: Plan
) -> BlockStack:
    """Find how many copies of a single token the tail needs: the least number for one patch, or as many as all tokens.

    If both work, they must give the same scores.
    """
    if not block_stack.blocks:
        return block_stack
    tokens, layout = recording.tensor, plan.token_layout
    assert layout is not None
    if tokens.ndim != 3:
        return replace(
            block_stack, no_token_score="its blocks return maps, not sequences, so single tokens cannot be scored"
        )
    found: dict[int, Tensor] = {}
    # A patch that is not the first, since the tail may read only the first token.
    token = tokens[:, layout.prefix + 1]
    for length in (layout.prefix + 1 + layout.suffix, tokens.shape[1]):
        try:
            given = token.unsqueeze(1).expand(-1, length, -1)
            found[length] = runner.run_tail(block_stack, recording, given, leaf).scores(0)
        except Exception:  # any error means that this number of copies does not work
            continue
    if not found:
        return replace(
            block_stack,
            no_token_score="the part of the network after its blocks cannot be run on copies of one token",
        )
    few, many = found[min(found)], found[max(found)]
    if not _agrees(runner, few, many, max(REPLAY_TOLERANCE, COPY_TOLERANCE_EPS * torch.finfo(tokens.dtype).eps)):
        return replace(
            block_stack,
            no_token_score="the part of the network after its blocks depends on token positions or mixes neighbours",
        )
    shorter = 1 if block_stack.replay_plan.whole_network else tokens.shape[1] // min(found)
    return replace(
        block_stack, single_token_length=min(found), batch_size=min(MAX_BATCH_SIZE, block_stack.batch_size * shorter)
    )


def _agrees(runner: Runner, one: Tensor, other: Tensor, tolerance: float = REPLAY_TOLERANCE) -> bool:
    """Return whether two outputs of the network are equal up to the rounding of its precision."""
    return are_close(
        one, other, max(tolerance, COPY_TOLERANCE_EPS * reduced_precision_eps(devices.device_of(runner.module)))
    )
