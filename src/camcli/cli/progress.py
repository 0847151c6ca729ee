"""Progress of a run, as a bar or plain lines, with the rate and the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from camcli.base import passes
from camcli.cli.streams import elide, to_printable

if TYPE_CHECKING:
    from camcli.cli.console import Console
    from camcli.runs.record.outcome import Counts, Outcome

# Seconds between plain lines, without a terminal.
LINE_INTERVAL = 5.0
# Seconds without any line after which one comes all the same, while one image takes long; looked at every second.
SILENCE = 9.0
TICK = 1.0
# Seconds that a method's loop over masks takes before a bar says how far it is.
LONG_LOOP = 2.0
# Seconds for one image from which an option is named that makes it less.
SLOW_IMAGE = 60.0
# Images arrive batch by batch: one that arrives after a gap of this many seconds is the first of its batch.
BATCH_GAP = 0.2
# Seconds, from the first batch on, over which a rate is measured before it is shown.
MIN_MEASURED = 2.0
# Minimum widths of the bar, the image's name and the column of files.
BAR_WIDTH, NAME_WIDTH, FILE_WIDTH = 8, 12, 24
# Width reserved for the numbers beside the bar: "1000/1000 3 failed 123.4/s 12:34 eta 12:34".
NUMBERS_WIDTH = 42


class Reporter(Protocol):
    """Receiver of a run's progress."""

    def add_picture(self, outcomes: Sequence[Outcome]) -> None:
        """Add an image that is done, has failed, or (no outcomes) was done before."""


class FailureReporter:
    """Reporter that counts images and prints failures."""

    def __init__(self, console: Console, counts: Counts) -> None:
        self.console = console
        self.counts = counts

    def add_picture(self, outcomes: Sequence[Outcome]) -> None:
        self.counts.add(outcomes)
        for outcome in outcomes:
            if outcome.error:
                self.console.failure(outcome)
            elif self.console.verbose:
                self.console.say(describe_outcome(outcome))


class RateMeter:
    """Rate at which images are done, measured from batch to batch.

    Attributes:
        rate: images per second, without those that were done before; None until it is meaningful.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._count = 0
        self._first = self._last = self._last_update = 0.0

    def add_picture(self) -> None:
        """Add an image that was not done before."""
        now = time.monotonic()
        if not self._count:
            self._first = self._last_update = now
        # As many are done since the first batch arrived as had arrived before this one: one batch in, one batch out.
        elif now - self._last >= BATCH_GAP or now - self._last_update >= 1:
            self._last_update = now
            if now - self._first >= MIN_MEASURED:
                self.rate = self._count / (now - self._first)
        self._last = now
        self._count += 1

    def estimate_seconds(self, pictures: int) -> float | None:
        """Return the seconds until this many more images are done."""
        return pictures / self.rate if self.rate else None


class LineReporter(FailureReporter):
    """Reporter that prints a plain line every few seconds."""

    def __init__(self, console: Console, counts: Counts, total: int | None) -> None:
        super().__init__(console, counts)
        self.total = total
        self.pace = RateMeter()
        self.began = self.last_line = time.monotonic()

    def add_picture(self, outcomes: Sequence[Outcome]) -> None:
        super().add_picture(outcomes)
        if outcomes:
            self.pace.add_picture()
        now = time.monotonic()
        if now - self.last_line >= LINE_INTERVAL:
            self.last_line = now
            self.console.say(self.format_line())

    def tick(self) -> None:
        """Print a line, from another thread, if there was none for long."""
        now = time.monotonic()
        if now - self.last_line >= SILENCE:
            self.last_line = now
            took = "" if self.pace.rate else f", {now - self.began:.0f} s so far"
            self.console.say("; ".join([self.format_line() + took, *describe_passes(passes.list_running())]))

    def format_line(self) -> str:
        processed = self.counts.processed
        words = [f"{processed}/{self.total} images" if self.total else f"{processed} images"]
        words += [f"{self.counts.failed} failed"] if self.counts.failed else []
        words += [f"{self.pace.rate:.1f}/s"] if self.pace.rate else []
        left = self.pace.estimate_seconds(self.total - processed) if self.total else None
        words += [f"{left:.0f} s left"] if left is not None else []
        return ", ".join(words)


class BarReporter(FailureReporter):
    """Reporter that shows a bar with the last image, rate and time left."""

    def __init__(self, console: Console, counts: Counts, total: int | None, bar: Progress) -> None:
        super().__init__(console, counts)
        self.bar = bar
        self.total = total
        self.pace = RateMeter()
        self.task = bar.add_task("", total=total, failed=0, rate=None, due=None)

    def add_picture(self, outcomes: Sequence[Outcome]) -> None:
        super().add_picture(outcomes)
        before = self.pace.rate
        if outcomes:
            self.pace.add_picture()
        processed = self.counts.processed
        fields: dict[str, Any] = {"failed": self.counts.failed, "rate": self.pace.rate}
        left = self.pace.estimate_seconds(self.total - processed) if self.total else None
        if left is not None and self.pace.rate != before:
            fields["due"] = time.monotonic() + left
        self.bar.update(self.task, completed=processed, description=self._describe_last(outcomes), **fields)

    def _describe_last(self, outcomes: Sequence[Outcome]) -> str:
        """Return the name of the last image, padded to a fixed width; empty if there is no room for it."""
        width = _fit_name_width(self.bar.console)
        if not width or self.counts.processed == self.total:
            return ""
        shown = elide(to_printable(outcomes[0].shown) if outcomes else "done before", width)
        return shown + " " * (width - cell_len(shown))


class PassesProgress(Progress):
    """Progress bar with a line below it on the masks of an image that takes long."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar, and the line where there is something to say."""
        yield from super().get_renderables()
        now = time.monotonic()
        long = [one for one in passes.list_running() if now - one.began >= LONG_LOOP]
        if long:
            yield Text(elide("; ".join(describe_passes(long)), self.console.width), "cyan")


def describe_passes(running: Sequence[passes.Passes]) -> list[str]:
    """Describe how far methods are with the masks of their images: ``rise: 812/4000 masks, 62 s left for this image``.

    Of several devices' loops the one that takes longest is described.
    """
    if not running:
        return []
    one = max(running, key=lambda one: one.estimate_seconds() or 0)
    count = f"{one.done}/{one.total}" if one.total else f"{one.done}"
    method = f"{to_printable(one.method)}: " if one.method else ""
    left = one.estimate_seconds()
    whose = "this image" if one.images == 1 else f"these {one.images} images"
    return [f"{method}{count} {one.noun}" + (f", {left:.0f} s left for {whose}" if left is not None else "")]


def describe_counts(counts: Counts, total: int | None) -> str:
    """Return how many images are done, have failed and are left: ``12 done, 1 failed, 30 left``."""
    left = [f"{max(0, total - counts.processed)} left"] if total is not None else []
    return ", ".join([*counts.describe(), *left])


def describe_slow(one: passes.Passes) -> str:
    """Return how a loop that takes minutes for one image can take less; empty if it does not, or cannot."""
    seconds = one.estimate_image_seconds() if one.seconds >= MIN_MEASURED else None
    if seconds is None or seconds < SLOW_IMAGE or not one.quicker:
        return ""
    method = to_printable(one.method)
    return (
        f"{method} takes about {seconds:.0f} s for each map, for {one.total} {one.noun}; with fewer it is "
        f"quicker, and its map noisier: -o {one.quicker}"
    )


class SlowNotes:
    """Notes on methods that take minutes for one image, each printed once."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._noted: set[str] = set()

    def tick(self) -> None:
        """Print those that are new."""
        for one in passes.list_running():
            if one.method not in self._noted and (text := describe_slow(one)):
                self._noted.add(one.method)
                self.console.note(text)


@contextmanager
def ticking(call: Callable[[], object]) -> Iterator[None]:
    """Call a function every second, in a thread of its own, while the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(TICK):
            call()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _fit_name_width(console: RichConsole) -> int:
    """Return the width of the image's name before the bar; 0 if there is no room for it."""
    width = min(40, console.width - NUMBERS_WIDTH - BAR_WIDTH - 2)
    return width if width >= NAME_WIDTH else 0


class StatusColumn(ProgressColumn):
    """Column of images done, failures, rate, time taken and time left: as many of these as fit."""

    def __init__(self, console: RichConsole) -> None:
        super().__init__(Column(no_wrap=True))
        self.console = console

    def render(self, task: Task) -> Text:
        rate, due = task.fields["rate"], task.fields["due"]
        left = max(0.0, due - time.monotonic()) if due is not None and not task.finished else None
        words = {
            "count": (f"{task.completed:.0f}/{'?' if task.total is None else f'{task.total:.0f}'}", "green"),
            "failed": (f"{task.fields['failed']} failed" if task.fields["failed"] else "", "red"),
            "rate": (f"{rate:.1f}/s" if rate else "", "magenta"),
            "elapsed": (_format_clock(task.elapsed or 0.0), "yellow"),
            "left": (f"eta {_format_clock(left)}" if left is not None else "", "cyan"),
        }
        if task.finished:  # what follows is short, but with --normalize run all images are drawn now
            words.pop("rate")
            words["left"] = ("finishing", "cyan")
        name = _fit_name_width(self.console)
        room = self.console.width - BAR_WIDTH - 1 - (name + 1)
        for least in ("", "rate", "elapsed", "left"):
            words.pop(least, None)
            shown = [word for word in words.values() if word[0]]
            if sum(cell_len(word) + 1 for word, _ in shown) <= room:
                break
        return Text(" ").join(Text(*word) for word in shown)


def _format_clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def describe_outcome(outcome: Outcome) -> str:
    """Describe a map on one line."""
    place = f" at {outcome.layer}" if outcome.layer else ""
    # Models that give no probability have only a score.
    value = outcome.score if outcome.probability is None else outcome.probability
    box = f" box {outcome.number} ({', '.join(f'{edge:.0f}' for edge in outcome.box)})" if outcome.box else ""
    return (
        f"{to_printable(outcome.shown)}: {to_printable(outcome.about)} {value:.3f}{box}{place}, {outcome.seconds:.2f} s"
    )
