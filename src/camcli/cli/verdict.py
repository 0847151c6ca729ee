"""What commands that judge finished runs by rules print, write and end with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from camcli.base.errors import RequestError
from camcli.cli.console import Console, print_results
from camcli.cli.streams import get_standard_output, to_printable
from camcli.images.address import is_url, show_path, to_url
from camcli.runs.record.outcome import Counts, Outcome

if TYPE_CHECKING:
    from camcli.runs.check.judge import Tally
    from camcli.runs.record.rows import ColumnType

# Maps that are named on the terminal for each broken rule.
MAX_NAMED = 5


def check_output_file(path: Path | None, flag: str, suffix: str) -> None:
    """Check that a file that is written is local and has its suffix, and that its folder exists.

    Raises:
        RequestError: it is an address, has another suffix, or its folder is missing.
    """
    if path is None:
        return
    if is_url(str(path)) or to_url(path):
        raise RequestError(f"{flag} writes local files, not to {show_path(path)!r}", "name a file, and copy it")
    if path.suffix.lower() != suffix:
        raise RequestError(f"{flag} cannot be {str(path)!r}", f"end its name in {suffix}")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"there is no folder {str(path.parent)!r}", "create it first")


def follow_rows(
    rows: Iterable[Sequence[Mapping[str, Any]]],
    to: Path | None,
    columns: Mapping[str, ColumnType],
    total: int | None,
    console: Console,
    as_json: bool,
) -> None:
    """Go through the rows of all images with a progress bar, write them to a table, and print them if asked.

    Args:
        rows: the rows of each image.
        to: the table; None for none.
        columns: its columns.
        total: number of images, if it is known.
        console: the command's console.
        as_json: print each row to standard output as a line of JSON.
    """
    from camcli.runs.record.rows import RowWriter, encode_row

    with ExitStack() as stack:
        writer = stack.enter_context(RowWriter(to, columns)) if to else None
        reporter = stack.enter_context(console.progress(total, Counts()))
        for some in filter(None, rows):
            if writer:
                writer.write(some)
            if as_json:
                out = get_standard_output().buffer
                out.writelines(map(encode_row, some))
                out.flush()
            source, name = str(some[0]["source"]), str(some[0]["name"])
            reporter.add_picture([Outcome(source=source, name=name, stamp="", job="", run="")])


def conclude(tallies: Sequence[Tally], console: Console, as_json: bool) -> int:
    """Print a table of the rules, and of broken ones the maps that break them most; return the exit code."""
    if tallies and not as_json:
        print_results(
            ("rule", "asks", "result", "found"),
            (
                (
                    one.title,
                    one.rule.describe() if one.rule.name else "",
                    "holds" if one.holds else "BROKEN",
                    one.describe(),
                )
                for one in tallies
            ),
            wrapped=("rule", "asks", "found"),
        )
    broken = [one for one in tallies if not one.holds]
    for one in broken:
        more = [f"and {one.broken - MAX_NAMED} more"] if one.broken > MAX_NAMED else []
        lines = [f"broken: {one.title}: {one.describe()}", *one.list_worst()[:MAX_NAMED], *more]
        text = Text("\n       ".join(map(to_printable, lines)))
        text.stylize("bold red", 0, len("broken:"))
        console.show(text)
    return 1 if broken else 0
