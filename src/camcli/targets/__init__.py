"""The table of targets: which classes of a picture are explained.

Each row is a function ``(argument, network) -> Target``; a ``Target`` goes from a picture's path and scores to classes,
and raises PictureError if this picture has none. What a user writes is ``row`` or ``row:argument``; anything else is a
class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.base.errors import RequestError
from camcli.base.registry import Row, Table

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.engine.network import Network

Target = Callable[[Path, "Tensor"], Sequence[int]]


@dataclass(frozen=True, slots=True)
class TargetRow(Row):
    """One kind of target.

    Attributes:
        several: whether it can give a picture more than one class; then each map's name says which class it is of.
    """

    several: bool = True


TARGETS = Table(
    TargetRow,
    "camcli.targets",
    "target",
    TargetRow("logits", "predicted", "the class with the highest score", several=False),
    TargetRow("logits", "top", "top:5, the classes with the highest scores, a map for each"),
    TargetRow(
        "logits",
        "all",
        "all: every class; all>0.5: those whose probability is above it",
        function="every",
    ),
    TargetRow(
        "named",
        "class",
        "class:NAME, by index, name, part of a name or WordNet id; class: may be left out",
        several=False,
        function="named_class",
    ),
    TargetRow(
        "named", "folder", "the class that the image's folder is named after", several=False, function="of_folder"
    ),
    TargetRow(
        "features",
        "channel",
        "channel:12,99, features of a backbone without its head, or channels of the layer",
        several=False,
    ),
    TargetRow(
        "features",
        "channels",
        "channels:top:5[:CLASS], the layer's channels that matter most to the class",
        several=False,
    ),
    TargetRow(
        "features", "similar", "similar:FILE, similarity to another image: the cosine of their features", several=False
    ),
)
# Rows that ask about features, and not about classes.
FEATURES = ("channel", "similar")
ABOVE = re.compile(r"all\s*(>.*)", re.DOTALL)
STRONGEST = re.compile(r"top:([0-9]{1,6})(?::(.+))?", re.ASCII | re.DOTALL)


def resolve(words: Sequence[str], network: Network) -> Target:
    """One target of all the words a user gave: their classes in order, each once.

    Raises:
        RequestError: a word names no class, several, or is malformed.
    """
    parts = [_resolve_one(word, network) for word in words]

    def target(path: Path, scores: Tensor) -> list[int]:
        return list(dict.fromkeys(index for part in parts for index in part(path, scores)))

    return target


def gives_several(word: str) -> bool:
    """Whether what a user wrote can give a picture more than one class."""
    row, argument = parsed(word)
    if row == "channels":
        return gives_several(strongest_of(argument)[1])
    return TARGETS.find(row).several or (row == "channel" and "," in argument)


def strongest(words: Sequence[str]) -> int:
    """How many of the layer's channels are asked for, of the class that each word names; 0 if it is classes.

    Raises:
        RequestError: one word asks for channels and another does not, or for another number.
    """
    counts = {strongest_of(argument)[0] if row == "channels" else 0 for row, argument in map(parsed, words)}
    if len(counts) > 1:
        raise RequestError(
            f"the targets {', '.join(words)} ask for different things of the layer's channels",
            "give channels:top:N with the same N for every class, and no other target beside it",
        )
    return counts.pop() if counts else 0


def strongest_of(argument: str) -> tuple[int, str]:
    """How many channels ``top:5:tabby`` asks for, and of which class; of the predicted one if none is named.

    Raises:
        RequestError: it is malformed.
    """
    match = STRONGEST.fullmatch(argument)
    if match is None or int(match[1]) < 1:
        raise RequestError(
            f"the target 'channels:{argument}' does not say how many channels",
            "say channels:top:5, or channels:top:5:CLASS; channel:12,99 names some by their numbers",
        )
    return int(match[1]), match[2] or "predicted"


def parsed(word: str) -> tuple[str, str]:
    """The row that a word names, and its argument."""
    if match := ABOVE.fullmatch(word):
        return "all", match[1]
    name, _, argument = word.partition(":")
    return (name, argument) if name in TARGETS.names() else ("class", word)


def _resolve_one(word: str, network: Network) -> Target:
    row, argument = parsed(word)
    target: Target = TARGETS.load(row)(argument, network)
    return target


# What is explained, which number of it and by which method, where nobody says so.
AUTO = "auto"

# How a target begins that names a picture to compare with.
LIKE = "similar:"
