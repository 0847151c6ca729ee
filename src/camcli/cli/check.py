"""The ``camcli check`` command."""

import time
from pathlib import Path
from typing import Annotated

import typer

from camcli.base.errors import RequestError
from camcli.cli.console import Console
from camcli.cli.exit import exit_codes
from camcli.cli.loading import loading
from camcli.cli.streams import get_standard_output
from camcli.cli.verdict import check_output_file, conclude, follow_rows
from camcli.images.address import show_path
from camcli.runs.check import find_measures
from camcli.runs.check.example import EXAMPLE
from camcli.runs.check.rules import EXAMPLE_HINT, read_rules


def check(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Output folder with arrays, its address, or a golden run",
            show_default="the folder of the last camcli explain",
        ),
    ] = Path("camcli-out/latest"),
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rules, in TOML: its check tables; --example prints one")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a row for each map and rule: .csv, .jsonl or .parquet"),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML, with a test case for each rule")
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Print a commented file of rules, and exit")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List what rules can measure, and exit")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each map and rule instead")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors, broken rules and tables only")] = False,
) -> None:
    """Check the maps of a finished run by rules: where they look, how sure the model is, that none failed.

    The run must have kept its maps: camcli explain --save array. Nothing in it is changed.

    Exit codes: 0 = all rules hold, 1 = a rule is broken, 2 = invalid request, 3 = no run wrote there.
    """
    console = Console(quiet)
    with exit_codes(console, "nothing was to be written"):
        if example:
            typer.echo(EXAMPLE, nl=False, file=get_standard_output())
            raise typer.Exit
        if list_all:
            _list_measures()
            raise typer.Exit
        code = _check(run, rules, to, junit, as_json, console)
    raise typer.Exit(code)


def _check(run: Path, rules: Path | None, to: Path | None, junit: Path | None, as_json: bool, console: Console) -> int:
    if rules is None:
        raise RequestError("no rules are named: --rules FILE", EXAMPLE_HINT)
    check_output_file(junit, "--junit", ".xml")
    read = read_rules(rules, "check")
    with loading(console, f"opening {show_path(run)}"):
        from camcli.runs.check.junit import write_junit
        from camcli.runs.check.run import COLUMNS, RunCheck
        from camcli.runs.record.rows import check_rows_file

        if to:
            check_rows_file(to)
        checked = RunCheck(run, read)
    began = time.monotonic()
    follow_rows(checked, to, COLUMNS, checked.total, console, as_json)
    for note in checked.notes:
        console.note(note)
    if junit:
        write_junit(junit, "camcli check", checked.tallies, time.monotonic() - began)
    return conclude(checked.tallies, console, as_json)


def _list_measures() -> None:
    from camcli.cli.console import print_table

    rows = []
    for kind in ("check", "diff"):
        for one in find_measures(kind).values():
            limits = "is" if one.truth else "min, max"
            rows.append((f"[[{kind}]]", one.name, ", ".join([limits, *one.settings]), one.about))
    print_table(("in", "measure", "keys", "meaning"), rows, wrapped=("meaning", "keys"))
