"""``camcli models``."""

from typing import Annotated

import typer

from camcli.cli.console import Voice, print_table
from camcli.cli.exit import ending
from camcli.cli.loading import loading


def models(
    pattern: Annotated[str, typer.Argument(help="Glob such as 'resnet*', or part of a name")] = "",
    cached: Annotated[bool, typer.Option("--cached", help="Only models whose weights are on this machine")] = False,
) -> None:
    """List the available models by source, and which have their weights on this machine."""
    voice = Voice()
    with ending(voice, "nothing was to be written"):
        with loading(voice, "reading the libraries' lists"):
            from camcli.models.listing import listing

            rows = listing(pattern, cached)
        print_table(("model", "weights at hand"), [(name, "yes" if at_hand else "no") for name, at_hand in rows])
