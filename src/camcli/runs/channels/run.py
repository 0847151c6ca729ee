"""The channels of one layer ranked over pictures: a table, and a contact sheet of the pictures that drive them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from camcli.base.errors import NothingFoundError, OutputError, PictureError, RequestError
from camcli.engine import devices
from camcli.engine.explainer import Explainer
from camcli.engine.hooks.watch import output_of
from camcli.engine.layers.layout import canonical
from camcli.images import page_of
from camcli.images.formats import Unread
from camcli.images.manifest import several
from camcli.images.numbers import Values
from camcli.images.source import Source
from camcli.images.view import View
from camcli.metrics.statistics import Greatest, Moments, Statistics, chance
from camcli.models import listing
from camcli.outputs import encode
from camcli.outputs.sheet import Row, Tile, sheet, small
from camcli.outputs.style import Style
from camcli.runs.channels import Contest
from camcli.runs.layers import ANY_PROMPTS
from camcli.runs.record import provenance
from camcli.runs.record.folder import Folder
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.preflight import check, found
from camcli.runs.worker.item import Item, first_line
from camcli.runs.worker.pipeline import decoded_batches, explain_apart, spread_batches
from camcli.runs.worker.worker import Worker

# From what a layer says of pictures (n, c, h, w) to what is kept of it, picture by picture.
Kept = Callable[[Tensor, Sequence[Item]], Sequence[np.ndarray]]
# That of one picture, or why there is none; None of a picture that cannot be seen.
Said = np.ndarray | PictureError | None

STEM = "channels"
FACTS = f"{STEM}.json"
NEGATIVE = (
    "the layer has values below zero, so zero is no threshold of its own: `active` is the share of pictures whose "
    "pooled value is above it, and what is below it is not drawn"
)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One channel over all pictures.

    The pooled activation of a picture is the mean over the cells of the layer's grid that show any of it; cells of
    padding alone are left out, as ``--crop none`` has them. Without padding it is what global average pooling gives.

    Attributes:
        channel: its number in the layer, from 0 on.
        mean, max, std: of the pooled activation over the pictures; ``std`` divides by their number.
        active: the share of pictures whose pooled activation is above zero: of a rectified layer, those in which any
            cell is.
        pictures: over how many all this is, the correlation too.
        correlation: Pearson's r of the pooled activation with the values; None without values, or where it is
            undefined because one of the two is constant.
        strongest: the pictures of the greatest pooled activation, with it, the greatest first; of equal ones those that
            come first. A picture in which it is zero counts for nothing.
        untrained: the weights are random, and none of it means anything.
    """

    channel: int
    mean: float
    max: float
    std: float
    active: float
    pictures: int
    correlation: float | None
    strongest: tuple[tuple[Source, float], ...]
    untrained: bool = False

    def as_line(self) -> bytes:
        """It as one JSON line, ended by a newline."""
        line = {name: getattr(self, name) for name in self.__dataclass_fields__}
        line["strongest"] = [
            {"source": str(source.path), "page": source.page, "value": value} for source, value in self.strongest
        ]
        return json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


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
        self._stdin = stdin
        self._out = Path(contest.job.out)
        self.unread = Unread()
        self.total = check(contest.job, self.unread)
        self.values = self._read_values()
        job = contest.job
        if not job.text and listing.resolve(job.model)[0] == "open_clip":
            # What the image tower says does not depend on the prompts, but some are needed to build one.
            job = replace(job, text=ANY_PROMPTS)
        self.worker = Worker(job)
        self.layer = self._one_layer()
        self._layout = self.worker.explainer.layouts[self.layer]
        # A layer that runs once ends the forward; of several runs the last is known at the end only.
        self._turn = contest.job.call or int(self.worker.explainer.runs[self.layer] == 1)
        self._fingerprint = self._asked()
        self._check_other_contests()
        located = self.worker.explainer.located.get(self.layer)
        self._placement = located.placement if located else None
        channels = self.worker.explainer.channels[self.layer]
        self._moments, self._greatest = Moments(channels), Greatest[Source](channels, contest.pictures)
        self._negative = False
        self._failed = 0
        self.notes = self.worker.notes
        self.notes += filter(None, [self.unread.words()])
        if self.values and self.total is not None and (unused := self.values.unused(self._paths())):
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
        sources = found(self.contest.job, self._stdin, self.unread if self.total is None else None)
        batches = map(self._valued, decoded_batches(self.worker, map(Item, sources)))
        # Not a loop in a loop: its variable would hold on to a batch while the network sees the next.
        for item in chain.from_iterable(map(self._taken, self._said(batches, self._pooled))):
            self._failed += item.error is not None
            yield [self._outcome(item)]
        if not self._moments.count + self._failed:
            raise NothingFoundError("standard input named no picture")
        if self.total is None:
            self.notes += filter(None, [self.unread.words()])
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
        self.notes += self._about_correlation(statistics)
        order = self._order(statistics)
        wanted = set(self.contest.channels)
        shown = [number for number in order if not wanted or number in wanted][: self.contest.shown]
        ranked = [self._ranked(number, statistics) for number in shown]
        stem = f"{STEM}.untrained" if self.worker.network.untrained else STEM
        content = {f"{stem}.csv": self._table(statistics), f"{stem}.png": self._sheet(ranked, statistics)}
        try:
            for name, data in content.items():
                folder.write(name, data)
            for name in {f"{STEM}{tag}.{kind}" for tag in ("", ".untrained") for kind in ("csv", "png")} - {*content}:
                (self._out / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.contest.job.out!r} cannot be written to: {error.strerror}") from error
        provenance.write(folder, self._facts(statistics), FACTS)
        self.files = [*content, FACTS]
        return ranked

    # ---- before

    def _paths(self) -> Iterator[Path]:
        return (source.path for source in found(self.contest.job))

    def _read_values(self) -> Values | None:
        if not self.contest.values:
            return None
        inputs = self.contest.job.inputs
        values = Values(self.contest.values, [Path(given) for given in inputs if Path(given).is_dir()])
        if self.total is not None:
            values.check(self._paths())
        return values

    def _one_layer(self) -> str:
        layers = self.worker.explainer.layers
        if len(layers) > 1:
            raise RequestError(
                f"the channels of one layer are ranked, and {len(layers)} are named: {several(layers, len(layers))}",
                "name one, and give the command again for the others",
            )
        return layers[0]

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

    def _valued(self, batch: list[Item]) -> list[Item]:
        """A batch in which pictures without a value have an error, if there are values."""
        for item in batch:
            if self.values and item.input is not None:
                try:
                    self.values(item.source.path)
                except PictureError as error:
                    item.error, item.input = error, None
        return batch

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

    def _said(self, batches: Iterable[list[Item]], kept: Kept) -> Iterator[list[tuple[Item, Said]]]:
        """Batch by batch each picture, with what is kept of what the layer says of it; None where it cannot be seen."""
        return spread_batches(self.worker, lambda explainer, batch: self._said_of(explainer, batch, kept), batches)

    def _said_of(self, explainer: Explainer, batch: Sequence[Item], kept: Kept) -> list[tuple[Item, Said]]:
        ready = [item for item in batch if item.input is not None]
        found = explain_apart(
            self.worker,
            explainer,
            ready,
            lambda some: self._forward(explainer, some, kept),
            lambda item: self._alone(explainer, item, kept),
        )
        said = iter(found)
        pairs = [(item, None if item.input is None else next(said)) for item in batch]
        for item in ready:
            item.input = None
        return pairs

    def _alone(self, explainer: Explainer, item: Item, kept: Kept) -> Said:
        try:
            return self._forward(explainer, [item], kept)[0]
        except RequestError:
            raise
        except Exception as error:  # whatever it is, it is this picture's, and the others go on
            return PictureError(f"the network fails on this picture: {first_line(error)}")

    def _forward(self, explainer: Explainer, items: Sequence[Item], kept: Kept) -> list[Said]:
        module = explainer.module
        images = devices.batch_for(explainer.device, [item.input for item in items if item.input is not None])
        place = explainer.places.get(self.layer, 0)
        with self.worker.computing():
            said = output_of(module, self.layer, devices.copied_to(module, images), self._turn, place)
        cells = canonical(said, self._layout).float()
        if len(cells) != len(items):
            raise ValueError(f"the layer {self.layer!r} gives {len(cells)} outputs for {len(items)} pictures")
        sound = cells.isfinite().flatten(1).all(1).tolist()
        broken = PictureError(
            f"the layer {self.layer!r} gives NaN or infinite values for this image",
            "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
        )
        return [own if good else broken for own, good in zip(kept(cells, items), sound, strict=True)]

    def _pooled(self, cells: Float[Tensor, "n c h w"], items: Sequence[Item]) -> list[np.ndarray]:
        if bool((cells < 0).any()):  # set, and never taken back: several threads may do so
            self._negative = True
        views = [item.picture.view.placed(self._placement) for item in items if item.picture is not None]
        return list(pooled(cells, views))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _outcome(self, item: Item) -> Outcome:
        error = item.error
        return Outcome(
            source=str(item.source.path),
            name=item.source.name,
            page=item.source.page,
            stamp="",
            job=self.worker.fingerprint,
            run="",
            error=None if error is None else f"{error.message} ({error.hint})" if error.hint else error.message,
        )

    # ---- what is written

    def _order(self, statistics: Statistics) -> list[int]:
        """The channels, first those of the greatest statistic (of the greatest |r|), of equal ones the lower number."""
        keys = getattr(statistics, self.sort)
        strength = np.nan_to_num(np.abs(keys), nan=-np.inf) if self.sort == "correlation" else keys
        order: list[int] = np.argsort(-strength, kind="stable").tolist()
        return order

    @property
    def sort(self) -> str:
        """By which statistic channels are sorted."""
        return self.contest.sort or ("correlation" if self.values else "mean")

    def _ranked(self, channel: int, statistics: Statistics) -> Ranked:
        r = float(statistics.correlation[channel])
        return Ranked(
            channel,
            float(statistics.mean[channel]),
            float(statistics.max[channel]),
            float(statistics.std[channel]),
            float(statistics.active[channel]),
            statistics.count,
            None if math.isnan(r) else r,
            tuple(self._greatest.of(channel)),
            self.worker.network.untrained,
        )

    def _about_correlation(self, statistics: Statistics) -> Iterator[str]:
        if self.values is None:
            return
        undefined = int(np.isnan(statistics.correlation).sum())
        channels = len(statistics.correlation)
        if undefined == channels:
            yield (
                f"no correlation with {self.values.column!r} is defined: over {_pictures(statistics.count)} it, or "
                "every channel, is constant"
            )
            return
        luck = chance(channels - undefined, statistics.count)
        reached = f"reaches |r| of about {luck:.2f}" if luck is not None else "correlates with anything"
        yield (
            f"by chance alone, the best of {channels - undefined} channels over {_pictures(statistics.count)} "
            f"{reached}: test what is found on other pictures"
        )

    def _table(self, statistics: Statistics) -> bytes:
        """``channels.csv``: every channel; what is undefined is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        ranks = range(1, self.contest.pictures + 1)
        names = [name for rank in ranks for name in (f"picture_{rank}", f"value_{rank}")]
        writer.writerow(["channel", "mean", "max", "std", "active", "pictures", "correlation", *names])
        for channel in range(len(statistics.mean)):
            one = self._ranked(channel, statistics)
            strongest = [cell for source, value in one.strongest for cell in (source.shown, repr(value))]
            numbers = map(repr, (one.mean, one.max, one.std, one.active, one.pictures))
            r = "" if one.correlation is None else repr(one.correlation)
            writer.writerow([channel, *numbers, r, *strongest, *[""] * (len(names) - len(strongest))])
        return text.getvalue().encode("utf-8", "backslashreplace")

    def _sheet(self, ranked: Sequence[Ranked], statistics: Statistics) -> bytes:
        """``channels.png``: a row for each channel shown, with its strongest pictures, decoded and seen once more."""
        seen: dict[Source, tuple[np.ndarray, View]] = {}
        maps: dict[tuple[int, Source], np.ndarray] = {}
        wanted: dict[Source, list[int]] = {source: [] for one in ranked for source, _ in one.strongest}
        for one in ranked:
            for source, _ in one.strongest:
                wanted[source].append(one.channel)

        def own(cells: Tensor, items: Sequence[Item]) -> list[np.ndarray]:
            return [cells[row, wanted[item.source]].numpy(force=True) for row, item in enumerate(items)]

        for batch in self._said(decoded_batches(self.worker, map(Item, wanted)), own):
            for item, drawn in batch:
                if item.picture is not None and isinstance(drawn, np.ndarray):
                    seen[item.source] = small(item.picture.pixels, item.picture.view.placed(self._placement))
                    maps |= {
                        (channel, item.source): map for channel, map in zip(wanted[item.source], drawn, strict=True)
                    }
        if gone := [source.shown for source in wanted if source not in seen]:
            self.notes.append(
                f"{len(gone)} picture(s) could not be read again for the contact sheet: {several(gone, len(gone))}"
            )
        rows = [
            Row(
                f"channel {one.channel}",
                self._lines(one),
                [
                    Tile(_caption(source, value), *seen[source], maps[one.channel, source])
                    if source in seen
                    else Tile(_caption(source, value))
                    for source, value in one.strongest
                ],
                () if one.strongest else ("zero in every picture",),
            )
            for one in ranked
        ]
        job, network = self.contest.job, self.worker.network
        style = Style(job.colormap, job.alpha, "run", untrained=network.untrained)
        what = f"|r| with {self.values.column}" if self.sort == "correlation" and self.values else self.sort
        channels = len(statistics.mean)
        heading = [
            f"{network.name}, {channels} channels on {self._layout.grid[0]} x {self._layout.grid[1]} cells",
            f"{_pictures(statistics.count)}; shown: {len(ranked)} of the {channels} channels, by {what}",
        ]
        pixels = sheet(f"Channels of {self.layer}", heading, rows, self._footing(), style, self.contest.pictures)
        return encode.png(pixels)

    def _lines(self, one: Ranked) -> list[str]:
        lines = [
            f"mean {one.mean:.3g}, std {one.std:.3g}",
            f"max {one.max:.3g}, active in {_share(one.active, one.pictures)}",
        ]
        if self.values:
            r = "undefined" if one.correlation is None else f"{one.correlation:+.2f}"
            lines.append(f"r {r} with {self.values.column}")
        return lines

    def _footing(self) -> list[str]:
        return [
            "In each row the pictures of the channel's greatest pooled activation (the mean over the cells that show "
            "the picture), which stands below with the picture's name. Over each the channel's activation, cell by "
            "cell, on one scale a row, which the bar gives. Pictures are shown as far as the model saw them.",
            *(f"Note: {note}" for note in self.notes),
        ]

    def _facts(self, statistics: Statistics) -> dict[str, Any]:
        facts = provenance.facts(self.worker)
        return {
            **facts,
            "fingerprint": self._fingerprint,
            "untrained": self.worker.network.untrained,
            "layer": self.layer,
            "layout": str(self._layout),
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


def pooled(cells: Float[Tensor, "n c h w"], views: Sequence[View]) -> Float32[np.ndarray, "n c"]:
    """The mean of each channel over the cells that show any of the picture, and not padding alone."""
    shown = torch.from_numpy(np.stack([view.shown(tuple(cells.shape[2:])) for view in views])).to(cells.device)
    if bool(shown.all()):
        return np.asarray(cells.mean((2, 3)).numpy(force=True))
    sums = cells.where(shown[:, None], 0).sum((2, 3))
    return np.asarray((sums / shown.sum((1, 2))[:, None]).numpy(force=True))


def _caption(source: Source, value: float) -> str:
    return f"{value:.3g}  {page_of(source.path.name, source.page)}"


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _share(active: float, pictures: int) -> str:
    return f"{round(active * pictures)} of {pictures}" if pictures < 1000 else f"{active:.1%}"
