"""Every line a person reads: messages, tables, errors. What machines read does not come from here."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from camcli.base.errors import CamcliError
from camcli.cli.progress import FILE, NAME, BarReporter, FailureReporter, LineReporter, StatusColumn
from camcli.cli.streams import elided, printable, standard_output

if TYPE_CHECKING:
    from camcli.cli.progress import Reporter
    from camcli.runs.record.outcome import Outcome, Tally

UNFOLDED = 10_000
# More failures than this are only counted; the ledger has them all.
FAILURES_SHOWN = 20
# A run of at most so many maps is listed map by map.
LISTED = 30


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else standard_output()
    # Names are data, not markup; and nothing that is piped or logged is folded at 80 columns.
    width = None if stream.isatty() else UNFOLDED
    file = None if stderr else stream
    return Console(stderr=stderr, file=file, highlight=False, markup=False, emoji=False, width=width)


class Voice:
    """Speaks to a person on standard error.

    Args:
        quiet: errors and failures only.
        verbose: a line for every map.
        ledger: the file that has all failures, of which only the first are told; without one all are.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, ledger: str = "outcomes.jsonl") -> None:
        self.quiet = quiet
        self.ledger = ledger
        self.verbose = verbose and not quiet
        self._console = _console(stderr=True)
        self._failures = 0

    def cut(self) -> None:
        """Last words of a process that ends at once: the terminal as it was found."""
        self._console.show_cursor()
        self._console.file.flush()

    def say(self, *parts: str, style: str = "") -> None:
        """A line, unless quiet."""
        if not self.quiet:
            self._line(printable(" ".join(parts)), style)

    def note(self, text: str) -> None:
        """Something the user should know."""
        if not self.quiet:
            self._labelled("note", "cyan", printable(text))

    def error(self, error: CamcliError) -> None:
        """What is wrong, and under it what to do."""
        self._labelled("error", "bold red", printable(error.message))
        for line in error.hint.splitlines():
            self._line("       " + printable(line), "")

    def failure(self, outcome: Outcome) -> None:
        """A picture that failed, and why; after many only their number is kept, where a ledger has them."""
        self._failures += 1
        if self._failures <= FAILURES_SHOWN or not self.ledger:
            reason = printable((outcome.error or "").splitlines()[0])
            self._labelled("failed", "red", f"{printable(outcome.shown)}: {reason}")
        elif self._failures == FAILURES_SHOWN + 1:
            self._line("       further failures are listed in " + self.ledger, "")

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A spinner with a text while something takes its time; nothing without a terminal."""
        if self.quiet or not self._console.is_terminal:
            yield
            return
        with self._console.status(Text(printable(text))):
            yield

    @contextmanager
    def progress(self, total: int | None, tally: Tally) -> Iterator[Reporter]:
        """Progress over pictures: a bar on a terminal, else a plain line every few seconds."""
        if self.quiet:
            yield FailureReporter(self, tally)
        elif not self._console.is_terminal:
            yield LineReporter(self, tally, total)
        else:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None, table_column=Column(ratio=1)),
                StatusColumn(self._console),
            )
            with Progress(*columns, console=self._console, transient=True, expand=True) as bar:
                yield BarReporter(self, tally, total, bar)

    def summary(self, outcomes: Sequence[Outcome], tally: Tally, seconds: float, out: str) -> None:
        """A table of the maps, where they are few, and how the run went."""
        if self.quiet:
            return
        if len(outcomes) <= LISTED:
            self._listed([outcome for outcome in outcomes if not outcome.error], out)
        counts = [f"{tally.done} done"]
        counts += [f"{tally.failed} failed"] if tally.failed else []
        counts += [f"{tally.skipped} done before"] if tally.skipped else []
        rate = f" ({tally.done / seconds:.1f}/s)" if tally.done and seconds else ""
        self.say(f"{', '.join(counts)} in {seconds:.1f} s{rate}: {printable(out)}", style="bold")

    def _listed(self, outcomes: Sequence[Outcome], out: str) -> None:
        """One line for each map; on a narrow terminal files are shortened or left out, then the rest is shortened."""
        if not outcomes:
            return
        rows = [("picture", "class", "probability", "file")]
        for one in outcomes:
            file = f"{out}/{next(iter(one.files.values()), '')}"
            sure = "" if one.probability is None else f"{one.probability:.2f}"
            words = one.shown, one.about, sure, file
            rows.append((printable(words[0]), printable(words[1]), words[2], printable(words[3])))
        widths = _widths([max(map(cell_len, column)) for column in zip(*rows, strict=True)], self._console.width)
        table = Table(box=None, pad_edge=False)
        for heading, width in zip(rows[0], widths, strict=False):
            justify = "right" if heading == "probability" else "left"
            table.add_column(heading, justify=justify, no_wrap=True, width=width)  # type: ignore[arg-type]
        for row in rows[1:]:
            table.add_row(*(Text(elided(cell, width)) for cell, width in zip(row, widths, strict=False)))
        self._console.print(table)

    def _labelled(self, label: str, style: str, text: str) -> None:
        self._console.print(Text.assemble((f"{label}: ", style), text), soft_wrap=True)

    def _line(self, text: str, style: str) -> None:
        self._console.print(Text(text, style), soft_wrap=True)


def _widths(wanted: Sequence[int], width: int) -> list[int]:
    """The widths of as many of the columns picture, class, probability and file as fit, two cells apart."""
    picture, label, probability, file = wanted
    beside = picture + label + probability + 6
    if beside + min(file, FILE) <= width:
        return [picture, label, probability, min(file, width - beside)]
    room = max(2 * NAME, width - probability - 4)
    label = min(label, max(room // 2, room - picture))
    return [min(picture, room - label), label, probability]


def print_table(headings: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, tab-separated lines without headings in a pipe."""
    out = standard_output()
    if not out.isatty():
        for row in rows:
            out.write("\t".join(printable(cell) for cell in row) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _console().print(table)
