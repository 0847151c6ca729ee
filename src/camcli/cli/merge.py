"""The ``camcli merge`` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.cli.console import Console
from camcli.cli.exit import exit_codes
from camcli.cli.status import print_status
from camcli.images.address import show_path

if TYPE_CHECKING:
    from camcli.runs.record.tars import WrittenTars


def merge(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Output folder, or its address", show_default="the folder of the last camcli explain"
        ),
    ] = Path("camcli-out/latest"),
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write all outcomes to a table too: .parquet or .jsonl; or the outputs to WebDataset's tars: maps.tar "
            "gives maps-000000.tar and so on",
        ),
    ] = None,
    max_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Size that a tar has at most: 500MB, 2GiB", show_default="1GB")
    ] = "",
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
        from camcli.runs.record.tars import parse_bytes, write_tars

        if to:
            check_table(to)
        in_tars = to is not None and to.suffix.lower() == ".tar"
        if max_size and not in_tars:
            raise RequestError("--max-size is of tars, and none are written", "add --to maps.tar")
        max_bytes = parse_bytes(max_size or "1GB")
        merged = merge_shards(out, console.note)
        print_status(merged.status, out)
        if merged.replaced:
            console.note(f"{count_of(merged.replaced, 'image', 'were')} done more than once: the last result counts")
        if to and in_tars:
            print_tars(console, write_tars(out, to, max_bytes))
        elif to:
            console.say(f"{show_path(to)}: {write_table(iter_outcomes(out), to)} rows")
    raise typer.Exit(0 if merged.status.is_complete else 1)


def print_tars(console: Console, written: "WrittenTars") -> None:
    """Print which tars were written, and what is not in them."""
    first, last = (show_path(written.tars[at]) if written.tars else "no tar" for at in (0, -1))
    between = f" to {last}" if len(written.tars) > 1 else ""
    console.say(f"{first}{between}: {count_of(written.samples, 'image')}")
    if written.left_out:
        console.note(f"{count_of(written.left_out, 'image', 'are')} left out: without outputs, or with files missing")
    if written.others:
        after = " and those after it" if len(written.others) > 1 else ""
        earlier = f"{count_of(len(written.others), 'tar', 'are')} of an earlier writing"
        console.note(f"{earlier}: delete {show_path(written.others[0])}{after}")
