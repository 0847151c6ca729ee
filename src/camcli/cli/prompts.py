"""``camcli prompts``."""

import time
from collections.abc import Iterator
from typing import Any

import typer

from camcli.cli.console import Voice, print_table
from camcli.cli.exit import ending
from camcli.cli.loading import loading
from camcli.cli.options import Session, add_options, build, open_session
from camcli.cli.streams import standard_output
from camcli.images import page_of
from camcli.runs.job.job import Job
from camcli.runs.prompts import Inquiry, Measure
from camcli.runs.record.outcome import Tally
from camcli.targets import AUTO

# The matrix of more prompts than this is no part of the table; prompts.json has it.
COLUMNS = 8

# The options of the command, in the help's order: a job's that it shares, and its own.
OPTIONS = (
    *("inputs", "model", "text", "texts", "paraphrases", "template", "text_tower", "weights", "size", "crop", "layers"),
    *("layout", "call", "method", "options", "fuse", "scales", "augment", "placement", "eigen_smooth", "score"),
    *("versus", "out", "root", "save", "measure", "pictures", "colormap", "alpha", "decode", "background", "range"),
    *("pages", "overwrite", "drop_others", "accept_versions", "durable", "batch_size", "workers", "timeout", "device"),
    *("precision", "compile", "keep_memory", "no_keep_memory", "seed", "null_separated", "as_json", "quiet"),
)
OTHER_WORDS: dict[str, dict[str, Any]] = {
    "inputs": {"type": list[str], "default": ...},
    "model": {
        "default": ...,
        "help": "CLIP model: open_clip:ViT-B-32/openai, open_clip:local-dir:PATH. See: camcli models",
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
}


@add_options(Session, Inquiry, Job, names=OPTIONS, reworded=OTHER_WORDS)
def prompts(**words: Any) -> None:
    """Compare the maps of several prompts in each image: do other words for the same thing point elsewhere?

    Output: a sheet for each image, prompts.jsonl (all numbers), prompts.png and prompts.json (the summary).

    The same command again resumes where it stopped: finished images are skipped.

    Exit codes: 0 = all done, 1 = some images failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = open_session(Session, words)
    voice = Voice(session.quiet, ledger="prompts.jsonl")
    with ending(voice):
        job = build(Job, {**words, "save": words["save"] or ["sheet"]})
        inquiry = build(Inquiry, words, job=job)
        tally = _compare(inquiry, voice, session.as_json)
    raise typer.Exit(tally.exit_code)


def _compare(inquiry: Inquiry, voice: Voice, as_json: bool) -> Tally:
    with loading(voice, f"loading {inquiry.job.model}"):
        from camcli.runs.prompts.run import Sensitivity

        sensitivity = Sensitivity(inquiry)
    _introduce(sensitivity, voice)
    told = len(sensitivity.notes)
    tally, began = Tally(), time.monotonic()
    with sensitivity:
        with voice.progress(sensitivity.total, tally) as reporter:
            for records in sensitivity:
                reporter.picture([record.outcome() for record in records])
                if as_json:
                    standard_output().buffer.writelines(record.as_line() for record in records)
                    standard_output().buffer.flush()
        with voice.working("drawing the summary"):
            summary = sensitivity.finish()
    if not as_json and not voice.quiet:
        _show(summary, inquiry.measure, voice)
    for note in sensitivity.notes[told:]:
        voice.note(note)
    voice.summary(
        [], tally, time.monotonic() - began, ", ".join(f"{inquiry.job.out}/{one}" for one in sensitivity.files)
    )
    return tally


def _introduce(sensitivity: Any, voice: Voice) -> None:
    worker = sensitivity.worker
    explainer, job = worker.explainer, sensitivity.job
    voice.say(f"model: {worker.network.name}, {worker.network.origin}")
    where = f" at {', '.join(explainer.layers)}" if explainer.layers else ""
    chosen = " (chosen; --layer names another)" if explainer.layers and not job.layers else ""
    voice.say(f"method: {explainer.methods[0].name}{where}{chosen}, on {worker.where}")
    voice.say(f"target: {worker.explains}, of {len(sensitivity.prompts)} prompts")
    if worker.network.untrained:
        voice.note("the weights are random: these maps mean nothing, and every output says so")
    for note in sensitivity.notes:
        voice.note(note)


def _show(summary: Any, measure: Measure, voice: Voice) -> None:
    """The prompts as a table, with their mean similarity by one measure where they are few; and where they disagree."""
    few = len(summary.prompts) <= COLUMNS
    numbers = [str(number) for number, _ in enumerate(summary.prompts, start=1)]
    headings = ["", "prompt", "score", "best", "r", "SSIM", "top 20%", *(numbers if few else [])]
    print_table(headings, _cells(summary, summary.similarity[measure] if few else []))
    named = ", ".join(
        f"{page_of(one.source, one.page)} ({_number(one.agreement[measure])})" for one in summary.unstable
    )
    if named:
        voice.say(f"least stable, by mean {measure} of the prompts' maps: {named}")


def _cells(summary: Any, similarity: list[list[float | None]]) -> Iterator[list[str]]:
    for place, one in enumerate(summary.prompts):
        means = [_number(one.agreement[name]) for name in ("pearson", "ssim", "overlap")]
        score = "" if one.score is None else f"{one.score:.4g}"
        row = (
            [_number(value) if place != other else "" for other, value in enumerate(similarity[place])]
            if similarity
            else []
        )
        yield [str(place + 1), one.prompt, score, f"{one.best} of {summary.pictures}", *means, *row]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"
