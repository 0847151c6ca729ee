"""Ranges and lists in braces, as shells and WebDataset write the names of many files."""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice

from camcli.base.errors import RequestError

RANGE_OR_LIST = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<words>[^{},]*(?:,[^{},]*)+))\}", re.ASCII)
# A range with a typing error could otherwise fill the memory.
MAX_NAMES = 1_000_000


def expand_braces(inputs: Iterable[str]) -> list[str]:
    """Expand ``{000..123}`` and ``{train,test}`` in inputs, but not in a list's name or that of an existing file.

    Raises:
        RequestError: an input stands for more than a million names.
    """
    names: list[str] = []
    for given in inputs:
        if "{" not in given or given.startswith("@") or os.path.lexists(given):
            names.append(given)
            continue
        own = list(islice(_expand(given), MAX_NAMES + 1))
        if len(own) > MAX_NAMES:
            raise RequestError(f"{given!r} stands for more than {MAX_NAMES:,} names", "name files by a pattern: *")
        names += own
    return names


def _expand(text: str) -> Iterator[str]:
    found = RANGE_OR_LIST.search(text)
    if found is None:
        yield text
        return
    for word in _words(found):
        yield from _expand(text[: found.start()] + word + text[found.end() :])


def _words(found: re.Match[str]) -> Iterator[str]:
    if found["words"] is not None:
        yield from found["words"].split(",")
        return
    first, last = int(found["first"]), int(found["last"])
    padded = any(len(one) > 1 and one.startswith("0") for one in (found["first"], found["last"]))
    width = max(len(found["first"]), len(found["last"])) if padded else 0
    step = 1 if first <= last else -1
    for number in range(first, last + step, step):
        yield f"{number:0{width}}"
