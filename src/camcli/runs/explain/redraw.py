"""Drawing at one scale for the whole run, behind the last picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np

from camcli.base.errors import OutputError, PictureError
from camcli.engine.explanation import Explanation
from camcli.images.decode import decode
from camcli.images.naming import stamp
from camcli.images.placement import Placement
from camcli.images.source import Picture, Source
from camcli.runs.explain import writer as writers
from camcli.runs.explain.writer import Writer
from camcli.runs.record.failures import reason
from camcli.runs.record.folder import Folder
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.session import Session
from camcli.runs.worker.threads import ahead

# In a picture's stamp, before what else its maps depend on: the pictures of its group, concepts found in several.
MATES = "+"


def draw_all(writer: Writer) -> Iterator[list[Outcome]]:
    """Draw all pictures of this job at the scale of the strongest; yields those of this run that could not be.

    What an earlier run has done and is gone or changed since keeps its files, and a note says so.
    """
    session = writer.session
    pictures = session.ledger.pictures
    scale = max((one.strongest or 0.0 for outcomes in pictures() for one in _drawable(outcomes)), default=0.0)
    fresh, writer.scale = scale != writer.scale, scale
    # While it is under way, the scale of what lies there is not known.
    session.record(scale=None)
    left = again = 0
    workers = session.worker.workers
    for failed, outcomes in ahead(partial(_draw, writer, fresh), pictures(), workers, 2 * workers):
        if outcomes[0].run != session.id:
            left += failed > 0
        elif failed:
            session.ledger.append(outcomes, replacing=True)
            # A picture of which another map failed before was told and counted then.
            if failed == sum(outcome.error is not None for outcome in outcomes):
                yield outcomes
            else:
                again += 1
    if again:
        session.worker.notes.append(f"{again} picture(s) of which some maps failed could not be drawn either")
    if left:
        session.worker.notes.append(
            f"{left} picture(s) of earlier runs are gone or changed and stay drawn at another scale"
        )


def _draw(writer: Writer, fresh: bool, outcomes: list[Outcome]) -> tuple[int, list[Outcome]]:
    """Draw one picture's maps; how many could not be drawn, and its outcomes, those with an error."""
    session, formats = writer.session, writer.formats
    old = outcomes[0].run != session.id
    wanted = [formats.drawn_later(one.files) for one in outcomes]
    files = [file for names in wanted for file in names.values()]
    if not files or (old and not fresh and all(_holds(session.folder.inside(file)) for file in files)):
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
        except Exception as error:  # whatever it is, it is this map's, and the others go on
            kept = {name: file for name, file in outcome.files.items() if name in formats.at_once}
            drawn.append(replace(outcome, files=kept, error=f"it cannot be drawn: {reason(error)}"))
            failed += 1
    return failed, drawn


def _check_inside(folder: Folder, files: dict[str, str]) -> None:
    """See that files which a ledger names lie in the folder, since somebody may have changed them.

    Raises:
        PictureError: one lies outside the output folder.
    """
    for file in files.values():
        if folder.inside(file) is None:
            raise PictureError(f"{folder.path / 'outcomes.jsonl'} names {file!r}, which lies outside the folder")


def _decode(session: Session[Outcome], outcome: Outcome) -> Picture:
    source = Source(Path(outcome.source), outcome.name, page=outcome.page)
    if stamp(source.path) != outcome.stamp.partition(MATES)[0]:
        raise PictureError("the picture was changed since")
    image = decode(source.path, session.job.background, session.job.range, source.page)
    return Picture(source, np.asarray(image), session.worker.network.prepare.view(*image.size))


def _read_explanation(folder: Folder, outcome: Outcome) -> Explanation:
    """The explanation that an outcome was written of."""
    array = outcome.files["array"]
    _check_inside(folder, {"array": array})
    shared = {field.name for field in fields(Explanation)} & {field.name for field in fields(Outcome)}
    said = {name: value for name in shared if (value := getattr(outcome, name)) is not None}
    return Explanation(
        map=np.load(folder.path / array, allow_pickle=False),
        **{
            "method": "",
            "layer": "",
            "index": None,
            "label": "",
            "score": 0.0,
            "probability": None,
            **said,
            "placement": Placement.of(outcome.placement) if outcome.placement else None,
        },
    )


def _drawable(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those of a picture's outcomes that have a map."""
    return [outcome for outcome in outcomes if not outcome.error]


def _holds(file: Path | None) -> bool:
    return file is not None and file.is_file() and file.stat().st_size > 0
