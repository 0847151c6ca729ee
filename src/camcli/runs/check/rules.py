"""Files of rules: TOML with a table for each rule."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from camcli.base.errors import RequestError, did_you_mean
from camcli.images.objects import BOX_FORMATS
from camcli.metrics import METRICS
from camcli.runs.check import Measure, Rule, RuleKind, find_measures

EXAMPLE_HINT = "camcli check --example prints a file to start from"
SHARE_HINT = "give a share as 0.95 or '95%'"
# What every rule may have, and what of a limit.
COMMON_KEYS = ("measure", "name", "share", "class", "per_class", "method", "layer")
NUMBER_KEYS, TRUTH_KEYS = ("min", "max"), ("is",)


@dataclass(frozen=True, slots=True)
class RuleFile:
    """Rules in a file.

    Attributes:
        path: the file, whose folder relative paths in it start from.
        rules: the rules of the kind that was asked for.
        boxes: file with the boxes of objects; None if none is named.
    """

    path: Path
    rules: tuple[Rule, ...]
    boxes: Path | None


def read_rules(path: Path, kind: RuleKind) -> RuleFile:
    """Read the rules of a kind; those of the other kind are checked too.

    Raises:
        RequestError: the file cannot be read, or a rule in it is wrong.
    """
    text = _read_text(path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path} is not valid TOML: {error}", EXAMPLE_HINT) from error
    known = ("boxes", "check", "diff")
    for key in content:
        if key not in known:
            where = _format_place(path, _find_key(text.splitlines(), key))
            _refuse_unknown(where, "key", key, known)
    boxes = content.get("boxes")
    if boxes is not None and not isinstance(boxes, str):
        raise RequestError(
            f"{path}: boxes must be the path of a file or folder, not {boxes!r}", 'write boxes = "boxes.csv"'
        )
    rules = {one: _read_tables(path, text, content.get(one, []), one) for one in ("check", "diff")}
    if not rules[kind]:
        other = "" if not any(rules.values()) else f"; it has rules of the other kind, for camcli {_other(kind)}"
        raise RequestError(f"{path} has no [[{kind}]] rules{other}", EXAMPLE_HINT)
    needing = next((rule for rule in rules["check"] if rule.measure.needs_boxes), None)
    if needing and not boxes and kind == "check":
        raise RequestError(
            f"{needing.where}: {needing.measure.name} compares maps with boxes of objects, and the file names none",
            f'write boxes = "boxes.csv" at its top: {BOX_FORMATS}',
        )
    return RuleFile(path, rules[kind], path.parent / boxes if boxes else None)


def parse_share(given: Any, where: str) -> float:
    """Return a share, given as a number or as text such as ``95%``.

    Raises:
        RequestError: it is none.
    """
    share = None
    if isinstance(given, str):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)\s*", given)
        share = float(found[1]) / (100 if found[2] else 1) if found else None
    elif isinstance(given, int | float) and not isinstance(given, bool):
        share = float(given)
    if share is None or not 0 <= share <= 1:
        raise RequestError(f"{where} cannot be {given!r}", SHARE_HINT)
    return share


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"the rules file {str(path)!r} cannot be read: {error.strerror}", EXAMPLE_HINT) from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the rules file {str(path)!r} is not UTF-8 text", EXAMPLE_HINT) from error


def _read_tables(path: Path, text: str, tables: Any, kind: RuleKind) -> tuple[Rule, ...]:
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise RequestError(f"{path}: {kind} must be tables", f"write [[{kind}]] above each rule, with two brackets")
    measures = find_measures(kind)
    lines = text.splitlines()
    return tuple(
        _read_rule(table, kind, measures, partial(_find_place, path, lines, kind, number))
        for number, table in enumerate(tables)
    )


def _read_rule(
    table: Mapping[str, Any], kind: RuleKind, measures: Mapping[str, Measure], find_place: Callable[[str], str]
) -> Rule:
    """Read one rule.

    Args:
        table: its keys and values.
        kind: kind of the rule.
        measures: those that it may name.
        find_place: from a key, or an empty text, to the place in the file.
    """
    if "measure" not in table:
        for key in table:
            if near := did_you_mean(key, ["measure"]):
                raise RequestError(f"{find_place(key)}: there is no key {key!r}", near)
        raise RequestError(
            f"{find_place('')}: the rule names no measure", f"write measure = one of: {', '.join(measures)}"
        )
    measure = _find_measure(table["measure"], kind, measures, find_place("measure"))
    limits = TRUTH_KEYS if measure.truth else NUMBER_KEYS
    for key in table:
        if key not in (*COMMON_KEYS, *limits, *measure.settings):
            _refuse_key(find_place(key), key, measure, limits)
    if not any(key in table for key in limits):
        how = "is = true or is = false" if measure.truth else "min = or max ="
        raise RequestError(f"{find_place('')}: the rule on {measure.name} has no limit", f"write {how}")
    read = {key: _check_value(table[key], key, find_place(key)) for key in table}
    settings = {key: read[key] for key in measure.settings if key in read}
    if "region" in measure.settings and len(settings) != 1:
        raise RequestError(
            f"{find_place('')}: {measure.name} needs a region or a mask, one of the two",
            "write region = [x0, y0, x1, y1] in shares of width and height, or mask = 'mask.png', of the images' "
            "size and black outside",
        )
    if "min" in read and "max" in read and read["min"] > read["max"]:
        raise RequestError(f"{find_place('max')}: max is below min, so nothing can hold", "exchange them")
    return Rule(
        measure=measure,
        name=read.get("name", ""),
        least=read.get("min"),
        most=read.get("max"),
        wanted=read.get("is"),
        share=read.get("share", 1.0),
        classes=read.get("class", ()),
        per_class=read.get("per_class", False),
        method=read.get("method", ""),
        layer=read.get("layer", ""),
        settings=settings,
        where=find_place(""),
    )


def _find_measure(name: Any, kind: RuleKind, measures: Mapping[str, Measure], where: str) -> Measure:
    if name in measures:
        return measures[name]
    if name in find_measures(_other(kind)):
        raise RequestError(
            f"{where}: {name!r} is a measure of [[{_other(kind)}]]", f"write [[{_other(kind)}]] above it"
        )
    if kind == "check" and name in METRICS.names():
        why = (
            "is a number of several images, not of one map"
            if METRICS.find(name).pooled
            else "asks the network, which a finished run does not have"
        )
        raise RequestError(f"{where}: {name} {why}", "camcli evaluate measures it")
    return _refuse_unknown(where, "measure", name, measures)


def _refuse_key(where: str, key: str, measure: Measure, limits: Collection[str]) -> NoReturn:
    """Refuse a key that rules on a measure do not have."""
    if key in (*NUMBER_KEYS, *TRUTH_KEYS):
        kind = "true or false" if measure.truth else "a number"
        raise RequestError(f"{where}: {measure.name} is {kind}, so it has no {key}", f"write {' or '.join(limits)}")
    _refuse_unknown(f"{where} ({measure.name})", "key", key, (*COMMON_KEYS, *limits, *measure.settings))


def _refuse_unknown(where: str, noun: str, given: Any, known: Collection[str]) -> NoReturn:
    near = did_you_mean(str(given), known)
    raise RequestError(
        f"{where}: there is no {noun} {given!r}", "\n".join(filter(None, [near, f"there are: {', '.join(known)}"]))
    )


def _check_value(value: Any, key: str, where: str) -> Any:
    """Return the value of a key in the form that a rule has it.

    Raises:
        RequestError: it is of another type, or out of range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match key:
        case "share":
            return parse_share(value, f"{where}: share")
        case "class":
            names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
            expected, fits, value = "a name or a list of names", names and all(isinstance(n, str) for n in names), names
        case "per_class" | "is":
            expected, fits = "true or false", isinstance(value, bool)
        case "measure" | "name" | "method" | "layer" | "mask":
            expected, fits = "text in quotes", isinstance(value, str)
        case "region":
            fits = isinstance(value, list) and len(value) == 4 and all(isinstance(n, int | float) for n in value)
            fits = fits and 0 <= value[0] < value[2] <= 1 and 0 <= value[1] < value[3] <= 1
            expected = "[x0, y0, x1, y1] with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, in shares of width and height"
        case "width":
            expected, fits = "a share of the shorter side, above 0 and at most 0.5", is_number and 0 < value <= 0.5
        case _:
            expected, fits = "a number", is_number
    if not fits:
        raise RequestError(f"{where}: {key} cannot be {value!r}", f"it is {expected}")
    return float(value) if is_number else value


def _other(kind: RuleKind) -> RuleKind:
    return "diff" if kind == "check" else "check"


# --- places in the file


def _find_place(path: Path, lines: list[str], kind: str, number: int, key: str) -> str:
    """Return the file and, if it can be found, the line of a rule's table, or of a key in it."""
    heads = [at for at, line in enumerate(lines) if re.match(rf"\s*\[\[\s*{kind}\s*\]\]", line)]
    if number >= len(heads):
        return f"{path}, {kind} rule {number + 1}"
    start = heads[number]
    end = next((at for at in range(start + 1, len(lines)) if re.match(r"\s*\[", lines[at])), len(lines))
    found = _find_key(lines[start:end], key) if key else None
    return _format_place(path, start + (found or 0))


def _find_key(lines: list[str], key: str) -> int | None:
    pattern = re.compile(rf"""\s*(\[\[?\s*)?["']?{re.escape(key)}["']?\s*[=\]]""")
    return next((at for at, line in enumerate(lines) if pattern.match(line)), None)


def _format_place(path: Path, line: int | None) -> str:
    return str(path) if line is None else f"{path}, line {line + 1}"
