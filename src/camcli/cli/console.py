"""Output for people: messages, tables, errors. Output for machines is written elsewhere."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

from camcli.base import timing
from camcli.base.errors import CamcliError
from camcli.base.log import SAID
from camcli.cli.progress import (
    FILE_WIDTH,
    NAME_WIDTH,
    SILENCE,
    BarReporter,
    FailureReporter,
    LineReporter,
    PassesProgress,
    SlowNotes,
    StatusColumn,
    ticking,
)
from camcli.cli.streams import elide, get_standard_output, to_printable, wrap_words

if TYPE_CHECKING:
    from camcli.cli.progress import Reporter
    from camcli.runs.record.outcome import Counts, Outcome

UNWRAPPED_WIDTH = 10_000
# Failures beyond this many are only counted; the ledger lists them all.
FAILURES_SHOWN = 20
# Runs with at most this many maps are listed map by map.
MAX_LISTED = 30
# Cells that a column of a table keeps, if it has so many; one that is wrapped keeps its longest word, up to so many.
LEAST_WIDTH, LEAST_WRAPPED_WIDTH = 12, 18
# Label in front of a paragraph, or of a line.
LABEL = re.compile(r"[A-Za-z][\w ]*: ")


def _make_rich_console(stderr: bool = False) -> RichConsole:
    stream = sys.stderr if stderr else get_standard_output()
    # Names are data, not markup; output that is piped or logged is not wrapped at 80 columns.
    width = None if stream.isatty() else UNWRAPPED_WIDTH
    file = None if stderr else stream
    return RichConsole(stderr=stderr, file=file, highlight=False, markup=False, emoji=False, width=width)


class Console:
    """Messages to the user on standard error.

    Args:
        quiet: print errors and failures only.
        verbose: print a line for every map.
        ledger: file that lists all failures, of which only the first are printed; without one all are.

    Attributes:
        counted: the numbers of images so far, and of all if that is known; None before there is progress.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, ledger: str = "outcomes.jsonl") -> None:
        self.quiet = quiet
        self.ledger = ledger
        self.verbose = verbose and not quiet
        self._rich = _make_rich_console(stderr=True)
        self._failures = 0
        self.counted: tuple[Counts, int | None] | None = None

    def restore_terminal(self) -> None:
        """Restore the terminal, for a process that is about to end at once."""
        self._rich.show_cursor()
        self._rich.file.flush()

    @property
    def is_terminal(self) -> bool:
        """True if messages go to a terminal."""
        return self._rich.is_terminal

    @property
    def width(self) -> int:
        """Width of the terminal in cells."""
        return self._rich.width

    def show(self, what: RenderableType) -> None:
        """Print an image or its caption, above a progress bar if there is one, also when quiet."""
        self._rich.print(what)

    def say(self, *parts: str, style: str = "") -> None:
        """Print a line, unless quiet."""
        SAID.info("%s", to_printable(" ".join(parts)))
        if not self.quiet:
            self._print_line(to_printable(" ".join(parts)), style)

    def note(self, text: str) -> None:
        """Print a note, unless quiet."""
        SAID.warning("%s", to_printable(text))
        if not self.quiet:
            self._print_labelled("note", "cyan", to_printable(text))

    def error(self, error: CamcliError) -> None:
        """Print an error, and below it what to do."""
        SAID.error("%s", to_printable(f"{error.message} {error.hint}"))
        SAID.info("where it was raised", exc_info=error)
        self._print_labelled("error", "bold red", to_printable(error.message))
        for line in error.hint.splitlines():
            self._print_line("       " + to_printable(line), "", 7)

    def failure(self, outcome: Outcome) -> None:
        """Print an image's failure and its reason; after many, if a ledger lists them, only count it."""
        self._failures += 1
        SAID.warning("failed: %s: %s", to_printable(outcome.shown), to_printable(outcome.error or ""))
        if self._failures <= FAILURES_SHOWN or not self.ledger:
            reason = to_printable((outcome.error or "").splitlines()[0])
            self._print_labelled("failed", "red", f"{to_printable(outcome.shown)}: {reason}")
        elif self._failures == FAILURES_SHOWN + 1:
            self._print_line("       further failures are listed in " + self.ledger, "")

    @contextmanager
    def working(self, text: str, stages: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
        """Show a spinner with a text while the block runs; without a terminal a line every ten seconds.

        Args:
            text: what is being done.
            stages: what is being done instead while one of these stages runs.
        """
        if self.quiet:
            yield
            return

        def describe() -> str:
            running = reversed(timing.list_running())
            return to_printable(next((stages[stage] for stage in running if stage in stages), text))

        if not self._rich.is_terminal:
            began = last = time.monotonic()

            def tick() -> None:
                nonlocal last
                if (now := time.monotonic()) - last >= SILENCE:
                    last = now
                    current, seconds = describe(), f"{now - began:.0f} s"
                    self.say(
                        f"{current}, {seconds} so far" if current == text else f"{current}, {seconds} since the start"
                    )

            with ticking(tick):
                yield
            return
        with self._rich.status(Text(describe())) as status, ticking(lambda: status.update(Text(describe()))):
            yield

    @contextmanager
    def progress(self, total: int | None, counts: Counts) -> Iterator[Reporter]:
        """Report progress over images while the block runs: a bar on a terminal, else a line every few seconds."""
        self.counted = counts, total
        slow = SlowNotes(self)
        if self.quiet:
            yield FailureReporter(self, counts)
        elif not self._rich.is_terminal:
            reporter = LineReporter(self, counts, total)
            with ticking(slow.tick), ticking(reporter.tick):
                yield reporter
        else:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None, table_column=Column(ratio=1)),
                StatusColumn(self._rich),
            )
            with PassesProgress(*columns, console=self._rich, transient=True, expand=True) as bar, ticking(slow.tick):
                yield BarReporter(self, counts, total, bar)

    def print_summary(self, outcomes: Sequence[Outcome], counts: Counts, seconds: float, out: str) -> None:
        """Print a table of the maps, if they are few, then the run's counts, time and rate."""
        if len(outcomes) <= MAX_LISTED and not self.quiet:
            self._print_outcomes([outcome for outcome in outcomes if not outcome.error], out)
        rate = f" ({counts.done / seconds:.1f}/s)" if counts.done and seconds else ""
        self.say(f"{', '.join(counts.describe())} in {seconds:.1f} s{rate}: {to_printable(out)}", style="bold")

    def _print_outcomes(self, outcomes: Sequence[Outcome], out: str) -> None:
        """Print a line for each map; on a narrow terminal shorten or drop the files first, then shorten the rest."""
        if not outcomes:
            return
        rows = [("image", "class", "probability", "file")]
        for one in outcomes:
            file = f"{out}/{next(iter(one.files.values()), '')}"
            probability = "" if one.probability is None else f"{one.probability:.2f}"
            words = one.shown, one.about, probability, file
            rows.append((to_printable(words[0]), to_printable(words[1]), words[2], to_printable(words[3])))
        widths = _fit_widths([max(map(cell_len, column)) for column in zip(*rows, strict=True)], self._rich.width)
        table = Table(box=None, pad_edge=False)
        for heading, width in zip(rows[0], widths, strict=False):
            justify = "right" if heading == "probability" else "left"
            table.add_column(heading, justify=justify, no_wrap=True, width=width)  # type: ignore[arg-type]
        for row in rows[1:]:
            table.add_row(*(Text(elide(cell, width)) for cell, width in zip(row, widths, strict=False)))
        self._rich.print(table)

    def _print_labelled(self, label: str, style: str, text: str) -> None:
        line = Text(wrap_words(f"{label}: {text}", self._rich.width, len(label) + 2))
        line.stylize(style, 0, len(label) + 2)
        self._rich.print(line, soft_wrap=True)

    def _print_line(self, text: str, style: str, indent: int = 4) -> None:
        self._rich.print(Text(wrap_words(text, self._rich.width, indent), style), soft_wrap=True)


def _fit_widths(wanted: Sequence[int], width: int) -> list[int]:
    """Return widths for as many of the columns image, class, probability and file as fit, two cells apart."""
    picture, label, probability, file = wanted
    beside = picture + label + probability + 6
    if beside + min(file, FILE_WIDTH) <= width:
        return [picture, label, probability, min(file, width - beside)]
    room = max(2 * NAME_WIDTH, width - probability - 4)
    label = min(label, max(room // 2, room - picture))
    return [min(picture, room - label), label, probability]


def _shrink_widths(wanted: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths that fit, by taking cells off the widest that are above their least; the first column's last."""
    widths = [*wanted]
    for columns in (range(1, len(widths)), range(1)):
        while sum(widths) > room and (wide := [one for one in columns if widths[one] > least[one]]):
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def print_text(text: str) -> None:
    """Print paragraphs on standard output; on a terminal wrapped anew, with those that have a label hanging from it."""
    out = get_standard_output()
    if out.isatty():
        width = _make_rich_console().width
        # A blank line, or a line with a label, ends what stands before it.
        parts = re.split(r"\n(?=\n)|\n(?=[A-Z][\w ]*: )", text)
        lines = [(part.startswith("\n"), " ".join(part.split())) for part in parts]
        text = "\n".join("\n" * gap + wrap_words(line, width, 4 * bool(LABEL.match(line))) for gap, line in lines)
    out.write(text + "\n")
    out.flush()  # messages on standard error follow


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], wrapped: Sequence[str] = ()) -> None:
    """Print a listing on standard output: aligned on a terminal; in a pipe tab-separated without headings, all data.

    Args:
        headings: of the columns.
        rows: their cells.
        wrapped: headings of columns whose cells are wrapped at words where room is short; others lose their middle.
    """
    out = get_standard_output()
    if out.isatty():
        print_results(headings, rows, wrapped)
    else:
        out.writelines("\t".join(map(to_printable, row)) + "\n" for row in rows)


def print_results(headings: Sequence[str], rows: Iterable[Sequence[str]], wrapped: Sequence[str] = ()) -> None:
    """Print a table on standard output, aligned with headings everywhere, since people read it in the logs of CI too.

    Its arguments are those of :func:`print_table`; in a pipe no cell is shortened or wrapped.
    """
    cells = [[*map(to_printable, row)] for row in rows]
    console = _make_rich_console()
    columns = [[heading, *column] for heading, *column in zip(headings, *cells, strict=True)]
    wanted = [max(map(cell_len, column)) for column in columns]
    words = [max(cell_len(word) for one in column for word in one.split() or [""]) for column in columns]
    least = [
        min(word, LEAST_WRAPPED_WIDTH) if heading in wrapped else min(width, LEAST_WIDTH)
        for heading, word, width in zip(headings, words, wanted, strict=True)
    ]
    widths = _shrink_widths(wanted, least, console.width - 2 * len(headings) + 2)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, overflow="fold", width=width)
    for row in cells:
        fitting = zip(headings, row, widths, strict=True)
        table.add_row(*(Text(cell if heading in wrapped else elide(cell, width)) for heading, cell, width in fitting))
    console.print(table)
