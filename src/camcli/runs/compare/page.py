"""The sheets as one page of HTML that holds its images, and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from camcli.base import atomic
from camcli.outputs import encode
from camcli.outputs.html import hash_source, make_template
from camcli.outputs.sheet import ColourBar, Sheet, SheetTile

BAR = (192, 18)


class PageFile:
    """Page that grows sheet by sheet, in a temporary file until it is whole.

    Args:
        path: path of the page.
        title: its title.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, title: str) -> None:
        self._path, self._temporary = path, atomic.make_temporary_path(path.parent)
        style = _read("compare.css")
        self._macros = make_template(_read("compare.html.jinja")).module
        policy = "; ".join(
            (
                "default-src 'none'",
                f"style-src {hash_source(style)}",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            )
        )
        # Bytes of names that are no UTF-8 cannot be in a page.
        self._file = self._temporary.open("x", encoding="utf-8", errors="replace")
        self._file.write(self._macros.head(title, policy, _mark(style)).lstrip())

    def add(self, sheet: Sheet) -> None:
        """Add a sheet."""
        self._file.write(self._macros.section(sheet, _embed_tile, _embed_bar))

    def finish(self, pairs: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        """Write the end: similarities of pairs of maps, and notes; put the page in its place."""
        self._file.write(self._macros.tail(pairs, notes, ""))
        self._file.close()
        self._temporary.replace(self._path)

    def discard(self) -> None:
        """Remove what is not in its place."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def _mark(style: str) -> object:
    from markupsafe import Markup

    return Markup(style)  # the package's own


def _embed_tile(tile: SheetTile) -> str:
    assert tile.pixels is not None
    return f"data:image/jpeg;base64,{base64.b64encode(encode.jpeg(tile.pixels)).decode()}"


def _embed_bar(bar: ColourBar) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode.png(bar.draw(*BAR))).decode()}"


def _read(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")
