"""Every line a person sees: progress, tables, messages, errors. What machines read does not come from here."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column, Table
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
# Pictures come batch by batch: after a pause of so many seconds one that comes is the first of its batch.
PAUSE = 0.2
# A rate is told that was measured over so many seconds, the first batch and all before it left out.
MEASURED = 2.0
# The narrowest bar, picture's name and column of files worth their place on a terminal.
BAR, NAME, FILE = 8, 12, 24
# What is kept for the numbers beside the bar: "1000/1000 3 failed 123.4/s 12:34 eta 12:34".
NUMBERS = 42


def printable(text: str) -> str:
    """The text on one line, without anything a terminal would obey: control characters are written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


# Standard output, while `sys.stdout` is somebody else's.
_ours: list[Any] = []


def standard_output() -> Any:
    """Where what machines read is written: standard output, whatever :func:`prints_aside` has done with it."""
    return _ours[-1] if _ours else sys.stdout


@contextmanager
def prints_aside() -> Iterator[None]:
    """While it lasts, what others' code prints, in Python or in C, goes to standard error."""
    before = sys.stdout
    before.flush()
    saved = os.dup(1) if _descriptor(before) == 1 and _descriptor(sys.stderr) == 2 else None
    ours: Any = before
    if saved is not None:
        os.dup2(2, 1)
        ours = open(saved, "w", encoding=before.encoding, errors=before.errors)  # noqa: PTH123, SIM115 - a descriptor
    _ours.append(ours)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = before
        _ours.pop()
        if saved is not None:
            os.dup2(saved, 1)
            ours.close()


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):  # what tests and notebooks put in its place
        return None


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else standard_output()
    # Names are data, not markup; and nothing that is piped or logged is folded at 80 columns.
    width = None if stream.isatty() else UNFOLDED
    file = None if stderr else stream
    return Console(stderr=stderr, file=file, highlight=False, markup=False, emoji=False, width=width)


class Reporter(Protocol):
    """What is told of a run while it goes on."""

    def picture(self, outcomes: Sequence[Outcome]) -> None:
        """One picture is done, has failed, or (no outcomes) was done before."""


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
            yield _Failures(self, tally)
        elif not self._console.is_terminal:
            yield _Lines(self, tally, total)
        else:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None, table_column=Column(ratio=1)),
                _Status(self._console),
            )
            with Progress(*columns, console=self._console, transient=True, expand=True) as bar:
                yield _Bar(self, tally, total, bar)

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


def elided(text: str, width: int) -> str:
    """The text, with ``…`` in its middle where it is wider than so many cells of a terminal."""
    if cell_len(text) <= width:
        return text
    head, tail = "", ""
    for first, last in zip(text, reversed(text), strict=True):
        if cell_len(head + first + tail) > width - 1:
            break
        head += first
        if cell_len(head + last + tail) > width - 1:
            break
        tail = last + tail
    return f"{head}…{tail}"


def _widths(wanted: Sequence[int], width: int) -> list[int]:
    """The widths of as many of the columns picture, class, probability and file as fit, two cells apart."""
    picture, label, probability, file = wanted
    beside = picture + label + probability + 6
    if beside + min(file, FILE) <= width:
        return [picture, label, probability, min(file, width - beside)]
    room = max(2 * NAME, width - probability - 4)
    label = min(label, max(room // 2, room - picture))
    return [min(picture, room - label), label, probability]


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


class _Pace:
    """How fast pictures are done, measured from batch to batch.

    Attributes:
        rate: pictures in a second, without those that were done before; None until it means something.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._count = 0
        self._first = self._last = self._marked = 0.0

    def picture(self) -> None:
        """One picture has come that was not done before."""
        now = time.monotonic()
        if not self._count:
            self._first = self._marked = now
        # Since the first batch came as many were done as came before this batch: one batch in, one batch out.
        elif now - self._last >= PAUSE or now - self._marked >= 1:
            self._marked = now
            if now - self._first >= MEASURED:
                self.rate = self._count / (now - self._first)
        self._last = now
        self._count += 1

    def left(self, pictures: int) -> float | None:
        """Seconds until so many more are done."""
        return pictures / self.rate if self.rate else None


class _Lines(_Failures):
    """A plain line every few seconds."""

    def __init__(self, voice: Voice, tally: Tally, total: int | None) -> None:
        super().__init__(voice, tally)
        self.total = total
        self.pace = _Pace()
        self.last = time.monotonic()

    def picture(self, outcomes: Sequence[Outcome]) -> None:
        super().picture(outcomes)
        if outcomes:
            self.pace.picture()
        now = time.monotonic()
        if now - self.last >= LINE_EVERY:
            self.last = now
            self.voice.say(self.line())

    def line(self) -> str:
        met = self.tally.met
        words = [f"{met}/{self.total} pictures" if self.total else f"{met} pictures"]
        words += [f"{self.tally.failed} failed"] if self.tally.failed else []
        words += [f"{self.pace.rate:.1f}/s"] if self.pace.rate else []
        left = self.pace.left(self.total - met) if self.total else None
        words += [f"{left:.0f} s left"] if left is not None else []
        return ", ".join(words)


class _Bar(_Failures):
    """A bar with the picture under way, rate and time left."""

    def __init__(self, voice: Voice, tally: Tally, total: int | None, bar: Progress) -> None:
        super().__init__(voice, tally)
        self.bar = bar
        self.total = total
        self.pace = _Pace()
        self.task = bar.add_task("", total=total, failed=0, rate=None, due=None)

    def picture(self, outcomes: Sequence[Outcome]) -> None:
        super().picture(outcomes)
        before = self.pace.rate
        if outcomes:
            self.pace.picture()
        met = self.tally.met
        fields: dict[str, Any] = {"failed": self.tally.failed, "rate": self.pace.rate}
        left = self.pace.left(self.total - met) if self.total else None
        if left is not None and self.pace.rate != before:
            fields["due"] = time.monotonic() + left
        self.bar.update(self.task, completed=met, description=self._name(outcomes), **fields)

    def _name(self, outcomes: Sequence[Outcome]) -> str:
        """What was done last, always as wide, or nothing where there is no place for it."""
        width = _name_width(self.bar.console)
        if not width or self.tally.met == self.total:
            return ""
        shown = elided(printable(outcomes[0].shown) if outcomes else "done before", width)
        return shown + " " * (width - cell_len(shown))


def _name_width(console: Console) -> int:
    """The width of the picture's name before the bar; 0 where there is no place for it."""
    width = min(40, console.width - NUMBERS - BAR - 2)
    return width if width >= NAME else 0


class _Status(ProgressColumn):
    """Pictures done, failures, rate, time taken and time left: as much of it as fits."""

    def __init__(self, console: Console) -> None:
        super().__init__(Column(no_wrap=True))
        self.console = console

    def render(self, task: Task) -> Text:
        rate, due = task.fields["rate"], task.fields["due"]
        left = max(0.0, due - time.monotonic()) if due is not None and not task.finished else None
        words = {
            "count": (f"{task.completed:.0f}/{'?' if task.total is None else f'{task.total:.0f}'}", "green"),
            "failed": (f"{task.fields['failed']} failed" if task.fields["failed"] else "", "red"),
            "rate": (f"{rate:.1f}/s" if rate else "", "magenta"),
            "elapsed": (_clock(task.elapsed or 0.0), "yellow"),
            "left": (f"eta {_clock(left)}" if left is not None else "", "cyan"),
        }
        if task.finished:  # what follows is short, but with --normalize run all pictures are drawn now
            words.pop("rate")
            words["left"] = ("finishing", "cyan")
        name = _name_width(self.console)
        room = self.console.width - BAR - 1 - (name + 1)
        for least in ("", "rate", "elapsed", "left"):
            words.pop(least, None)
            shown = [word for word in words.values() if word[0]]
            if sum(cell_len(word) + 1 for word, _ in shown) <= room:
                break
        return Text(" ").join(Text(*word) for word in shown)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _described(outcome: Outcome) -> str:
    place = f" at {outcome.layer}" if outcome.layer else ""
    # Of a model that gives no probability the score is all there is.
    said = outcome.score if outcome.probability is None else outcome.probability
    box = f" box {outcome.number} ({', '.join(f'{edge:.0f}' for edge in outcome.box)})" if outcome.box else ""
    return f"{printable(outcome.shown)}: {printable(outcome.about)} {said:.3f}{box}{place}, {outcome.seconds:.2f} s"


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
