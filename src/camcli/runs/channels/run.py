"""The channels of one layer ranked over pictures: a table, and a contact sheet of the pictures that drive them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import NothingFoundError, PictureError, RequestError
from camcli.base.words import several
from camcli.images.numbers import Values
from camcli.images.source import Source
from camcli.metrics.statistics import Greatest, Moments, Statistics
from camcli.models import listing
from camcli.outputs.sheet import small
from camcli.outputs.style import Style
from camcli.runs.channels import Contest, Sort
from camcli.runs.channels.activations import Said, WatchedLayer, pooled, watch_batches
from camcli.runs.channels.sheet import Small, draw_sheet
from camcli.runs.channels.table import (
    Ranked,
    count_pictures,
    note_correlation,
    order_channels,
    rank_channel,
    write_table,
)
from camcli.runs.layers import ANY_PROMPTS
from camcli.runs.record import provenance
from camcli.runs.record.failures import cannot_write, reason
from camcli.runs.record.folder import Folder
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.outcome import Outcome
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import decoded_batches
from camcli.runs.worker.worker import Worker

STEM = "channels"
FACTS = f"{STEM}.json"
NEGATIVE = (
    "the layer has values below zero, so zero is no threshold of its own: `active` is the share of pictures whose "
    "pooled value is above it, and what is below it is not drawn"
)


class Ranking:
    """The channels of a layer, ranked over pictures.

    Everything that is wrong with the request is found while it is made. Iterating does the work and yields each
    picture's outcome in a list of one; then :meth:`write` writes ``channels.csv``, ``channels.png`` and
    ``channels.json`` and gives the channels that are shown. Nothing is written before; in a ``with`` block an output
    folder that is there is held for this run alone all the while, else from then on. What is held in memory does not
    grow with the pictures: for each channel a few numbers and the names of its strongest pictures.

    Args:
        contest: what is asked.
        stdin: what the input ``-`` reads; default: the process's own.

    Attributes:
        worker: the model, resolved.
        layer: whose channels they are.
        values: the numbers that channels are compared with, if there are some.
        total: the number of pictures; None if they come from standard input.
        notes: what the user must know; grows until all is written.
        files: what was written, relative to the output folder.
        unread: what is in folders and is left out though it is a picture.

    Raises:
        RequestError: anything in the request that cannot be.
        NothingFoundError: there is no picture.
    """

    def __init__(self, contest: Contest, stdin: BinaryIO | None = None) -> None:
        self.contest = contest
        self._out = Path(contest.job.out)
        self._inputs = Inputs(contest.job, stdin)
        self.total, self.unread = self._inputs.total, self._inputs.unread
        self.values = self._read_values()
        job = contest.job
        if not job.text and listing.resolve(job.model)[0] == "open_clip":
            # What the image tower says does not depend on the prompts, but some are needed to build one.
            job = replace(job, text=ANY_PROMPTS)
        self.worker = Worker(job)
        self._watched = WatchedLayer.of(self.worker)
        self.layer = self._watched.name
        self._fingerprint = self._asked()
        self._check_other_contests()
        channels = self._watched.channels
        self._moments, self._greatest = Moments(channels), Greatest[Source](channels, contest.pictures)
        self._negative = False
        self._failed = 0
        self.notes = self.worker.notes
        self.notes += self._inputs.notes()
        if self.values and self.total is not None and (unused := self.values.unused(self._inputs.paths())):
            self.notes.append(
                f"{self.values.file} lists {len(unused)} that are not among the pictures: "
                f"{several(unused, len(unused))}"
            )
        self.files: list[str] = []
        self._folder: Folder | None = None

    def __enter__(self) -> Ranking:
        if self._out.exists():
            self._folder = Folder(self._out, self.contest.job.durable)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def __iter__(self) -> Iterator[list[Outcome]]:
        batches = decoded_batches(self.worker, map(Item, self._inputs.stream()))
        if self.values:
            batches = map(partial(_fail_unvalued, self.values), batches)
        watched = watch_batches(self.worker, self._watched, batches, self._pooled)
        # Not a loop in a loop: its variable would hold on to a batch while the network sees the next.
        for item in chain.from_iterable(map(self._taken, watched)):
            self._failed += item.error is not None
            yield [self._outcome(item)]
        if not self._moments.count + self._failed:
            raise NothingFoundError("standard input named no picture")
        self.notes += self._inputs.late_notes()
        if not self._moments.count:
            raise PictureError("no picture could be done, so there is nothing to rank")

    def write(self) -> list[Ranked]:
        """Write the files; the channels that are shown, in order.

        Raises:
            RequestError: another run writes to the folder, or its ranking is another by now.
            OutputError: they cannot be written.
        """
        with nullcontext(self._folder) if self._folder else Folder(self._out, self.contest.job.durable) as folder:
            self._check_other_contests()
            return self._written(folder)

    def _written(self, folder: Folder) -> list[Ranked]:
        statistics = self._moments.statistics()
        if self._negative:
            self.notes.append(NEGATIVE)
        self.notes += note_correlation(statistics, self.values)
        order = order_channels(statistics, self.sort)
        wanted = set(self.contest.channels)
        shown = [number for number in order if not wanted or number in wanted][: self.contest.shown]
        untrained = self.worker.network.untrained

        def rank(channel: int) -> Ranked:
            return rank_channel(channel, statistics, self._greatest, untrained)

        ranked = [*map(rank, shown)]
        stem = f"{STEM}.untrained" if untrained else STEM
        table = write_table(rank, len(statistics.mean), self.contest.pictures)
        content = {f"{stem}.csv": table, f"{stem}.png": self._sheet(ranked, statistics)}
        try:
            for name, data in content.items():
                folder.write(name, data)
            for name in {f"{STEM}{tag}.{kind}" for tag in ("", ".untrained") for kind in ("csv", "png")} - {*content}:
                (self._out / name).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.contest.job.out, error) from error
        provenance.write(folder, self._facts(statistics), FACTS)
        self.files = [*content, FACTS]
        return ranked

    # ---- before

    def _read_values(self) -> Values | None:
        if not self.contest.values:
            return None
        inputs = self.contest.job.inputs
        values = Values(self.contest.values, [Path(given) for given in inputs if Path(given).is_dir()])
        if self.total is not None:
            values.check(self._inputs.paths())
        return values

    def _asked(self) -> str:
        """16 hex digits that change with anything that is asked for, but for the pictures."""
        asked: dict[str, Any] = {**asdict(self.contest), "job": self.worker.fingerprint}
        if self.values:
            asked["values"] = [hashlib.sha256(self.values.file.read_bytes()).hexdigest(), self.values.column]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def _check_other_contests(self) -> None:
        """A ranking of something else is not replaced unless that was asked for."""
        before = provenance.read(self._out, FACTS)
        if before and before.get("fingerprint") != self._fingerprint and not self.contest.job.overwrite:
            model = before.get("model")
            name = model.get("name") if isinstance(model, dict) else None
            raise RequestError(
                f"{self.contest.job.out!r} holds another ranking of channels: of {before.get('layer')!r} of {name!r}, "
                "or asked in other words",
                "choose another folder with --out, or replace it with --overwrite",
            )

    # ---- picture by picture

    def _taken(self, batch: Sequence[tuple[Item, Said]]) -> list[Item]:
        """A batch's pictures, with what the channels say of them taken in; if that is nothing, they have an error."""
        rows: list[np.ndarray] = []
        sources: list[Source] = []
        for item, row in batch:
            if isinstance(row, PictureError):
                item.error = row
            elif row is not None:
                rows.append(row)
                sources.append(item.source)
        if rows:
            beside = np.array([self.values(source.path) for source in sources]) if self.values else None
            self._moments.add(np.stack(rows), beside)
            self._greatest.add(np.stack(rows), sources)
        return [item for item, _ in batch]

    def _pooled(self, cells: Float[Tensor, "n c h w"], items: Sequence[Item]) -> list[np.ndarray]:
        if bool((cells < 0).any()):  # set, and never taken back: several threads may do so
            self._negative = True
        views = [item.picture.view.placed(self._watched.placement) for item in items if item.picture is not None]
        return list(pooled(cells, views))

    def _outcome(self, item: Item) -> Outcome:
        return Outcome(
            source=str(item.source.path),
            name=item.source.name,
            page=item.source.page,
            stamp="",
            job=self.worker.fingerprint,
            run="",
            error=reason(item.error) if item.error else None,
        )

    # ---- what is written

    @property
    def sort(self) -> Sort:
        """By which statistic channels are sorted."""
        return self.contest.sort or ("correlation" if self.values else "mean")

    def _sheet(self, ranked: Sequence[Ranked], statistics: Statistics) -> bytes:
        """``channels.png``, for which the pictures are decoded and seen once more."""
        seen: dict[Source, Small] = {}
        maps: dict[tuple[int, Source], np.ndarray] = {}
        wanted: dict[Source, list[int]] = {source: [] for one in ranked for source, _ in one.strongest}
        for one in ranked:
            for source, _ in one.strongest:
                wanted[source].append(one.channel)

        def own(cells: Tensor, items: Sequence[Item]) -> list[np.ndarray]:
            return [cells[row, wanted[item.source]].numpy(force=True) for row, item in enumerate(items)]

        batches = decoded_batches(self.worker, map(Item, wanted))
        for batch in watch_batches(self.worker, self._watched, batches, own):
            for item, drawn in batch:
                if item.picture is not None and isinstance(drawn, np.ndarray):
                    seen[item.source] = small(item.picture.pixels, item.picture.view.placed(self._watched.placement))
                    maps |= {
                        (channel, item.source): map for channel, map in zip(wanted[item.source], drawn, strict=True)
                    }
        if gone := [source.shown for source in wanted if source not in seen]:
            self.notes.append(
                f"{len(gone)} picture(s) could not be read again for the contact sheet: {several(gone, len(gone))}"
            )
        job, network = self.contest.job, self.worker.network
        style = Style(job.colormap, job.alpha, "run", untrained=network.untrained)
        what = f"|r| with {self.values.column}" if self.sort == "correlation" and self.values else self.sort
        channels, grid = len(statistics.mean), self._watched.layout.grid
        heading = [
            f"{network.name}, {channels} channels on {grid[0]} x {grid[1]} cells",
            f"{count_pictures(statistics.count)}; shown: {len(ranked)} of the {channels} channels, by {what}",
        ]
        return draw_sheet(
            ranked, seen, maps, self.layer, heading, self.values, self.notes, style, self.contest.pictures
        )

    def _facts(self, statistics: Statistics) -> dict[str, Any]:
        facts = provenance.facts(self.worker)
        return {
            **facts,
            "fingerprint": self._fingerprint,
            "untrained": self.worker.network.untrained,
            "layer": self.layer,
            "layout": str(self._watched.layout),
            "sort": self.sort,
            "values": {"file": str(self.values.file), "column": self.values.column} if self.values else None,
            "pictures": statistics.count,
            "failed": self._failed,
            "unread": self.unread.as_dict(),
            "pooled": "mean over the cells that show any of the picture",
            "std": "divided by the number of pictures",
            "active": "share of pictures whose pooled activation is above zero",
            "notes": self.notes,
            "finished": provenance.now(),
        }


def _fail_unvalued(values: Values, batch: list[Item]) -> list[Item]:
    """Give pictures without a value an error."""
    for item in batch:
        if item.input is not None:
            try:
                values(item.source.path)
            except PictureError as error:
                item.error, item.input = error, None
    return batch
