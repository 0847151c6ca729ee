"""Ranking of a layer's channels over images: a table, and a contact sheet of their strongest images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import NothingFoundError, PictureError, RequestError
from camcli.base.words import count_of, shorten
from camcli.images.numbers import NumberColumn
from camcli.images.source import PictureSource
from camcli.metrics.statistics import RunningStats, Statistics, TopK
from camcli.models import listing
from camcli.outputs.sheet import make_thumbnail
from camcli.outputs.style import Style
from camcli.runs.channels import ChannelJob, Sort
from camcli.runs.channels.activations import ActivationResult, WatchedLayer, pool_channels, watch_batches
from camcli.runs.channels.sheet import Thumbnail, draw_sheet
from camcli.runs.channels.table import (
    ChannelStats,
    compute_channel_stats,
    encode_table,
    format_picture_count,
    note_correlation,
    order_channels,
)
from camcli.runs.job.fingerprint import compute_fingerprint
from camcli.runs.job.folder_name import name_folder
from camcli.runs.job.job import Job
from camcli.runs.layers import PLACEHOLDER_PROMPTS
from camcli.runs.record import provenance
from camcli.runs.record.failures import format_error, make_write_error
from camcli.runs.record.folder import Folder
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.other_jobs import HIDDEN_DIFFERENCE, PreviousRun, check_recorded_options
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.own_folder import choose_folder
from camcli.runs.record.plan import Plan, make_plan
from camcli.runs.record.preflight import refuse_store
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import decode_batches
from camcli.runs.worker.worker import Worker

STEM = "channels"
FACTS_FILE = f"{STEM}.json"
NEGATIVE_NOTE = (
    "the layer has negative values: `active` is the share of images whose pooled value is above zero, and negative "
    "values are not drawn"
)


class ChannelRun:
    """Run that ranks the channels of a layer over images.

    An invalid request raises on construction. Iterating does the work and yields each image's outcome in a list of
    one; then :meth:`write` writes ``channels.csv``, ``channels.png`` and ``channels.json`` and returns the channels
    that are shown. Nothing is written before. In a ``with`` block an existing output folder is locked for this run from
    the start, else while it is written to. Memory does not grow with the images: for each channel a few numbers and
    the names of its strongest images are kept.

    Args:
        channel_job: the job.

    Attributes:
        worker: the resolved job.
        layer: path of the layer.
        values: numbers that channels are correlated with, if given.
        total: number of images; None if they come from standard input.
        notes: notes for the user; may grow until all is written.
        files: files written, relative to the output folder.
        unread: counts of images in folders that are left out.

    Raises:
        RequestError: the request is invalid.
        NothingFoundError: there is no image.
    """

    def __init__(self, channel_job: ChannelJob) -> None:
        self.channel_job = channel_job
        refuse_store(channel_job.job, "channels")
        self._inputs = Inputs(channel_job.job)
        self.total, self.unread = self._inputs.total, self._inputs.unread
        self.values = _read_values(channel_job, self._inputs)
        job = channel_job.job
        if not job.text and listing.resolve(job.model)[0] == "open_clip":
            # The image tower's activations do not depend on the prompts, but some are needed to build the model.
            job = replace(job, text=PLACEHOLDER_PROMPTS)
        check_recorded_options(job, FACTS_FILE, FACTS_FILE)
        self.worker = Worker(job)
        self._watched_layer = WatchedLayer.from_worker(self.worker)
        self.layer = self._watched_layer.name
        self.out, folder_notes = self._choose_out()
        self._check_other_rankings()
        channels = self._watched_layer.channels
        self._running_stats, self._top_pictures = (
            RunningStats(channels),
            TopK[PictureSource](channels, channel_job.pictures),
        )
        self._has_negative = False
        self._failed = 0
        self.notes = self.worker.notes
        self.notes += folder_notes
        self.notes += self._inputs.note_unread()
        if self.values and self.total is not None and (unused := self.values.find_unused(self._inputs.iter_paths())):
            self.notes.append(
                f"{self.values.file} lists {len(unused)} that are not among the images: {shorten(unused, len(unused))}"
            )
        self.files: list[str] = []
        self._folder: Folder | None = None

    def __enter__(self) -> ChannelRun:
        if self.out.exists():
            self._folder = Folder(self.out, self.channel_job.job.durable)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def __iter__(self) -> Iterator[list[Outcome]]:
        batches = decode_batches(self.worker, map(Item, self._inputs.stream()))
        if self.values:
            batches = map(partial(_fail_without_value, self.values), batches)
        watched = watch_batches(self.worker, self._watched_layer, batches, self._pool)
        # Not a nested loop: its variable would keep a batch alive while the network runs on the next.
        for item in chain.from_iterable(map(self._add_batch, watched)):
            self._failed += item.error is not None
            yield [_make_outcome(item, self.worker.fingerprint)]
        if not self._running_stats.count + self._failed:
            raise NothingFoundError("standard input named no image")
        self.notes += self._inputs.note_unread_late()
        if not self._running_stats.count:
            raise PictureError("no image could be processed, so there is nothing to rank")

    def write(self) -> list[ChannelStats]:
        """Write the files and return the channels that are shown, in order.

        Raises:
            RequestError: another run writes to the folder, or it holds another ranking by now.
            OutputError: the files cannot be written.
        """
        with nullcontext(self._folder) if self._folder else Folder(self.out, self.channel_job.job.durable) as folder:
            self._check_other_rankings()
            return self._write_files(folder)

    def _write_files(self, folder: Folder) -> list[ChannelStats]:
        statistics = self._running_stats.compute()
        if self._has_negative:
            self.notes.append(NEGATIVE_NOTE)
        self.notes += note_correlation(statistics, self.values)
        order = order_channels(statistics, self.sort)
        wanted = set(self.channel_job.channels)
        shown = [number for number in order if not wanted or number in wanted][: self.channel_job.max_shown]
        untrained = self.worker.network.untrained

        def channel_stats(channel: int) -> ChannelStats:
            return compute_channel_stats(channel, statistics, self._top_pictures, untrained)

        ranked = [*map(channel_stats, shown)]
        stem = f"{STEM}.untrained" if untrained else STEM
        table = encode_table(channel_stats, len(statistics.mean), self.channel_job.pictures)
        content = {f"{stem}.csv": table, f"{stem}.png": self._draw_sheet(ranked, statistics)}
        try:
            for name, data in content.items():
                folder.write(name, data)
            for name in {f"{STEM}{tag}.{kind}" for tag in ("", ".untrained") for kind in ("csv", "png")} - {*content}:
                (self.out / name).unlink(missing_ok=True)
        except OSError as error:
            raise make_write_error(str(self.out), error) from error
        provenance.write(folder, self._collect_facts(statistics), FACTS_FILE)
        self.files = [*content, FACTS_FILE]
        return ranked

    # ---- before the first image

    def _choose_out(self) -> tuple[Path, list[str]]:
        """Return the output folder, with notes on it: the one given, or the ranking's own."""
        asked, job = self.channel_job, self.channel_job.job
        if job.out:
            return Path(job.out), []
        more = [f"channel{number}" for number in asked.channels[:3]]
        more += [Path(asked.values).stem] if asked.values else []
        return choose_folder(
            name_folder(replace(job, target=Job().target), [self.layer], [], STEM, more), self._compare
        )

    def _compare(self, folder: Path) -> PreviousRun:
        """Return the last ranking in a folder, compared with this one."""
        record = provenance.read(folder, FACTS_FILE)
        return PreviousRun(self.worker.job, self.worker.fingerprint_parts, record, self._compute_fingerprint)

    def _compute_fingerprint(self, parts: Mapping[str, str]) -> str:
        """Return 16 hex digits that change with anything in the request except the images and what is shown."""
        shown = {"top": 0, "sort": None}
        request: dict[str, Any] = {**asdict(self.channel_job), **shown, "job": compute_fingerprint(parts)}
        if self.values:
            request["values"] = [hashlib.sha256(self.values.file.read_bytes()).hexdigest(), self.values.column]
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]

    def _check_other_rankings(self) -> None:
        """Check that no other ranking would be replaced, unless with ``overwrite``."""
        before = self._compare(self.out)
        if before.record and not before.is_own and not self.channel_job.job.overwrite:
            unlike = before.describe_difference()
            unlike = "with other --values or --pictures" if unlike == HIDDEN_DIFFERENCE else unlike
            raise RequestError(
                f"{str(self.out)!r} contains another ranking of channels: {unlike}",
                "choose another folder with --out, or replace it with --overwrite; without --out each ranking has a "
                "folder of its own",
            )

    # ---- image by image

    def _add_batch(self, batch: Sequence[tuple[Item, ActivationResult]]) -> list[Item]:
        """Add a batch's pooled activations and return its images; those without activations get an error."""
        rows: list[np.ndarray] = []
        sources: list[PictureSource] = []
        for item, row in batch:
            if isinstance(row, PictureError):
                item.error = row
            elif row is not None:
                rows.append(row)
                sources.append(item.source)
        if rows:
            values = np.array([self.values(source.path) for source in sources]) if self.values else None
            self._running_stats.add(np.stack(rows), values)
            self._top_pictures.add(np.stack(rows), sources)
        return [item for item, _ in batch]

    def _pool(self, cells: Float[Tensor, "n c h w"], items: Sequence[Item]) -> list[np.ndarray]:
        if bool((cells < 0).any()):  # only ever set, so several threads may do it
            self._has_negative = True
        views = [item.picture.view.placed(self._watched_layer.placement) for item in items if item.picture is not None]
        return list(pool_channels(cells, views))

    # ---- output files

    @property
    def sort(self) -> Sort:
        """Statistic by which channels are sorted."""
        return self.channel_job.sort or ("correlation" if self.values else "mean")

    def _draw_sheet(self, ranked: Sequence[ChannelStats], statistics: Statistics) -> bytes:
        """Draw ``channels.png``, for which the images are decoded and run through the network again."""
        thumbnails: dict[PictureSource, Thumbnail] = {}
        maps: dict[tuple[int, PictureSource], np.ndarray] = {}
        wanted: dict[PictureSource, list[int]] = {source: [] for one in ranked for source, _ in one.strongest}
        for one in ranked:
            for source, _ in one.strongest:
                wanted[source].append(one.channel)

        def select_channels(cells: Tensor, items: Sequence[Item]) -> list[np.ndarray]:
            return [cells[row, wanted[item.source]].numpy(force=True) for row, item in enumerate(items)]

        batches = decode_batches(self.worker, map(Item, wanted))
        for batch in watch_batches(self.worker, self._watched_layer, batches, select_channels):
            for item, drawn in batch:
                if item.picture is not None and isinstance(drawn, np.ndarray):
                    thumbnails[item.source] = make_thumbnail(
                        item.picture.pixels, item.picture.view.placed(self._watched_layer.placement)
                    )
                    maps |= {
                        (channel, item.source): map for channel, map in zip(wanted[item.source], drawn, strict=True)
                    }
        if gone := [source.display_name for source in wanted if source not in thumbnails]:
            self.notes.append(
                f"{count_of(len(gone), 'image')} could not be read again for the contact sheet: "
                f"{shorten(gone, len(gone))}"
            )
        job, network = self.channel_job.job, self.worker.network
        style = Style(job.colormap, job.alpha, "run", untrained=network.untrained)
        order = f"|r| with {self.values.column}" if self.sort == "correlation" and self.values else self.sort
        channels, grid = len(statistics.mean), self._watched_layer.layout.grid
        heading = [
            f"{network.name}, {channels} channels on {grid[0]} x {grid[1]} cells",
            f"{format_picture_count(statistics.count)}; shown: {len(ranked)} of the {channels} channels, by {order}",
        ]
        return draw_sheet(
            ranked, thumbnails, maps, self.layer, heading, self.values, self.notes, style, self.channel_job.pictures
        )

    def _collect_facts(self, statistics: Statistics) -> dict[str, Any]:
        facts = provenance.collect_facts(self.worker)
        return {
            **facts,
            "fingerprint": self._compute_fingerprint(self.worker.fingerprint_parts),
            "untrained": self.worker.network.untrained,
            "layer": self.layer,
            "layout": str(self._watched_layer.layout),
            "sort": self.sort,
            "values": {"file": str(self.values.file), "column": self.values.column} if self.values else None,
            "pictures": statistics.count,
            "failed": self._failed,
            "unread": self.unread.as_dict(),
            "pooled": "mean over the cells that show any of the image",
            "std": "divided by the number of images",
            "active": "share of images whose pooled activation is above zero",
            "notes": self.notes,
            "finished": provenance.format_now(),
        }


def _read_values(channel_job: ChannelJob, inputs: Inputs) -> NumberColumn | None:
    """Return the number of each image that channels are correlated with, if any are asked for."""
    if not channel_job.values:
        return None
    values = NumberColumn(channel_job.values, [Path(given) for given in channel_job.job.inputs if Path(given).is_dir()])
    if inputs.total is not None:
        values.check(inputs.iter_paths())
    return values


def _make_outcome(item: Item, job: str) -> Outcome:
    """Return an image's outcome, for counting and messages."""
    return Outcome(
        source=item.source.location,
        name=item.source.name,
        page=item.source.page,
        stamp="",
        job=job,
        run="",
        error=format_error(item.error) if item.error else None,
    )


def _fail_without_value(values: NumberColumn, batch: list[Item]) -> list[Item]:
    """Give images without a value an error."""
    for item in batch:
        if item.input is not None:
            try:
                values(item.source.path)
            except PictureError as error:
                item.error, item.input = error, None
    return batch


def plan_run(run: ChannelRun) -> Plan:
    """Return what a run would do, and how long it would take; nothing is written."""
    return make_plan(run.worker, run._inputs, run.out)
