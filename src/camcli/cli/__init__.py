"""Command line: parse arguments into a job, run it, exit with a code. No module here imports torch at the top."""

from typing import Annotated

import typer

from camcli import __version__
from camcli.cli.channels import channels
from camcli.cli.check import check
from camcli.cli.compare import compare
from camcli.cli.diff import diff
from camcli.cli.evaluate import evaluate
from camcli.cli.explain import explain
from camcli.cli.golden import golden
from camcli.cli.layers import layers
from camcli.cli.merge import merge
from camcli.cli.methods import methods
from camcli.cli.models import models
from camcli.cli.mosaics import mosaics
from camcli.cli.prompts import prompts
from camcli.cli.report import report
from camcli.cli.sanity import sanity
from camcli.cli.show import show
from camcli.cli.status import status
from camcli.cli.usage import CommandGroup

app = typer.Typer(
    name="camcli",
    cls=CommandGroup,
    help="Explain vision models: heatmaps of what a model looks at, for one image or millions.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(explain)
app.command()(compare)
app.command()(channels)
app.command()(prompts)
app.command()(evaluate)
app.command()(mosaics)
app.command()(sanity)
app.command()(diff)
app.command()(check)
app.command()(golden)
app.command()(layers)
app.command()(methods)
app.command()(models)
app.command()(report)
app.command()(show)
app.command()(status)
app.command()(merge)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"camcli {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with the command's exit code."""
    app(prog_name="camcli")
