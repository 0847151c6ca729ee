"""Concepts that all images of a job share, from an earlier run or found before the first image."""

from __future__ import annotations

from typing import Any

from camcli.base.errors import RequestError
from camcli.base.words import count_of, shorten
from camcli.engine.maps import concepts
from camcli.images.address import show_path
from camcli.runs.explain import concept_sheet
from camcli.runs.explain.concept_sheet import ConceptSheet
from camcli.runs.explain.writer import make_style
from camcli.runs.record import concept_file
from camcli.runs.record.failures import RESUME_HINT, make_write_error
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.session import Session
from camcli.runs.worker.fit_concepts import fit_concepts
from camcli.runs.worker.item import Item


def announce_concepts(total: int | None, finds: str) -> str:
    """Return a note on how many images concepts, or what else a method finds, are found in.

    Raises:
        RequestError: the images are not known beforehand.
    """
    if total is None:
        raise RequestError(
            f"{finds} are found in all images of a run before the first is explained, and names on standard input "
            "arrive one by one",
            f"give them as files, folders or @list.txt; or find the {finds} of each image separately: -o over=picture",
        )
    many = "the image" if total == 1 else f"{min(total, concepts.MAX_PICTURES)} images together"
    return f"{finds} are found in {many} first, unless {concept_file.FILE} has them from an earlier run"


def load_or_fit_concepts(session: Session[Outcome]) -> dict[str, Any]:
    """Give the explainer the concepts that all images of this job share; return what is recorded of them."""
    explainer, job, before = session.worker.explainer, session.fingerprint, session.previous
    then = before.record.get("concepts") or {} if before.is_own else {}
    explainer.fitted_concepts = (
        {} if session.job.overwrite else concept_file.load(session.folder.path, {job, *before.accepted_jobs})
    )
    if explainer.fitted_concepts:
        return {**then, "file": concept_file.FILE, "sha256": concept_file.hash_concepts(explainer.fitted_concepts)}
    assert session.inputs.total is not None
    sheet = ConceptSheet(session.worker)
    pictures = fit_concepts(
        session.worker,
        concepts.put_even_sample_first(lambda: map(Item, session.inputs.iter_sources()), session.inputs.total),
        sheet.keep,
    )
    facts = {
        "file": concept_file.FILE,
        "sha256": concept_file.hash_concepts(explainer.fitted_concepts),
        "pictures": pictures,
    }
    if then.get("sha256", facts["sha256"]) != facts["sha256"]:
        _check_no_stale_pictures(session)
    try:
        if explainer.fitted_concepts:
            concept_file.save(session.folder, explainer.fitted_concepts, job)
        if drawn := sheet.draw(make_style(session.worker)):
            session.folder.write_record(concept_sheet.FILE, drawn)
    except OSError as error:
        raise make_write_error(show_path(session.out), error, RESUME_HINT) from error
    return facts


def _check_no_stale_pictures(session: Session[Outcome]) -> None:
    """Check that no image remains that was drawn with other concepts than those named now."""
    if session.job.overwrite:
        left = session.ledger.find_unnamed(session.iter_names(), own=True)
        if left:
            raise RequestError(
                f"concepts are computed again, and {count_of(len(left), 'image')} in {show_path(session.out)!r}, not "
                f"in this run, had been drawn with the previous ones: {shorten(left, len(left))}",
                "name those images too, leave --overwrite out, or choose another folder with --out",
            )
    elif next(iter(session.ledger.iter_pictures()), None):
        raise RequestError(
            f"images in {show_path(session.out)!r} were drawn with concepts that are lost: {concept_file.FILE} was "
            "deleted, and the images of this run have others",
            "process all again with --overwrite, or choose another folder with --out",
        )
