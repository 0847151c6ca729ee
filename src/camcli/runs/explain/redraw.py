"""Drawing at one scale for the whole run, after the last picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np

from camcli.base.errors import OutputError, PictureError
from camcli.engine.explanation import Explanation
from camcli.images.decode import decode
from camcli.images.naming import read_stamp
from camcli.images.placement import Placement
from camcli.images.source import Picture, PictureSource
from camcli.runs.explain import writer as writers
from camcli.runs.explain.writer import Writer
from camcli.runs.record.failures import format_error
from camcli.runs.record.folder import Folder
from camcli.runs.record.ledger import STAMP_SEPARATOR
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.session import Session
from camcli.runs.worker.threads import map_ahead


def draw_all(writer: Writer) -> Iterator[list[Outcome]]:
    """Draw all pictures of this job at the scale of the strongest; yield those of this run that could not be.

    Pictures of earlier runs that are gone or changed since keep their files, which is noted.
    """
    session = writer.session
    pictures = session.ledger.iter_pictures
    scale = max((one.strongest or 0.0 for outcomes in pictures() for one in _select_drawable(outcomes)), default=0.0)
    scale_changed, writer.scale = scale != writer.scale, scale
    # While drawing is under way, the scale of the files in the folder is not known.
    session.record(scale=None)
    left = failed_again = 0
    workers = session.worker.workers
    for failed, outcomes in map_ahead(partial(_draw, writer, scale_changed), pictures(), workers, 2 * workers):
        if outcomes[0].run != session.id:
            left += failed > 0
        elif failed:
            session.ledger.append(outcomes, replacing=True)
            # A picture of which another map failed before was reported and counted then.
            if failed == sum(outcome.error is not None for outcome in outcomes):
                yield outcomes
            else:
                failed_again += 1
    if failed_again:
        session.worker.notes.append(f"{failed_again} picture(s) of which some maps failed could not be drawn either")
    if left:
        session.worker.notes.append(
            f"{left} picture(s) of earlier runs are gone or changed and stay drawn at another scale"
        )


def _draw(writer: Writer, scale_changed: bool, outcomes: list[Outcome]) -> tuple[int, list[Outcome]]:
    """Draw one picture's maps; return how many could not be drawn, and its outcomes, with errors for those."""
    session, formats = writer.session, writer.formats
    old = outcomes[0].run != session.id
    wanted = [formats.select_later(one.files) for one in outcomes]
    files = [file for names in wanted for file in names.values()]
    if not files or (
        old and not scale_changed and all(_is_nonempty_file(session.folder.resolve_inside(file)) for file in files)
    ):
        return 0, outcomes
    drawn: list[Outcome] = []
    failed = 0
    picture: Picture | None = None
    for outcome, names in zip(outcomes, wanted, strict=True):
        try:
            if names:
                picture = picture or _decode(session, outcome)
                explanation = _read_explanation(session.folder, outcome)
                _check_inside(session.folder, names)
                writers.write_files(session.folder, writer.style, picture, explanation, names)
            drawn.append(outcome)
        except OutputError:
            raise
        except Exception as error:  # any error is this map's alone, and the others go on
            kept = {name: file for name, file in outcome.files.items() if name in formats.at_once}
            drawn.append(replace(outcome, files=kept, error=f"it cannot be drawn: {format_error(error)}"))
            failed += 1
    return failed, drawn


def _check_inside(folder: Folder, files: dict[str, str]) -> None:
    """Check that files named by a ledger, which may have been edited, lie in the folder.

    Raises:
        PictureError: one lies outside the output folder.
    """
    for file in files.values():
        if folder.resolve_inside(file) is None:
            raise PictureError(f"{folder.path / 'outcomes.jsonl'} names {file!r}, which lies outside the folder")


def _decode(session: Session[Outcome], outcome: Outcome) -> Picture:
    source = PictureSource(Path(outcome.source), outcome.name, page=outcome.page)
    if read_stamp(source.path) != outcome.stamp.partition(STAMP_SEPARATOR)[0]:
        raise PictureError("the picture was changed since")
    image = decode(source.path, session.job.background, session.job.range, source.page)
    return Picture(source, np.asarray(image), session.worker.network.preprocess.view(*image.size))


def _read_explanation(folder: Folder, outcome: Outcome) -> Explanation:
    """Read back the explanation that an outcome was made from."""
    array = outcome.files["array"]
    _check_inside(folder, {"array": array})
    shared = {field.name for field in fields(Explanation)} & {field.name for field in fields(Outcome)}
    values = {name: value for name in shared if (value := getattr(outcome, name)) is not None}
    return Explanation(
        map=np.load(folder.path / array, allow_pickle=False),
        **{
            "method": "",
            "layer": "",
            "index": None,
            "label": "",
            "score": 0.0,
            "probability": None,
            **values,
            "placement": Placement.from_numbers(outcome.placement) if outcome.placement else None,
        },
    )


def _select_drawable(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return those of a picture's outcomes that have a map."""
    return [outcome for outcome in outcomes if not outcome.error]


def _is_nonempty_file(file: Path | None) -> bool:
    return file is not None and file.is_file() and file.stat().st_size > 0
