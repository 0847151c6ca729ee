"""The ``camcli layers`` command."""

from typing import Annotated

import typer

from camcli.cli.console import Console, print_table
from camcli.cli.exit import exit_codes
from camcli.cli.loading import loading
from camcli.models.check_name import check_name


def layers(
    model: Annotated[str, typer.Argument(help="Model name, as for camcli explain --model")],
    layer: Annotated[str | None, typer.Argument(help="Show only this layer and its submodules")] = None,
    depth: Annotated[int, typer.Option(metavar="N", min=0, help="Number of levels to show; 0 = all")] = 0,
    size: Annotated[
        str, typer.Option(metavar="N|HxW", help="Input resolution: N or HxW", show_default="the model's own")
    ] = "",
    output: Annotated[str, typer.Option(metavar="PATH", help="Path to the logits, as for explain --output")] = "",
) -> None:
    """Show a model's layers: type, output shape, layout, whether a map can be made there, and the default.

    In a pipe: a line a layer without headings, its columns layer, type, output, layout and map separated by tabs.
    """
    console = Console()
    with exit_codes(console, "nothing was to be written"):
        check_name(model, by_listing=True)
        with loading(console, f"building {model}"):
            from camcli.runs.layers import list_layers

            rows, wrong = list_layers(model, layer, depth, size, output)
        print_table(("layer", "type", "output", "layout", "map"), rows, wrapped=("map",))
        if wrong is not None:
            raise wrong
