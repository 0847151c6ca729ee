"""Image under way in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from camcli.base.errors import PictureError
from camcli.images.source import Picture, PictureSource

if TYPE_CHECKING:
    from camcli.engine.maps.result import Result
    from camcli.images.decoded import DecodedPicture
    from camcli.runs.worker.decode_ahead import Reservation
    from camcli.targets import TargetRule

# Iterates over the images of a run, from the first at each call.
SourceFactory = Callable[[], Iterator[PictureSource]]
# Most images that one item stands for, so that progress is seen.
MAX_COUNT = 1000


@dataclass(slots=True)
class Item:
    """Image under way in a run.

    Attributes:
        source: where it is.
        decoded: the decoded upright image, if the caller has it already.
        target_rule: maps its path and scores to its classes, if it has targets of its own.
        stamp: its file's size and modification time.
        skipped: the network has nothing to do for it; it only keeps its place.
        count: number of images in a row, all done already, whose place it keeps.
        earlier: lines of its earlier result under the same job, if it is not done as it is wanted now.
        error: why it cannot be explained at all.
        picture: its pixels, and the part of them that the model sees.
        input: the model's input, ``(3, h, w)``.
        picture_mask: for models that score every pixel, the part of the input that is image, ``(h, w)``.
        region_mask: for such models, the part of the input that is summed over, if one is given, ``(h, w)``.
        results: class by class, layer by layer, a map or why there is none.
        notes: notes for the reader of any of its maps.
        seconds: time that it has taken so far.
        found: what a command measured of its results, in its batch.
        group_size: number of images in its group, itself included.
        reservation: reservation of its pixels among those under way.
        out_of_memory: it failed for lack of memory.
    """

    source: PictureSource
    decoded: DecodedPicture | None = None
    target_rule: TargetRule | None = None
    stamp: str = ""
    skipped: bool = False
    count: int = 1
    earlier: Sequence[Any] = ()
    error: PictureError | None = None
    picture: Picture | None = None
    input: Tensor | None = None
    picture_mask: Tensor | None = None
    region_mask: Tensor | None = None
    results: Sequence[Result] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    found: Any = None
    group_size: int = 1
    reservation: Reservation | None = None
    out_of_memory: bool = False

    @property
    def held_pixels(self) -> int:
        """Number of its pixels that are held."""
        return self.reservation.pixels if self.reservation else 0

    def release_pixels(self) -> Tensor | None:
        """Release its pixels, to make room for others; return its input."""
        self.picture = None
        if self.reservation:
            self.reservation.release()
        return self.input


def merge_done(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, with one for images in a row that are done: threads take ten times as long as finding them done."""
    done: Item | None = None
    for item in items:
        is_done = item.skipped and not item.earlier
        if done and is_done and done.count < MAX_COUNT:
            done.count += 1
            continue
        if done:
            yield done
        done = item if is_done else None
        if not is_done:
            yield item
    if done:
        yield done
