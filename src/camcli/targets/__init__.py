"""The table of targets: which classes of a picture are explained.

Each row is a function ``(argument, labels) -> Target``; a ``Target`` goes from a picture's path and scores to classes,
and raises PictureError if this picture has none. What a user writes is ``row`` or ``row:argument``; anything else is a
class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.tables import Row, Table

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.labels import Labels

Target = Callable[[Path, "Tensor"], Sequence[int]]

TARGETS = Table(
    "camcli.targets",
    "target",
    Row("logits", "predicted", "the class with the highest score"),
    Row("logits", "top", "top:5, the classes with the highest scores, a map for each", several=True),
    Row(
        "named",
        "class",
        "class:NAME, by index, name, part of a name or WordNet id; class: may be left out",
        function="named_class",
    ),
    Row("named", "folder", "the class that the picture's folder is named after", function="of_folder"),
)


def resolve(words: Sequence[str], labels: Labels) -> Target:
    """One target of all the words a user gave: their classes in order, each once.

    Raises:
        RequestError: a word names no class, several, or is malformed.
    """
    parts = [_resolve_one(word, labels) for word in words]

    def target(path: Path, scores: Tensor) -> list[int]:
        return list(dict.fromkeys(index for part in parts for index in part(path, scores)))

    return target


def gives_several(word: str) -> bool:
    """Whether what a user wrote can give a picture more than one class."""
    return TARGETS.find(_parsed(word)[0]).several


def _resolve_one(word: str, labels: Labels) -> Target:
    row, argument = _parsed(word)
    target: Target = TARGETS.load(row)(argument, labels)
    return target


def _parsed(word: str) -> tuple[str, str]:
    """The row that a word names, and its argument."""
    name, _, argument = word.partition(":")
    return (name, argument) if name in TARGETS.names() else ("class", word)
