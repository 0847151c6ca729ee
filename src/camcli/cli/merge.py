"""The ``camcli merge`` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.cli.console import Console, print_text
from camcli.cli.evaluate import print_rows, say_findings
from camcli.cli.exit import exit_codes
from camcli.cli.status import print_status
from camcli.images.address import show_path

if TYPE_CHECKING:
    from camcli.runs.record.merge import Merged
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
            "gives maps-000000.tar and so on. Of camcli evaluate, its table: .csv, .jsonl or .parquet",
        ),
    ] = None,
    max_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Size that a tar has at most: 500MB, 2GiB", show_default="1GB")
    ] = "",
) -> None:
    """Join the records of a job's shards, drop what later runs replaced, and report what is missing.

    The lines of all shards move to outcomes.jsonl; the maps stay where they are. Of camcli evaluate they move to
    evaluation.jsonl, and the table of all images is made. Shards that are missing or failed can be run again
    afterwards, and merged again.

    Exit codes: 0 = all images done, 1 = some failed or are missing, 2 = a run writes there now, 3 = no run wrote there.
    """
    console = Console()
    with exit_codes(console):
        from camcli.runs.evaluate.records import EVALUATION, find_records

        found = find_records(out)
        complete = True
        if found != [EVALUATION]:
            complete &= _merge_outcomes(out, to, max_size, console)
        elif max_size:
            raise RequestError("--max-size is of tars, and an evaluation has no maps", "leave it out")
        if EVALUATION in found:
            complete &= _merge_evaluation(out, to if found == [EVALUATION] else None, console)
    raise typer.Exit(0 if complete else 1)


def _merge_outcomes(out: Path, to: Path | None, max_size: str, console: Console) -> bool:
    """Merge the shards of camcli explain; return whether all images are done."""
    from camcli.runs.record.merge import iter_outcomes, merge_shards
    from camcli.runs.record.records import RUN
    from camcli.runs.record.table import check_table, write_table
    from camcli.runs.record.tars import parse_bytes, write_tars

    if to:
        check_table(to)
    in_tars = to is not None and to.suffix.lower() == ".tar"
    if max_size and not in_tars:
        raise RequestError("--max-size is of tars, and none are written", "add --to maps.tar")
    max_bytes = parse_bytes(max_size or "1GB")
    merged = merge_shards(out, console.note)
    _report(merged, out, RUN.lines, console)
    if to and in_tars:
        print_tars(console, write_tars(out, to, max_bytes))
    elif to:
        console.say(f"{show_path(to)}: {write_table(iter_outcomes(out), to)} rows")
    return merged.status.is_complete


def _merge_evaluation(out: Path, to: Path | None, console: Console) -> bool:
    """Merge the shards of camcli evaluate, and print their table; return whether all images are done."""
    from camcli.runs.evaluate.merge import merge_evaluation
    from camcli.runs.evaluate.records import EVALUATION
    from camcli.runs.evaluate.table import write_table
    from camcli.runs.record.rows import check_rows_file

    if to:
        check_rows_file(to)
    found = merge_evaluation(out, console.note)
    _report(found.merged, out, EVALUATION.lines, console)
    if found.tables:
        print_text("")
        print_rows(found.tables.rows)
        say_findings(found.tables, console)
        if to:
            write_table(found.tables.rows, to)
            console.say(f"{show_path(to)}: {count_of(len(found.tables.rows), 'row')}")
    return found.merged.status.is_complete


def _report(merged: "Merged", out: Path, lines_file: str, console: Console) -> None:
    print_status(merged.status, out, lines_file)
    if merged.replaced:
        console.note(f"{count_of(merged.replaced, 'image', 'were')} done more than once: the last result counts")


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
