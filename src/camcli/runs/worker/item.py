"""One picture on its way through a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from camcli.base.errors import PictureError
from camcli.images.source import Picture, Source

if TYPE_CHECKING:
    from camcli.engine.maps.result import Result
    from camcli.images.decode import Reduced
    from camcli.runs.worker.decode_ahead import Hold

# Goes over the pictures of a run, anew each time that it is called.
Pictures = Callable[[], Iterator[Source]]


@dataclass(slots=True)
class Item:
    """One picture on its way.

    Attributes:
        source: where it is.
        image: the decoded upright picture, where the caller has it already.
        stamp: its file's size and time of change.
        skipped: nothing is to be done for it; it rides along.
        error: why it cannot be explained at all.
        picture: its pixels, and what the model sees of them.
        input: the model's input, ``(3, h, w)``.
        seen: for models that score every pixel: which part of the input is picture, ``(h, w)``.
        region: likewise, over which part is summed, if one is given.
        results: class by class, layer by layer, a map or why there is none.
        notes: what a reader of any of its maps must know.
        seconds: what it has taken so far.
        mates: how many pictures its group has, itself among them.
        hold: the room that its pixels take among those under way.
        short: it failed for lack of memory.
    """

    source: Source
    image: Reduced | None = None
    stamp: str = ""
    skipped: bool = False
    error: PictureError | None = None
    picture: Picture | None = None
    input: Tensor | None = None
    seen: Tensor | None = None
    region: Tensor | None = None
    results: Sequence[Result] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    mates: int = 1
    hold: Hold | None = None
    short: bool = False

    @property
    def pixels(self) -> int:
        """How many pixels of it are held."""
        return self.hold.pixels if self.hold else 0

    def drop(self) -> Tensor | None:
        """Let go of its pixels, so that there is room for others'; gives its input."""
        self.picture = None
        if self.hold:
            self.hold.release()
        return self.input
