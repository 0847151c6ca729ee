"""Drawing from kept arrays: at one scale for the whole run, after the last image, or in other looks or formats."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from camcli.base.errors import OutputError
from camcli.base.words import count_of
from camcli.images.naming import fit_path
from camcli.images.source import Picture
from camcli.outputs.box import find_box
from camcli.runs.explain import writer as writers
from camcli.runs.explain.writer import Writer
from camcli.runs.record.earlier import has_file, has_wanted_files
from camcli.runs.record.failures import format_error
from camcli.runs.record.finished import make_explanation
from camcli.runs.record.kept import check_inside, decode_again, load_array
from camcli.runs.record.outcome import Outcome
from camcli.runs.worker.item import Item
from camcli.runs.worker.threads import map_ahead


def redraw(writer: Writer, item: Item) -> list[Outcome]:
    """Draw what is wanted now of a picture's kept maps; return its lines anew."""
    began = time.perf_counter()
    _, drawn = _draw(writer, item.earlier, writer.formats.at_once, redraws_all=False)
    seconds = round((time.perf_counter() - began) / len(drawn), 4)
    fields = writer.session.make_line_fields(item)
    new = {name: fields[name] for name in ("source", "root", "run")}
    return [replace(one, **new, seconds=seconds) for one in drawn]


def draw_all(writer: Writer) -> Iterator[list[Outcome]]:
    """Draw all images of this job at the scale of the strongest; yield those of this run that could not be.

    Images of earlier runs that are gone or changed since keep their files, which is noted.
    """
    session = writer.session
    pictures = session.ledger.iter_pictures
    scale = max((one.strongest or 0.0 for outcomes in pictures() for one in _select_drawable(outcomes)), default=0.0)
    scale_changed, writer.scale = scale != writer.scale, scale
    # While drawing is under way, the scale of the files in the folder is not known.
    session.record(scale=None)
    left = failed_again = 0
    workers = session.worker.workers

    def draw(outcomes: list[Outcome]) -> tuple[int, list[Outcome], list[Outcome]]:
        redraws_all = scale_changed or outcomes[0].run == session.id
        return *_draw(writer, outcomes, writer.formats.later, redraws_all), outcomes

    for failed, outcomes, before in map_ahead(draw, pictures(), workers, 2 * workers):
        if outcomes[0].run != session.id:
            left += failed > 0
            if not failed and outcomes != before:
                session.ledger.append(outcomes, replacing=True)
        elif failed:
            session.ledger.append(outcomes, replacing=True)
            # An image of which another map failed before was reported and counted then.
            if failed == sum(outcome.error is not None for outcome in outcomes):
                yield outcomes
            else:
                failed_again += 1
    if failed_again:
        session.worker.notes.append(
            f"{count_of(failed_again, 'image')} of which some maps failed could not be drawn either"
        )
    if left:
        session.worker.notes.append(
            f"{count_of(left, 'image')} of earlier runs could not be drawn at this scale: gone or changed"
        )


def _draw(
    writer: Writer, outcomes: Sequence[Outcome], formats: Sequence[str], redraws_all: bool
) -> tuple[int, list[Outcome]]:
    """Draw one image's maps; return how many could not be drawn, and its outcomes, with errors for those.

    Args:
        writer: the writer.
        outcomes: the picture's outcomes.
        formats: formats to draw.
        redraws_all: also draw what is there as it is wanted.
    """
    session, looks = writer.session, writer.formats.looks
    find_size = session.folder.find_size
    drawn: list[Outcome] = []
    failed = 0
    picture: Picture | None = None
    for outcome in outcomes:
        there = outcome.files, outcome.looks, outcome.sizes
        names = [
            name for name in formats if redraws_all or not has_wanted_files(find_size, {name: looks[name]}, *there)
        ]
        if outcome.error or not names:
            drawn.append(outcome)
            continue
        try:
            picture = picture or decode_again(session.worker, outcome)
            explanation = make_explanation(outcome, load_array(session.folder, outcome))
            placed = picture.view.placed(explanation.placement)
            heat_box = find_box(placed, explanation, writer.style) if "box" in names else outcome.heat_box
            stem = writer.name_stem(outcome.name, explanation)
            files = {name: fit_path(stem, writer.formats.suffixes[name]) for name in names}
            check_inside(session.folder, files.values())
            sizes = writers.write_files(session.folder, writer.style, picture, explanation, files)
            sizes = {} if writer.formats.draws_later else sizes
            made = replace(outcome, heat_box=heat_box)
            drawn.append(_add_files(made, files, sizes, looks, [*writer.formats.suffixes]))
        except OutputError:
            raise
        except Exception as error:  # any error is this map's alone, and the others go on
            there_yet = filter(lambda one: one[0] not in names or has_file(find_size, one[1]), outcome.files.items())
            drawn.append(replace(outcome, files=dict(there_yet), error=f"it cannot be drawn: {format_error(error)}"))
            failed += 1
    return failed, drawn


def _add_files(
    outcome: Outcome, files: dict[str, str], sizes: dict[str, int], looks: dict[str, str], names: Sequence[str]
) -> Outcome:
    """Return an outcome with files that were drawn.

    Args:
        outcome: the outcome before.
        files: the files drawn, by format.
        sizes: their sizes; empty if they may be drawn again without a line.
        looks: digits for their looks.
        names: formats that are named first.
    """
    every = {**outcome.files, **files}
    digits = {**outcome.looks, **{name: looks[name] for name in files}}
    return replace(
        outcome,
        files={name: every[name] for name in dict.fromkeys([*names, *every]) if name in every},
        sizes={**{name: size for name, size in outcome.sizes.items() if name not in files}, **sizes},
        looks={name: one for name, one in digits.items() if one},
    )


def _select_drawable(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return those of an image's outcomes that have a map."""
    return [outcome for outcome in outcomes if not outcome.error]
