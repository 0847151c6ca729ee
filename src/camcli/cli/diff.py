"""The ``camcli diff`` command."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camcli.base.words import count_of
from camcli.cli.console import Console, print_results, print_text
from camcli.cli.exit import exit_codes
from camcli.cli.loading import loading
from camcli.cli.streams import to_printable
from camcli.cli.verdict import check_output_file, conclude, follow_rows
from camcli.images.address import show_path
from camcli.runs.check import Rule, make_rule
from camcli.runs.check.rules import parse_share, read_rules

if TYPE_CHECKING:
    from camcli.runs.diff import MapChange
    from camcli.runs.diff.run import RunDiff

# Words for the rows of the table of quantiles.
TITLES = {
    "pearson": "Pearson's r",
    "ssim": "SSIM",
    "overlap": "overlap of top 20%",
    "moved": "peak moved (of diagonal)",
    "moved_pixels": "peak moved (pixels)",
    "score_change": "change of score",
    "probability_change": "change of probability",
}


def diff(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Output folder, its address, or a golden run")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Output folder of the new run, or its address")],
    min_similarity: Annotated[
        float | None, typer.Option(metavar="R", min=-1, max=1, help="Least Pearson's r of the two maps")
    ] = None,
    max_moved: Annotated[
        float | None,
        typer.Option(metavar="D", min=0, max=1, help="How far a peak may move, as a share of the image's diagonal"),
    ] = None,
    max_changed: Annotated[
        str, typer.Option(metavar="SHARE", help="Share of maps whose predicted class may change: 0.05 or 5%")
    ] = "",
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rules, in TOML: its diff tables; see camcli check --example")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row for each map: .csv, .jsonl or .parquet")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML, with a test case for each rule")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the maps that changed most, with both overlays: .png")
    ] = None,
    worst: Annotated[
        int, typer.Option(metavar="N", min=0, max=500, help="Number of maps that are listed and drawn as those")
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each map instead of tables")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors, broken rules and tables only")] = False,
) -> None:
    """Compare the maps of two finished runs: of two checkpoints, versions, precisions or machines.

    Maps are matched by the image's name below the output folder, class, method and layer.

    Both runs must have kept their maps: camcli explain --save array, or camcli golden. Nothing in them is changed.

    Without limits nothing is judged. With any, a map of BASE that NEW lacks breaks a rule of its own.

    Exit codes: 0 = all limits hold, 1 = a limit is broken, 2 = invalid request, 3 = no run wrote there.
    """
    console = Console(quiet)
    with exit_codes(console, "nothing was to be written"):
        limits = [*_make_rules(min_similarity, max_moved, max_changed)]
        limits += read_rules(rules, "diff").rules if rules else ()
        check_output_file(junit, "--junit", ".xml")
        check_output_file(sheet, "--sheet", ".png")
        code = _compare((base, new), limits, worst, (to, junit, sheet), as_json, console)
    raise typer.Exit(code)


def _compare(
    runs: tuple[Path, Path],
    limits: Sequence[Rule],
    worst: int,
    files: tuple[Path | None, Path | None, Path | None],
    as_json: bool,
    console: Console,
) -> int:
    """Compare two runs and judge them; return the exit code.

    Args:
        runs: the base and the new one.
        limits: the rules.
        worst: number of maps that are listed and drawn.
        files: the table, JUnit's XML and the sheet that are written.
        as_json: print rows instead of tables.
        console: the command's console.
    """
    to, junit, sheet = files
    with loading(console, " ".join(["opening", show_path(runs[0]), "and", show_path(runs[1])])):
        from camcli.runs.check.junit import write_junit
        from camcli.runs.diff import COLUMNS
        from camcli.runs.diff.run import RunDiff
        from camcli.runs.record.rows import check_rows_file

        if to:
            check_rows_file(to)
        compared = RunDiff(*runs, limits, worst)
    began = time.monotonic()
    with compared:
        if not as_json:
            _print_jobs(compared, *runs)
        follow_rows(compared, to, COLUMNS, compared.total, console, as_json)
        if not as_json:
            _print_found(compared)
        for note in compared.notes:
            console.note(note)
        if junit:
            write_junit(junit, "camcli diff", compared.tallies, time.monotonic() - began)
        if sheet:
            compared.write_sheet(sheet)
            console.say(f"{sheet}: the {len(compared.worst)} maps that changed most")
    return conclude(compared.tallies, console, as_json)


def _make_rules(min_similarity: float | None, max_moved: float | None, max_changed: str) -> Iterator[Rule]:
    """Make the rules that flags stand for."""
    if min_similarity is not None:
        yield make_rule("diff", "pearson", least=min_similarity, where="--min-similarity")
    if max_moved is not None:
        yield make_rule("diff", "moved", most=max_moved, where="--max-moved")
    if max_changed:
        share = 1 - parse_share(max_changed, "--max-changed")
        yield make_rule("diff", "changed", wanted=False, share=share, where="--max-changed")


def _print_jobs(compared: "RunDiff", base: Path, new: Path) -> None:
    """Print what differs between the jobs."""
    if compared.differences:
        print_text("what differs between the jobs:")
        headings = ("", to_printable(show_path(base)), to_printable(show_path(new)))
        print_results(headings, compared.differences, wrapped=headings[1:])
    else:
        print_text("the jobs differ in nothing that is recorded")


def _print_found(compared: "RunDiff") -> None:
    """Print counts, quantiles, and the maps that changed most."""
    counts = compared.counts
    words = [f"{count_of(counts.both, 'map')} in both", f"{counts.equal} of them equal to the bit"]
    words += [f"{counts.base} in the base alone"] if counts.base else []
    words += [f"{counts.new} in the new run alone"] if counts.new else []
    words += [f"{counts.none} failed in both"] if counts.none else []
    words += [f"another class predicted for {counts.changed} of {counts.predicted}"] if counts.predicted else []
    print_text("\n" + ", ".join(words))
    rows = [
        (TITLES[name], str(count), *(f"{value:.4g}" for value in values))
        for name, (count, values) in compared.compute_quantiles().items()
        if count
    ]
    if rows:
        print_text("")
        print_results(("", "maps", "least", "5%", "median", "95%", "greatest"), rows)
    changed = [change for change, _ in compared.worst if change.there != "both" or not change.equal]
    if changed:
        print_text("\nchanged most:")
        several = len({(change.method, change.layer) for change in changed}) > 1
        headings = ("image", "class", *("map",) * several, "r", "SSIM", "top 20%", "moved", "remarks")
        print_results(headings, (_make_row(change, several) for change in changed), wrapped=("class", "remarks"))
    if compared.tallies:
        print_text("")


def _make_row(change: "MapChange", several: bool) -> tuple[str, ...]:
    """Return the cells of a map, whose method and layer are told if there are several."""
    numbers = (change.pearson, change.ssim, change.overlap, change.moved)
    remarks = [*change.reasons]
    if change.changed and (change.base_predicted, change.new_predicted) != (change.base_label, change.new_label):
        remarks.append(f"predicted: {change.base_predicted} -> {change.new_predicted}")
    return (
        change.name,
        change.label,
        *(f"{change.method} at {change.layer}" if change.layer else change.method,) * several,
        *("" if value is None else f"{value:.4f}" for value in numbers),
        "; ".join(remarks),
    )
