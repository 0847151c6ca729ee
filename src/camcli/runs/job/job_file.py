"""Job files, whose options rank below the flags: defaults < file < environment < flags."""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from camcli.base.errors import RequestError, did_you_mean
from camcli.models.listing import runs_code
from camcli.runs.job.job import RENAMED_OPTIONS, Job
from camcli.runs.job.option import name_by_field
from camcli.runs.job.values import SEPARATORS, convert_value

# The option that lets a model's own code run.
REMOTE_CODE = "trust_code"
KIND_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    tuple: "a string or a list of strings",
}


def read(path: Path, defaults: Mapping[str, Any], note: Callable[[str], object] = lambda text: None) -> dict[str, Any]:
    """Read the options in a job file: TOML, or the ``run.json`` of an earlier run.

    Args:
        path: the file.
        defaults: the options that exist, each with a value of its type.
        note: called with notes for the user, such as that an option has another name now.

    Raises:
        RequestError: the file cannot be read, names an option that does not exist, or has a value of a wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
        options = json.loads(text).get("job") if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise RequestError(f"the job file {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the job file {str(path)!r} cannot be read: it is not UTF-8 text", "write TOML: model = 'resnet50'"
        ) from error
    except (ValueError, AttributeError) as error:
        raise RequestError(
            f"the job file {str(path)!r} cannot be read: {error}", "write TOML: model = 'resnet50'"
        ) from error
    if not isinstance(options, dict):
        raise RequestError(f"{str(path)!r} contains no job", "give a TOML job file, or the run.json of an earlier run")
    for old in RENAMED_OPTIONS.keys() & options.keys():
        options = _rename_option(path, options, old)
        if path.suffix != ".json":  # nobody needs to change what an earlier version wrote
            note(f"{path}: {old} is called {RENAMED_OPTIONS[old]} now")
    options = name_by_field(Job, options)
    for name, value in options.items():
        if isinstance(value, dict | list) and name not in defaults:
            raise RequestError(
                f"{path}: there is no option {name!r}", "it is a section: write options alone, model = 'resnet50'"
            )
        if name not in defaults:
            near = did_you_mean(name, defaults)
            raise RequestError(f"{path}: there is no option {name!r}", near or f"there are: {', '.join(defaults)}")
        if not _is_same_kind(value, defaults[name], name in SEPARATORS):
            raise RequestError(f"{path}: {name} must be {KIND_NAMES[type(defaults[name])]}, not {value!r}")
        options[name] = convert_value(name, value)
    return options


def find_code(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a job file that let Python code run: the model, a wrapper, a text tower, a flag."""
    named = {name: str(options.get(name, "")) for name in ("model", "wrap", "text_tower")}
    found = {name: words for name, words in named.items() if words and (name != "model" or runs_code(words))}
    return {**found, REMOTE_CODE: "true"} if options.get(REMOTE_CODE) else found


def check_trusted(path: Path, code: Mapping[str, str], trusted: bool) -> None:
    """Check that the code that a job file names may be run.

    Args:
        path: the job file.
        code: as returned by :func:`find_code`, without options that are overridden elsewhere.
        trusted: the user allows it.

    Raises:
        RequestError: the user does not allow it.
    """
    for name, words in code.items():
        if not trusted:
            flag, what = "--" + name.replace("_", "-"), f"{name} = {words!r} is Python code"
            if name == REMOTE_CODE:
                words, what = "", f"{name} runs Python code that comes with the model"
            raise RequestError(
                f"{path}: {what}, which a job file alone does not run",
                f"look at what it does, then add --trust-config; or name it yourself: {flag} {words}".rstrip(),
            )


def _rename_option(path: Path, options: Mapping[str, Any], old: str) -> dict[str, Any]:
    """Return the options with one of them under its current name."""
    new, value = RENAMED_OPTIONS[old], options[old]
    if new in options:
        raise RequestError(f"{path}: {new} is given twice, once by its old name {old}", f"leave {old} out")
    if not isinstance(value, bool):
        raise RequestError(
            f"{path}: {old} is not a file but true or false: the old name of {new}, gradient checkpointing",
            f"load weights by weights = {value!r}",
        )
    return {new if name == old else name: one for name, one in options.items()}


def _is_same_kind(value: Any, default: Any, joined: bool) -> bool:
    """Return whether a value is of the default's type.

    Args:
        value: the value.
        default: the default.
        joined: True if several values are joined to one.
    """
    if isinstance(default, tuple) or (joined and not isinstance(value, str)):
        # A bool is no number here, though it is one in Python.
        single = str | int if isinstance(default, tuple) else str | int | float
        several = value if isinstance(value, list) else [value]
        return all(isinstance(one, single) and not isinstance(one, bool) for one in several)
    return type(value) is type(default) or (type(default) is float and type(value) is int)
