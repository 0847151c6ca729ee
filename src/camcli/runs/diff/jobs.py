"""Differences between the jobs of two runs, by what ``run.json`` says of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Options that say where a run reads and writes, and how fast, and not what a map is.
IGNORED_OPTIONS = frozenset(
    {
        *("inputs", "null_separated", "out", "root", "save", "colormap", "alpha", "outside", "normalize", "panel_size"),
        *(
            "carry",
            "limit",
            "shard",
            "overwrite",
            "drop_others",
            "accept_versions",
            "durable",
            "batch_size",
            "recompute",
        ),
        *("workers", "timeout", "device", "precision", "compile", "linear"),
        *("model", "weights", "method", "options", "layers"),  # told apart from what they were resolved to
    }
)
HASH_DIGITS = 12


def list_differences(base: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what differs: its name, and the values of both runs."""
    one, other = dict(_list_facts(base)), dict(_list_facts(new))
    return [
        (name, one.get(name, ""), other.get(name, ""))
        for name in dict.fromkeys([*one, *other])
        if one.get(name, "") != other.get(name, "")
    ]


def _list_facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a run's maps depend on, by name, in words."""
    model = facts.get("model") or {}
    yield "model", _format(model.get("name"))
    yield "weights", f"{_format(model.get('origin'))} sha256:{_format(model.get('sha256'))[:HASH_DIGITS]}"
    yield "classes", _format(model.get("classes"))
    for name, value in (model.get("preprocessing") or {}).items():
        yield f"preprocessing {name}", _format(value)
    yield "methods", ", ".join(map(_format_method, facts.get("methods") or ()))
    yield "layers", _format(facts.get("layers"))
    yield "explained", _format(facts.get("explained"))
    yield "precision", _format(facts.get("precision"))
    yield "device", _format(facts.get("device"))
    yield "linear layers by", _format((facts.get("linear") or {}).get("library"))
    for name, value in (facts.get("job") or {}).items():
        if name not in IGNORED_OPTIONS:
            yield f"option {name}", _format(value)
    yield "camcli", _format(facts.get("camcli"))
    for name, value in (facts.get("versions") or {}).items():
        yield name, _format(value)
    yield "platform", _format(facts.get("platform"))


def _format_method(method: Mapping[str, Any]) -> str:
    return " ".join(
        [str(method.get("name")), *(f"{name}={one}" for name, one in (method.get("options") or {}).items())]
    )


def _format(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_format, value))
    return "" if value is None else str(value)
