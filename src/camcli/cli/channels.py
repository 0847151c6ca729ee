"""``camcli channels``."""

import re
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from camcli.base.errors import RequestError
from camcli.cli.console import Voice, print_table
from camcli.cli.exit import ending
from camcli.cli.loading import loading
from camcli.cli.options import (
    DEFAULT,
    SAID,
    WHAT,
    WRITTEN,
    Alpha,
    Background,
    BatchSize,
    Call,
    Colormap,
    CropTo,
    DecodeAt,
    Device,
    KeepMemory,
    LayoutOf,
    NullSeparated,
    Out,
    Output,
    Pages,
    PlacementOf,
    PrecisionOf,
    Quiet,
    Range,
    Seed,
    Size,
    Timeout,
    Weights,
    Workers,
    option,
    split_words,
)
from camcli.cli.streams import standard_output
from camcli.runs.channels import Contest, Sort
from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Tally

NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)

Model = Annotated[str, typer.Argument(help="A model, as for camcli explain --model.", show_default=False)]
Pictures = Annotated[
    list[str],
    typer.Argument(
        help="Pictures: files, folders, globs, @list.txt, or - for names on standard input.",
        metavar="PICTURES",
        show_default=False,
    ),
]
Layer = Annotated[
    str,
    option(
        WHAT,
        "Whose channels: layer4.-1, blocks[-1].norm1. See: camcli layers MODEL.",
        "--layer",
        "-l",
        metavar="PATH",
        show_default="chosen and printed",
    ),
]
Only = Annotated[
    list[str] | None,
    option(
        WHAT,
        "Show only these, by their numbers: 12,99; repeat for more. The CSV file has all.",
        "--channel",
        env=False,
        metavar="NUMBERS",
        show_default=False,
    ),
]
ValuesFile = Annotated[
    str,
    option(
        WHAT,
        "CSV with a number for each picture, such as a label: each channel's correlation with it. COLUMN where it has "
        "several.",
        "--values",
        env=False,
        metavar="FILE[:COLUMN]",
        show_default=False,
    ),
]
SortBy = Annotated[
    Sort | None,
    option(
        WRITTEN,
        "What comes first: the greatest mean, maximum, standard deviation or active share (of pictures whose pooled "
        "activation is above zero), or the correlation furthest from zero.",
        "--sort",
        env=False,
        show_default="mean; with --values correlation",
    ),
]
Top = Annotated[
    int | None,
    option(
        WRITTEN,
        "How many channels are shown.",
        "--top",
        env=False,
        min=1,
        metavar="N",
        show_default="16, or all that --channel names",
    ),
]
PicturesEach = Annotated[
    int,
    option(
        WRITTEN,
        "How many pictures of each channel: those of its greatest pooled activation.",
        "--pictures",
        env=False,
        min=1,
        metavar="N",
    ),
]
Replace = Annotated[bool, option(WRITTEN, "Replace another ranking in the folder.", "--overwrite", env=False)]
AsJson = Annotated[
    bool, option(SAID, "Print a line of JSON for each channel shown, instead of the table.", "--json", env=False)
]


def channels(
    model: Model,
    pictures: Pictures,
    layer: Layer = "",
    channel: Only = None,
    values: ValuesFile = "",
    weights: Weights = DEFAULT.weights,
    size: Size = DEFAULT.size,
    crop: CropTo = DEFAULT.crop,
    layout: LayoutOf = DEFAULT.layout,
    call: Call = DEFAULT.call,
    placement: PlacementOf = DEFAULT.placement,
    output: Output = DEFAULT.output,
    out: Out = DEFAULT.out,
    sort: SortBy = None,
    top: Top = None,
    each: PicturesEach = 6,
    colormap: Colormap = DEFAULT.colormap,
    alpha: Alpha = DEFAULT.alpha,
    decode: DecodeAt = DEFAULT.decode,
    background: Background = DEFAULT.background,
    range: Range = DEFAULT.range,
    pages: Pages = DEFAULT.pages,
    overwrite: Replace = False,
    batch_size: BatchSize = DEFAULT.batch_size,
    workers: Workers = DEFAULT.workers,
    timeout: Timeout = DEFAULT.timeout,
    device: Device = DEFAULT.device,
    precision: PrecisionOf = DEFAULT.precision,
    keep_memory: KeepMemory = True,  # noqa: ARG001  its callback has done it
    seed: Seed = DEFAULT.seed,
    null_separated: NullSeparated = DEFAULT.null_separated,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Rank the channels of a layer over pictures, with a contact sheet of those that drive each most.

    Statistics are of the pooled activation: the mean over the cells that show any of the picture. Written are
    channels.csv (every channel), channels.png (the contact sheet) and channels.json (what made them).

    Exit codes: 0 all done, 1 some pictures failed, 2 the request was wrong, 3 nothing to do was found, 130 interrupted.
    """
    voice = Voice(quiet, ledger="")
    with ending(voice, "nothing is written before the last picture"):
        numbers = _numbers(channel or [])
        job = Job(
            model=model,
            weights=weights,
            size=size,
            crop=crop,
            layers=(layer,) if layer else (),
            layout=layout,
            call=call,
            placement=placement,
            method="activation",
            target=(f"channel:{','.join(map(str, numbers or (0,)))}",),
            output=output,
            inputs=tuple(pictures),
            null_separated=null_separated,
            out=out,
            colormap=colormap,
            alpha=alpha,
            decode=decode,
            background=background,
            range=range,
            pages=pages,
            overwrite=overwrite,
            batch_size=batch_size,
            workers=workers,
            timeout=timeout,
            device=device,
            precision=precision,
            seed=seed,
        )
        contest = Contest(job=job, channels=numbers, top=top or 0, pictures=each, sort=sort, values=values)
        tally = _rank(contest, voice, as_json)
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
