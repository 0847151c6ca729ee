"""Values of options as Python and TOML give them: one or several, numbers, arrays, paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from camcli.base.signature import format_value
from camcli.runs.job.job import Job

# What joins several values in the options that are one string.
SEPARATORS = dict.fromkeys(("method", "scales", "device", "range", "bands", "rgb", "pages"), ",") | {
    "group": "",
    "size": "x",
}


def convert_value(name: str, value: Any) -> Any:
    """Return the value of an option in the form that a job holds, a list for several; unchanged if it is none of these.

    Args:
        name: the field of the job.
        value: a single value or several, also of NumPy and PyTorch; a mapping for the options of methods; a path.
    """
    kind = str(Job.__dataclass_fields__[name].type)
    if not isinstance(value, str | os.PathLike) and hasattr(value, "tolist"):
        value = value.tolist()
    if kind.startswith("tuple"):
        if isinstance(value, Mapping):
            return [f"{option}={format_value(given)}" for option, given in value.items()]
        return [_to_word(one) for one in _as_list(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if name in SEPARATORS and not isinstance(value, str | bool):
        return SEPARATORS[name].join(map(_to_word, _as_list(value)))
    return value


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable) else list(value)


def _to_word(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    return str(value.tolist() if hasattr(value, "tolist") else value)
