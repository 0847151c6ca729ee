"""What a run would do, for people: the lines of ``--dry-run``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from camcli.cli.console import Console, print_text
from camcli.cli.progress import describe_slow
from camcli.cli.streams import to_printable
from camcli.images.address import show_path, to_url
from camcli.runs.job.job import Job

if TYPE_CHECKING:
    from camcli.images.formats import SkippedFiles
    from camcli.runs.record.plan import Plan, Trial
    from camcli.runs.worker.worker import Worker


class PlannedRun(Protocol):
    """Run of any command that can be planned."""

    worker: "Worker"
    unread: "SkippedFiles"


RunT = TypeVar("RunT", bound=PlannedRun)


def without_compiling(job: Job) -> Job:
    """Return the job for a dry run: compiling would take longer than all the rest."""
    return replace(job, compile="off")


def print_plan(
    run: RunT, plan_run: "Callable[[RunT], Plan]", console: Console, files: Sequence[str] = (), more: Sequence[str] = ()
) -> None:
    """Print the plan of a run to standard output, and which images would fail.

    Args:
        run: the run.
        plan_run: makes its plan.
        console: for progress and notes.
        files: names of the files that it writes, where these are not the outputs of its job.
        more: further lines of this command.
    """
    printed = len(run.worker.notes)
    with console.working("trying images, without writing"):
        plan = plan_run(run)
    for line in (*describe_plan(plan, run.worker, run.unread.describe(), files), *more):
        print_text(to_printable(line))
    for note in run.worker.notes[printed:]:
        console.note(note)
    for text in filter(None, map(describe_slow, plan.trial.loops if plan.trial else ())):
        console.note(text)
    for name, reason in plan.trial.failed.items() if plan.trial else ():
        console.note(f"would fail: {name}: {reason}")
    console.say("nothing was written (--dry-run)")


def describe_plan(plan: "Plan", worker: "Worker", unread: str, files: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of a plan; for ``files`` see :func:`print_plan`."""
    job = worker.job
    height, width = worker.network.preprocess.size
    library = ", linear layers by oneDNN" if worker.linear.library == "onednn" else ""
    yield f"input: {height}x{width}, {job.precision}{library}, up to {worker.batch_size} images in a batch"
    if plan.total is None:
        yield "images: named on standard input, which is not read in a dry run"
    else:
        found = f"the first {plan.total} (--limit)" if plan.total == job.limit else f"{plan.total} found"
        done = f", {plan.done} of them done already, {plan.left} to do" if plan.done else ""
        yield f"images: {found}{done}" + (f"; {unread}" if unread else "")
    new = "" if to_url(plan.out) or plan.out.exists() else ", a new folder"
    yield f"output: {', '.join(files or job.save)}, in {show_path(plan.out)}{new}"
    if plan.trial:
        yield from _describe_trial(plan, plan.trial)
    elif plan.left:
        yield "time: not known before the run, which looks at all images first"


def _describe_trial(plan: "Plan", trial: "Trial") -> Iterator[str]:
    well = trial.images - len(trial.failed)
    if well and trial.size:
        size = _format_size(trial.size / well * plan.left)
        yield f"maps: {trial.maps / well:.3g} for each image, about {size} in all"
    for one in trial.loops:
        if (seconds := one.estimate_image_seconds()) is not None:
            yield f"{one.method}: {one.total} {one.noun} for each map, about {_format_seconds(seconds)}"
    rate = trial.images / trial.seconds
    pace = f"{rate:.1f} images/s" if rate >= 1 else f"{_format_seconds(1 / rate)} for an image"
    yield (
        f"time: about {_format_seconds(plan.seconds or 0)} once the model is loaded "
        f"({pace}, from {trial.images} that were tried)"
    )


def _format_size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _format_seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
