"""``camcli methods``."""

from typing import Annotated

import typer

from camcli.cli.ending import ending
from camcli.console import Voice, print_table
from camcli.methods import METHODS

WORKS_AT = {"gradient": "layer", "backprop": "input", "product": "layer and input"}


def methods(
    name: Annotated[str | None, typer.Argument(help="Only this method, and what to know of it.")] = None,
) -> None:
    """List the methods: what each needs, what it does, and the paper it follows."""
    voice = Voice()
    with ending(voice):
        rows = [METHODS.find(name)] if name else METHODS.rows
        print_table(
            ("method", "works at", "what it is", "paper"),
            [(row.name, WORKS_AT.get(row.kind, row.kind), row.summary, row.paper) for row in rows],
        )
        if name and rows[0].caveat:
            voice.note(rows[0].caveat)
