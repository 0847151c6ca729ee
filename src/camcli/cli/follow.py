"""Following of a run: what is said before it, and printed of each image, and at the end."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from camcli.base.words import count_of
from camcli.cli.console import MAX_LISTED, Console
from camcli.cli.streams import print_lines
from camcli.runs.record.outcome import Counts, Outcome, make_outcome

if TYPE_CHECKING:
    from camcli.runs.worker.worker import Worker


class Following:
    """Reporting of a run under way: progress, lines of JSON if these are asked for, and a summary.

    Args:
        console: the command's console.
        out: the output folder.
        as_json: each outcome is printed to standard output as a line of JSON.
        on_picture: called with each image's outcomes.
    """

    def __init__(
        self,
        console: Console,
        out: str,
        as_json: bool,
        on_picture: Callable[[list[Outcome]], None] = lambda outcomes: None,
    ) -> None:
        self._console, self._out, self._as_json, self._on_picture = console, out, as_json, on_picture
        self._counts, self._shown = Counts(), list[Outcome]()
        self._began = time.monotonic()

    def follow(self, run: Iterable[list[Outcome]], total: int | None) -> None:
        """Do a run, and report each image of it."""
        with self._console.progress(total, self._counts) as reporter:
            for outcomes in run:
                reporter.add_picture(outcomes)
                self._on_picture(outcomes)
                if len(self._shown) <= MAX_LISTED:
                    self._shown += outcomes
                if self._as_json:
                    print_lines(outcomes)

    def conclude(self) -> Counts:
        """Print the summary; return the numbers of images."""
        if self._as_json and self._counts.skipped:
            self._console.note(
                f"{count_of(self._counts.skipped, 'image', 'were')} done before, and not printed again: see "
                f"{self._out}/outcomes.jsonl"
            )
        self._console.print_summary(self._shown, self._counts, time.monotonic() - self._began, self._out)
        return self._counts


def follow_records(run: Iterable[Sequence[Any]], total: int | None, console: Console, as_json: bool) -> Counts:
    """Do a run that yields records of its own for each image; return the numbers of images.

    Args:
        run: the run; its records are lines as :class:`ImageLine`, with an error.
        total: number of images, if it is known.
        console: the command's console.
        as_json: each record is printed to standard output as a line of JSON.
    """
    counts = Counts()
    with console.progress(total, counts) as reporter:
        for records in run:
            reporter.add_picture([make_outcome(one) for one in records])
            if as_json:
                print_lines(records)
    return counts


def say_methods(worker: "Worker", console: Console) -> None:
    """Say with which methods, at which layers and on which devices images are explained."""
    explainer = worker.explainer
    where = f" at {', '.join(explainer.layers)}" if explainer.layers else ""
    chosen = " (chosen; --layer names another)" if explainer.layers and not worker.job.layers else ""
    names = ", ".join(row.name for row in explainer.methods)
    console.say(f"method{'s' * (len(explainer.methods) > 1)}: {names}{where}{chosen}, on {worker.device_names}")
