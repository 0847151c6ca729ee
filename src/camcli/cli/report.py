"""The ``camcli report`` command."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.cli.console import Console
from camcli.cli.exit import exit_codes
from camcli.cli.options import add_options, build
from camcli.images.address import is_url, show_path
from camcli.runs.job.job import Job
from camcli.runs.job.option import LOGGING
from camcli.runs.report import ReportOptions

INTERRUPTED_NOTE = "the page is not finished; the same command makes it again"


@add_options(ReportOptions)
def report(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Output folder of a run", show_default="the folder of the last camcli explain"
        ),
    ] = Path("camcli-out/latest"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only", rich_help_panel=LOGGING)] = False,
    **words: Any,
) -> None:
    """Write a page that shows a run: all images with their maps, to look through, sort, filter and compare.

    It begins with what to look at first: failures, wrong predictions, the least certain images, maps that disagree.

    The page is report.html in the folder. It opens in a browser from disk, and loads nothing from elsewhere.

    Exit codes: 0 = written, 2 = invalid request, 3 = no run wrote there.
    """
    console = Console(quiet)
    with exit_codes(console, INTERRUPTED_NOTE):
        make_report(out, build(ReportOptions, words), console)


def check_report(job: Job, engine: str) -> None:
    """Check that a run can end with a report: that it is of all images, into a local folder.

    Raises:
        RequestError: it is not.
    """
    where = (
        "of a store" if is_url(job.out) else "of one shard" if job.shard else "of a cluster" if engine == "ray" else ""
    )
    if where:
        raise RequestError(
            f"--report is for a run of all images into a local folder, and this one is {where}",
            "leave --report out, and when all is done: camcli report OUT",
        )


def make_report(out: Path, options: ReportOptions, console: Console) -> None:
    """Make a report, and say on the console where it is."""
    began = time.monotonic()
    with console.working("making the report"):
        from camcli.runs.report.run import write_report

        made = write_report(out, options)
    for note in made.notes:
        console.note(note)
    size = made.page.stat().st_size / 1e6
    of_size = f" of {size:.1f} MB" if options.single_file else ""
    seconds = time.monotonic() - began
    what = f"{count_of(made.images, 'image')}, {count_of(made.maps, 'map')}"
    console.say(f"report{of_size}: {what} in {seconds:.1f} s: {show_path(made.page)}")
