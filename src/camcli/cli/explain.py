"""``camcli explain``."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from camcli.base import weight_files
from camcli.base.errors import RequestError
from camcli.cli.config import check_code, load_config
from camcli.cli.console import LISTED, Voice
from camcli.cli.exit import ending
from camcli.cli.loading import loading
from camcli.cli.options import Session, add_options, build, open_session
from camcli.cli.streams import standard_output
from camcli.models import BUNDLED_MODEL
from camcli.runs.job.job import Job
from camcli.runs.job.option import COMPUTE, LOGGING, MODEL, option
from camcli.runs.record.outcome import Outcome, Tally
from camcli.targets import AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain(Session):
    """What ``camcli explain`` is asked beside its job."""

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
    verbose: bool = option(False, LOGGING, help="Print a line for each map", short="-v", env=False)


@add_options(Explain, Job)
def explain(context: typer.Context, **words: Any) -> None:
    """Write heatmaps of what a model looks at in images.

    The same command again resumes where it stopped: finished images are skipped.

    Exit codes: 0 = all done, 1 = some images failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = open_session(Explain, words)
    voice = Voice(session.quiet, session.verbose)
    with ending(voice):
        check_code(context, session.config, session.trust_config, voice)
        if session.contrast:
            words |= _read_contrast(session.contrast, words)
        if session.checkpoint:
            _check_old_recompute(words["inputs"] or (), voice)
            words["recompute"] = True
        job = build(Job, words)
        tally = _explain(job, voice, session.as_json)
    raise typer.Exit(tally.exit_code)


def _read_contrast(contrast: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """The target, the score and the class that it is compared with."""
    if words["target"] or words["versus"] or words["score"] not in (AUTO, "margin"):
        raise RequestError(
            "--contrast says target, score and rival at once, and one of them is given too",
            "leave --target, --score and --versus out, or say it with them alone",
        )
    this, _, that = (part.strip() for part in contrast.partition(","))
    if not this or not that:
        raise RequestError(
            f"--contrast {contrast!r} does not name two classes",
            "say --contrast A,B: why A and not B; or their numbers",
        )
    return {"target": [this], "versus": [that], "score": "margin"}


def _check_old_recompute(inputs: Sequence[str], voice: Voice) -> None:
    """Refuse what --checkpoint means elsewhere, a file of weights, and say what it is called."""
    if given := next(filter(weight_files.not_a_picture, inputs), ""):
        raise RequestError(
            f"--checkpoint takes no file such as {given!r}: it is the old name of --recompute, gradient checkpointing",
            f"a file of weights is named by --weights, and with it the network: -m resnet50 --weights {given}",
        )
    voice.note("--checkpoint is called --recompute now")


def _explain(job: Job, voice: Voice, as_json: bool) -> Tally:
    with loading(voice, f"loading {job.model}"):
        from camcli.runs.explain.run import Run

        run = Run(job)
    _introduce(run, voice)
    told = len(run.notes)
    tally, shown, began = Tally(), list[Outcome](), time.monotonic()
    with run, voice.progress(run.total, tally) as reporter:
        for outcomes in run:
            reporter.picture(outcomes)
            if len(shown) <= LISTED:
                shown += outcomes
            if as_json:
                standard_output().buffer.writelines(outcome.as_line() for outcome in outcomes)
                standard_output().buffer.flush()
    for note in run.notes[told:]:
        voice.note(note)
    voice.summary(shown, tally, time.monotonic() - began, job.out)
    return tally


def _introduce(run: Any, voice: Voice) -> None:
    worker = run.worker
    explainer = worker.explainer
    if run.job.model == BUNDLED_MODEL:
        voice.say("model: the bundled EfficientNet-Lite0 (--model names another)")
    else:
        voice.say(f"model: {worker.network.name}, {worker.network.origin}")
    if worker.prompts:
        by = f", embedded by {run.job.text_tower}" if run.job.text_tower else ""
        within = f" (in {', '.join(map(repr, run.job.template))})" if run.job.template else ""
        voice.say(f"prompts: {worker.prompts}{within}{by}")
    if run.job.wrap:
        voice.say(f"wrapped by: {run.job.wrap}")
    where = f" at {', '.join(explainer.layers)}" if explainer.layers else ""
    chosen = " (chosen; --layer names another)" if explainer.layers and not run.job.layers else ""
    names = ", ".join(row.name for row in explainer.methods)
    voice.say(f"method{'s' * (len(explainer.methods) > 1)}: {names}{where}{chosen}, on {worker.where}")
    voice.say(f"target: {worker.explains}")
    if worker.network.untrained:
        voice.note("the weights are random: these maps mean nothing, and every output says so")
    for note in run.notes:
        voice.note(note)
