"""A job from beginning to end: find, skip what is done, explain, write behind, record."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from camcli.base.errors import NothingFoundError, OutputError, PictureError, RequestError
from camcli.engine.explanation import Explanation
from camcli.engine.maps import concepts
from camcli.images.decode import decode
from camcli.images.formats import Unread
from camcli.images.manifest import Listing, several
from camcli.images.naming import fit_path, stamp
from camcli.images.placement import Placement
from camcli.images.source import Picture, Source
from camcli.outputs import OUTPUTS
from camcli.outputs.style import Style, display, strongest
from camcli.runs.job.job import Job
from camcli.runs.record import concept_file, provenance
from camcli.runs.record.failures import GO_ON_LATER, NO_USE_TO_GO_ON, NONE_DROPPED, OUTDATED, STANDS, reason
from camcli.runs.record.ledger import Ledger
from camcli.runs.record.other_jobs import Before, check_others, note_accepted
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.preflight import check, check_apart, found
from camcli.runs.worker.fit_concepts import fit_concepts
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import paused_stream
from camcli.runs.worker.threads import ahead
from camcli.runs.worker.worker import Worker
from camcli.targets import gives_several

SLUG = 40
# In a picture's stamp, before what else its maps depend on: the pictures of its group, concepts found in several.
MATES = "+"


class Run:
    """A job under way.

    Made in a ``with`` block, which holds the output folder for this run alone. Everything that is wrong with the
    request is found while it is made, before the first picture. Iterating does the work and yields each picture's
    outcomes, in order; those of a picture that is done already are empty.

    Args:
        job: what is asked.
        stdin: what the input ``-`` reads; default: the process's own.

    Attributes:
        worker: the job resolved.
        total: the number of pictures; None if they come from standard input.
        unread: what is in folders and is left out though it is a picture.
        notes: what the user must know about this run; may grow while it goes on.

    Raises:
        RequestError: anything in the job that cannot be.
        NothingFoundError: there is no picture.
    """

    def __init__(self, job: Job, stdin: BinaryIO | None = None) -> None:
        self.job = job
        self._out = Path(job.out)
        self._stdin = stdin
        self.unread = Unread()
        self.total = check(job, self.unread)
        # Run-wide drawing waits for the last picture, and draws from the arrays.
        self._drawn_later = job.normalize == "run"
        self._formats = tuple(dict.fromkeys([*job.save, *(["array"] if self._drawn_later else [])]))
        self._written = ("array",) if self._drawn_later else self._formats
        self._suffixes = {name: OUTPUTS.find(name).suffix for name in self._formats}
        self._id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        check_apart(job)
        self.worker = Worker(job, None if self.total is None else self._sources, self.total)
        self.worker.shows_pixels = any(OUTPUTS.find(name).pixels for name in self._written)
        self.notes = self.worker.notes
        self.notes += filter(None, [self.unread.words()])
        for listing in (self.worker.target, self.worker.prompts and self.worker.prompts.own):
            if isinstance(listing, Listing):
                self.notes += self._unused(listing)
        if self.worker.explainer.fits:
            self._announce_concepts()
        # What a detector is asked for may be there more than once.
        boxes = self.worker.network.outlet.task == "detect"
        wanted, many = self.worker.wanted, self.worker.network.labels.open > 1
        self._several = boxes or bool(job.targets) or len(wanted) > 1 or (many and any(map(gives_several, wanted)))
        self._beside = ""  # what a picture's maps depend on that is not its own, for its stamp
        self._held = ExitStack()

    def __enter__(self) -> Run:
        with ExitStack() as held:
            ledger = Ledger(
                self._out,
                self.worker.fingerprint,
                Outcome,
                self._needed,
                durable=self.job.durable,
                accepted=lambda: self._before.accepted,
            )
            self._ledger = held.enter_context(ledger)
            self._folder = ledger.folder
            check_others(ledger, self._before, None if self.total is None else self._names)
            accepted, notes = note_accepted(self._before, ledger.met)
            self.notes += notes
            self._facts = {"run": self._id, "began": provenance.now(), **provenance.facts(self.worker), **accepted}
            if self.worker.explainer.fits:
                self._facts["concepts"] = self._shared_concepts()
                self._beside = f"{MATES}{self._facts['concepts']['sha256'][:16]}"
            # At which scale the pictures of this job were drawn last, if they were.
            self._scale = self._before.record.get("scale") if self._before.own else None
            self._record(scale=self._scale)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[list[Outcome]]:
        sources = found(self.job, self._stdin, self.unread if self.total is None else None)
        explained = paused_stream(self.worker, map(self._item, sources), self._begin)
        workers = self.worker.workers
        met = failed = skipped = standing = 0
        for outcomes in ahead(self._outcomes, explained, workers, 2 * workers):
            met += 1
            skipped += not outcomes
            failed += any(outcome.error for outcome in outcomes)
            standing += any(note in (STANDS, OUTDATED) for outcome in outcomes for note in outcome.notes)
            if outcomes:
                self._ledger.append(outcomes)
            yield outcomes
        if not met:
            raise NothingFoundError("standard input named no picture")
        if standing:
            self.notes.append(f"{standing} picture(s) that failed keep the results of an earlier run")
        if self.total is None:
            self.notes += filter(None, [self.unread.words()])
        if self._drawn_later:
            for outcomes in self._draw():
                failed += 1
                yield outcomes
        if self.job.drop_others and failed < met:
            self._ledger.drop_others()
        elif self.job.drop_others:
            self.notes.append(NONE_DROPPED)
        counts = {"pictures": met, "failed": failed, "skipped": skipped, "unread": self.unread.as_dict()}
        self._record(finished=provenance.now(), **counts, notes=list(self.notes), scale=self._scale)

    # ---- before

    @cached_property
    def _before(self) -> Before:
        """The last run in the output folder; to be read when that is held."""
        return Before(self.job, self.worker.counted, provenance.read(self._out))

    def _sources(self) -> Iterator[Source]:
        return found(self.job, self._stdin)

    def _names(self) -> Iterator[str]:
        return (source.name for source in self._sources())

    def _needed(self, files: dict[str, str]) -> list[str]:
        return [files[name] for name in self._written if name in files]

    def _unused(self, listing: Listing[Any]) -> list[str]:
        unused = [] if self.total is None else listing.unused(source.path for source in self._sources())
        if not unused:
            return []
        return [f"{listing.file} lists {len(unused)} that are not among the pictures: {several(unused, len(unused))}"]

    def _announce_concepts(self) -> None:
        if self.total is None:
            raise RequestError(
                "concepts are found in the pictures of a run before the first is explained, and those named on "
                "standard input come one by one",
                "give them as files, folders or @list.txt; or let each picture have concepts of its own: "
                "-o over=picture",
            )
        many = "the picture" if self.total == 1 else f"{min(self.total, concepts.MOST_PICTURES)} pictures together"
        self.notes.append(
            f"concepts are found in {many} first, unless {concept_file.FILE} has them from an earlier run"
        )

    def _shared_concepts(self) -> dict[str, Any]:
        """Have the concepts that all pictures of this job share: those of its earlier run, or found now."""
        explainer, job = self.worker.explainer, self.worker.fingerprint
        then = self._before.record.get("concepts") or {} if self._before.own else {}
        explainer.fitted = {} if self.job.overwrite else concept_file.load(self._out, {job, *self._before.accepted})
        if explainer.fitted:
            return {**then, "file": concept_file.FILE, "sha256": concept_file.digest(explainer.fitted)}
        assert self.total is not None
        pictures = fit_concepts(self.worker, concepts.spread_first(lambda: map(Item, self._sources()), self.total))
        facts = {"file": concept_file.FILE, "sha256": concept_file.digest(explainer.fitted), "pictures": pictures}
        if then.get("sha256", facts["sha256"]) != facts["sha256"]:
            self._check_concepts_gone()
        try:
            if explainer.fitted:
                concept_file.save(self._folder, explainer.fitted, job)
        except OSError as error:
            raise OutputError(f"{self.job.out!r} cannot be written to: {error.strerror}", GO_ON_LATER) from error
        return facts

    def _check_concepts_gone(self) -> None:
        """See that no picture stays that was drawn with other concepts than those named now."""
        if self.job.overwrite:
            left = self._ledger.left(self._names(), own=True)
            if left:
                raise RequestError(
                    f"concepts are found anew, and {len(left)} picture(s) in {self.job.out!r} that are not named now "
                    f"were drawn with those of before: {several(left, len(left))}",
                    "name those pictures too, leave --overwrite out, or choose another folder with --out",
                )
        elif next(iter(self._ledger.pictures()), None):
            raise RequestError(
                f"pictures in {self.job.out!r} were drawn with concepts that are gone: {concept_file.FILE} was "
                "deleted, and the pictures named now have others",
                "do all again with --overwrite, or choose another folder with --out",
            )

    def _record(self, **more: Any) -> None:
        provenance.write(self._folder, {**self._facts, **more})

    # ---- picture by picture

    def _item(self, source: Source) -> Item:
        mark = stamp(source.path)
        mark += self._beside if mark else ""
        return Item(source, stamp=mark, skipped=not self.job.overwrite and self._ledger.done(source.name, mark))

    def _begin(self, group: Sequence[Item]) -> None:
        """What a map of one picture of a group holds depends on all of them, so each is marked with all their marks."""
        marks = "\n".join(f"{item.source.name} {item.stamp}" for item in group)
        digest = hashlib.sha256(os.fsencode(marks)).hexdigest()[:16]
        for item in group:
            item.stamp = f"{item.stamp}{MATES}{digest}" if all(one.stamp for one in group) else ""
            item.skipped = not self.job.overwrite and self._ledger.done(item.source.name, item.stamp)

    def _outcomes(self, item: Item) -> list[Outcome]:
        """Writes one picture's files; in a writer thread."""
        if item.skipped:
            return []
        began = time.perf_counter()
        results = [item.error] if item.error else item.results
        outcomes: list[Outcome] = []
        for number, result in enumerate(results, start=1):
            part = f"{number}/{len(results)}"
            try:
                if isinstance(result, PictureError):
                    raise result
                outcomes.append(self._done(item, result, part))
            except OutputError:
                raise
            except Exception as error:  # whatever it is, it is this map's, and the others go on
                if isinstance(error, OSError) and error.errno in NO_USE_TO_GO_ON:
                    raise OutputError(
                        f"{self.job.out!r} cannot be written to: {error.strerror}", GO_ON_LATER
                    ) from error
                outcomes.append(self._outcome(item, part=part, error=reason(error)))
        if all(outcome.error for outcome in outcomes) and self._ledger.stands(item.source.name):
            # What else changes a stamp is no change of the picture.
            alone = not self.job.group and not self._beside
            note = OUTDATED if alone and self._ledger.changed(item.source.name, item.stamp) else STANDS
            outcomes = [replace(outcome, notes=(*outcome.notes, note)) for outcome in outcomes]
        seconds = (item.seconds + time.perf_counter() - began) / len(outcomes)
        item.drop()
        return [replace(outcome, seconds=round(seconds, 4)) for outcome in outcomes]

    def _outcome(self, item: Item, **values: Any) -> Outcome:
        return Outcome(
            source=str(item.source.path),
            name=item.source.name,
            page=item.source.page,
            stamp=item.stamp,
            job=self.worker.fingerprint,
            run=self._id,
            untrained=self.worker.network.untrained,
            **values,
        )

    def _done(self, item: Item, explanation: Explanation, part: str) -> Outcome:
        assert item.picture is not None  # without a picture there is no explanation
        stem = self._stem(item.source.name, explanation)
        files = {name: fit_path(stem, suffix) for name, suffix in self._suffixes.items()}
        sizes = self._write(item.picture, explanation, {name: files[name] for name in self._written})
        if self._drawn_later and not self._ledger.same(item.source.name, item.stamp):
            # A drawing of what was there before is none of this map's.
            for file in (file for name, file in files.items() if name not in self._written):
                (self._out / file).unlink(missing_ok=True)
        shown = display(explanation.drawn)
        view = item.picture.view.placed(explanation.placement)
        x, y = view.peak(shown)
        notes = explanation.notes
        if shown.max() > shown[view.shown(shown.shape)].max():
            notes += ("the strongest place lies in the padding beside the picture; the peak is the strongest in it",)
        return self._outcome(
            item,
            part=part,
            files=files,
            sizes=sizes,
            index=explanation.index,
            label=explanation.label,
            score=explanation.score,
            probability=explanation.probability,
            number=explanation.number,
            box=explanation.box,
            layer=explanation.layer,
            method=explanation.method,
            concepts=explanation.concepts,
            versus=explanation.versus,
            channel=explanation.channel,
            weight=explanation.weight,
            low=float(explanation.map.min()),
            high=float(explanation.map.max()),
            strongest=strongest(explanation.drawn),
            peak=(round(x, 2), round(y, 2)),
            placement=explanation.placement.numbers if explanation.placement else None,
            notes=notes,
        )

    def _write(self, picture: Picture, explanation: Explanation, files: dict[str, str]) -> dict[str, int]:
        """Write a map's files; how long each is."""
        style = Style(self.job.colormap, self.job.alpha, self.job.normalize, self._scale, self.worker.network.untrained)
        picture = replace(picture, view=picture.view.placed(explanation.placement))
        sizes = {}
        for name, file in files.items():
            content = OUTPUTS.load(name)(picture, explanation, style)
            self._folder.write(file, content)
            sizes[name] = len(content)
        return sizes

    def _stem(self, name: str, explanation: Explanation) -> str:
        """The output name, with as much behind it as tells one picture's maps apart in this job."""
        # A channel shown for its own sake is named by its number; with a weight it is one of a class's.
        of_class = explanation.index is not None
        by_class = self._several and of_class and (explanation.channel is None or explanation.weight is not None)
        tags = [
            "untrained" if self.worker.network.untrained else "",
            explanation.method if len(self.worker.explainer.methods) > 1 else "",
            explanation.layer if len(self.worker.explainer.layers) > 1 and self.worker.explainer.fuse == "none" else "",
            f"box{explanation.number}" if explanation.number else "",
            f"{explanation.index}-{_slug(explanation.label)}" if by_class else "",
            f"channel{explanation.channel}" if explanation.channel is not None else "",
        ]
        return ".".join(filter(None, [name, *tags]))

    # ---- after the last picture: one scale for the whole run

    def _draw(self) -> Iterator[list[Outcome]]:
        """Draws all pictures of this job at the scale of the strongest; yields those of this run that could not be.

        What an earlier run has done and is gone or changed since keeps its files, and a note says so.
        """
        pictures = self._ledger.pictures
        scale = max((one.strongest or 0.0 for outcomes in pictures() for one in _drawable(outcomes)), default=0.0)
        fresh, self._scale = scale != self._scale, scale
        # While it is under way, the scale of what lies there is not known.
        self._record(scale=None)
        left = again = 0
        workers = self.worker.workers
        for failed, outcomes in ahead(lambda done: self._drawn(done, fresh), pictures(), workers, 2 * workers):
            if outcomes[0].run != self._id:
                left += failed > 0
            elif failed:
                self._ledger.append(outcomes, replacing=True)
                # A picture of which another map failed before was told and counted then.
                if failed == sum(outcome.error is not None for outcome in outcomes):
                    yield outcomes
                else:
                    again += 1
        if again:
            self.notes.append(f"{again} picture(s) of which some maps failed could not be drawn either")
        if left:
            self.notes.append(f"{left} picture(s) of earlier runs are gone or changed and stay drawn at another scale")

    def _drawn(self, outcomes: list[Outcome], fresh: bool) -> tuple[int, list[Outcome]]:
        """Draws one picture's maps; how many could not be drawn, and its outcomes, those with an error."""
        old = outcomes[0].run != self._id
        wanted = [self._drawings(one) for one in outcomes]
        files = [file for names in wanted for file in names.values()]
        if not files or (old and not fresh and all(_holds(self._folder.inside(file)) for file in files)):
            return 0, outcomes
        drawn: list[Outcome] = []
        failed = 0
        picture: Picture | None = None
        for outcome, names in zip(outcomes, wanted, strict=True):
            try:
                if names:
                    picture = picture or self._decoded(outcome)
                    self._write(picture, self._explanation(outcome), self._checked(names))
                drawn.append(outcome)
            except OutputError:
                raise
            except Exception as error:  # whatever it is, it is this map's, and the others go on
                kept = {name: file for name, file in outcome.files.items() if name in self._written}
                drawn.append(replace(outcome, files=kept, error=f"it cannot be drawn: {reason(error)}"))
                failed += 1
        return failed, drawn

    def _drawings(self, outcome: Outcome) -> dict[str, str]:
        """The files of a map that are drawn after the last picture."""
        return {name: file for name, file in outcome.files.items() if name not in self._written}

    def _checked(self, files: dict[str, str]) -> dict[str, str]:
        """Files that a ledger names, which somebody may have changed.

        Raises:
            PictureError: one lies outside the output folder.
        """
        for file in files.values():
            if self._folder.inside(file) is None:
                raise PictureError(
                    f"{self._folder.path / 'outcomes.jsonl'} names {file!r}, which lies outside the folder"
                )
        return files

    def _decoded(self, outcome: Outcome) -> Picture:
        source = Source(Path(outcome.source), outcome.name, page=outcome.page)
        if stamp(source.path) != outcome.stamp.partition(MATES)[0]:
            raise PictureError("the picture was changed since")
        image = decode(source.path, self.job.background, self.job.range, source.page)
        return Picture(source, np.asarray(image), self.worker.network.prepare.view(*image.size))

    def _explanation(self, outcome: Outcome) -> Explanation:
        """What an outcome was written of."""
        array = self._checked({"array": outcome.files["array"]})["array"]
        shared = {field.name for field in fields(Explanation)} & {field.name for field in fields(Outcome)}
        said = {name: value for name in shared if (value := getattr(outcome, name)) is not None}
        return Explanation(
            map=np.load(self._out / array, allow_pickle=False),
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


def _slug(label: str) -> str:
    """A label fit for a file name: letters of all scripts, digits, and - between."""
    words = re.sub(r"[^\w]+", "-", label).strip("-")
    return words.encode()[:SLUG].decode("utf-8", "ignore").strip("-") or "class"
