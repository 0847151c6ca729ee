"""Names of classes out of a file, whoever wrote it: a list, or names and numbers in either order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.base.delimited import read_text, rows, title
from camcli.base.errors import RequestError

WORDNET = re.compile(r"n\d{8}", re.IGNORECASE)
PLAIN = "write one class name a line, in the model's order"
IN_JSON = (
    'write ["first", "second"] or {"0": "first", "1": "second"}, counted from 0 without a gap; also read are '
    "class_to_idx, and id2label in a config.json"
)
# Where names stand in what libraries write: transformers, torchvision's folders, YOLO, timm.
INSIDE = ("id2label", "label2id", "idx_to_class", "class_to_idx", "names", "classes", "labels", "label_names")
# How a first line may call the numbers, and how the names.
NUMBERS = frozenset({"index", "idx", "id", "class_id", "class_idx", "label_id", "class_index", "number", "target"})
NAMES = frozenset({"name", "names", "class", "classes", "label", "labels", "class_name", "label_name", "category"})
# `0 ant`, `0: ant`, `0,ant`; and `ant,0`.
NUMBER_FIRST = re.compile(r"(\d{1,9})\s*[\s,;:]\s*(\S.*)", re.ASCII)
NUMBER_LAST = re.compile(r"(.*\S)\s*[\t,;]\s*(\d{1,9})", re.ASCII)


def read(path: Path) -> list[str]:
    """The names of all classes, in order; each perhaps with a WordNet id in front.

    Raises:
        RequestError: the file cannot be read, or does not give every class one name.
    """
    what = f"the labels file {str(path)!r}"
    text = read_text(path, what, PLAIN)
    names = _found(path, text, what)
    names = [" ".join(line.split()) for line in names]
    if "" in names or not names:
        where = f"has no name for class {names.index('')}" if names else "is empty"
        raise RequestError(f"{what} {where}", PLAIN)
    return names


def is_title(line: str) -> bool:
    """Whether a line may be the titles of a list of names, and no name."""
    return {title(cell) for cell in re.split(r"[,;\t]", line)} <= NAMES | NUMBERS


def _found(path: Path, text: str, what: str) -> Sequence[str]:
    if path.suffix.lower() in (".yaml", ".yml"):
        return _from_yaml(text, what)
    in_json = path.suffix.lower() == ".json"
    try:
        content = json.loads(text) if in_json or text.lstrip()[:1] in ("{", "[") else None
    except ValueError as error:  # a name may begin with a bracket
        if in_json:
            raise RequestError(f"{what} is not a list of names: it is not JSON ({error})", IN_JSON) from error
        content = None
    if in_json or isinstance(content, Mapping | list):
        return _in(content, what)
    return _from_lines(text.rstrip().splitlines(), what)


def _from_yaml(text: str, what: str) -> Sequence[str]:
    """The names in a file of YAML, such as the ``data.yaml`` of YOLO."""
    import yaml

    try:
        # Every scalar as it is written: `no` is a name, and no truth value.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise RequestError(f"{what} is not YAML ({said})", "write names: [first, second]") from error
    return _in(content, what)


def _in(content: Any, what: str) -> list[str]:
    """The names in JSON or YAML."""
    if isinstance(content, Mapping) and not _numbered(content):
        inside = next((key for key in INSIDE if isinstance(content.get(key), Mapping | list)), None)
        if inside is not None:
            return _in(content[inside], f"{inside!r} in {what}")
    if isinstance(content, Mapping):
        content = _in_order(content, what)
    lines = [" ".join(item) if _is_pair(item) else item for item in content] if isinstance(content, list) else [None]
    odd = next((line for line in lines if not isinstance(line, str)), None)
    if not all(isinstance(line, str) for line in lines):
        shown = f": {odd!r} is no name" if isinstance(content, list) else f": it holds {_shown(content)}"
        raise RequestError(f"{what} is not a list of names{shown}", IN_JSON)
    return [line for line in lines if isinstance(line, str)]


def _numbered(content: Mapping[Any, Any]) -> bool:
    """Whether it is from number to name, or from name to number."""
    return bool(content) and (all(map(_number, content)) or all(map(_number, content.values())))


def _number(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdecimal()
    return type(value) is int and value >= 0


def _in_order(content: Mapping[Any, Any], what: str) -> list[Any]:
    """The names by their numbers, whichever of the two stands first."""
    # Of names that are numbers too the values tell, which are none in quotes.
    first = all(map(_number, content)) and not all(type(value) is int for value in content.values())
    pairs = [(key, name) if first else (name, key) for key, name in content.items()]
    if not content or not all(_number(number) for number, _ in pairs):
        raise RequestError(f"{what} is not a list of names: it holds {_shown(content)}", IN_JSON)
    return _counted([(int(number), name) for number, name in pairs], what, lambda turn: _shown(content, turn), IN_JSON)


def _counted(pairs: Sequence[tuple[int, Any]], what: str, shown: Callable[[int], str], hint: str) -> list[Any]:
    """Names in the order of their numbers.

    Raises:
        RequestError: these are not 0, 1, ... without a gap; the message shows what is the first too many.
    """
    numbers = [number for number, _ in pairs]
    met: set[int] = set()
    for turn, number in enumerate(numbers):
        if number >= len(pairs) or number in met:
            why = "comes twice" if number in met else f"is none of 0 to {len(pairs) - 1}"
            raise RequestError(
                f"{what} is not a list of names for {len(pairs)} classes counted from 0: {number} {why}: {shown(turn)}",
                hint,
            )
        met.add(number)
    return [name for _, name in sorted(pairs, key=lambda pair: pair[0])]


def _from_lines(lines: Sequence[str], what: str) -> Sequence[str]:
    """Names one a line, in order; or each with its number."""
    filled = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if table := _titled("\n".join(lines)):
        numbers, names = table
        return _counted(list(zip(numbers, names, strict=True)), what, lambda turn: names[turn], PLAIN)
    for form, turned in ((NUMBER_FIRST, False), (NUMBER_LAST, True)):
        found = [form.fullmatch(line) for _, line in filled]
        if not found or not all(found):
            continue
        pairs = [(int(one[2]), one[1]) if turned else (int(one[1]), one[2]) for one in found if one]
        return _counted(
            [(number, name.strip("\"'")) for number, name in pairs],
            what,
            lambda turn: f"line {filled[turn][0]}: {filled[turn][1]!r}",
            'where the numbers are no classes but part of the names, write JSON: ["1 ant", "2 bee"]',
        )
    return lines


def _titled(text: str) -> tuple[list[int], list[str]] | None:
    """Numbers and names of a table whose first row says which column is which; None if it is none."""
    try:
        table = [cells for _, cells in rows(text)]
    except ValueError:  # names may hold quotes as they like
        return None
    titles = list(map(title, table[0])) if table else []
    by_number = [at for at, one in enumerate(titles) if one in NUMBERS]
    by_name = [at for at, one in enumerate(titles) if one in NAMES]
    if len(by_number) != 1 or len(by_name) != 1 or len(table) < 2:
        return None
    pairs = [(cells[by_number[0]], cells[by_name[0]]) for cells in table[1:] if len(cells) == len(titles)]
    if len(pairs) < len(table) - 1 or not all(_number(number) for number, _ in pairs):
        return None
    return [int(number) for number, _ in pairs], [name for _, name in pairs]


def _is_pair(item: object) -> bool:
    """Whether an item is ``["n02123045", "tabby"]``, as in the well-known ``imagenet_class_index.json``."""
    return (
        isinstance(item, list)
        and len(item) == 2
        and all(isinstance(part, str) for part in item)
        and WORDNET.fullmatch(item[0]) is not None
    )


def _shown(content: Any, turn: int = 0) -> str:
    """A short piece of it, for a message."""
    if isinstance(content, Mapping) and content:
        key = list(content)[turn]
        return f"{key!r}: {content[key]!r}"[:120]
    return repr(content)[:120]
