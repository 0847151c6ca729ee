"""The ``camcli models`` command."""

from typing import Annotated

import typer

from camcli.cli.console import Console, print_table
from camcli.cli.exit import exit_codes
from camcli.cli.loading import loading


def models(
    pattern: Annotated[str, typer.Argument(help="Glob such as 'resnet*', or part of a name")] = "",
    cached: Annotated[bool, typer.Option("--cached", help="Only models whose weights are on this machine")] = False,
) -> None:
    """List the available models by source, and which have their weights on this machine."""
    console = Console()
    with exit_codes(console, "nothing was to be written"):
        with loading(console, "reading the libraries' lists"):
            from camcli.models.listing import find_models

            rows = find_models(pattern, cached)
        print_table(
            ("model", "weights on this machine"), [(name, "yes" if at_hand else "no") for name, at_hand in rows]
        )
