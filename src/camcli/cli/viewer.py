"""Images in the terminal, by textual-image: kitty's graphics, sixel (iTerm2 too), or half blocks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from camcli.base.errors import RequestError
from camcli.cli.console import Console
from camcli.cli.progress import describe_outcome
from camcli.cli.streams import to_printable
from camcli.runs.record.outcome import Outcome

# Formats that are shown, the best first.
SHOWN_FORMATS = ("overlay", "overlay-png", "panel", "contour", "box", "heatmap", "sheet")
# Images that are shown unless more are asked for.
MAX_SHOWN = 8
# Largest image, in cells of the terminal (a cell is about twice as high as wide), and in pixels.
MAX_COLUMNS, MAX_ROWS, MAX_PIXELS = 64, 24, 1024


class Viewer:
    """Viewer of images in the terminal that standard error is.

    Args:
        console: the command's console.

    Raises:
        RequestError: standard error is no terminal, or the library is not installed.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        if not console.is_terminal:
            raise RequestError("images are shown in a terminal, and standard error is none", "open the files instead")
        try:
            # It asks the terminal what it can do when it is imported.
            with _hide_pipe():
                from textual_image.renderable import Image
        except ImportError as error:
            raise RequestError(
                "images are shown by textual-image, which is not installed", "pip install 'camcli-vision[show]'"
            ) from error
        self._make_image: Any = Image

    def show(self, path: Path, caption: str = "") -> None:
        """Show an image, with a caption above it; of a file that is no image, why not."""
        from PIL import Image

        try:
            with Image.open(path) as opened:
                opened.thumbnail((MAX_PIXELS, MAX_PIXELS))
                image = opened.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            self._console.note(f"{path} cannot be shown: {error}")
            return
        self._console.show(to_printable(caption or str(path)))
        columns = min(MAX_COLUMNS, self._console.width, round(2 * MAX_ROWS * image.width / image.height))
        with _hide_pipe():
            self._console.show(self._make_image(image, width=max(1, columns), height="auto"))


@contextmanager
def _hide_pipe() -> Iterator[None]:
    """Keep textual-image, which reads the terminal's answers, from reading names that are piped to the command."""
    stdin = sys.__stdin__
    try:
        if stdin is not None and not stdin.isatty():
            sys.__stdin__ = None  # type: ignore[misc]
        yield
    finally:
        sys.__stdin__ = stdin  # type: ignore[misc]


class RunViewer:
    """Viewer of the first maps of a run as they are written; those that are drawn later are shown at its end.

    Args:
        viewer: shows them; None to show nothing.
        out: the output folder.
    """

    def __init__(self, viewer: Viewer | None, out: Path) -> None:
        self._viewer, self._out = viewer, out
        self._count = 0
        self._later: list[Outcome] = []

    def add(self, outcomes: list[Outcome]) -> None:
        """Show an image's maps, unless enough were shown."""
        for outcome in outcomes if self._viewer else ():
            if self._count < MAX_SHOWN and not outcome.error:
                self._count += 1
                if not self._show(outcome):
                    self._later.append(outcome)

    def finish(self) -> None:
        """Show the maps whose files were not there before."""
        for outcome in self._later:
            self._show(outcome)

    def _show(self, outcome: Outcome) -> bool:
        path = find_shown(self._out, outcome)
        if path is not None and self._viewer:
            self._viewer.show(path, describe_outcome(outcome))
        return path is not None


def find_shown(out: Path, outcome: Outcome) -> Path | None:
    """Return the file of a map that is shown; None if there is none."""
    paths = (out / outcome.files[name] for name in SHOWN_FORMATS if name in outcome.files)
    return next((path for path in paths if path.is_file()), None)
