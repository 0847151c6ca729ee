"""Progress of a run: a bar, or plain lines; the rate, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from camcli.cli.streams import elided, printable

if TYPE_CHECKING:
    from camcli.cli.console import Voice
    from camcli.runs.record.outcome import Outcome, Tally

# Without a terminal: a plain line every so many seconds.
LINE_EVERY = 5.0
# Pictures come batch by batch: after a pause of so many seconds one that comes is the first of its batch.
PAUSE = 0.2
# A rate is told that was measured over so many seconds, the first batch and all before it left out.
MEASURED = 2.0
# The narrowest bar, picture's name and column of files worth their place on a terminal.
BAR, NAME, FILE = 8, 12, 24
# What is kept for the numbers beside the bar: "1000/1000 3 failed 123.4/s 12:34 eta 12:34".
NUMBERS = 42


class Reporter(Protocol):
    """What is told of a run while it goes on."""

    def picture(self, outcomes: Sequence[Outcome]) -> None:
        """One picture is done, has failed, or (no outcomes) was done before."""


class FailureReporter:
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
                self.voice.say(describe_outcome(outcome))


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


class LineReporter(FailureReporter):
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


class BarReporter(FailureReporter):
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


class StatusColumn(ProgressColumn):
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


def describe_outcome(outcome: Outcome) -> str:
    """One line about a map."""
    place = f" at {outcome.layer}" if outcome.layer else ""
    # Of a model that gives no probability the score is all there is.
    said = outcome.score if outcome.probability is None else outcome.probability
    box = f" box {outcome.number} ({', '.join(f'{edge:.0f}' for edge in outcome.box)})" if outcome.box else ""
    return f"{printable(outcome.shown)}: {printable(outcome.about)} {said:.3f}{box}{place}, {outcome.seconds:.2f} s"
