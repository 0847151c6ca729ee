"""The ``camcli sanity`` command."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from camcli.cli.console import Console, print_results, print_text
from camcli.cli.exit import exit_codes
from camcli.cli.follow import say_methods
from camcli.cli.loading import check_job, loading
from camcli.cli.log import CommandLog
from camcli.cli.options import METHOD_OPTIONS, QUIET_TABLES, CommonOptions, add_options, apply_common_options, build
from camcli.cli.streams import get_standard_output
from camcli.models import names_cache
from camcli.runs.job.job import Job
from camcli.runs.sanity import COLUMNS, SanityJob, SanityRow

if TYPE_CHECKING:
    from camcli.runs.sanity.run import SanityRun

# The command's options in the order of its help: those shared with a job, and its own.
OPTIONS = (
    *("inputs", "model", "weights", "labels", "text", "texts", "template", "text_tower"),
    *("trust_code", "size", "crop", "preprocess", "wrap"),
    *METHOD_OPTIONS,
    *("target", "targets", "head", "pool", "activation", "score", "versus", "output"),
    *("tests", "shift", "samples", "noise", "to", "decode", "background", "range", "pages", "limit"),
    *("batch_size", "workers", "timeout", "device", "precision", "linear", "keep_memory", "no_keep_memory", "seed"),
    *("null_separated", "as_json", "debug", "quiet"),
)
OPTION_OVERRIDES: dict[str, dict[str, Any]] = {
    "inputs": {"type": list[str], "default": ...},
    "limit": {"help": "Number of images, which are kept in memory and explained again in each step; 0 = 16"},
    "seed": {"help": "Random seed of what is drawn anew, of the other class, and for --weights random"},
    "as_json": {"help": "Print a line of JSON for each step and method instead of the tables"},
    "quiet": QUIET_TABLES,
}


@add_options(CommonOptions, SanityJob, Job, names=OPTIONS, overrides=OPTION_OVERRIDES)
def sanity(**words: Any) -> None:
    """Test whether maps depend on the network at all: parts of it are drawn anew, and the maps compared.

    A method whose map stays the same while the network forgets what it learned shows the image, not the model.

    Nothing is written but --to. The network is as before at the end, also after Ctrl-C.

    Exit codes: 0 = all tests are passed, 1 = one is not, 2 = invalid request, 3 = no image, 130 = interrupted.
    """
    session = apply_common_options(CommonOptions, words)
    console = Console(session.quiet, ledger="")
    with CommandLog(session.debug), exit_codes(console, "nothing was written"):
        sanity_job = build(SanityJob, words, job=build(Job, words))
        code = _test(sanity_job, console, session)
    raise typer.Exit(code)


def _test(sanity_job: SanityJob, console: Console, session: CommonOptions) -> int:
    job = sanity_job.job
    check_job(job)
    with loading(console, f"loading {job.model}"):
        from camcli.runs.record.rows import RowWriter
        from camcli.runs.sanity.run import SanityRun

        run = SanityRun(sanity_job)
        names_cache.write_model(job.model, run.worker.network)
    console.say(f"model: {run.worker.network.name}, {run.worker.network.origin}")
    say_methods(run.worker, console)
    console.say(f"target: {run.worker.score_description}")
    console.say(f"tests: {', '.join(sanity_job.chosen)}")
    if sanity_job.samples:
        copies = "one copy" if sanity_job.samples == 1 else f"{sanity_job.samples} copies"
        console.say(f"maps: means over {copies} of each image with noise of {sanity_job.noise:g} of its range")
    if run.worker.network.untrained:
        console.note("the weights are random: these numbers mean nothing")
    for note in run.notes:
        console.note(note)
    if sanity_job.to:
        with RowWriter(Path(sanity_job.to), COLUMNS) as writer:
            rows = _follow(run, console, session.as_json, lambda some: writer.write(one.as_row() for one in some))
    else:
        rows = _follow(run, console, session.as_json, lambda some: None)
    return _conclude(run, rows, console, session.as_json)


def _follow(run: "SanityRun", console: Console, as_json: bool, write: Any) -> list[SanityRow]:
    """Do the tests, with a line on where they are."""
    from camcli.runs.record.rows import encode_row

    rows: list[SanityRow] = []
    done = 0
    with console.working("explaining the images") as _:
        for some in run:
            done += 1
            rows += some
            write(some)
            if as_json:
                get_standard_output().buffer.writelines(encode_row(one.as_row()) for one in some)
                get_standard_output().buffer.flush()
            last = some[0]
            console.say(f"{done}/{run.steps} {last.test}{': ' * bool(last.part)}{last.part}")
    for name, reason in run.failures:
        console.note(f"{name} is left out: {reason}")
    return rows


def _conclude(run: "SanityRun", rows: Iterable[SanityRow], console: Console, as_json: bool) -> int:
    """Print the curves and the verdicts; return the exit code."""
    if not as_json:
        headings = ("test", "part", "redrawn", "method", "r", "Spearman", "SSIM", "rise", "maps", "undefined")
        print_results(headings, map(_make_row, rows))
        print_text("")
        print_results(
            ("test", "method", "verdict", "because"),
            (
                (
                    one.test,
                    _name(one.method, one.layer),
                    {True: "passes", False: "FAILS", None: "?"}[one.passes],
                    one.words,
                )
                for one in run.verdicts
            ),
            wrapped=("because",),
        )
    failed = [one for one in run.verdicts if one.passes is False]
    for one in failed:
        console.say(f"{one.method} fails {one.test}: {one.words}", style="bold red")
    return 1 if failed else 0


def _make_row(row: SanityRow) -> tuple[str, ...]:
    numbers = (row.pearson, row.spearman, row.ssim)
    return (
        row.test,
        row.part,
        f"{row.share:.0%}" if row.part else "",
        _name(row.method, row.layer),
        *("" if value is None else f"{value:.2f}" for value in numbers),
        "" if row.rise is None else f"{row.rise:+.2f}",
        str(row.maps),
        str(row.undefined or ""),
    )


def _name(method: str, layer: str) -> str:
    return f"{method} at {layer}" if layer else method
