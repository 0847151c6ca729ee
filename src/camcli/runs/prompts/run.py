"""The maps of several prompts in each picture, compared: do other words for a thing point elsewhere?"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32

from camcli.base.errors import NothingFoundError, OutputError, PictureError, RequestError
from camcli.engine.explanation import Explanation
from camcli.engine.maps.result import Result
from camcli.images import page_of
from camcli.images.formats import Unread
from camcli.images.manifest import several
from camcli.images.naming import fit_path, stamp
from camcli.images.source import Source
from camcli.images.view import View
from camcli.metrics import similarity
from camcli.models.adapters import templates
from camcli.outputs import style
from camcli.outputs.style import Style
from camcli.runs.job import prompts
from camcli.runs.job.fingerprint import fingerprint
from camcli.runs.job.job import Job
from camcli.runs.prompts import Inquiry
from camcli.runs.prompts.sheet import Heats, Seen, picture_sheet, summary_sheet
from camcli.runs.prompts.summary import (
    MEASURES,
    Matrix,
    Summary,
    compared_pairs,
    least_alike,
    means,
    of_one,
    plain,
    rounded,
    several_texts,
    summary,
    with_nan,
)
from camcli.runs.record import provenance
from camcli.runs.record.failures import GO_ON_LATER, NO_USE_TO_GO_ON, NONE_DROPPED, OUTDATED, STANDS, reason
from camcli.runs.record.ledger import Ledger
from camcli.runs.record.other_jobs import Before, check_others, note_accepted
from camcli.runs.record.outcome import Compared, Said
from camcli.runs.record.preflight import check, check_apart, found
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import paused_stream, stream
from camcli.runs.worker.threads import ahead
from camcli.runs.worker.worker import Worker

STEM = "prompts"
FACTS, LINES = f"{STEM}.json", f"{STEM}.jsonl"
SUFFIXES = {"sheet": f".{STEM}.png", "array": f".{STEM}.npz"}
# What the numbers are, for those who find them in a file.
MEANINGS = {
    **similarity.MEANINGS,
    "deviation": "of what is drawn (values above zero, each map's strongest 1), at the model's input size, pixel by "
    "pixel over the prompts; divided by their number",
    "best": "in how many pictures the prompt's score is the highest, of those in which every prompt has a map",
}


class Sensitivity:
    """The prompts of an inquiry, compared picture by picture, and over all pictures.

    Made in a ``with`` block, which holds the output folder for this run alone. Everything that is wrong with the
    request is found while it is made. Iterating does the work and yields each picture's line in a list of one, which
    is empty if it was done before; then :meth:`finish` sums up. A picture's line is in ``prompts.jsonl``, and its files
    are written, before it is yielded. What is held does not grow with the pictures.

    Args:
        inquiry: what is asked.
        stdin: what the input ``-`` reads; default: the process's own.

    Attributes:
        prompts: all prompts, in order.
        texts: for each of them which of the texts asked about it says.
        worker: the model, resolved.
        total: the number of pictures; None if they come from standard input.
        notes: what the user must know; grows until all is written.
        files: what belongs to no picture alone, relative to the output folder.
        unread: what is in folders and is left out though it is a picture.

    Raises:
        RequestError: anything in the request that cannot be.
        NothingFoundError: there is no picture.
    """

    def __init__(self, inquiry: Inquiry, stdin: BinaryIO | None = None) -> None:
        self.inquiry = inquiry
        self.unread = Unread()
        self.total = check(inquiry.job, self.unread)
        check_apart(inquiry.job)
        self._words = asked_about(inquiry.job)
        worded = templates.filled(self._words, templates.templates(inquiry.paraphrases))
        self.texts, self.prompts = tuple(number for number, _ in worded), tuple(prompt for _, prompt in worded)
        if len(self.prompts) < 2:
            raise RequestError(
                f"{self.prompts[0]!r} is one prompt, and its map has nothing to be compared with",
                "give more: --text puppy; or ways to say it: --paraphrase 'a photo of a {}.'",
            )
        self.job = replace(inquiry.job, text=self.prompts, texts="", target=("all",))
        self._out = Path(self.job.out)
        self._stdin = stdin
        self._id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self.worker = Worker(self.job, None if self.total is None else self._sources, self.total)
        self._check_one_map()
        self._check_rivals()
        self._pairs = compared_pairs(self.texts)
        self._grouped = several_texts(self._pairs)
        self._fingerprint = self._made_of(self.worker.counted)
        self.notes = self.worker.notes
        self.notes += filter(None, [self.unread.words()])
        self.files: list[str] = []
        self._held = ExitStack()

    def __enter__(self) -> Sensitivity:
        with ExitStack() as held:
            ledger = Ledger(
                self._out,
                self._fingerprint,
                Compared,
                file=LINES,
                durable=self.job.durable,
                accepted=lambda: self._before.accepted,
            )
            self._ledger = held.enter_context(ledger)
            self._folder = ledger.folder
            check_others(ledger, self._before, None if self.total is None else self._names)
            accepted, notes = note_accepted(self._before, ledger.met)
            self.notes += notes
            self._facts = {
                "run": self._id,
                "began": provenance.now(),
                **provenance.facts(self.worker),
                **accepted,
                "fingerprint": self._fingerprint,
                "untrained": self.worker.network.untrained,
                "texts": list(self._words),
                "paraphrases": list(templates.templates(self.inquiry.paraphrases)),
                "numbers": MEANINGS,
            }
            provenance.write(self._folder, self._facts, FACTS)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[list[Compared]]:
        sources = found(self.job, self._stdin, self.unread if self.total is None else None)
        explained = paused_stream(self.worker, map(self._item, sources))
        workers = self.worker.workers
        met = failed = standing = 0
        for records in ahead(self._records, explained, workers, 2 * workers):
            met += 1
            failed += any(record.error for record in records)
            standing += any(note in (STANDS, OUTDATED) for record in records for note in record.notes)
            if records:
                self._ledger.append(records)
            yield records
        if not met:
            raise NothingFoundError("standard input named no picture")
        if standing:
            self.notes.append(f"{standing} picture(s) that failed keep the results of an earlier run")
        if self.job.drop_others and failed < met:
            self._ledger.drop_others()
        elif self.job.drop_others:
            self.notes.append(NONE_DROPPED)
        if self.total is None:
            self.notes += filter(None, [self.unread.words()])
        self._facts |= {"pictures": met, "failed": failed, "unread": self.unread.as_dict()}

    def finish(self) -> Summary:
        """Sum up all pictures of this inquiry in the output folder, those of earlier runs too, and write that.

        Raises:
            OutputError: it cannot be written.
            PictureError: there is nothing to sum up.
        """
        whole = summary(self._all, self.prompts, self.texts, self.inquiry.measure, self.inquiry.pictures)
        if not whole.pictures:
            raise PictureError("no picture could be done, so there is nothing to sum up")
        stem = f"{STEM}.untrained" if self.worker.network.untrained else STEM
        name = f"{stem}.png"
        drawn = self._summary_sheet(whole)
        try:
            self._folder.write(name, drawn)
            for other in {f"{STEM}.png", f"{STEM}.untrained.png"} - {name}:
                (self._out / other).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.job.out!r} cannot be written to: {error.strerror}", GO_ON_LATER) from error
        unstable = [
            {"source": one.source, "page": one.page, "agreement": one.agreement, "deviation": one.deviation}
            for one in whole.unstable
        ]
        said = {**asdict(replace(whole, unstable=())), "measure": self.inquiry.measure, "unstable": unstable}
        facts = {**self._facts, "summary": said, "notes": self.notes, "finished": provenance.now()}
        provenance.write(self._folder, facts, FACTS)
        self.files = [LINES, name, FACTS]
        return whole

    # ---- before

    def _sources(self) -> Iterator[Source]:
        return found(self.job, self._stdin)

    def _names(self) -> Iterator[str]:
        return (source.name for source in self._sources())

    def _check_one_map(self) -> None:
        """See that every prompt has one map of its own."""
        explainer = self.worker.explainer
        names = ", ".join(row.name for row in explainer.methods)
        if len(explainer.recipes) > 1:
            raise RequestError(
                f"the maps of one method are compared, and {len(explainer.recipes)} are named: {names}",
                "name one, and give the command again for the others, each with a folder of its own: --out",
            )
        if explainer.recipes[0].classless:
            raise RequestError(
                f"the method {names} asks for no class: its map is the same for every prompt, so there is nothing to "
                "compare",
                "choose one that does, such as gradcam",
            )
        layers = explainer.layers
        if len(layers) > 1 and explainer.fuse == "none":
            raise RequestError(
                f"the maps of one layer are compared, and {len(layers)} are named: {several(layers, len(layers))}",
                "name one, or make one map of them: --fuse mean",
            )

    def _check_rivals(self) -> None:
        """See that no prompt is compared with itself alone, by which none of the pictures could be done whole."""
        score, numbers = self.worker.explainer.outlet.score, set(range(len(self.prompts)))
        if score.against and len(score.versus) == 1 and numbers.intersection(score.versus):
            own = self.prompts[score.versus[0]]
            raise RequestError(
                f"a prompt's score is its margin over {own!r}, which is one of the prompts: it has none over itself",
                "name another one by --versus; or leave it out, and each is compared with the strongest of the others",
            )

    @cached_property
    def _before(self) -> Before:
        """The last run in the output folder; to be read when that is held."""
        return Before(self.job, self.worker.counted, provenance.read(self._out, FACTS), self._made_of)

    def _made_of(self, counted: Mapping[str, str]) -> str:
        """16 hex digits that change with anything that is asked for and could change a picture's line or files."""
        asked = [fingerprint(counted), self.texts]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    # ---- picture by picture

    def _item(self, source: Source) -> Item:
        mark = stamp(source.path)
        return Item(source, stamp=mark, skipped=not self.job.overwrite and self._ledger.done(source.name, mark))

    def _records(self, item: Item) -> list[Compared]:
        """Compares and writes; in a writer thread."""
        if item.skipped:
            return []
        began = time.perf_counter()
        try:
            if item.error:
                raise item.error
            record = self._compared(item)
        except OutputError:
            raise
        except Exception as error:  # whatever it is, it is this picture's, and the others go on
            if isinstance(error, OSError) and error.errno in NO_USE_TO_GO_ON:
                raise OutputError(f"{self.job.out!r} cannot be written to: {error.strerror}", GO_ON_LATER) from error
            stands = self._ledger.stands(item.source.name)
            outdated = self._ledger.changed(item.source.name, item.stamp)
            record = self._record(item, error=reason(error), notes=(OUTDATED if outdated else STANDS,) * stands)
        item.drop()
        return [replace(record, seconds=round(item.seconds + time.perf_counter() - began, 4))]

    def _record(self, item: Item, **values: Any) -> Compared:
        return Compared(
            source=str(item.source.path),
            name=item.source.name,
            page=item.source.page,
            stamp=item.stamp,
            job=self._fingerprint,
            run=self._id,
            untrained=self.worker.network.untrained,
            **values,
        )

    def _compared(self, item: Item) -> Compared:
        picture, explained = item.picture, _explained(item.results)
        assert picture is not None  # without a picture there is no explanation
        view = picture.view
        similarity = _similarity(explained, view, len(self.prompts))
        heats = Heats.of(explained, view)
        one = next(iter(explained.values()))
        within = heats.deviation[view.window(view.input)]
        greatest = rounded(within.max())
        x, y = view.peak(heats.deviation)
        record = self._record(
            item,
            layer=one.layer,
            method=one.method,
            prompts=tuple(self._said(number, similarity, view, result) for number, result in enumerate(item.results)),
            similarity={name: plain(values) for name, values in similarity.items()},
            agreement=means(similarity, self._pairs),
            apart=means(similarity, ~self._pairs & ~np.eye(len(self._pairs), dtype=bool)) if self._grouped else {},
            deviation={"mean": rounded(within.mean()), "greatest": greatest} if len(explained) > 1 else {},
            disagreement=(round(x, 2), round(y, 2)) if greatest > 0 else None,
            notes=item.notes,
            error=self._missing(item.results),
        )
        files, sizes = self._write(Seen.of(record, picture, heats), explained)
        return replace(record, files=files, sizes=sizes)

    def _write(self, seen: Seen, explained: dict[int, Explanation]) -> tuple[dict[str, str], dict[str, int]]:
        """Write a picture's files; what they are called, and how long each is."""
        stem = f"{seen.record.name}.untrained" if seen.record.untrained else seen.record.name
        files = {kind: fit_path(stem, SUFFIXES[kind]) for kind in dict.fromkeys(self.job.save)}
        sizes: dict[str, int] = {}
        for kind, file in files.items():
            content = self._sheet(seen) if kind == "sheet" else self._arrays(seen.heats, explained)
            self._folder.write(file, content)
            sizes[kind] = len(content)
        return files, sizes

    def _sheet(self, seen: Seen) -> bytes:
        record = seen.record
        heading = [self.worker.network.name, f"{record.method} at {record.layer or 'the input'}"]
        return picture_sheet(seen, heading, self._words if self._grouped else (), self._style)

    def _arrays(self, heats: Heats, explained: dict[int, Explanation]) -> bytes:
        """The maps as the method gave them, and mean and deviation, as NumPy's ``.npz``."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            prompts=np.array([self.prompts[number] for number in explained]),
            maps=np.stack([one.map for one in explained.values()]),
            mean=heats.mean,
            deviation=heats.deviation,
        )
        return file.getvalue()

    @property
    def _style(self) -> Style:
        return Style(self.job.colormap, self.job.alpha, "image", untrained=self.worker.network.untrained)

    def _missing(self, results: Sequence[Result]) -> str | None:
        """Which prompts have no map, and why."""
        missing = [
            (prompt, one) for prompt, one in zip(self.prompts, results, strict=True) if isinstance(one, PictureError)
        ]
        if not missing:
            return None
        (prompt, error), more = missing[0], len(missing) - 1
        others = f" (nor {'has' if more == 1 else 'have'} {more} more)" if more else ""
        return f"the prompt {prompt!r} has no map{others}: {reason(error)}"

    def _said(self, number: int, similarity: dict[str, Matrix], view: View, result: Result) -> Said:
        prompt, text = self.prompts[number], self.texts[number]
        if isinstance(result, PictureError):
            return Said(prompt=prompt, text=text, error=reason(result))
        x, y = view.placed(result.placement).peak(style.display(result.map))
        return Said(
            prompt=prompt,
            text=text,
            score=result.score,
            probability=result.probability,
            strongest=style.strongest(result.map),
            peak=(round(x, 2), round(y, 2)),
            agreement=means(similarity, of_one(self._pairs, number)),
            notes=result.notes,
        )

    # ---- all pictures

    def _all(self) -> Iterator[Compared]:
        """Every picture of this inquiry that has a map at all, also of earlier runs."""
        return (record for [record] in self._ledger.pictures() if record.prompts)

    def _summary_sheet(self, whole: Summary) -> bytes:
        pictures = f"{whole.pictures} picture{'s' * (whole.pictures != 1)}"
        layers = "+".join(self.worker.explainer.layers) or "the input"
        heading = [
            f"{self.worker.network.name}, {self.worker.explainer.methods[0].name} at {layers}",
            f"{len(self.prompts)} prompts in {pictures}",
        ]
        unstable = [
            (record, seen, least_alike(with_nan(record.similarity[self.inquiry.measure]), self._pairs))
            for record, seen in self._seen_again(whole.unstable)
        ]
        return summary_sheet(whole, unstable, heading, self.inquiry.measure, self.notes, self._style)

    def _seen_again(self, records: Sequence[Compared]) -> Iterator[tuple[Compared, Seen | None]]:
        """Pictures that were compared, explained once more; nothing where that cannot be."""
        gone: list[str] = []
        for record, item in zip(records, stream(self.worker, map(_again, records)), strict=True):
            explained = {number: one for number, one in enumerate(item.results) if isinstance(one, Explanation)}
            if item.picture is None or not explained:
                gone.append(page_of(record.source, record.page))
                yield record, None
            else:
                yield record, Seen.of(record, item.picture, Heats.of(explained, item.picture.view))
        if gone:
            self.notes.append(
                f"{len(gone)} picture(s) could not be seen again for the summary: {several(gone, len(gone))}"
            )


def asked_about(job: Job) -> tuple[str, ...]:
    """The prompts that a job names, the same for all pictures.

    Raises:
        RequestError: it names none, or each picture's own.
    """
    if Path(job.texts).suffix.lower() in prompts.PICTURE_BY_PICTURE:
        raise RequestError(
            f"the prompts of all pictures are compared, and {job.texts} lists each picture's own",
            "give a plain file with one prompt a line, or --text",
        )
    named = prompts.prompts(job)
    assert named is not None  # or there would be no inquiry
    return named.words


def _explained(results: Sequence[Result]) -> dict[int, Explanation]:
    """The prompts that have a map, by their numbers.

    Raises:
        PictureError: none has.
    """
    explained = {number: one for number, one in enumerate(results) if isinstance(one, Explanation)}
    if not explained:
        trouble = next(one for one in results if isinstance(one, PictureError))
        # One reason for all of them is the picture's own.
        words = trouble.message if len(results) == 1 else f"no prompt has a map; of the first: {trouble.message}"
        raise PictureError(words, trouble.hint)
    return explained


def _similarity(explained: dict[int, Explanation], view: View, count: int) -> dict[str, Matrix]:
    """For each measure the similarity of each two prompts' maps; NaN where it is not defined, or there is no map."""
    maps = np.stack([_flat(one.map) for one in explained.values()])
    placed = view.placed(next(iter(explained.values())).placement)
    whole = placed.whole_input()
    cells = maps[:, *placed.window(maps.shape[1:])]
    pixels = np.stack([whole.onto_picture(map) for map in maps])[:, *view.window(view.input)]
    found = {
        "pearson": similarity.pearson(cells),
        "ssim": similarity.ssim(pixels),
        "overlap": similarity.overlap(cells),
    }
    there = np.ix_([*explained], [*explained])
    alike: dict[str, Matrix] = {name: np.full((count, count), np.nan) for name in MEASURES}
    for name, values in found.items():
        alike[name][there] = values
    return alike


def _flat(map: Float32[np.ndarray, "*c h w"]) -> Float32[np.ndarray, "h w"]:
    """A map as it is; of one with colours the greatest magnitude over them (Simonyan 2013, arXiv:1312.6034)."""
    return map if map.ndim == 2 else np.asarray(np.abs(map).max(0))


def _again(record: Compared) -> Item:
    """A picture that was compared, to be explained once more."""
    source = Source(Path(record.source), record.name, page=record.page)
    changed = stamp(source.path) != record.stamp
    return Item(source, error=PictureError("the picture was changed since") if changed else None)
