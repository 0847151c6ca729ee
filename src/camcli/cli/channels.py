"""The ``camcli channels`` command."""

import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from camcli.base.errors import RequestError
from camcli.cli.console import Console, print_table
from camcli.cli.exit import exit_codes
from camcli.cli.loading import check_job, loading
from camcli.cli.log import CommandLog
from camcli.cli.options import QUIET_TABLES, CommonOptions, add_options, apply_common_options, build, split_words
from camcli.cli.plan import print_plan, without_compiling
from camcli.cli.streams import print_lines
from camcli.models import names_cache
from camcli.runs.channels import ChannelJob
from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Counts

if TYPE_CHECKING:
    from camcli.runs.channels.run import ChannelRun
    from camcli.runs.channels.table import ChannelStats

NUMBER_PATTERN = re.compile(r"[0-9]{1,9}", re.ASCII)

# The command's options in the order of its help: those shared with a job, and its own.
OPTIONS = (
    *(
        "model",
        "inputs",
        "layers",
        "channels",
        "values",
        "weights",
        "size",
        "crop",
        "preprocess",
        "layout",
        "call",
        "placement",
    ),
    *("output", "out", "sort", "top", "pictures", "colormap", "alpha", "decode", "background", "range", "pages"),
    "every",
    *("limit", "overwrite", "batch_size", "workers", "timeout", "device", "precision", "linear"),
    *("keep_memory", "no_keep_memory", "seed", "null_separated", "dry_run", "as_json", "debug", "quiet"),
)
OPTION_OVERRIDES: dict[str, dict[str, Any]] = {
    "model": {
        "help": "Model name, as for camcli explain --model",
        "positional": True,
        "default": ...,
        "metavar": None,
        "show_default": "",
    },
    "inputs": {"type": list[str], "default": ...},
    "layers": {
        "type": str,
        "default": "",
        "help": "Layer whose channels are ranked: layer4.-1, blocks[-1].norm1. See: camcli layers MODEL",
    },
    "overwrite": {"help": "Replace a different ranking in the output folder"},
    "as_json": {"help": "Print a line of JSON for each channel instead of the table"},
    "quiet": QUIET_TABLES,
}


@add_options(CommonOptions, ChannelJob, Job, names=OPTIONS, overrides=OPTION_OVERRIDES)
def channels(**words: Any) -> None:
    """Rank the channels of a layer over images, with a contact sheet of the images that activate each channel most.

    Statistics are of the pooled activation: the mean over the cells that show any of the image.

    Output: channels.csv (all channels), channels.png (the contact sheet), channels.json (settings and versions).

    Exit codes: 0 = all done, 1 = some images failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = apply_common_options(CommonOptions, words)
    console = Console(session.quiet, ledger="")
    with CommandLog(session.debug) as log, exit_codes(console, "nothing is written before the last image"):
        numbers = _parse_channels(words["channels"] or ())
        target = f"channel:{','.join(map(str, numbers or (0,)))}"
        job = build(Job, words, method="activation", target=(target,))
        job = without_compiling(job) if session.dry_run else job
        channel_job = build(ChannelJob, {**words, "channels": numbers}, job=job)
        counts = _rank(channel_job, console, session, log)
    raise typer.Exit(counts.exit_code)


def _parse_channels(given: Sequence[str]) -> tuple[int, ...]:
    words = split_words(given)
    for word in words:
        if not NUMBER_PATTERN.fullmatch(word):
            raise RequestError(f"--channel {word!r} is not a channel index", "give indices from 0 on: --channel 12,99")
    return tuple(dict.fromkeys(map(int, words)))


def _rank(channel_job: ChannelJob, console: Console, session: CommonOptions, log: CommandLog) -> Counts:
    check_job(channel_job.job)
    with loading(console, f"loading {channel_job.job.model}"):
        from camcli.runs.channels.run import ChannelRun, plan_run

        run = ChannelRun(channel_job)
        names_cache.write_model(channel_job.job.model, run.worker.network)
    _introduce(run, console)
    printed = len(run.notes)
    if session.dry_run:
        print_plan(run, plan_run, console)
        return Counts()
    counts, began = Counts(), time.monotonic()
    with run:
        with console.progress(run.total, counts) as reporter:
            for outcomes in run:
                reporter.add_picture(outcomes)
        with console.working("drawing the contact sheet"):
            ranked = run.write()
        log.open(run.out)
    if session.as_json:
        print_lines(ranked)
    else:
        with_values = run.values is not None
        headings = ["channel", "mean", "max", "std", "active", *["r"] * with_values, "strongest image"]
        print_table(headings, _make_rows(ranked, with_values))
    for note in run.notes[printed:]:
        console.note(note)
    console.print_summary([], counts, time.monotonic() - began, ", ".join(f"{run.out}/{file}" for file in run.files))
    return counts


def _make_rows(ranked: Sequence["ChannelStats"], with_values: bool) -> Iterator[list[str]]:
    for one in ranked:
        numbers = [f"{value:.4g}" for value in (one.mean, one.max, one.std)]
        r = [] if not with_values else [f"{one.correlation:+.3f}" if one.correlation is not None else ""]
        first = one.strongest[0][0].display_name if one.strongest else ""
        yield [str(one.channel), *numbers, f"{one.active:.3f}", *r, first]


def _introduce(run: "ChannelRun", console: Console) -> None:
    worker = run.worker
    console.say(f"model: {worker.network.name}, {worker.network.origin}")
    chosen = "" if run.channel_job.job.layers else " (chosen; --layer names another)"
    console.say(f"channels: of {run.layer}{chosen}, on {worker.device_names}")
    console.say(f"output: {run.out}")
    if worker.network.untrained:
        console.note("the weights are random: this ranking means nothing, and every file is marked so")
    for note in run.notes:
        console.note(note)
