"""The names of a model's classes, and how a person's word becomes one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from camcli.base.errors import RequestError, nearest
from camcli.targets import class_list
from camcli.targets.class_list import WORDNET

LISTED = 8  # candidates shown in a message; a longer list hides the point
Noun = Literal["class", "channel", "prompt"]
PLURALS: dict[Noun, str] = {"class": "classes", "channel": "channels", "prompt": "prompts"}


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of classes, in the order of the model's scores.

    Attributes:
        names: one a class, such as ``tabby, tabby cat``.
        wordnet: the classes' WordNet ids such as ``n02123045``, or empty where they have none.
        synonyms: whether ``", "`` in a name stands between synonyms; in a prompt it is a comma like any other.
        noun: what they are: of a network without its head channels, of one that compares pictures with texts prompts.
        asked: how many of the first can be explained; the others, contrast prompts, only compete with them. None: all.
    """

    names: tuple[str, ...]
    wordnet: tuple[str, ...] = ()
    synonyms: bool = True
    noun: Noun = "class"
    asked: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))  # a list will do
        if self.wordnet and len(self.wordnet) != len(self.names):
            raise ValueError(f"{len(self.names)} names cannot have {len(self.wordnet)} WordNet ids")

    @classmethod
    def numbered(cls, count: int, noun: Noun = "class") -> Labels:
        """Stand-ins for names that nobody knows: ``class 0``, ``class 1``, ..."""
        return cls(tuple(f"{noun} {index}" for index in range(count)), noun=noun)

    @property
    def nouns(self) -> str:
        """What they are: ``classes``, ``channels``, ``prompts``."""
        return PLURALS[self.noun]

    @property
    def open(self) -> int:
        """How many can be explained: so many of the first."""
        return len(self.names) if self.asked is None else self.asked

    def __len__(self) -> int:
        return len(self.names)

    def short(self, index: int) -> str:
        """The class's first synonym: ``tabby`` for ``tabby, tabby cat``."""
        return self.split(self.names[index])[0]

    def split(self, name: str) -> list[str]:
        """The synonyms in a name."""
        return name.split(", ") if self.synonyms else [name]

    def entry(self, index: int) -> str:
        """The class as a list for people shows it: ``281 tabby, tabby cat``."""
        return f"{index} {self.names[index]}"

    def find(self, word: str) -> int:
        """The class that a person means by ``word``.

        The first of these that any class meets decides: the WordNet id is ``word``; the name, or a synonym in it, is
        ``word``; ``word`` stands in the name as whole words; it stands in the name anywhere. Neither case nor ``_`` for
        a blank counts. A number is an index; ``index:7`` and ``name:7`` say which is meant where names are numbers too.
        What only competes with others is not found.

        Args:
            word: an index, a WordNet id, a name, or a part of one.

        Returns:
            The class's index.

        Raises:
            RequestError: no class or several classes are meant; the hint lists the candidates or the nearest names.
        """
        kind, _, rest = word.partition(":")
        if kind == "index" and _is_number(rest):
            return self._indexed(rest)
        if kind == "name" and rest:
            return self._named(rest)
        if not _is_number(word):
            return self._named(word)
        return self._numbered(word)

    def _numbered(self, word: str) -> int:
        """The index ``word``, unless another class has that number for a name, as folders ``0, 1, 10, 2`` would."""
        others = [index for index in _exactly(self, folded(word)) if int(word) != index < self.open]
        if others and int(word) < self.open:
            raise RequestError(
                f"{word!r} is ambiguous: {self.noun} {int(word)} is {self.names[int(word)]!r}, "
                f"and {self.names[others[0]]!r} is {self.noun} {others[0]}",
                f"say index:{word} or name:{word}",
            )
        return self._named(word) if others else self._indexed(word)

    def _indexed(self, number: str) -> int:
        index = int(number)
        if index >= self.open:
            raise RequestError(
                f"there is no {self.noun} {index}",
                f"the model has {self.open} {self.nouns}, counted from 0 to {self.open - 1}",
            )
        return index

    def _named(self, word: str) -> int:
        wanted = folded(word)
        if not wanted:
            raise RequestError(f"an empty word names no {self.noun}", self._ways())
        for rule in RULES:
            meant = [index for index in rule(self, wanted) if index < self.open]
            if len(meant) == 1:
                return meant[0]
            if meant:
                raise RequestError(
                    f"{word!r} is ambiguous: {len(meant)} {self.nouns} are called so",
                    "name one of them by its number:\n" + self._listed(meant),
                )
        raise RequestError(f"there is no {self.noun} {word!r}", self._near(word) + self._ways())

    def _listed(self, indices: list[int]) -> str:
        lines = [self.entry(index) for index in indices[:LISTED]]
        more = len(indices) - len(lines)
        return "\n".join([*lines, f"and {more} more"] if more else lines)

    def _near(self, word: str) -> str:
        owner: dict[str, int] = {}
        for index, name in enumerate(self.names[: self.open]):
            for synonym in self.split(name):
                owner.setdefault(synonym, index)
        close = dict.fromkeys(owner[synonym] for synonym in nearest(word, owner))
        return "did you mean\n" + self._listed(list(close)) + "\n" if close else ""

    def _ways(self) -> str:
        ids = ", a WordNet id such as " + self.wordnet[0] if self.wordnet else ""
        return (
            f"a {self.noun} is named by its number (0 to {self.open - 1}){ids}, its name, or a part that no other name "
            "has"
        )


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal()


def folded(text: str) -> str:
    """A text as words are compared: neither case nor ``_`` for a blank counts."""
    return " ".join(text.replace("_", " ").casefold().split())


@lru_cache(maxsize=8)
def _folded_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(folded, names))


def _by_wordnet(labels: Labels, wanted: str) -> Iterator[int]:
    return (index for index, name in enumerate(labels.wordnet) if name.casefold() == wanted)


def _exactly(labels: Labels, wanted: str) -> Iterator[int]:
    # Name and synonyms are one rule: "maillot" is the whole name of one ImageNet class and a synonym of the next.
    names = enumerate(_folded_names(labels.names))
    return (index for index, name in names if wanted == name or wanted in labels.split(name))


def _in_words(labels: Labels, wanted: str) -> Iterator[int]:
    whole = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    return (index for index, name in enumerate(_folded_names(labels.names)) if whole.search(name))


def _anywhere(labels: Labels, wanted: str) -> Iterator[int]:
    return (index for index, name in enumerate(_folded_names(labels.names)) if wanted in name)


RULES: tuple[Callable[[Labels, str], Iterator[int]], ...] = (_by_wordnet, _exactly, _in_words, _anywhere)


def read(path: Path) -> Labels:
    """Read the names of classes from a file.

    Text has one name a line, in the order of the classes, each perhaps with a WordNet id in front
    (``n02123045 tabby, tabby cat``); or each with its class's number (``0 tabby``, ``0,tabby``, ``tabby,0``). JSON and
    YAML hold a list of names, an object from number to name (or to ``[WordNet id, name]``) or from name to number, or
    one of these under ``id2label``, ``class_to_idx``, ``names`` and the like.

    Raises:
        RequestError: the file cannot be read, or does not give every class one name.
    """
    return _with_wordnet(class_list.read(path))


def _with_wordnet(lines: list[str]) -> Labels:
    parts = [line.partition(" ") for line in lines]
    if not all(WORDNET.fullmatch(first) for first, _, _ in parts):
        return Labels(tuple(lines))
    return Labels(tuple(rest or first for first, _, rest in parts), tuple(first.lower() for first, _, _ in parts))
