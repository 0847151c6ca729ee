"""The ``camcli evaluate`` command."""

import time
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camcli.cli.console import Console, print_results, print_table
from camcli.cli.exit import exit_codes
from camcli.cli.follow import follow_records, say_methods
from camcli.cli.loading import check_job, loading
from camcli.cli.log import CommandLog
from camcli.cli.options import METHOD_OPTIONS, QUIET_TABLES, CommonOptions, add_options, apply_common_options, build
from camcli.cli.plan import print_plan, without_compiling
from camcli.images.address import show_path
from camcli.metrics import CONTROLS, METRICS, MetricRow
from camcli.models import names_cache
from camcli.runs.evaluate import EvaluateJob
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL
from camcli.runs.record.outcome import Counts

if TYPE_CHECKING:
    from camcli.runs.evaluate.run import EvaluateRun
    from camcli.runs.evaluate.summary import TableRow
    from camcli.runs.evaluate.tabulate import Tables

# The command's options in the order of its help: those shared with a job, and its own.
OPTIONS = (
    *("inputs", "model", "weights", "labels", "text", "texts", "template", "text_tower"),
    *("trust_code", "size", "crop", "preprocess", "wrap"),
    *METHOD_OPTIONS,
    *("target", "targets", "head", "pool", "activation", "score", "versus", "output"),
    *("metrics", "settings", "boxes", "masks", "measured", "out", "root", "to", "plots"),
    *("decode", "background", "range", "pages", "limit", "overwrite", "drop_others", "accept_versions", "durable"),
    *("batch_size", "workers", "timeout", "device", "shard", "precision", "linear", "keep_memory", "no_keep_memory"),
    *("seed", "null_separated", "dry_run", "as_json", "debug", "quiet"),
)
OPTION_OVERRIDES: dict[str, dict[str, Any]] = {
    "inputs": {
        "type": list[str],
        "default": ...,
        "help": "Images, as for camcli explain; or the folder of a run of camcli explain --save array, whose maps are "
        "measured as they are stored",
    },
    "shard": {
        "help": "One of N parts of the images, such as 3/16; all may run at once, with one --out, and camcli merge OUT "
        "makes the table. env = the part that SLURM, torchrun or AWS Batch names; Kubernetes: env/16",
    },
    "seed": {"help": "Random seed of controls, of bootstrap intervals, and for --weights random"},
    "as_json": {"help": "Print a line of JSON for each image, map and metric instead of the table"},
    "quiet": QUIET_TABLES,
}


# Words of the table that are no rows of a registry.
WORDS = (
    (
        "control",
        "blurred",
        "",
        "",
        "a blurred copy of each method's map: where it is as good, blur does as well as details",
    ),
    ("word", "by construction", "", "", "the metric favours this control by its definition, so it proves nothing here"),
    ("column", "95%", "", "", "bootstrap interval of the mean over the images"),
    ("column", "undefined", "", "", "number of maps without a number, which are left out; evaluation.jsonl says why"),
)


def _list_metrics(context: typer.Context, asked: bool) -> None:
    """Print what the metrics and controls are, and end."""
    if not asked or context.resilient_parsing:
        return
    metrics = [(one.kind, one.name, one.better, _when(one), one.summary) for one in METRICS.rows]
    controls = [("control", one.name, "", "yes", one.summary) for one in CONTROLS.rows]
    print_table(
        ("kind", "name", "better", "default", "what it is"),
        [*metrics, *controls, *WORDS],
        wrapped=("default", "what it is"),
    )
    raise typer.Exit


def _when(metric: MetricRow) -> str:
    """Return when a metric is computed by default, in words."""
    return "" if not metric.default else "with --boxes or --masks" if metric.kind == "localisation" else "yes"


LIST = typer.Option(
    "--list",
    help="List what the metrics and controls are, and exit",
    callback=_list_metrics,
    is_eager=True,
    rich_help_panel=MODEL,
)


@add_options(CommonOptions, EvaluateJob, Job, names=OPTIONS, overrides=OPTION_OVERRIDES)
def evaluate(list_all: Annotated[bool, LIST] = False, **words: Any) -> None:  # noqa: ARG001 - a callback
    """Measure how far maps can be trusted: metrics of one or several methods, beside those of controls.

    Controls are maps that know nothing of the model (random, centre, edges, ...) and a blurred copy of each map.

    Output: a table, evaluation.jsonl (each image, map and metric), evaluation.json (the table, settings and versions).

    Running the same command again resumes it: finished images are skipped.

    Exit codes: 0 = all done, 1 = some images failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = apply_common_options(CommonOptions, words)
    console = Console(session.quiet, ledger="evaluation.jsonl")
    with CommandLog(session.debug) as log, exit_codes(console):
        from camcli.runs.evaluate.recorded import find_run, recorded_job  # brings Pillow

        job = build(Job, words)
        maps = find_run(job.inputs)
        if maps:
            job = recorded_job(maps, job)
        job = without_compiling(job) if session.dry_run else job
        evaluate_job = build(EvaluateJob, words, job=job, maps=str(maps or ""))
        counts = _evaluate(evaluate_job, console, session, log)
    raise typer.Exit(counts.exit_code)


def _evaluate(evaluate_job: EvaluateJob, console: Console, session: CommonOptions, log: CommandLog) -> Counts:
    job = evaluate_job.job
    if not evaluate_job.maps:
        check_job(job)
    from camcli.runs.evaluate.records import FACTS_FILE, LINES_FILE

    with loading(console, f"loading {job.model}"):
        from camcli.runs.evaluate.run import EvaluateRun

        run = EvaluateRun(evaluate_job)
        names_cache.write_model(job.model, run.worker.network)
    _introduce(run, console)
    printed = len(run.notes)
    if session.dry_run:
        forwards = f"network: about {run.passes} changed images for each image and class"
        print_plan(run, EvaluateRun.plan, console, (LINES_FILE, FACTS_FILE), [forwards] if run.passes else [])
        return Counts()
    began = time.monotonic()
    with run:
        log.open(run.session.out)
        counts = follow_records(run, run.total, console, session.as_json)
        tables = None
        if not job.shard:
            with console.working("computing intervals"):
                tables = run.finish()
    if tables and not session.as_json:
        print_rows(tables.rows)
        console.say("what the metrics and controls are: camcli evaluate --list")
    for note in run.notes[printed:]:
        console.note(note)
    if tables:
        say_findings(tables, console)
    else:
        console.say(
            f"shard {job.shard} is done: camcli merge {show_path(run.session.out)} makes the table of all shards"
        )
    lines = run.session.folder.records / LINES_FILE
    written = [str(lines), *([evaluate_job.to] if evaluate_job.to else []), *map(str, run.plots)]
    console.print_summary([], counts, time.monotonic() - began, ", ".join(written))
    return counts


def print_rows(rows: Sequence["TableRow"]) -> None:
    """Print the table of all images to standard output."""
    print_results(("metric", "better", "map", "mean", "95%", "images", "undefined"), _format_rows(rows))


def say_findings(tables: "Tables", console: Console) -> None:
    """Say what the table shows: warnings, ranks, agreement of the metrics, and the conclusion."""
    from camcli.runs.evaluate.ranks import describe_ranks

    for warning in tables.warnings:
        console.note(warning)
    if tables.ranks:
        console.say("mean rank of the methods over the images, 1 is best:")
        for line in describe_ranks(tables.ranks):
            console.say(f"  {line}")
    if tables.agreements:
        least = min(tables.agreements, key=lambda one: one.tau)
        console.say(
            f"agreement of metrics on the order of maps (Kendall's tau): mean "
            f"{fmean(one.tau for one in tables.agreements):.2f}, least {least.tau:.2f}, {least.metric} and "
            f"{least.other}"
        )
    for line in tables.conclusion.lines:
        console.say(line)


def _introduce(run: "EvaluateRun", console: Console) -> None:
    worker = run.worker
    console.say(f"model: {worker.network.name}, {worker.network.origin}")
    say_methods(worker, console)
    if run.stored:
        console.say(f"maps: those of the run in {show_path(run.stored.path)}, as they are stored")
    console.say(f"target: {worker.score_description}")
    console.say(f"metrics: {', '.join(one.row.name for one in run.metrics)}")
    if any("score_of" in one.given_names for one in run.metrics):
        read = "the class's probability" if run.measured == "probability" else "the score that is explained"
        console.say(f"measured: {read}, in changed images")
    console.say(f"output: {run.session.out}")
    if worker.network.untrained:
        console.note("the weights are random: these numbers mean nothing")
    for note in run.notes:
        console.note(note)


def _format_rows(rows: Sequence["TableRow"]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        mean = "" if row.mean is None else f"{row.mean:#.3g}"
        interval = "" if row.low is None else f"{row.low:#.3g} to {row.high:#.3g}"
        title = f"{row.title}, by construction" if row.favoured else row.title
        yield row.metric, row.better, title, mean, interval, str(row.images), str(row.undefined or "")
