"""The ``camcli explain`` command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from camcli.base import weight_files
from camcli.base.errors import RequestError
from camcli.cli.cluster import ClusterOptions, check_cluster_options, run_on_cluster
from camcli.cli.config import check_code, load_config
from camcli.cli.console import Console
from camcli.cli.exit import exit_codes
from camcli.cli.follow import Following, say_methods
from camcli.cli.loading import check_job, loading
from camcli.cli.log import CommandLog
from camcli.cli.options import add_options, apply_common_options, build
from camcli.cli.plan import print_plan, without_compiling
from camcli.cli.report import check_report, make_report
from camcli.cli.viewer import RunViewer, Viewer
from camcli.images.address import is_url, show_path
from camcli.models import BUNDLED_MODEL, names_cache
from camcli.runs.job.job import Job
from camcli.runs.job.option import COMPUTE, LOGGING, MODEL, OUTPUT, option
from camcli.runs.record.outcome import Counts
from camcli.runs.report import ReportOptions
from camcli.targets import AUTO

if TYPE_CHECKING:
    from camcli.runs.explain.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions(ClusterOptions):
    """Options of ``camcli explain`` besides those of its job."""

    contrast: str = option(
        "",
        MODEL,
        help="Why A and not B: short for --target A --score margin --versus B",
        metavar="A,B",
        env=False,
        after="versus",
    )
    checkpoint: bool = option(False, COMPUTE, help="The old name of --recompute", more={"hidden": True})
    config: Path | None = option(
        None,
        COMPUTE,
        help="Job file (TOML), or run.json of an earlier run; flags and environment variables (CAMCLI_MODEL, ...) "
        "take precedence",
        short="-c",
        metavar="FILE",
        more={"is_eager": True, "callback": load_config},
    )
    trust_config: bool = option(
        False,
        COMPUTE,
        help="Allow the job file to run Python code (its model, wrap or text_tower)",
        env=False,
    )
    report: bool = option(
        False, OUTPUT, help="Write a page of all images and maps at the end: report.html; see camcli report", env=False
    )
    show: bool = option(
        False, LOGGING, help="Show the first overlays in the terminal as they are written; see camcli show", env=False
    )
    verbose: bool = option(False, LOGGING, help="Print a line for each map", short="-v", env=False)


@add_options(ExplainOptions, Job)
def explain(context: typer.Context, **words: Any) -> None:
    """Write heatmaps of what a model looks at in images.

    Running the same command again resumes it: finished images are skipped.

    Exit codes: 0 = all done, 1 = some images failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = apply_common_options(ExplainOptions, words)
    console = Console(session.quiet, session.verbose)
    with CommandLog(session.debug) as log, exit_codes(console):
        check_code(context, session.config, session.trust_config, console)
        if session.contrast:
            words |= _read_contrast(session.contrast, words)
        if session.checkpoint:
            _check_old_recompute(words["inputs"] or (), console)
            words["recompute"] = True
        job = build(Job, words)
        if session.report:
            check_report(job, session.engine)
        if session.engine == "ray":
            if session.dry_run or session.show:
                raise RequestError("--dry-run and --show are not for a cluster", "try them with --engine local")
            counts = run_on_cluster(job, session, console, log)
        else:
            check_cluster_options(session)
            counts = run_job(without_compiling(job) if session.dry_run else job, console, session, log)
    raise typer.Exit(counts.exit_code)


def _read_contrast(contrast: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the target, score and rival that ``--contrast A,B`` stands for."""
    if words["target"] or words["versus"] or words["score"] not in (AUTO, "margin"):
        raise RequestError(
            "--contrast sets --target, --score and --versus, and one of them is given too",
            "leave --target, --score and --versus out, or use them without --contrast",
        )
    this, _, that = (part.strip() for part in contrast.partition(","))
    if not this or not that:
        raise RequestError(
            f"--contrast {contrast!r} does not name two classes",
            "write --contrast A,B (why A and not B), with names or indices",
        )
    return {"target": [this], "versus": [that], "score": "margin"}


def _check_old_recompute(inputs: Sequence[str], console: Console) -> None:
    """Refuse a file of weights after --checkpoint, the old name of --recompute, and note the new name."""
    if given := next(filter(weight_files.identify_non_picture, inputs), ""):
        raise RequestError(
            f"--checkpoint takes no file ({given!r}): it is the old name of --recompute, gradient checkpointing",
            f"load weights by --weights, and name their model: -m resnet50 --weights {given}",
        )
    console.note("--checkpoint is called --recompute now")


def run_job(job: Job, console: Console, session: ExplainOptions, log: CommandLog) -> Counts:
    """Run a job, and say on the console what comes of it."""
    check_job(job, job.save)
    if session.show and is_url(job.out):
        raise RequestError("--show shows local files, and the outputs go to a store", "leave --show out")
    shown_by = Viewer(console) if session.show else None
    with loading(console, f"loading {job.model}"):
        from camcli.runs.explain.run import Run, plan_run

        run = Run(job)
        names_cache.write_model(job.model, run.worker.network)
    _introduce(run, console)
    printed = len(run.notes)
    if session.dry_run:
        print_plan(run, plan_run, console)
        return Counts()
    viewer = RunViewer(shown_by, run.session.out)
    following = Following(console, show_path(run.session.out), session.as_json, viewer.add)
    run.session.say = console.note
    with run:
        log.open(run.session.folder.records)
        following.follow(run, run.total)
    viewer.finish()
    for note in run.notes[printed:]:
        console.note(note)
    counts = following.conclude()
    if session.report:
        make_report(run.session.out, ReportOptions(), console)
    return counts


def _introduce(run: "Run", console: Console) -> None:
    worker = run.worker
    if run.job.model == BUNDLED_MODEL:
        console.say("model: the bundled EfficientNet-Lite0 (--model names another)")
    else:
        console.say(f"model: {worker.network.name}, {worker.network.origin}")
    if worker.prompts:
        by = f", embedded by {run.job.text_tower}" if run.job.text_tower else ""
        within = f" (in {', '.join(map(repr, run.job.template))})" if run.job.template else ""
        console.say(f"prompts: {worker.prompts}{within}{by}")
    if run.job.wrap:
        console.say(f"wrapped by: {run.job.wrap}")
    say_methods(worker, console)
    console.say(f"target: {worker.score_description}")
    console.say(f"output: {show_path(run.session.out)}")
    if worker.network.untrained:
        console.note("the weights are random: these maps mean nothing, and every output is marked so")
    for note in run.notes:
        console.note(note)
