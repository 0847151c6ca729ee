"""``camcli channels``."""

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from camcli.base.errors import RequestError
from camcli.cli.console import Voice, print_table
from camcli.cli.exit import ending
from camcli.cli.loading import loading
from camcli.cli.options import Session, add_options, build, open_session, split_words
from camcli.cli.streams import standard_output
from camcli.runs.channels import Contest
from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Tally

NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)

# The options of the command, in the help's order: a job's that it shares, and its own.
OPTIONS = (
    *("model", "inputs", "layers", "channels", "values", "weights", "size", "crop", "layout", "call", "placement"),
    *("output", "out", "sort", "top", "pictures", "colormap", "alpha", "decode", "background", "range", "pages"),
    *("overwrite", "batch_size", "workers", "timeout", "device", "precision"),
    *("keep_memory", "no_keep_memory", "seed", "null_separated", "as_json", "quiet"),
)
OTHER_WORDS: dict[str, dict[str, Any]] = {
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
}


@add_options(Session, Contest, Job, names=OPTIONS, reworded=OTHER_WORDS)
def channels(**words: Any) -> None:
    """Rank the channels of a layer over images, with a contact sheet of the images that activate each most.

    Statistics are of the pooled activation: the mean over the cells that show any of the image.

    Output: channels.csv (all channels), channels.png (the contact sheet), channels.json (settings and versions).

    Exit codes: 0 = all done, 1 = some images failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = open_session(Session, words)
    voice = Voice(session.quiet, ledger="")
    with ending(voice, "nothing is written before the last picture"):
        numbers = _numbers(words["channels"] or ())
        target = f"channel:{','.join(map(str, numbers or (0,)))}"
        job = build(Job, words, method="activation", target=(target,))
        contest = build(Contest, {**words, "channels": numbers}, job=job)
        tally = _rank(contest, voice, session.as_json)
    raise typer.Exit(tally.exit_code)


def _numbers(given: Sequence[str]) -> tuple[int, ...]:
    words = split_words(given)
    for word in words:
        if not NUMBER.fullmatch(word):
            raise RequestError(f"--channel {word!r} is not a channel's number", "say --channel 12,99, counted from 0")
    return tuple(dict.fromkeys(map(int, words)))


def _rank(contest: Contest, voice: Voice, as_json: bool) -> Tally:
    with loading(voice, f"loading {contest.job.model}"):
        from camcli.runs.channels.run import Ranking

        ranking = Ranking(contest)
    _introduce(ranking, voice)
    told = len(ranking.notes)
    tally, began = Tally(), time.monotonic()
    with ranking:
        with voice.progress(ranking.total, tally) as reporter:
            for outcomes in ranking:
                reporter.picture(outcomes)
        with voice.working("drawing the contact sheet"):
            ranked = ranking.write()
    if as_json:
        standard_output().buffer.writelines(one.as_line() for one in ranked)
        standard_output().buffer.flush()
    elif not voice.quiet:
        with_values = ranking.values is not None
        headings = ["channel", "mean", "max", "std", "active", *["r"] * with_values, "strongest picture"]
        print_table(headings, _cells(ranked, with_values))
    for note in ranking.notes[told:]:
        voice.note(note)
    voice.summary([], tally, time.monotonic() - began, ", ".join(f"{contest.job.out}/{file}" for file in ranking.files))
    return tally


def _cells(ranked: Sequence[Any], with_values: bool) -> Iterator[list[str]]:
    for one in ranked:
        numbers = [f"{value:.4g}" for value in (one.mean, one.max, one.std)]
        r = [] if not with_values else [f"{one.correlation:+.3f}" if one.correlation is not None else ""]
        first = one.strongest[0][0].shown if one.strongest else ""
        yield [str(one.channel), *numbers, f"{one.active:.3f}", *r, first]


def _introduce(ranking: Any, voice: Voice) -> None:
    worker = ranking.worker
    voice.say(f"model: {worker.network.name}, {worker.network.origin}")
    chosen = "" if ranking.contest.job.layers else " (chosen; --layer names another)"
    voice.say(f"channels: of {ranking.layer}{chosen}, on {worker.where}")
    if worker.network.untrained:
        voice.note("the weights are random: this ranking means nothing, and every file says so")
    for note in ranking.notes:
        voice.note(note)
