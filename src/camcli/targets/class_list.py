"""Reading of class names from files: a list, or names and numbers in either order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.base.delimited import normalize_title, read_rows, read_text
from camcli.base.errors import RequestError

WORDNET_ID = re.compile(r"n\d{8}", re.IGNORECASE)
PLAIN_HINT = "write one class name a line, in the model's order"
JSON_HINT = (
    'write ["first", "second"] or {"0": "first", "1": "second"}, counted from 0 without a gap; also read are '
    "class_to_idx, and id2label in a config.json"
)
# Keys of the names in files of transformers, torchvision, YOLO and timm.
NAME_KEYS = ("id2label", "label2id", "idx_to_class", "class_to_idx", "names", "classes", "labels", "label_names")
# Titles for columns of numbers, and of names.
NUMBER_TITLES = frozenset(
    {"index", "idx", "id", "class_id", "class_idx", "label_id", "class_index", "number", "target"}
)
NAME_TITLES = frozenset(
    {"name", "names", "class", "classes", "label", "labels", "class_name", "label_name", "category"}
)
# `0 ant`, `0: ant`, `0,ant`; and `ant,0`.
NUMBER_FIRST = re.compile(r"(\d{1,9})\s*[\s,;:]\s*(\S.*)", re.ASCII)
NUMBER_LAST = re.compile(r"(.*\S)\s*[\t,;]\s*(\d{1,9})", re.ASCII)


def read(path: Path) -> list[str]:
    """Read the names of all classes, in order, each perhaps with a WordNet id in front.

    Raises:
        RequestError: the file cannot be read, or does not give every class one name.
    """
    what = f"the labels file {str(path)!r}"
    text = read_text(path, what, PLAIN_HINT)
    names = _parse_names(path, text, what)
    names = [" ".join(line.split()) for line in names]
    if "" in names or not names:
        where = f"has no name for class {names.index('')}" if names else "is empty"
        raise RequestError(f"{what} {where}", PLAIN_HINT)
    return names


def is_title(line: str) -> bool:
    """Return whether a line may be the titles of a list of names instead of a name."""
    return {normalize_title(cell) for cell in re.split(r"[,;\t]", line)} <= NAME_TITLES | NUMBER_TITLES


def _parse_names(path: Path, text: str, what: str) -> Sequence[str]:
    if path.suffix.lower() in (".yaml", ".yml"):
        return _parse_yaml(text, what)
    in_json = path.suffix.lower() == ".json"
    try:
        content = json.loads(text) if in_json or text.lstrip()[:1] in ("{", "[") else None
    except ValueError as error:  # a name may begin with a bracket
        if in_json:
            raise RequestError(f"{what} is not a list of names: it is not JSON ({error})", JSON_HINT) from error
        content = None
    if in_json or isinstance(content, Mapping | list):
        return _extract_names(content, what)
    return _parse_lines(text.rstrip().splitlines(), what)


def _parse_yaml(text: str, what: str) -> Sequence[str]:
    """Return the names in a YAML file, such as the ``data.yaml`` of YOLO."""
    import yaml

    try:
        # BaseLoader keeps scalars as strings: `no` is a name, not a boolean.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        raise RequestError(f"{what} is not YAML ({message})", "write names: [first, second]") from error
    return _extract_names(content, what)


def _extract_names(content: Any, what: str) -> list[str]:
    """Return the names in parsed JSON or YAML."""
    if isinstance(content, Mapping) and not _is_numbered(content):
        inside = next((key for key in NAME_KEYS if isinstance(content.get(key), Mapping | list)), None)
        if inside is not None:
            return _extract_names(content[inside], f"{inside!r} in {what}")
    if isinstance(content, Mapping):
        content = _order_mapping(content, what)
    lines = [" ".join(item) if _is_pair(item) else item for item in content] if isinstance(content, list) else [None]
    odd = next((line for line in lines if not isinstance(line, str)), None)
    if not all(isinstance(line, str) for line in lines):
        shown = f": {odd!r} is no name" if isinstance(content, list) else f": it contains {_format_excerpt(content)}"
        raise RequestError(f"{what} is not a list of names{shown}", JSON_HINT)
    return [line for line in lines if isinstance(line, str)]


def _is_numbered(content: Mapping[Any, Any]) -> bool:
    """Return whether a mapping goes from number to name, or from name to number."""
    return bool(content) and (all(map(_is_number, content)) or all(map(_is_number, content.values())))


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdecimal()
    return type(value) is int and value >= 0


def _order_mapping(content: Mapping[Any, Any], what: str) -> list[Any]:
    """Return the names of a mapping in the order of their numbers, which are its keys or its values."""
    # If the names are numbers too, values without quotes are the numbers.
    number_first = all(map(_is_number, content)) and not all(type(value) is int for value in content.values())
    pairs = [(key, name) if number_first else (name, key) for key, name in content.items()]
    if not content or not all(_is_number(number) for number, _ in pairs):
        raise RequestError(f"{what} is not a list of names: it contains {_format_excerpt(content)}", JSON_HINT)
    return _order_by_number(
        [(int(number), name) for number, name in pairs], what, lambda turn: _format_excerpt(content, turn), JSON_HINT
    )


def _order_by_number(
    pairs: Sequence[tuple[int, Any]], what: str, describe: Callable[[int], str], hint: str
) -> list[Any]:
    """Return names in the order of their numbers.

    Raises:
        RequestError: the numbers are not 0, 1, ... without a gap; the message shows the first wrong one.
    """
    numbers = [number for number, _ in pairs]
    seen: set[int] = set()
    for turn, number in enumerate(numbers):
        if number >= len(pairs) or number in seen:
            why = "comes twice" if number in seen else f"is none of 0 to {len(pairs) - 1}"
            raise RequestError(
                f"{what} is not a list of names for {len(pairs)} classes counted from 0: {number} {why}: "
                f"{describe(turn)}",
                hint,
            )
        seen.add(number)
    return [name for _, name in sorted(pairs, key=lambda pair: pair[0])]


def _parse_lines(lines: Sequence[str], what: str) -> Sequence[str]:
    """Return names from lines: one a line in order, or each with its number."""
    filled = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if table := _parse_titled_table("\n".join(lines)):
        numbers, names = table
        return _order_by_number(list(zip(numbers, names, strict=True)), what, lambda turn: names[turn], PLAIN_HINT)
    for form, number_last in ((NUMBER_FIRST, False), (NUMBER_LAST, True)):
        found = [form.fullmatch(line) for _, line in filled]
        if not found or not all(found):
            continue
        pairs = [(int(one[2]), one[1]) if number_last else (int(one[1]), one[2]) for one in found if one]
        return _order_by_number(
            [(number, name.strip("\"'")) for number, name in pairs],
            what,
            lambda turn: f"line {filled[turn][0]}: {filled[turn][1]!r}",
            'if the numbers are part of the names, write JSON: ["1 ant", "2 bee"]',
        )
    return lines


def _parse_titled_table(text: str) -> tuple[list[int], list[str]] | None:
    """Return numbers and names of a table with titles; None if the text is not one."""
    try:
        table = [cells for _, cells in read_rows(text)]
    except ValueError:  # names may contain unbalanced quotes
        return None
    titles = list(map(normalize_title, table[0])) if table else []
    by_number = [at for at, one in enumerate(titles) if one in NUMBER_TITLES]
    by_name = [at for at, one in enumerate(titles) if one in NAME_TITLES]
    if len(by_number) != 1 or len(by_name) != 1 or len(table) < 2:
        return None
    pairs = [(cells[by_number[0]], cells[by_name[0]]) for cells in table[1:] if len(cells) == len(titles)]
    if len(pairs) < len(table) - 1 or not all(_is_number(number) for number, _ in pairs):
        return None
    return [int(number) for number, _ in pairs], [name for _, name in pairs]


def _is_pair(item: object) -> bool:
    """Return whether an item is ``["n02123045", "tabby"]``, as in the well-known ``imagenet_class_index.json``."""
    return (
        isinstance(item, list)
        and len(item) == 2
        and all(isinstance(part, str) for part in item)
        and WORDNET_ID.fullmatch(item[0]) is not None
    )


def _format_excerpt(content: Any, turn: int = 0) -> str:
    """Return a short excerpt of parsed content, for a message."""
    if isinstance(content, Mapping) and content:
        key = list(content)[turn]
        return f"{key!r}: {content[key]!r}"[:120]
    return repr(content)[:120]
