"""What the methods can have of this network's attention."""

from __future__ import annotations

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.checks.attention_chain import check_chain, check_last, remarks
from camcli.engine.checks.layouts import counted, source_facts, survey_layers
from camcli.engine.checks.rerun import prepare_trunk
from camcli.engine.forward import ALONE, ATTENTION, BLOCKS, CHAIN, COSINES, LAST_ATTENTION, LOOKED, Forward, Plan
from camcli.engine.hooks.attention import Attending
from camcli.engine.layers.probe import token_layout
from camcli.engine.maps.compute import evidence_of_total
from camcli.engine.maps.method import Recipe
from camcli.engine.setup import Setup
from camcli.engine.signals.evidence import Evidence

# A cosine is at most 1, but for the rounding of half precision.
FARTHEST = 1.01
OTHERS = "choose legrad or gae, or a method that works at a layer, such as gradcam"


def plan_attention(setup: Setup, plan: Plan, attending: Attending, image: Tensor) -> None:
    """See that as much of the attention can be read as the methods look at, and how its tokens lie."""
    wants, size = setup.wants, (image.shape[2], image.shape[3])
    if wants & CHAIN or (wants & BLOCKS and len(attending.seen) > 1):
        check_chain(attending)
    else:
        check_last(attending)
    plan.tokens = token_layout(
        survey_layers(setup, image), attending.tokens, size, *source_facts(setup, image), len(image)
    )
    plan.attentions = len(attending.seen)
    if wants & BLOCKS and (note := prepare_trunk(setup.witness, plan, attending, image)):
        setup.note(note)


def try_attention(setup: Setup, plan: Plan, image: Tensor) -> None:
    """Explain noise by the methods that look at attention: what they cannot have of this network shows here."""
    forward = setup.witness.forward(image, plan=plan)
    evidence = evidence_of_total(setup, plan, forward)
    for recipe in setup.recipes:
        if recipe.wants & LOOKED:
            _check_looked(recipe, evidence, forward)
        if recipe.wants & ALONE and plan.trunk and plan.trunk.alone:
            raise RequestError(
                f"{recipe.row.name} asks for the score of each token by itself, and {plan.trunk.alone}", OTHERS
            )
        if recipe.wants & COSINES and evidence.get("cosines", "").abs().max() > FARTHEST:
            raise RequestError(
                f"{recipe.row.name} compares cosines, and the scores that the model gives here come of none",
                "leave the wrapper out that changes them, or choose legrad or maskclip",
            )
        if recipe.wants & ATTENTION:
            recipe(evidence, "")


def _check_looked(recipe: Recipe, evidence: Evidence, forward: Forward) -> None:
    """See that the score reads one token behind the last attention, whose query is seen."""
    assert forward.attending is not None
    read = int(evidence.get("read", "")[0].sum())
    if read != 1:
        raise RequestError(
            f"{recipe.row.name} follows the one token that the score reads behind the last attention, and this "
            f"network's reads {read or 'none'}",
            OTHERS,
        )
    if forward.attending.seen[-1].queries is None:
        raise RequestError(
            f"{recipe.row.name} needs the queries and keys of the last attention, and what its softmax is of is no "
            "product of two factors",
            OTHERS,
        )


def note_attention(setup: Setup, plan: Plan, attending: Attending, evidence: Evidence) -> None:
    """Say which attentions and which rows of theirs the maps are made of."""
    assert plan.tokens is not None
    every = setup.wants & (CHAIN | BLOCKS) and plan.attentions > 1
    pooled = not attending.seen[-1].square
    blocks = f"attention of {counted(plan.attentions - pooled, 'block')}" + (" and a pooling" if pooled else "")
    used = blocks if every else "the last attention"
    note = f"{used} is used, {plan.tokens}"
    if setup.wants & LAST_ATTENTION:
        rows = evidence.get("read", "")[0].nonzero().flatten().tolist()
        if not attending.seen[-1].square:
            read = f"{counted(len(rows), 'query', 'queries')} of the pooling behind them"
        elif all(row < plan.tokens.prefix for row in rows):
            read = f"the token{'' if len(rows) == 1 else 's'} {', '.join(map(str, rows))}"
        else:
            read = f"{len(rows)} of {attending.tokens} tokens, the mean of whose rows is shown"
        note += f"; the score reads {read}"
    setup.note(note)
    for remark in remarks(attending) if setup.wants & CHAIN else ():
        setup.note(remark)
