"""Writing of an image's comparison: from the maps that were just made, or from those that an earlier run kept."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from camcli.images.decode import never_reduce
from camcli.images.naming import fit_path
from camcli.images.placement import Placement
from camcli.outputs.style import Style
from camcli.runs.job.fingerprint import hash_looks
from camcli.runs.prompts import PromptComparison
from camcli.runs.prompts.ask import PromptSet
from camcli.runs.prompts.compare import compare_maps, find_explained
from camcli.runs.prompts.sheet import PromptHeatmaps, SheetPicture, draw_picture_sheet
from camcli.runs.record.earlier import has_wanted_files
from camcli.runs.record.failures import format_error, raise_if_fatal
from camcli.runs.record.kept import REDRAWN, decode_again, load_array
from camcli.runs.record.session import Session
from camcli.runs.worker.item import Item

STEM = "prompts"
SUFFIXES = {"sheet": f".{STEM}.png", "array": f".{STEM}.npz"}
Maps = dict[int, Float32[np.ndarray, "*c h w"]]


class Writer:
    """Writer of the files and lines of a run's images.

    Args:
        session: the run.
        prompt_set: the prompts.
    """

    def __init__(self, session: Session[PromptComparison], prompt_set: PromptSet) -> None:
        self._session, self._prompt_set = session, prompt_set
        self._worker, self._looks = session.worker, hash_looks(session.job)

    @property
    def style(self) -> Style:
        """Style in which maps are drawn."""
        job = self._session.job
        return Style(job.colormap, job.alpha, "image", untrained=self._worker.network.untrained)

    def write(self, item: Item) -> list[PromptComparison]:
        """Write an image's files and return its line, none if it was done before; called in a thread."""
        if item.skipped and not item.earlier:
            return []
        began = time.perf_counter()
        try:
            if item.error:
                raise item.error
            record = self._redraw(item) if item.skipped else self._compare(item)
        except Exception as error:  # any error is this image's alone, and the others go on
            raise_if_fatal(error, str(self._session.out))
            notes = self._session.note_earlier(item)
            record = PromptComparison(**self._session.make_line_fields(item), error=format_error(error), notes=notes)
        item.release_pixels()
        return [replace(record, seconds=round(item.seconds + time.perf_counter() - began, 4))]

    def read_kept(self, record: PromptComparison) -> SheetPicture:
        """Return a compared image with its maps, which are kept.

        Raises:
            PictureError: the image was changed since, or cannot be read.
        """
        full = self._session.job.decode == "full"
        max_divisor = never_reduce if full else self._worker.network.preprocess.max_divisor
        picture = decode_again(self._worker, record, max_divisor)
        with load_array(self._session.folder, record) as arrays:
            mapped = [number for number, result in enumerate(record.prompts) if not result.error]
            maps = dict(zip(mapped, arrays["maps"], strict=True))
        placement = Placement.from_numbers(record.placement) if record.placement else None
        heatmaps = PromptHeatmaps.from_maps(maps, picture.view.placed(placement))
        return SheetPicture.from_picture(record, picture, heatmaps)

    def _compare(self, item: Item) -> PromptComparison:
        """Compare an image's maps, and write its files."""
        explained = find_explained(item.results)
        assert item.picture is not None  # without an image there is no explanation
        heatmaps = PromptHeatmaps.from_explanations(explained, item.picture.view)
        record = compare_maps(self._prompt_set, item, explained, heatmaps, self._session.make_line_fields(item))
        earlier = item.earlier[0] if item.earlier else record
        # Files of kinds that are not asked for now stay.
        record = replace(record, files=earlier.files, sizes=earlier.sizes, looks=earlier.looks)
        maps = {number: one.map for number, one in explained.items()}
        return self._write_files(SheetPicture.from_picture(record, item.picture, heatmaps), maps, self._looks)

    def _redraw(self, item: Item) -> PromptComparison:
        """Draw what is wanted now of an image's kept maps."""
        self._worker.note(REDRAWN)
        [record] = item.earlier
        there, fields = (record.files, record.looks, record.sizes), self._session.make_line_fields(item)
        wanted = ({kind: digits} for kind, digits in self._looks.items())
        kinds = [
            kind for one in wanted for kind in one if not has_wanted_files(self._session.folder.find_size, one, *there)
        ]
        record = self._write_files(self.read_kept(record), {}, kinds)
        return replace(record, **{name: fields[name] for name in ("source", "root", "run")})

    def _write_files(self, picture: SheetPicture, maps: Maps, kinds: Iterable[str]) -> PromptComparison:
        """Write an image's files of some kinds; return its line with these."""
        record = picture.record
        stem = f"{record.name}.untrained" if record.untrained else record.name
        files, sizes, looks = dict(record.files), dict(record.sizes), dict(record.looks)
        for kind in kinds:
            files[kind] = fit_path(stem, SUFFIXES[kind])
            content = self._draw_sheet(picture) if kind == "sheet" else self._encode_arrays(picture.heatmaps, maps)
            self._session.folder.write(files[kind], content)
            sizes[kind], looks[kind] = len(content), self._looks[kind]
        return replace(record, files=files, sizes=sizes, looks={kind: one for kind, one in looks.items() if one})

    def _draw_sheet(self, picture: SheetPicture) -> bytes:
        record, several = picture.record, self._prompt_set.has_several_texts
        heading = [self._worker.network.name, f"{record.method} at {record.layer or 'the input'}"]
        return draw_picture_sheet(picture, heading, self._prompt_set.texts if several else (), self.style)

    def _encode_arrays(self, heatmaps: PromptHeatmaps, maps: Maps) -> bytes:
        """Encode the maps as the method gave them, with mean and deviation, as NumPy's ``.npz``."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            prompts=np.array([self._prompt_set.prompts[number] for number in maps]),
            maps=np.stack([*maps.values()]),
            mean=heatmaps.mean,
            deviation=heatmaps.deviation,
        )
        return file.getvalue()
