"""Which parts of a network can run again by themselves: found, and proven on one image before the first picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from camcli.engine import devices
from camcli.engine.forward import ALONE, ROUNDED, SAME, Plan, Witness, alike, gradients_at, points_of
from camcli.engine.hooks.attention import Attending
from camcli.engine.hooks.checkpointing import WORTH, saving, weighed
from camcli.engine.hooks.replay import Recording, Way, needed, recorded
from camcli.engine.layers.blocks import Call, Trunk, behind_attention, blocks_of, heard, no_blocks
from camcli.engine.layers.layout import canonical, restored
from camcli.methods.rounding import coarse
from camcli.targets.target import Reading

# Variants of an activation in one forward, however small they are.
MOST_ROWS = 1024


def prepare_parts(witness: Witness, plan: Plan, images: Tensor) -> str:
    """Choose the parts that are computed again on the way back, and prove them on one image or group.

    Returns:
        A note: what they are and save, or why there are none.
    """
    with weighed(witness.module) as whole:
        before = _gradients_of(witness, plan, images)
    best = saving(whole)
    if not best.before:
        return _without_parts(plan, "nothing is kept for a way back")
    if best.after > (1 - WORTH) * best.before:
        return _without_parts(plan, "no part of the network keeps much more than what it is given")
    plan.parts = best.parts
    try:
        same = all(map(partial(_agree, witness), before, _gradients_of(witness, plan, images)))
    except Exception as error:  # whatever it is, these parts cannot be computed again
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return _without_parts(plan, f"the parts of the network cannot be computed again: {said}")
    if not same:
        return _without_parts(plan, "the parts of the network give another output when they are computed again")
    return best.words(witness.module, "group" if len(images) > 1 else "picture")


def _without_parts(plan: Plan, reason: str) -> str:
    plan.parts = ()
    return f"--recompute changes nothing here: {reason}"


def _gradients_of(witness: Witness, plan: Plan, images: Tensor) -> list[Tensor]:
    """Gradients of all that the network says, where methods take them."""
    forward = witness.forward(images, plan=plan, from_input="slopes" in witness.wants)
    return gradients_at(forward.reading.total(), points_of(forward))


def prepare_rest(witness: Witness, plan: Plan, name: str, images: Tensor) -> str:
    """Find the way for one layer, and prove it on one image; a note if the whole network must run.

    The unchanged activation must bring the scores back, and the halved one those of the whole network.
    """
    layer, leaf = witness.module.get_submodule(name), witness.leaf(images).detach()
    reading, recording, owned = _record(witness, layer, plan.runs[name], leaf, witness.places.get(name, 0))
    act = recording.tensor
    pair = restored(torch.cat([cells := canonical(act, plan.layouts[name]), cells / 2]), plan.layouts[name], act)
    run = partial(witness.again, layer, recording, images=leaf)
    way = plan.ways[name] = _find_way(witness, layer, reading, recording, owned, leaf, pair, run)
    before, behind = recording.biggest
    larger = 1 if way.whole else max(before, behind) // behind
    plan.rows[name] = min(MOST_ROWS, witness.rows * larger)
    if not way.whole:
        return ""
    return (
        f"what lies behind the layer {name!r} cannot be run alone, so the whole network runs again for each "
        "change of what it says: slower, and the same maps"
    )


def _record(
    witness: Witness, layer: nn.Module, call: int, leaf: Tensor, part: int = 0
) -> tuple[Reading, Recording, frozenset[nn.Module]]:
    """What the network says, what is needed to run again what lies behind a layer, and which outputs are copies."""
    owned: frozenset[nn.Module] = frozenset()
    for _ in range(3):
        with recorded(witness.module, layer, call, 1, owned, part) as recording, torch.no_grad():
            reading = witness.read(witness.module(leaf.clone()), 1)
        if not (changed := recording.changed()):
            break
        owned |= changed
    return reading, recording, owned


def _find_way(
    witness: Witness,
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
        return all(map(partial(_agree, witness), *zip(*pairs, strict=True)))

    # Features come with the images, so these are given anew for each variant.
    ways = [Way(owned)] if witness.feed.on else [Way(owned, _find_needed(witness, layer, recording, leaf)), Way(owned)]
    return next((way for way in ways if proven(way)), Way(whole=True))


def _find_needed(witness: Witness, layer: nn.Module, recording: Recording, leaf: Tensor) -> frozenset[int] | None:
    try:
        return needed(layer, recording, leaf, lambda images: witness.read(witness.module(images), 1).total())
    except Exception:  # the way that needs to know this will not do then
        return None


def prepare_trunk(witness: Witness, plan: Plan, attending: Attending, images: Tensor) -> str:
    """Find the blocks, and prove on one image that they and their end can be run again; a note if all must run.

    Each block must hand on again what it did, the unchanged tokens bring the scores back, and the halved ones those
    of the whole network.

    Raises:
        RequestError: they cannot be told apart, or not be run again.
    """
    leaf, met = witness.leaf(images).detach(), attending.seen
    blocks = tuple(blocks_of(met)) if len(met) > 1 else ()
    end = blocks[-1] if blocks else met[0].inside[-1]
    with heard(blocks) as calls, Attending(1, values=False, graph_from=-1):
        reading, recording, owned = _record(witness, end, 1, leaf)
    copies = any(call.changed for call in calls.values())
    if copies:
        with heard(blocks, copies) as calls, torch.no_grad():
            witness.module(leaf.clone())
    _check_blocks(witness, blocks, calls, recording.tensor)
    trunk = Trunk(blocks, end, Way(whole=True), witness.rows, pools=not met[-1].square, copies=copies)
    values = met[-1].of_heads(met[-1].values) if met[-1].values is not None else None
    if blocks:
        pair = torch.cat([recording.tensor, recording.tensor / 2])
        own = recording.tensor[0].numel()
    else:
        assert values is not None
        pair = torch.cat([met[0].weights @ values, values[:, :, :1].expand_as(values)])
        own = values[0].numel()
    run = partial(witness.at_end, trunk, recording, images=leaf)
    way = _find_way(witness, end, reading, recording, owned, leaf, pair, run)
    larger = 1 if way.whole else max(1, max(recording.biggest) // own)
    trunk = replace(trunk, way=way, rows=min(MOST_ROWS, witness.rows * larger))
    if blocks and witness.wants & {"own", "path"}:
        asked = blocks if "path" in witness.wants else () if trunk.pools else blocks[-1:]
        trunk = replace(trunk, behind={block: behind_attention(block, calls[block]) for block in asked})
    plan.trunk = _see_alone(witness, trunk, recording, leaf, plan) if witness.wants & ALONE else trunk
    return (
        "what lies behind the last block cannot be run alone, so the whole network runs again for all that is "
        "asked of it: slower, and the same maps"
        if way.whole
        else ""
    )


def _check_blocks(witness: Witness, blocks: Sequence[nn.Module], calls: Mapping[nn.Module, Call], said: Tensor) -> None:
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
        if not _agree(witness, again, calls[block].output):
            raise no_blocks(f"run again on the same tokens, a {type(block).__name__} hands on others")


def _see_alone(witness: Witness, trunk: Trunk, recording: Recording, leaf: Tensor, plan: Plan) -> Trunk:
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
            found[length] = witness.at_end(trunk, recording, given, leaf).scores(0)
        except Exception:  # whatever it is, so many will not do
            continue
    if not found:
        return replace(trunk, alone="what lies behind its blocks cannot be run on copies of one token")
    few, many = found[min(found)], found[max(found)]
    if not _agree(witness, few, many, max(SAME, ROUNDED * torch.finfo(tokens.dtype).eps)):
        return replace(trunk, alone="what lies behind its blocks tells tokens by their places, or mixes neighbours")
    shorter = 1 if trunk.way.whole else tokens.shape[1] // min(found)
    return replace(trunk, length=min(found), rows=min(MOST_ROWS, trunk.rows * shorter))


def _agree(witness: Witness, one: Tensor, other: Tensor, same: float = SAME) -> bool:
    """Whether what the network said twice is the same to the rounding with which it counts."""
    return alike(one, other, max(same, ROUNDED * coarse(devices.home(witness.module))))
