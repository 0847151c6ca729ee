"""Table of all commands and their parameters for completion, made once and cached: making it takes half a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from camcli.base import cache

CACHE_NAME = "commands"


def read_table() -> dict[str, Any]:
    """Return the table, from the cache if nothing was installed since.

    Returns:
        ``commands``: by name, ``help`` and ``parameters``: each a dictionary with ``name``, ``flags`` (none if it is
        positional), ``takes_value``, ``repeats``, ``values`` (those to complete), ``commas`` and ``help``.
        ``method_options``: by method, words such as ``samples=8``.
    """
    key = _find_key()
    found: dict[str, Any] | None = cache.read(CACHE_NAME, key)
    if found is None:
        found = make_table()
        cache.write(CACHE_NAME, found, key)
    return found


def make_table() -> dict[str, Any]:
    """Make the table from the commands themselves."""
    from typer.main import get_command

    from camcli.cli import app
    from camcli.cli.options import find_comma_fields
    from camcli.runs.channels import ChannelJob
    from camcli.runs.job.job import Job
    from camcli.runs.prompts import PromptJob
    from camcli.runs.sanity import SanityJob

    commas = find_comma_fields(Job, ChannelJob, PromptJob, SanityJob)
    commands: Any = get_command(app)
    return {
        "commands": {
            name: {
                "help": _first_sentence(command.help),
                "parameters": [
                    _describe_parameter(one, command, commas) for one in command.params if not getattr(one, "hidden", 0)
                ],
            }
            for name, command in commands.commands.items()
            if not command.hidden
        },
        "method_options": {name: list(words) for name, words in _read_method_options()},
    }


def _describe_parameter(one: Any, command: Any, commas: frozenset[str]) -> dict[str, Any]:
    is_option = one.param_type_name == "option"
    values = [item.value for item in one.shell_complete(_make_context(command), "") if item.type == "plain"]
    return {
        "name": one.name,
        "flags": [flag for flag in (*one.opts, *one.secondary_opts) if flag.startswith("-")] if is_option else [],
        "takes_value": not (is_option and (one.is_flag or one.count)),
        "repeats": bool(one.multiple if is_option else one.nargs == -1),
        "values": values,
        "commas": one.name in commas,
        "help": _first_sentence(one.help),
    }


def _make_context(command: Any) -> Any:
    return command.make_context(command.name, [], resilient_parsing=True)


def _first_sentence(text: str | None) -> str:
    """Return the beginning of a help text that fits beside the word in a terminal."""
    line = (text or "").strip().partition("\n")[0].partition(": ")[0].partition(";")[0]
    return line.rstrip(".") if len(line) <= 60 else line[:59].rstrip() + "…"


def _read_method_options() -> Iterator[tuple[str, Iterator[str]]]:
    """Yield each method with its options, read from its source: importing it would import torch."""
    from camcli.methods import METHODS

    for row in METHODS.rows:
        parts = [METHODS.find(name) for name in row.parts or (row.name,)]
        yield (
            row.name,
            (word for part in parts for word in _read_options(METHODS.module_path(part), part.function_name)),
        )


def _read_options(module: str, function: str) -> Iterator[str]:
    import ast
    import importlib.util

    with suppress(ImportError, OSError, SyntaxError, ValueError, AttributeError):
        spec = importlib.util.find_spec(module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                    for value in _list_values(argument.annotation, ast.literal_eval(default) if default else ""):
                        yield f"{argument.arg}={str(value).lower() if isinstance(value, bool) else value}"


def _list_values(annotation: Any, default: Any) -> list[Any]:
    """Return the values of an option that are offered: all of a Literal and of a truth, else the default."""
    import ast

    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        return [ast.literal_eval(one) for one in annotation.slice.elts]
    return [False, True] if isinstance(default, bool) else [default]


def _find_key() -> list[Any]:
    """Return what changes with camcli's files and with what is installed beside it."""
    package = Path(__file__).parents[1]
    newest = max(
        entry.stat().st_mtime_ns
        for folder, _, files in os.walk(package)
        if not folder.endswith("__pycache__")
        for entry in (Path(folder, file) for file in files)
    )
    folders = [folder for folder in sys.path if folder.endswith("-packages")]
    return [str(package), newest, [Path(folder).stat().st_mtime_ns for folder in folders if Path(folder).is_dir()]]
