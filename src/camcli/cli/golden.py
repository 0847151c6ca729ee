"""The ``camcli golden`` command."""

from pathlib import Path
from typing import Annotated

import typer

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.cli.console import Console
from camcli.cli.exit import exit_codes
from camcli.cli.loading import loading
from camcli.images.address import show_path, to_url

# Bytes from which on a golden run is large to commit.
LARGE = 5_000_000


def golden(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder with arrays, or its address")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the golden run, to be committed")],
) -> None:
    """Keep a finished run's maps in two small files, as the base of camcli diff.

    golden.json says what made the maps; maps.jsonl.gz has them, rounded to 255 steps. The same run, the same bytes.

    Exit codes: 0 = written, 1 = it cannot be written, 2 = invalid request, 3 = no run wrote there.
    """
    console = Console()
    with exit_codes(console, "nothing was written"):
        if to_url(out):
            raise RequestError(f"a golden run is written to a local folder, not to {show_path(out)!r}", "name a folder")
        with loading(console, f"reading {show_path(run)}"):
            from camcli.runs.record.golden import FACTS_FILE, MAPS_FILE, open_run, write_golden

            with open_run(run) as opened:
                written = write_golden(opened, out)
        failed = f", {written.failed} failed" if written.failed else ""
        what = f"{count_of(written.images, 'image')}, {count_of(written.maps, 'map')}{failed}"
        console.say(f"{out}: {what}, {written.size / 1000:.1f} kB")
        pearson = "" if written.pearson is None else f"; Pearson's r with the maps is at least {written.pearson:.6f}"
        console.say(f"rounding: at most {written.error:.2%} of a map's range{pearson}")
        if written.missing:
            console.note(f"{show_path(run)} is not complete: {written.missing} of its images are not recorded")
        if written.size > LARGE:
            console.note("that is large to commit: fewer images, or a method at a layer, whose maps have few cells")
        console.say(
            f"commit {out}/{FACTS_FILE} and {out}/{MAPS_FILE}; then: camcli diff {out} NEW --min-similarity 0.9"
        )
