"""Concepts that all pictures of a job share: those of an earlier run, or found before the first picture."""

from __future__ import annotations

from typing import Any

from camcli.base.errors import RequestError
from camcli.base.words import several
from camcli.engine.maps import concepts
from camcli.runs.record import concept_file
from camcli.runs.record.failures import GO_ON_LATER, cannot_write
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.session import Session
from camcli.runs.worker.fit_concepts import fit_concepts
from camcli.runs.worker.item import Item


def announce_concepts(total: int | None) -> str:
    """Note in how many pictures concepts are found.

    Raises:
        RequestError: the pictures are not known beforehand.
    """
    if total is None:
        raise RequestError(
            "concepts are found in the pictures of a run before the first is explained, and those named on "
            "standard input come one by one",
            "give them as files, folders or @list.txt; or let each picture have concepts of its own: -o over=picture",
        )
    many = "the picture" if total == 1 else f"{min(total, concepts.MOST_PICTURES)} pictures together"
    return f"concepts are found in {many} first, unless {concept_file.FILE} has them from an earlier run"


def share_concepts(session: Session[Outcome]) -> dict[str, Any]:
    """Give the explainer the concepts that all pictures of this job share; what is recorded of them."""
    explainer, job, before = session.worker.explainer, session.fingerprint, session.before
    then = before.record.get("concepts") or {} if before.own else {}
    explainer.fitted = {} if session.job.overwrite else concept_file.load(session.out, {job, *before.accepted})
    if explainer.fitted:
        return {**then, "file": concept_file.FILE, "sha256": concept_file.digest(explainer.fitted)}
    assert session.inputs.total is not None
    pictures = fit_concepts(
        session.worker, concepts.spread_first(lambda: map(Item, session.inputs.sources()), session.inputs.total)
    )
    facts = {"file": concept_file.FILE, "sha256": concept_file.digest(explainer.fitted), "pictures": pictures}
    if then.get("sha256", facts["sha256"]) != facts["sha256"]:
        _check_gone(session)
    try:
        if explainer.fitted:
            concept_file.save(session.folder, explainer.fitted, job)
    except OSError as error:
        raise cannot_write(session.job.out, error, GO_ON_LATER) from error
    return facts


def _check_gone(session: Session[Outcome]) -> None:
    """See that no picture stays that was drawn with other concepts than those named now."""
    if session.job.overwrite:
        left = session.ledger.left(session.inputs.names(), own=True)
        if left:
            raise RequestError(
                f"concepts are found anew, and {len(left)} picture(s) in {session.job.out!r} that are not named now "
                f"were drawn with those of before: {several(left, len(left))}",
                "name those pictures too, leave --overwrite out, or choose another folder with --out",
            )
    elif next(iter(session.ledger.pictures()), None):
        raise RequestError(
            f"pictures in {session.job.out!r} were drawn with concepts that are gone: {concept_file.FILE} was "
            "deleted, and the pictures named now have others",
            "do all again with --overwrite, or choose another folder with --out",
        )
