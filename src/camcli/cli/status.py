"""The ``camcli status`` command."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camcli.base.words import count_of
from camcli.cli.console import Console, print_table
from camcli.cli.exit import exit_codes
from camcli.cli.streams import get_standard_output, to_printable
from camcli.images.address import show_path

if TYPE_CHECKING:
    from camcli.runs.record.status import ShardStatus, Status

# Reasons of failures that are listed; the record has all.
MAX_REASONS = 10


def status(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Output folder, or its address", show_default="the folder of the last camcli explain"
        ),
    ] = Path("camcli-out/latest"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead")] = False,
) -> None:
    """Show how much of a job is done: images done, failed and missing, and each shard if it was run in shards.

    The folder is not changed, and runs in it may go on.

    Exit codes: 0 = all images done, 1 = some failed or are missing, 3 = no run wrote there.
    """
    console = Console()
    with exit_codes(console, "nothing was to be written"):
        from camcli.runs.evaluate.records import find_records
        from camcli.runs.record.status import read_status

        complete = True
        for records in find_records(out):
            found = read_status(out, records)
            complete &= found.is_complete
            if as_json:
                values = {**asdict(found), "missing": found.missing, "rate": found.rate, "complete": found.is_complete}
                typer.echo(json.dumps(values), file=get_standard_output())
            else:
                print_status(found, out, records.lines)
    raise typer.Exit(0 if complete else 1)


def print_status(found: "Status", out: Path, lines_file: str) -> None:
    """Print a status to standard output; ``lines_file`` is the record that has all reasons."""
    for line in _describe(found, out, lines_file):
        typer.echo(to_printable(line), file=get_standard_output())
    if found.shards:
        print_table(("shard", "images", "recorded", "state", "images/s"), [_make_row(one) for one in found.shards])


def _describe(found: "Status", out: Path, lines_file: str) -> Iterator[str]:
    missing = "" if found.missing is None else f", {found.missing} missing"
    known = "images" if found.images is None else f"{found.images} images"
    yield f"{show_path(out)}: {known}: {found.done} done, {found.failed} failed{missing}"
    if found.others:
        yield f"results of other jobs: {count_of(found.others, 'image')}"
    for reason, count in islice(found.reasons.items(), MAX_REASONS):
        yield f"failed: {count_of(count, 'image')}: {reason} (such as {found.examples[reason]})"
    if len(found.reasons) > MAX_REASONS:
        yield f"failed: {len(found.reasons) - MAX_REASONS} further reasons, in {lines_file}"
    if found.rate and found.missing:
        yield f"rate: {found.rate:.3g} images/s, about {_format_time(found.missing / found.rate)} left"


def _make_row(one: "ShardStatus") -> tuple[str, ...]:
    images = "" if one.images is None else str(one.images)
    return one.name, images, str(one.recorded), one.state, "" if one.rate is None else f"{one.rate:.3g}"


def _format_time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
