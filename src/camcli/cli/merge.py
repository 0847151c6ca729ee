"""The ``camcli merge`` command."""

from pathlib import Path
from typing import Annotated

import typer

from camcli.cli.console import Console
from camcli.cli.exit import exit_codes
from camcli.cli.status import print_status
from camcli.images.remote import show_path


def merge(
    out: Annotated[
        Path,
        typer.Argument(metavar="[OUT]", help="Output folder, or its address", show_default="the last run's folder"),
    ] = Path("camcli-out/latest"),
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all outcomes to a table too: .parquet or .jsonl")
    ] = None,
) -> None:
    """Join the records of a job's shards, drop what later runs replaced, and report what is missing.

    The lines of all shards move to outcomes.jsonl; the maps stay where they are. Shards that are missing or failed can
    be run again afterwards, and merged again.

    Exit codes: 0 = all images done, 1 = some failed or are missing, 2 = a run writes there now, 3 = no run wrote there.
    """
    console = Console()
    with exit_codes(console):
        from camcli.runs.record.merge import iter_outcomes, merge_shards
        from camcli.runs.record.table import check_table, write_table

        if to:
            check_table(to)
        merged = merge_shards(out, console.note)
        print_status(merged.status, out)
        if merged.replaced:
            console.note(f"{merged.replaced} image(s) were done more than once; their last results count")
        if to:
            console.say(f"{show_path(to)}: {write_table(iter_outcomes(out), to)} rows")
    raise typer.Exit(0 if merged.status.is_complete else 1)
