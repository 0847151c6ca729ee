"""Run of ``camcli mosaics``: predict every image, choose those of each mosaic, and write mosaics, boxes and targets."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from camcli.base import atomic
from camcli.base.errors import NothingFoundError, OutputError, PictureError, RequestError
from camcli.base.words import shorten
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, get_option
from camcli.runs.mosaics import MosaicJob
from camcli.runs.mosaics.judge import Judged, choose_parts, judge_batches
from camcli.runs.record import provenance
from camcli.runs.record.failures import format_error
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.preflight import refuse_store
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import decode_batches
from camcli.runs.worker.worker import Worker

BOXES_FILE, TARGETS_FILE, FACTS_FILE = "boxes.csv", "targets.csv", "mosaics.json"
# Options on the model and target that the mosaics replace: they are other images, of another size and with targets.
REPLACED_OPTIONS = frozenset(
    {"inputs", "size", "crop", "target", "targets", "range", "pages", "every", "limit", "group", "region"}
)


class MosaicRun:
    """Run that composes mosaics.

    An invalid request raises on construction. Iterating predicts the images and yields the outcome of each, without a
    map; then :meth:`write` chooses and writes.

    Args:
        mosaic_job: the job.

    Attributes:
        worker: the resolved job.
        total: number of images; None if they come from standard input.
        notes: notes for the user; may grow until all is written.

    Raises:
        RequestError: the request is invalid.
        NothingFoundError: there is no image.
    """

    def __init__(self, mosaic_job: MosaicJob) -> None:
        self.mosaic_job, job = mosaic_job, mosaic_job.job
        refuse_store(job, "mosaics")
        self.out = Path(job.out)
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise RequestError(f"the output folder {job.out!r} is there already, and not empty", "name a new one")
        self._inputs = Inputs(job)
        self.total = self._inputs.total
        self.worker = Worker(job)
        self.notes = self.worker.notes
        self.notes += self._inputs.note_unread()
        network = self.worker.network
        if network.output_spec.task in ("segment", "detect") or network.activation == "none":
            raise RequestError(
                f"{network.name} gives no probability of a class, by which images are chosen", "choose a classifier"
            )
        if network.preprocess.channels != 3:
            raise RequestError("mosaics are of images with three channels", "choose a model of RGB images")
        self._judged: list[Judged] = []

    def __iter__(self) -> Iterator[list[Outcome]]:
        batches = decode_batches(self.worker, map(Item, self._inputs.stream()))
        for source, found in chain.from_iterable(judge_batches(self.worker, batches)):
            if isinstance(found, Judged):
                self._judged.append(found)
            error = None if isinstance(found, Judged) else format_error(found)
            yield [
                Outcome(
                    source=source.location, name=source.name, page=source.page, stamp="", job="", run="", error=error
                )
            ]
        self.notes += self._inputs.note_unread_late()

    def write(self) -> int:
        """Choose images, and write the mosaics; return their number.

        Raises:
            NothingFoundError: too few classes are predicted with confidence.
            OutputError: a file cannot be written.
        """
        asked, labels = self.mosaic_job, self.worker.network.labels
        sure = [one for one in self._judged if one.predicted and one.probability >= asked.confidence]
        chosen = choose_parts(sure, asked.side, asked.count, asked.job.seed)
        if not chosen:
            classes = sorted({labels.names[one.index] for one in sure})
            raise NothingFoundError(
                f"a mosaic takes {asked.side**2} classes, and {len(classes)} are predicted with a probability of at "
                f"least {asked.confidence:g}, in {len(sure)} of {len(self._judged)} images"
                + (f": {shorten(classes, len(classes))}" if classes else ""),
                "give more images, a smaller --grid, or a lower --confidence",
            )
        # The folder is there whole or not at all, also where an image can no longer be read.
        out = self.out.resolve()
        temporary = atomic.make_temporary_path(out.parent)
        try:
            temporary.mkdir(parents=True)
            self._write_mosaics(chosen, temporary)
            if out.exists():  # it is empty, and Windows replaces no folder
                out.rmdir()
            temporary.replace(out)
        except OSError as error:
            raise OutputError(f"{self.out} cannot be written to: {error.strerror}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return len(chosen)

    @property
    def next_command(self) -> str:
        """Command that plays the grid pointing game with the mosaics, and the same network."""
        height, width = self.worker.network.preprocess.size
        side = self.mosaic_job.side
        words = ["camcli", "evaluate", str(self.out), *_format_options(self.worker.job)]
        words += ["--boxes", str(self.out / BOXES_FILE), "--targets", str(self.out / TARGETS_FILE)]
        words += ["--crop", "squash", "--size", f"{side * height}x{side * width}", "--metrics", "energy-in-box"]
        return shlex.join(words)

    def _write_mosaics(self, chosen: Sequence[Sequence[Judged]], out: Path) -> None:
        side, labels = self.mosaic_job.side, self.worker.network.labels
        height, width = self.worker.network.preprocess.size
        sources = (Item(part.source) for parts in chosen for part in parts)
        cells = map(self._read_cell, chain.from_iterable(decode_batches(self.worker, sources)))
        boxes, targets = [["image", "x0", "y0", "x1", "y1", "label"]], [["image", "target"]]
        facts = []
        for number, parts in enumerate(chosen, start=1):
            name = f"{number:0{max(4, len(str(len(chosen))))}}.png"
            some = np.stack([next(cells) for _ in parts])
            rows = some.reshape(side, side, height, width, 3).swapaxes(1, 2)
            Image.fromarray(rows.reshape(side * height, side * width, 3)).save(out / name)
            for place, part in enumerate(parts):
                top, left = place // side * height, place % side * width
                label = f"index:{part.index}"
                boxes.append([name, *map(str, (left, top, left + width, top + height)), label])
                targets.append([name, label])
            facts.append(
                {
                    "image": name,
                    "parts": [
                        {
                            "source": part.source.location,
                            "index": part.index,
                            "label": labels.names[part.index],
                            "probability": round(part.probability, 6),
                        }
                        for part in parts
                    ],
                }
            )
        for file, table in ((BOXES_FILE, boxes), (TARGETS_FILE, targets)):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(table)
            (out / file).write_text(text.getvalue(), encoding="utf-8")
        record = {**provenance.collect_facts(self.worker), "grid": side, "mosaics": facts}
        # File names need not be valid UTF-8; this handler writes what is not as JSON's own escapes.
        content = json.dumps(record, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
        (out / FACTS_FILE).write_bytes(content)

    def _read_cell(self, item: Item) -> UInt8[np.ndarray, "h w 3"]:
        """Return the pixels that the model sees of an image.

        Raises:
            PictureError: the image could be read before, and cannot be any more.
        """
        if item.input is None:
            raise PictureError(f"{item.source.display_name}: {item.error.message if item.error else 'cannot be read'}")
        colours = self.worker.network.preprocess.to_colours(item.input.numpy(force=True)).transpose(1, 2, 0)
        return np.asarray(np.clip(np.round(255 * colours), 0, 255), np.uint8)


def _format_options(job: Job) -> Iterator[str]:
    """Yield the words of a command that say which network a job is of: its model, and what differs from defaults."""
    default = Job()
    yield from ("--model", job.model)
    for one in fields(job):
        spec, value = get_option(one), getattr(job, one.name)
        if spec is None or one.name == "model" or value == getattr(default, one.name):
            continue
        if (spec.panel == MODEL and one.name not in REPLACED_OPTIONS) or (
            one.name == "seed" and job.weights == "random"
        ):
            flag = spec.find_flag(one.name)
            for each in value if isinstance(value, tuple) else (value,):
                yield from (flag,) if each is True else (flag, str(each))
