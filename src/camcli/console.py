"""Every line a person sees: progress, tables, messages, errors. What machines read does not come from here."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from camcli.errors import CamcliError

if TYPE_CHECKING:
    from camcli.job import Outcome, Tally

UNFOLDED = 10_000
# Without a terminal: a plain line every so many seconds.
LINE_EVERY = 5.0
# More failures than this are only counted; the ledger has them all.
FAILURES_SHOWN = 20
# A run of at most so many maps is listed map by map.
LISTED = 30


def printable(text: str) -> str:
    """The text on one line, without anything a terminal would obey: control characters are written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # Names are data, not markup; and nothing that is piped or logged is folded at 80 columns.
    width = None if stream.isatty() else UNFOLDED
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


class Reporter(Protocol):
    """What is told of a run while it goes on."""

    def picture(self, outcomes: Sequence[Outcome]) -> None:
        """One picture is done, has failed, or (no outcomes) was done before."""


class Voice:
    """Speaks to a person on standard error.

    Args:
        quiet: errors and failures only.
        verbose: a line for every map.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose and not quiet
        self._console = _console(stderr=True)
        self._failures = 0

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
        """A picture that failed, and why; after many only their number is kept."""
        self._failures += 1
        if self._failures <= FAILURES_SHOWN:
            reason = printable((outcome.error or "").splitlines()[0])
            self._labelled("failed", "red", f"{printable(outcome.source)}: {reason}")
        elif self._failures == FAILURES_SHOWN + 1:
            self._line("       further failures are listed in outcomes.jsonl", "")

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
            yield _Failures(self, tally)
        elif not self._console.is_terminal:
            yield _Lines(self, tally, total)
        else:
            bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            with bar:
                yield _Bar(self, tally, total, bar)

    def summary(self, outcomes: Sequence[Outcome], tally: Tally, seconds: float, out: str) -> None:
        """A table of the maps, where they are few, and how the run went."""
        if self.quiet:
            return
        if 0 < len(outcomes) <= LISTED:
            table = Table(box=None, pad_edge=False)
            for heading in ("picture", "class", "probability", "file"):
                table.add_column(heading, overflow="fold", justify="right" if heading == "probability" else "left")
            for outcome in outcomes:
                if not outcome.error:
                    table.add_row(
                        Text(printable(outcome.source)),
                        Text(f"{outcome.index} {printable(outcome.label or '')}"),
                        f"{outcome.probability:.2f}",
                        Text(printable(f"{out}/{next(iter(outcome.files.values()), '')}")),
                    )
            self._console.print(table)
        counts = [f"{tally.done} done"]
        counts += [f"{tally.failed} failed"] if tally.failed else []
        counts += [f"{tally.skipped} done before"] if tally.skipped else []
        rate = f" ({tally.done / seconds:.1f}/s)" if tally.done and seconds else ""
        self.say(f"{', '.join(counts)} in {seconds:.1f} s{rate}: {printable(out)}", style="bold")

    def _labelled(self, label: str, style: str, text: str) -> None:
        self._console.print(Text.assemble((f"{label}: ", style), text), soft_wrap=True)

    def _line(self, text: str, style: str) -> None:
        self._console.print(Text(text, style), soft_wrap=True)


class _Failures:
    """Counts, and says what failed."""

    def __init__(self, voice: Voice, tally: Tally) -> None:
        self.voice = voice
        self.tally = tally

    def picture(self, outcomes: Sequence[Outcome]) -> None:
        self.tally.count(outcomes)
        for outcome in outcomes:
            if outcome.error:
                self.voice.failure(outcome)
            elif self.voice.verbose:
                self.voice.say(_described(outcome))


class _Lines(_Failures):
    """A plain line every few seconds."""

    def __init__(self, voice: Voice, tally: Tally, total: int | None) -> None:
        super().__init__(voice, tally)
        self.total = total
        self.began = self.last = time.monotonic()

    def picture(self, outcomes: Sequence[Outcome]) -> None:
        super().picture(outcomes)
        now = time.monotonic()
        if now - self.last >= LINE_EVERY:
            self.last = now
            self.voice.say(self.line(now - self.began))

    def line(self, seconds: float) -> str:
        met = self.tally.met
        of = f"/{self.total}" if self.total else ""
        failed = f", {self.tally.failed} failed" if self.tally.failed else ""
        rate = met / seconds if seconds else 0.0
        left = f", {(self.total - met) / rate:.0f} s left" if self.total and rate else ""
        return f"{met}{of} pictures{failed}, {rate:.1f}/s{left}"


class _Bar(_Failures):
    """A bar with rate, time left and the picture under way."""

    def __init__(self, voice: Voice, tally: Tally, total: int | None, bar: Progress) -> None:
        super().__init__(voice, tally)
        self.bar = bar
        self.began = time.monotonic()
        self.task = bar.add_task("", total=total, rate="")

    def picture(self, outcomes: Sequence[Outcome]) -> None:
        super().picture(outcomes)
        name = printable(outcomes[0].source)[-40:] if outcomes else "done before"
        failed = f" [red]{self.tally.failed} failed[/red]" if self.tally.failed else ""
        rate = f"{self.tally.met / max(time.monotonic() - self.began, 1e-9):.1f}/s{failed}"
        self.bar.update(self.task, advance=1, description=_escaped(name), rate=rate)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _described(outcome: Outcome) -> str:
    place = f" at {outcome.layer}" if outcome.layer else ""
    return (
        f"{printable(outcome.source)}: {outcome.index} {printable(outcome.label or '')} "
        f"{outcome.probability:.3f}{place}, {outcome.seconds:.2f} s"
    )


def print_table(headings: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, tab-separated lines without headings in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("\t".join(printable(cell) for cell in row) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _console().print(table)
