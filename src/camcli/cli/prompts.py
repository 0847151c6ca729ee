"""The ``camcli prompts`` command."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from camcli.cli.console import Console, print_table
from camcli.cli.exit import exit_codes
from camcli.cli.follow import follow_records, say_methods
from camcli.cli.loading import check_job, loading
from camcli.cli.log import CommandLog
from camcli.cli.options import METHOD_OPTIONS, QUIET_TABLES, CommonOptions, add_options, apply_common_options, build
from camcli.cli.plan import print_plan, without_compiling
from camcli.images import describe_page
from camcli.models import names_cache
from camcli.runs.job.job import Job
from camcli.runs.prompts import Measure, PromptJob
from camcli.runs.record.outcome import Counts
from camcli.targets import AUTO

if TYPE_CHECKING:
    from camcli.runs.prompts.run import PromptRun
    from camcli.runs.prompts.summary import Summary

# With more prompts than this the table leaves out their similarity matrix, which prompts.json has.
MAX_MATRIX_COLUMNS = 8

# The command's options in the order of its help: those shared with a job, and its own.
OPTIONS = (
    *("inputs", "model", "text", "texts", "paraphrases", "template", "text_tower", "trust_code"),
    *("weights", "size", "crop"),
    *METHOD_OPTIONS,
    *("score", "versus", "out", "root", "save", "measure", "pictures", "colormap", "alpha"),
    *("decode", "background", "range", "pages", "every", "limit", "overwrite", "drop_others", "accept_versions"),
    *("durable", "batch_size", "workers", "timeout"),
    *("device", "precision", "compile", "linear", "keep_memory", "no_keep_memory", "seed", "null_separated"),
    *("dry_run", "as_json", "debug", "quiet"),
)
OPTION_OVERRIDES: dict[str, dict[str, Any]] = {
    "inputs": {"type": list[str], "default": ...},
    "model": {
        "default": ...,
        "help": "CLIP model: open_clip:ViT-B-32/openai, open_clip:local-dir:PATH, hf:OWNER/NAME. See: camcli models",
        "show_default": "",
    },
    "text": {"help": "Prompt; repeat for several"},
    "texts": {"help": "File of prompts, one a line"},
    "method": {
        "type": str,
        "default": AUTO,
        "help": "Method that explains a class: gradcam, hirescam, layercam, gae, ... See: camcli methods",
        "show_default": "gradcam",
    },
    "save": {
        "help": "For each image: sheet (image, maps, mean, deviation), array (maps as .npz), joined by commas",
        "metavar": "KINDS",
        "show_default": "sheet",
        "names": None,
        "env": False,
    },
    "as_json": {"help": "Print a line of JSON for each image instead of the table"},
    "quiet": QUIET_TABLES,
}


@add_options(CommonOptions, PromptJob, Job, names=OPTIONS, overrides=OPTION_OVERRIDES)
def prompts(**words: Any) -> None:
    """Compare the heatmaps of several prompts in each image: does the wording change them?

    Output: a sheet for each image, prompts.jsonl (all numbers), prompts.png and prompts.json (the summary).

    Running the same command again resumes it: finished images are skipped.

    Exit codes: 0 = all done, 1 = some images failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = apply_common_options(CommonOptions, words)
    console = Console(session.quiet, ledger="prompts.jsonl")
    with CommandLog(session.debug) as log, exit_codes(console):
        job = build(Job, {**words, "save": words["save"] or ["sheet"]})
        job = without_compiling(job) if session.dry_run else job
        prompt_job = build(PromptJob, words, job=job)
        counts = _compare(prompt_job, console, session, log)
    raise typer.Exit(counts.exit_code)


def _compare(prompt_job: PromptJob, console: Console, session: CommonOptions, log: CommandLog) -> Counts:
    check_job(prompt_job.job)
    with loading(console, f"loading {prompt_job.job.model}"):
        from camcli.runs.prompts.run import PromptRun, plan_run

        run = PromptRun(prompt_job)
        names_cache.write_model(prompt_job.job.model, run.worker.network)
    _introduce(run, console)
    printed = len(run.notes)
    if session.dry_run:
        print_plan(run, plan_run, console)
        return Counts()
    began = time.monotonic()
    with run:
        log.open(run.session.out)
        counts = follow_records(run, run.total, console, session.as_json)
        with console.working("drawing the summary"):
            summary = run.finish()
    if not session.as_json:
        _print_summary(summary, prompt_job.measure, console)
    for note in run.notes[printed:]:
        console.note(note)
    console.print_summary(
        [], counts, time.monotonic() - began, ", ".join(f"{run.session.out}/{one}" for one in run.files)
    )
    return counts


def _introduce(run: "PromptRun", console: Console) -> None:
    worker = run.worker
    console.say(f"model: {worker.network.name}, {worker.network.origin}")
    say_methods(worker, console)
    console.say(f"target: {worker.score_description}, of {len(run.prompts)} prompts")
    console.say(f"output: {run.session.out}")
    if worker.network.untrained:
        console.note("the weights are random: these maps mean nothing, and every output is marked so")
    for note in run.notes:
        console.note(note)


def _print_summary(summary: "Summary", measure: Measure, console: Console) -> None:
    """Print a table of the prompts, with their similarity by one measure if they are few, and the unstable images."""
    few = len(summary.prompts) <= MAX_MATRIX_COLUMNS
    numbers = [str(number) for number, _ in enumerate(summary.prompts, start=1)]
    headings = ["", "prompt", "score", "best", "r", "SSIM", "top 20%", *(numbers if few else [])]
    print_table(headings, _make_rows(summary, summary.similarity[measure] if few else []), wrapped=("prompt",))
    named = ", ".join(
        f"{describe_page(one.source, one.page)} ({_format_number(one.agreement[measure])})" for one in summary.unstable
    )
    if named:
        console.say(f"least stable, by mean {measure} of the prompts' maps: {named}")


def _make_rows(summary: "Summary", similarity: list[list[float | None]]) -> Iterator[list[str]]:
    for place, one in enumerate(summary.prompts):
        means = [_format_number(one.agreement[name]) for name in ("pearson", "ssim", "overlap")]
        score = "" if one.score is None else f"{one.score:.4g}"
        row = (
            [_format_number(value) if place != other else "" for other, value in enumerate(similarity[place])]
            if similarity
            else []
        )
        yield [str(place + 1), one.prompt, score, f"{one.best} of {summary.pictures}", *means, *row]


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"
