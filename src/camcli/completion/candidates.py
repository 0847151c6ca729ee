"""Words that can stand at a place of a command line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from camcli.completion.table import read_table
from camcli.models import BUNDLED_MODEL
from camcli.models.names_cache import read_model, read_names

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:all", "mps")
TARGETS = ("predicted", "top:5", "rank:2", "all", "all>0.5", "folder", "dataset", "channel:0", "channels:top:5")
TAG = re.compile(r"[./]")


class Candidate(NamedTuple):
    """Completion of a word.

    Attributes:
        value: the whole word.
        help: what it is; may be empty.
    """

    value: str
    help: str = ""


class _Line:
    """Command line up to the word that is completed.

    Attributes:
        command: name of the command; empty before it.
        values: values given so far, by parameter.
        expected: parameter whose value comes next; None if none is expected.
    """

    def __init__(self, words: Sequence[str], commands: dict[str, Any]) -> None:
        self.command = next((word for word in words if word in commands), "")
        self.parameters: list[dict[str, Any]] = commands[self.command]["parameters"] if self.command else []
        self.values: dict[str, list[str]] = {}
        self.expected: dict[str, Any] | None = None
        by_flag = {flag: one for one in self.parameters for flag in one["flags"]}
        positional = [one for one in self.parameters if not one["flags"]]
        self.flags_end = False
        for word in words[words.index(self.command) + 1 :] if self.command else ():
            flag, equals, value = word.partition("=")
            if self.expected:
                self._take(self.expected, word)
                self.expected = None
            elif word == "--":
                self.flags_end = True
            elif word.startswith("-") and word != "-" and not self.flags_end:
                one = by_flag.get(flag)
                if one and equals:
                    self._take(one, value)
                elif one and one["takes_value"]:
                    self.expected = one
                elif one:
                    self._take(one, "")
            elif positional:
                self._take(positional[0], word)
                positional = positional[not positional[0]["repeats"] :]
        self.is_positional = self.expected is None
        if self.expected is None and positional:
            self.expected = positional[0]

    def _take(self, one: dict[str, Any], value: str) -> None:
        self.values.setdefault(one["name"], []).append(value)

    @property
    def model(self) -> str:
        """The model named so far, or the default."""
        return self.values.get("model", [os.environ.get("CAMCLI_MODEL") or BUNDLED_MODEL])[-1]


def complete(words: Sequence[str], word: str, list_models: Callable[[], None] = lambda: None) -> list[Candidate]:
    """Return the completions of a word; none where a file, or anything, can stand.

    Args:
        words: the words before it, without the program's name.
        word: its beginning, which may be empty.
        list_models: called where the names of models are wanted and not cached.
    """
    table = read_table()
    line = _Line(words, table["commands"])
    if not line.command:
        if word.startswith("-"):
            return [Candidate(flag) for flag in ("--help", "--version") if flag.startswith(word)]
        return [Candidate(name, one["help"]) for name, one in table["commands"].items() if name.startswith(word)]
    if word.startswith("-") and line.is_positional and not line.flags_end:
        flag, equals, value = word.partition("=")
        named = next((one for one in line.parameters if flag in one["flags"]), None)
        if equals and named:
            return [
                Candidate(f"{flag}={one.value}", one.help)
                for one in _complete_value(line, named, value, table, list_models)
            ]
        return _complete_flag(line, word)
    return _complete_value(line, line.expected, word, table, list_models) if line.expected else []


def _complete_flag(line: _Line, word: str) -> list[Candidate]:
    """Return the flags that begin with a word: those of a letter only if that is all there is."""
    wanted = [one for one in line.parameters if one["flags"] and (one["repeats"] or one["name"] not in line.values)]
    found = [Candidate(flag, one["help"]) for one in wanted for flag in one["flags"] if flag.startswith(word)]
    found += [Candidate("--help", "Show this message and exit")] * "--help".startswith(word)
    return [one for one in found if one.value.startswith("--")] if word == "-" else found


def _complete_value(
    line: _Line, one: dict[str, Any], word: str, table: dict[str, Any], list_models: Callable[[], None]
) -> list[Candidate]:
    name = one["name"] if line.command != "models" else "model"
    before, comma, part = word.rpartition(",") if one["commas"] or name in ("device", "contrast") else ("", "", word)
    taken = before.split(",") if before else []
    if name == "model":
        found = _complete_model(part, list_models)
    elif name in ("layers", "layer"):
        found = _complete_layer(line, part)
    elif name == "target":
        found = _begin(part, [*TARGETS, *_list_classes(line)])
    elif name in ("versus", "contrast"):
        found = _begin(part, _list_classes(line))
    elif name == "device":
        found = _begin(part, DEVICES)
    elif name == "options":
        found = _complete_option(line, part, table["method_options"])
    elif line.command == "methods":
        found = _begin(part, table["method_options"])
    elif name == "channels":
        found = []
    else:
        found = _begin(part, one["values"])
    return [Candidate(before + comma + value) for value in found if value not in taken]


def _begin(word: str, values: Iterable[str]) -> list[str]:
    """Return the values that begin with a word, whatever the case of its letters, if that is how they are written."""
    values = list(dict.fromkeys(values))
    exact = [value for value in values if value.startswith(word)]
    return exact or [value for value in values if value.casefold().startswith(word.casefold())]


def _complete_model(word: str, list_models: Callable[[], None]) -> list[str]:
    """Return names of models, as far as one has begun to write them: with source, with tag, or bare."""
    names = read_names()
    if names is None:
        list_models()
        return _begin(word, [BUNDLED_MODEL])
    if ":" in word:
        return _begin(word, names)
    tagged = [name.partition(":")[2] for name in names]
    if TAG.search(word):
        return _begin(word, tagged)
    return _begin(word, [BUNDLED_MODEL, *(TAG.split(name)[0] for name in tagged)]) or _begin(word, names)


def _complete_layer(line: _Line, word: str) -> list[str]:
    """Return the model's layers on the level of the word: ``layer4``, and after ``layer4.`` those within."""
    known = read_model(line.model)
    return [] if known is None else _begin(word, (one for one in known.layers if one.count(".") == word.count(".")))


def _list_classes(line: _Line) -> list[str]:
    known = read_model(line.model)
    return [] if known is None else known.classes


def _complete_option(line: _Line, word: str, options: dict[str, list[str]]) -> list[str]:
    """Return the options of the methods named, with their values; after ``method.`` those of one."""
    named = [name for value in line.values.get("method", ["gradcam"]) for name in value.split(",")]
    plain = [option for name in named for option in options.get(name, ())]
    return _begin(word, plain) or _begin(word, (f"{name}.{one}" for name in named for one in options.get(name, ())))
