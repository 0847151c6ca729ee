"""The explanations of ``camcli.explain``, one after the other, or by number where somebody asks for that."""

from __future__ import annotations

import html
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, overload

from PIL import Image

from camcli.base.errors import RequestError
from camcli.runs.api.drawing import ImageExplanation

# As many are shown in a notebook.
MAX_SHOWN = 24


class SingleMap:
    """Drawing methods of explanations of which there is only one, without taking it out first."""

    def overlay(self, **style: Any) -> Image.Image:
        """Draw the only explanation over its image: :meth:`camcli.ImageExplanation.overlay`."""
        return self._only().overlay(**style)

    def heatmap(self, **style: Any) -> Image.Image:
        """Draw the only explanation alone: :meth:`camcli.ImageExplanation.heatmap`."""
        return self._only().heatmap(**style)

    def plot(self, ax: Any = None, **style: Any) -> Any:
        """Show the only explanation in axes of matplotlib: :meth:`camcli.ImageExplanation.plot`."""
        return self._only().plot(ax, **style)

    def save(self, path: str | os.PathLike[str], format: str = "", **style: Any) -> Path:  # noqa: A002
        """Write the only explanation to a file: :meth:`camcli.ImageExplanation.save`."""
        return self._only().save(path, format, **style)

    def _only(self) -> ImageExplanation:
        raise NotImplementedError


class Explanations(SingleMap, Iterator[ImageExplanation]):
    """Explanations of images, made when their turn comes and not kept: an iterator.

    ``explanations[0]``, a slice, or showing them in a notebook keeps those made so far, so that they can be had again.
    Of a single map the methods of :class:`camcli.ImageExplanation` work directly: ``camcli.explain(image).overlay()``.

    Args:
        stream: makes the explanations.
        summary: what is explained, in a line.
        shows: a notebook may make them all to show them, since the images are few and known.
    """

    def __init__(self, stream: Generator[ImageExplanation, None, None], summary: str, shows: bool) -> None:
        self._stream, self._summary, self._shows = stream, summary, shows
        self._kept: list[ImageExplanation] = []
        self._next = 0
        self._passed = False

    def __iter__(self) -> Explanations:
        if not self._passed:
            self._next = 0
        return self

    def __next__(self) -> ImageExplanation:
        if self._next < len(self._kept):
            self._next += 1
            return self._kept[self._next - 1]
        found = next(self._stream)
        # Those before it cannot be had again.
        self._passed = True
        return found

    @overload
    def __getitem__(self, place: int) -> ImageExplanation: ...

    @overload
    def __getitem__(self, place: slice) -> list[ImageExplanation]: ...

    def __getitem__(self, place: int | slice) -> ImageExplanation | list[ImageExplanation]:
        if isinstance(place, slice):
            bounds = place.start, place.stop
            self._keep(place.stop if place.stop is not None and all((one or 0) >= 0 for one in bounds) else None)
        else:
            self._keep(place + 1 if place >= 0 else None)
        return self._kept[place]

    def __len__(self) -> int:
        """Return the number of explanations, which are made and kept for that.

        Raises:
            TypeError: the images are many or come one by one, or the explanations were iterated over.
        """
        if self._passed or not self._shows:
            raise TypeError("their number is not known before all are made: found = list(camcli.explain(...))")
        self._keep(None)
        return len(self._kept)

    def __bool__(self) -> bool:
        return True

    def close(self) -> None:
        """Stop, and drop what is under way."""
        self._stream.close()

    def __repr__(self) -> str:
        return f"Explanations({self._summary})"

    def _repr_html_(self) -> str | None:
        if self._passed or not self._shows:
            return None
        self._keep(MAX_SHOWN + 1)
        more = "" if len(self._kept) <= MAX_SHOWN else f"<p>and more: the first {MAX_SHOWN} are shown</p>"
        figures = "".join(one._to_html() for one in self._kept[:MAX_SHOWN])
        return f"<div><p>{html.escape(self._summary)}</p>{figures}{more}</div>"

    def _keep(self, count: int | None) -> None:
        """Make and keep explanations until there are so many, or all."""
        if self._passed:
            raise RequestError(
                "these explanations were iterated over, and are not kept",
                "collect them while they come: found = list(camcli.explain(...)); or ask for [0] before the loop",
            )
        while count is None or len(self._kept) < count:
            try:
                self._kept.append(next(self._stream))
            except StopIteration:
                break

    def _only(self) -> ImageExplanation:
        self._keep(2)
        if len(self._kept) != 1:
            number = "several" if self._kept else "none"
            raise RequestError(
                f"this draws a single explanation, and there are {number}",
                "take one, [0], or loop over them: for explanation in camcli.explain(...)",
            )
        return self._kept[0]
