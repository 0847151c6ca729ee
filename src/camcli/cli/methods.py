"""The ``camcli methods`` command."""

from typing import Annotated

import typer

from camcli.cli.console import Console, print_table, print_text
from camcli.cli.exit import exit_codes
from camcli.cli.loading import loading
from camcli.methods import METHODS, MethodRow, works_at


def methods(
    name: Annotated[str | None, typer.Argument(help="Show only this method, with its parameters")] = None,
) -> None:
    """List the methods: where each works (layer, input, attention), its cost, a summary, and its paper."""
    console = Console()
    with exit_codes(console, "nothing was to be written"):
        rows = [METHODS.find(name)] if name else METHODS.rows
        print_table(
            ("method", "works at", "cost", "what it is", "paper"),
            [(row.name, works_at(row), row.cost, row.summary, row.paper) for row in rows],
            wrapped=("works at", "cost", "what it is", "paper"),
        )
        if name:
            _print_details(rows[0], console)
            if rows[0].caveat:
                console.note(rows[0].caveat)


def _print_details(row: MethodRow, console: Console) -> None:
    """Print the method's docstring, and its options with their values, defaults and meanings."""
    with loading(console, f"loading {row.name}"):
        from camcli.engine.maps import method as method_module

    for text in method_module.describe_method(row):
        print_text(f"\n{text}")
    options = method_module.read_method_options(row).values()
    if options:
        print_text("\nOptions, by -o name=value:")
        print_table(
            ("option", "values", "default", "meaning"),
            [(one.name, one.allowed_values, one.default_text, one.meaning) for one in options],
            wrapped=("values", "default", "meaning"),
        )
