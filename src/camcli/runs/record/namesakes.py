"""Names of images where other images, of another folder, have results under the same names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from camcli.base.paths import absolute
from camcli.base.words import count_of
from camcli.images.address import to_url
from camcli.images.naming import mark_name
from camcli.images.source import PictureSource
from camcli.runs.record.ledger import Ledger


class Namesakes:
    """Images of a run that have the names of others, and so get a mark in theirs.

    Args:
        ledger: the ledger of the output folder.
    """

    def __init__(self, ledger: Ledger[Any]) -> None:
        self._ledger = ledger
        self._last_root = "", ""  # of the last image, as it was given and as it is described
        self._counts: dict[str, int] = {}  # roots of the others, and how many names they share

    def choose_name(self, source: PictureSource, stamp: str) -> str:
        """Return an image's name: with a mark if another one's result has it, or its own has the mark already."""
        return self._choose_name(source, self._find_other_root(source, stamp))

    def rename(self, source: PictureSource, stamp: str) -> PictureSource:
        """Return an image with the name that it has here, and count it if that is another's."""
        if other := self._find_other_root(source, stamp):
            self._counts[other] = self._counts.get(other, 0) + 1
        name = self._choose_name(source, other)
        return source if name == source.name else replace(source, name=name)

    def notes(self) -> Iterator[str]:
        """Yield notes on the images that were renamed for another."""
        for root, many in self._counts.items():
            yield (
                f"{count_of(many, 'image', 'have')} the name of another, of {root}, that has results here, so a mark "
                "is added; --root FOLDER names images by their path from another folder"
            )

    def _choose_name(self, source: PictureSource, other_root: str) -> str:
        if not other_root and not self._ledger.has_marked_names:
            return source.name
        marked = mark_name(source.name, source.path)
        return marked if other_root or self._ledger.has_earlier_result(marked) else source.name

    def _find_other_root(self, source: PictureSource, stamp: str) -> str:
        """Return the root of another image whose result has an image's name; empty if there is none."""
        if not self._ledger.has_earlier_result(source.name):
            return ""
        own, there = self._describe_root(source), self._ledger.roots.find(source.name)
        return there if own and own != there and not self._ledger.is_done(source.name, stamp) else ""

    def _describe_root(self, source: PictureSource) -> str:
        if source.root != self._last_root[0]:
            self._last_root = source.root, describe_root(source, self._ledger.folder.out)
        return self._last_root[1]


def describe_root(source: PictureSource, out: Path) -> str:
    """Return the folder that an image's name is relative to; relative to the output folder if that lies in it."""
    if not source.root or to_url(out):
        return source.root
    folder = absolute(out)
    return os.path.relpath(source.root, folder) if Path(folder).is_relative_to(source.root) else source.root
