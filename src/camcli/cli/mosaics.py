"""The ``camcli mosaics`` command."""

from typing import Any

import typer

from camcli.base.words import count_of
from camcli.cli.console import Console
from camcli.cli.exit import exit_codes
from camcli.cli.loading import check_job, loading
from camcli.cli.options import CommonOptions, add_options, apply_common_options, build
from camcli.cli.streams import get_standard_output
from camcli.models import names_cache
from camcli.runs.job.job import Job
from camcli.runs.mosaics import MosaicJob
from camcli.runs.record.outcome import Counts

# The command's options in the order of its help: those shared with a job, and its own.
OPTIONS = (
    *(
        "inputs",
        "model",
        "weights",
        "labels",
        "size",
        "crop",
        "preprocess",
        "target",
        "targets",
        "activation",
        "confidence",
    ),
    *("out", "side", "count", "decode", "background", "range", "pages", "limit"),
    *("batch_size", "workers", "timeout", "device", "precision", "linear", "seed", "null_separated", "debug", "quiet"),
)
OPTION_OVERRIDES: dict[str, dict[str, Any]] = {
    "inputs": {"type": list[str], "default": ...},
    "out": {"help": "New folder for the mosaics", "default": ..., "show_default": ""},
    "seed": {"help": "Random seed of the choice of images, and for --weights random"},
}


@add_options(CommonOptions, MosaicJob, Job, names=OPTIONS, overrides=OPTION_OVERRIDES)
def mosaics(**words: Any) -> None:
    """Compose images of different classes into mosaics, for the grid pointing game: localisation without annotation.

    An image's class is the model's prediction; with --target folder, its folder's name if the model predicts that.

    Output: mosaics as PNG files, boxes.csv, targets.csv, mosaics.json; and the command that evaluates maps with them.

    Exit codes: 0 = all done, 1 = some images failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = apply_common_options(CommonOptions, words)
    console = Console(session.quiet, ledger="")
    with exit_codes(console, "nothing is written before the last image"):
        mosaic_job = build(MosaicJob, words, job=build(Job, words))
        check_job(mosaic_job.job)
        with loading(console, f"loading {mosaic_job.job.model}"):
            from camcli.runs.mosaics.run import MosaicRun

            run = MosaicRun(mosaic_job)
            names_cache.write_model(mosaic_job.job.model, run.worker.network)
        console.say(f"model: {run.worker.network.name}, {run.worker.network.origin}")
        if run.worker.network.untrained:
            console.note("the weights are random: these predictions mean nothing")
        counts = Counts()
        with console.progress(run.total, counts) as reporter:
            for outcomes in run:
                reporter.add_picture(outcomes)
        with console.working("composing mosaics"):
            count = run.write()
        for note in run.notes:
            console.note(note)
        console.say(f"{count_of(count, 'mosaic')} in {run.out}; evaluate maps with them:")
        typer.echo(run.next_command, file=get_standard_output())
    raise typer.Exit(counts.exit_code)
