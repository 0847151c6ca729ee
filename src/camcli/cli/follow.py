"""Following of a run: what is said and printed of each image, and at the end."""

import time
from collections.abc import Callable, Iterable

from camcli.cli.console import MAX_LISTED, Console
from camcli.cli.streams import get_standard_output
from camcli.runs.record.outcome import Counts, Outcome


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
                    get_standard_output().buffer.writelines(outcome.as_line() for outcome in outcomes)
                    get_standard_output().buffer.flush()

    def conclude(self) -> Counts:
        """Print the summary; return the numbers of images."""
        if self._as_json and self._counts.skipped:
            self._console.note(
                f"{self._counts.skipped} image(s) were done before, and their lines are not printed again: they are in "
                f"{self._out}/outcomes.jsonl"
            )
        self._console.print_summary(self._shown, self._counts, time.monotonic() - self._began, self._out)
        return self._counts
