"""Write docs/cli.md, the reference of the command line, out of the options: ``python tools/make_cli.py``."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer
from rich.text import Text

from camcli.cli import app
from camcli.methods import METHODS
from camcli.runs.job.job import Job

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
INTRODUCTION = """# Command line

This page is written by `python tools/make_cli.py` from the same options that the commands are made of, as
`camcli COMMAND --help` shows them.

An option of `camcli explain` can be given, from the strongest to the weakest, as a flag, as an environment variable, or
as a key of a job file (`--config job.toml`); the last column has their names. Job files are TOML; `run.json` of an
earlier run is one too. Options that may be repeated are lists there: `layers = ["layer3", "layer4"]`."""
HEAD = "| Option | Value | Default | Meaning | Elsewhere |\n|---|---|---|---|---|"


def page() -> str:
    """The whole page."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    parts = [INTRODUCTION]
    for name, command in commands.items():
        parts += [f"## camcli {name}", inspect.cleandoc(command.help)]
        for panel, options in panels(command).items():
            parts += [f"### {panel} of `{name}`", "\n".join([HEAD, *(_row(one, name) for one in options)])]
    return "\n\n".join(parts) + "\n"


def panels(command: Any) -> dict[str, list[Any]]:
    """The options of a command by the panels of its help, without hidden ones."""
    panels: dict[str, list[Any]] = {}
    for one in command.params:
        if not one.hidden and one.name != "help":
            usual = "Options" if one.opts[0].startswith("-") else "Arguments"
            panels.setdefault(one.rich_help_panel or usual, []).append(one)
    return {"Arguments": panels.pop("Arguments", []), **panels} if "Arguments" in panels else panels


def _row(one: Any, command: str) -> str:
    flags = [flag for flag in (*one.opts, *one.secondary_opts) if flag.startswith("-")]
    words = [f"`{flag}`" for flag in flags] or [f"`{one.metavar or one.name.upper()}`"]
    cells = (", ".join(words), _value(one), _default(one), _meaning(one), ", ".join(_elsewhere(one, command)))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(one: Any) -> str:
    """What stands behind the flag: the words there are, or what kind."""
    kind = one.type_descriptor.annotation
    choices = get_args(kind) if all(isinstance(word, str) for word in get_args(kind)) else ()
    if choices:
        return ", ".join(f"`{word}`" for word in choices)
    if getattr(one, "is_flag", False) or not one.opts[0].startswith("-"):
        return ""
    least = "" if one.min is None else f", from {one.min:g}" + ("" if one.max is None else f" to {one.max:g}")
    return f"`{one.metavar or kind.__name__.upper()}`{least}"


def _default(one: Any) -> str:
    if isinstance(one.show_default, str):
        return one.show_default
    return "" if isinstance(one.default, bool) or one.default in (None, "") else f"`{one.default}`"


def _elsewhere(one: Any, command: str) -> Iterator[str]:
    """The names of an option beside its flag."""
    if one.envvar:
        yield f"`{one.envvar}`"
    if command == "explain" and one.name in Job.__dataclass_fields__:
        yield f"`{one.name}`"


def _meaning(one: Any) -> str:
    """A help text without Rich's tags, in Markdown."""
    text = re.sub(r"([*<\[\]_])", r"\\\1", Text.from_markup(one.help, emoji=False).plain)
    return text.replace(", ".join(METHODS.names()), "[methods.md](methods.md)")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
