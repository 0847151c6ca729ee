"""Registry of targets: rules that choose the classes of an image to explain.

Each row is a function ``(argument, network) -> TargetRule``; a ``TargetRule`` goes from an image's path and scores to
classes or boxes, and raises PictureError if the image has none. The user writes ``row`` or ``row:argument``; any
other word is a class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.base.errors import RequestError, did_you_mean
from camcli.base.registry import Registry, Row

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.engine.network import Network
    from camcli.targets.target import WantedBox

TargetRule = Callable[[Path, "Tensor"], Sequence["int | WantedBox"]]


@dataclass(frozen=True, slots=True)
class TargetRow(Row):
    """One kind of target.

    Attributes:
        multi_target: True if it can give an image several classes; the name of each map then contains the class.
    """

    multi_target: bool = True


TARGETS = Registry(
    TargetRow,
    "camcli.targets",
    "target",
    TargetRow("logits", "predicted", "the class with the highest score", multi_target=False),
    TargetRow("logits", "top", "top:5, the classes with the highest scores, a map for each"),
    TargetRow("logits", "rank", "rank:2, the class with the second highest score alone", multi_target=False),
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
        multi_target=False,
        function="named_class",
    ),
    TargetRow(
        "named", "folder", "the class that the image's folder is named after", multi_target=False, function="of_folder"
    ),
    TargetRow(
        "named",
        "dataset",
        "the class that the dataset tells: key.cls in an archive, a table's label; dataset:NAME, another value",
        function="of_dataset",
    ),
    TargetRow("boxes", "box", "box:3, a detector's third best box; box:1:dog, its best dog", multi_target=False),
    TargetRow(
        "features",
        "channel",
        "channel:12,99, features of a backbone without its head, or channels of the layer",
        multi_target=False,
    ),
    TargetRow(
        "features",
        "channels",
        "channels:top:5[:CLASS], the layer's channels that matter most to the class",
        multi_target=False,
    ),
    TargetRow(
        "features",
        "similar",
        "similar:FILE, similarity to another image: the cosine of their features",
        multi_target=False,
    ),
)
# Rows whose targets are features instead of classes.
FEATURE_TARGETS = ("channel", "similar")
ALL_ABOVE = re.compile(r"all\s*(>.*)", re.DOTALL)
TOP_CHANNELS = re.compile(r"top:([0-9]{1,6})(?::(.+))?", re.ASCII | re.DOTALL)


def resolve(words: Sequence[str], network: Network) -> TargetRule:
    """Combine all target words into one rule that gives their classes in order, without repetitions.

    Raises:
        RequestError: a word names no class, several, or is malformed.
    """
    rules = [_resolve_one(word, network) for word in words]

    def rule(path: Path, scores: Tensor) -> list[int | WantedBox]:
        return list(dict.fromkeys(index for part in rules for index in part(path, scores)))

    return rule


def is_multi_target(word: str) -> bool:
    """Return whether a target word can give an image more than one class."""
    row, argument = parse_target(word)
    if row == "channels":
        return is_multi_target(parse_top_channels(argument)[1])
    return TARGETS.find(row).multi_target or (row == "channel" and "," in argument)


def count_top_channels(words: Sequence[str]) -> int:
    """Return the number of top channels that ``channels:top:N`` words request; 0 for other targets.

    Raises:
        RequestError: the words request different numbers, or only some of them request channels.
    """
    counts = {parse_top_channels(argument)[0] if row == "channels" else 0 for row, argument in map(parse_target, words)}
    if len(counts) > 1:
        raise RequestError(
            f"the targets {', '.join(words)} select the layer's channels in different ways",
            "give channels:top:N with the same N for every class, and no other target beside it",
        )
    return counts.pop() if counts else 0


def parse_top_channels(argument: str) -> tuple[int, str]:
    """Return the number of channels and the class in ``top:5:tabby``, by default the predicted class.

    Raises:
        RequestError: the argument is malformed.
    """
    match = TOP_CHANNELS.fullmatch(argument)
    if match is None or int(match[1]) < 1:
        raise RequestError(
            f"the target 'channels:{argument}' does not give a number of channels",
            "write channels:top:5, or channels:top:5:CLASS; channel:12,99 selects by index",
        )
    return int(match[1]), match[2] or "predicted"


def parse_target(word: str) -> tuple[str, str]:
    """Split a target word into the name of a row and its argument."""
    if match := ALL_ABOVE.fullmatch(word):
        return "all", match[1]
    name, _, argument = word.partition(":")
    return (name, argument) if name in TARGETS.names() else ("class", word)


def _resolve_one(word: str, network: Network) -> TargetRule:
    from camcli.targets.labels import UnknownNameError  # imports this package

    row, argument = parse_target(word)
    try:
        rule: TargetRule = TARGETS.load(row)(argument, network)
    except RequestError as error:
        kind = _suggest_kind(word) if row == "class" else ""
        by_place = f"top:3 is the three {network.labels.nouns} with the highest scores, rank:2 the second of them alone"
        lines = [kind, error.hint, by_place if isinstance(error, UnknownNameError) else ""]
        raise RequestError(error.message, "\n".join(filter(None, lines))) from None
    return rule


def _suggest_kind(word: str) -> str:
    """Return a line that suggests another kind of target for what is no class; empty if none is similar."""
    if match := re.fullmatch(r"(top|rank)\W?([0-9]+)", word, re.IGNORECASE):
        return f"did you mean '{match[1].lower()}:{match[2]}'?"
    return did_you_mean(word, ("predicted", "folder", "dataset", "channels:top:5"))


# Value of the options for target, score and method that stands for a default chosen by the model.
AUTO = "auto"

# Prefix of a target that names an image to compare with.
SIMILAR_PREFIX = "similar:"
# How the name of a score of similarity begins.
SIMILARITY_LABEL = "similar to "
