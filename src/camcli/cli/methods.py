"""``camcli methods``."""

from typing import Annotated

import typer

from camcli.cli.console import Voice, print_table
from camcli.cli.exit import ending
from camcli.cli.loading import loading
from camcli.cli.streams import standard_output
from camcli.methods import METHODS, MethodRow, works_at


def methods(
    name: Annotated[str | None, typer.Argument(help="Show only this method, with its parameters")] = None,
) -> None:
    """List the methods: the layers each works at, its cost, a summary, and its paper."""
    voice = Voice()
    with ending(voice, "nothing was to be written"):
        rows = [METHODS.find(name)] if name else METHODS.rows
        print_table(
            ("method", "works at", "cost", "what it is", "paper"),
            [(row.name, works_at(row), row.cost, row.summary, row.paper) for row in rows],
        )
        if name:
            _tell(rows[0], voice)
            if rows[0].caveat:
                voice.note(rows[0].caveat)


def _tell(row: MethodRow, voice: Voice) -> None:
    """What the method's docstring says, and its options with their values, defaults and meanings."""
    with loading(voice, f"loading {row.name}"):
        from camcli.engine.maps import method as recipe

    for text in recipe.descriptions(row):
        typer.echo(f"\n{text}", file=standard_output())
    options = recipe.options_of(row).values()
    if options:
        typer.echo("\nOptions, by -o name=value:", file=standard_output())
        print_table(
            ("option", "values", "default", "meaning"),
            [(one.name, one.values, one.written, one.meaning) for one in options],
        )
