"""Names of a model's classes, and the lookup of classes by words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from camcli.base.deprecated import with_old_names
from camcli.base.errors import RequestError, find_nearest
from camcli.targets import class_list
from camcli.targets.class_list import WORDNET_ID

MAX_LISTED = 8  # number of candidates in a message; a longer list hides the point
Noun = Literal["class", "channel", "prompt"]
PLURALS: dict[Noun, str] = {"class": "classes", "channel": "channels", "prompt": "prompts"}


class UnknownNameError(RequestError):
    """A word names no class."""


def _describe(labels: Labels) -> str:
    first = ", ".join(map(repr, labels.names[:3]))
    return f"Labels({len(labels)} {labels.nouns}: {first}{', ...' if len(labels) > 3 else ''})"


# Names of the last release.
OLD_NAMES = {"open": "explainable_count"}


@with_old_names(attributes=OLD_NAMES)
@dataclass(frozen=True, slots=True, repr=False)
class Labels:
    """Names of classes, in the order of the model's scores.

    Attributes:
        names: name of each class, such as ``tabby, tabby cat``.
        wordnet: WordNet ids of the classes, such as ``n02123045``; empty where they have none.
        synonyms: True if ``", "`` in a name separates synonyms; in a prompt it is an ordinary comma.
        noun: ``class``; ``channel`` for a network without its head, ``prompt`` for one that compares images with texts.
        asked: number of classes, from the first, that can be explained; the others, contrast prompts, only compete with
            them. None for all.
    """

    names: tuple[str, ...]
    wordnet: tuple[str, ...] = ()
    synonyms: bool = True
    noun: Noun = "class"
    asked: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))  # a list is accepted too
        if self.wordnet and len(self.wordnet) != len(self.names):
            raise ValueError(f"{len(self.names)} names cannot have {len(self.wordnet)} WordNet ids")

    @classmethod
    def numbered(cls, count: int, noun: Noun = "class") -> Labels:
        """Return placeholders for unknown names: ``class 0``, ``class 1``, ..."""
        return cls(tuple(f"{noun} {index}" for index in range(count)), noun=noun)

    __repr__ = _describe

    @property
    def nouns(self) -> str:
        """Plural of the noun: ``classes``, ``channels``, ``prompts``."""
        return PLURALS[self.noun]

    @property
    def explainable_count(self) -> int:
        """Number of classes, from the first, that can be explained."""
        return len(self.names) if self.asked is None else self.asked

    def __len__(self) -> int:
        return len(self.names)

    def short(self, index: int) -> str:
        """Return the class's first synonym: ``tabby`` for ``tabby, tabby cat``."""
        return self.split(self.names[index])[0]

    def split(self, name: str) -> list[str]:
        """Split a name into its synonyms."""
        return name.split(", ") if self.synonyms else [name]

    def entry(self, index: int) -> str:
        """Return the class as an entry of a list: ``281 tabby, tabby cat``."""
        return f"{index} {self.names[index]}"

    def find(self, word: str) -> int:
        """Find the class that ``word`` names.

        The first of these rules that any class fulfils decides: the WordNet id is ``word``; the name, or a synonym in
        it, is ``word``; the name contains ``word`` as whole words; it contains ``word`` anywhere. Case is ignored, and
        ``_`` is a blank. A number is an index; ``index:7`` and ``name:7`` distinguish where names are numbers too.
        Classes that only compete with others are not found.

        Args:
            word: an index, a WordNet id, a name, or a part of one.

        Returns:
            The class's index.

        Raises:
            RequestError: no class or several classes are meant; the hint lists the candidates or the nearest names.
        """
        kind, _, rest = word.partition(":")
        if kind == "index" and _is_number(rest):
            return self._check_index(rest)
        if kind == "name" and rest:
            return self._find_name(rest)
        if not _is_number(word):
            return self._find_name(word)
        return self._find_number(word)

    def _find_number(self, word: str) -> int:
        """Return the index ``word``, unless the number is another class's name, as with folders ``0, 1, 10, 2``."""
        others = [
            index for index in _match_exactly(self, normalize_name(word)) if int(word) != index < self.explainable_count
        ]
        if others and int(word) < self.explainable_count:
            raise RequestError(
                f"{word!r} is ambiguous: {self.noun} {int(word)} is {self.names[int(word)]!r}, "
                f"and {self.names[others[0]]!r} is {self.noun} {others[0]}",
                f"write index:{word} or name:{word}",
            )
        return self._find_name(word) if others else self._check_index(word)

    def _check_index(self, number: str) -> int:
        index = int(number)
        if index >= self.explainable_count:
            raise RequestError(
                f"there is no {self.noun} {index}",
                f"the model has {self.explainable_count} {self.nouns}, counted from 0 to {self.explainable_count - 1}",
            )
        return index

    def _find_name(self, word: str) -> int:
        wanted = normalize_name(word)
        if not wanted:
            raise RequestError(f"an empty name is not a {self.noun}", self._describe_naming())
        for rule in MATCHERS:
            meant = [index for index in rule(self, wanted) if index < self.explainable_count]
            if len(meant) == 1:
                return meant[0]
            if meant:
                raise RequestError(
                    f"{word!r} is ambiguous: {len(meant)} {self.nouns} have this name",
                    "give one of them by its index:\n" + self._list_entries(meant),
                )
        raise UnknownNameError(
            f"there is no {self.noun} {word!r}", self._suggest_nearest(word) + self._describe_naming()
        )

    def _list_entries(self, indices: list[int]) -> str:
        lines = [self.entry(index) for index in indices[:MAX_LISTED]]
        more = len(indices) - len(lines)
        return "\n".join([*lines, f"and {more} more"] if more else lines)

    def _suggest_nearest(self, word: str) -> str:
        owner: dict[str, int] = {}
        for index, name in enumerate(self.names[: self.explainable_count]):
            for synonym in self.split(name):
                owner.setdefault(synonym, index)
        close = dict.fromkeys(owner[synonym] for synonym in find_nearest(word, owner))
        return "did you mean:\n" + self._list_entries(list(close)) + "\n" if close else ""

    def _describe_naming(self) -> str:
        ids = ", a WordNet id such as " + self.wordnet[0] if self.wordnet else ""
        return (
            f"a {self.noun} is given by its index (0 to {self.explainable_count - 1}){ids}, its name, or a part that "
            "is in no other name"
        )


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal()


def normalize_name(text: str) -> str:
    """Normalize a name for comparison: case is ignored, and ``_`` is a blank."""
    return " ".join(text.replace("_", " ").casefold().split())


@lru_cache(maxsize=8)
def _normalize_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(normalize_name, names))


def _match_wordnet(labels: Labels, wanted: str) -> Iterator[int]:
    return (index for index, name in enumerate(labels.wordnet) if name.casefold() == wanted)


def _match_exactly(labels: Labels, wanted: str) -> Iterator[int]:
    # Name and synonyms are one rule: "maillot" is the whole name of one ImageNet class and a synonym of the next.
    names = enumerate(_normalize_names(labels.names))
    return (index for index, name in names if wanted == name or wanted in labels.split(name))


def _match_whole_words(labels: Labels, wanted: str) -> Iterator[int]:
    whole = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    return (index for index, name in enumerate(_normalize_names(labels.names)) if whole.search(name))


def _match_substring(labels: Labels, wanted: str) -> Iterator[int]:
    return (index for index, name in enumerate(_normalize_names(labels.names)) if wanted in name)


MATCHERS: tuple[Callable[[Labels, str], Iterator[int]], ...] = (
    _match_wordnet,
    _match_exactly,
    _match_whole_words,
    _match_substring,
)


def find_whole_name(labels: Labels, word: str) -> int | None:
    """Find the only class that has the word as its WordNet id, name, or a whole synonym; None if there is none."""
    meant = {*_match_wordnet(labels, word.casefold()), *_match_exactly(labels, normalize_name(word))}
    return meant.pop() if len(meant) == 1 else None


def is_part_of_name(labels: Labels, word: str) -> bool:
    """Return whether the class that a word names has it only as a part of its name."""
    kind, _, rest = word.partition(":")
    is_number = _is_number(word) or (kind == "index" and _is_number(rest))
    return not is_number and find_whole_name(labels, rest if kind == "name" and rest else word) is None


def read(path: Path) -> Labels:
    """Read the names of classes from a file.

    Text has one name a line, in the order of the classes, each perhaps with a WordNet id in front
    (``n02123045 tabby, tabby cat``); or each with its class's number (``0 tabby``, ``0,tabby``, ``tabby,0``). JSON and
    YAML hold a list of names, an object from number to name (or to ``[WordNet id, name]``) or from name to number, or
    one of these under ``id2label``, ``class_to_idx``, ``names`` and the like.

    Raises:
        RequestError: the file cannot be read, or does not give every class one name.
    """
    return _split_wordnet(class_list.read(path))


def as_labels(given: Labels | Sequence[str]) -> Labels:
    """Return the names of classes as labels.

    Raises:
        RequestError: they are no list of strings.
    """
    if isinstance(given, Labels):
        return given
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(label, str) for label in given):
        return Labels(tuple(given))
    what = f"{type(given).__name__}" if isinstance(given, str) or not isinstance(given, Sequence) else "list of others"
    raise RequestError(f"the names of the classes are a {what}", "give a list of strings")


def _split_wordnet(lines: list[str]) -> Labels:
    parts = [line.partition(" ") for line in lines]
    if not all(WORDNET_ID.fullmatch(first) for first, _, _ in parts):
        return Labels(tuple(lines))
    return Labels(tuple(rest or first for first, _, rest in parts), tuple(first.lower() for first, _, _ in parts))
