"""The ``camcli compare`` command."""

import time
from typing import TYPE_CHECKING, Any

import typer

from camcli.cli.console import Console, print_results
from camcli.cli.exit import exit_codes
from camcli.cli.loading import check_job, loading
from camcli.cli.log import CommandLog
from camcli.cli.options import METHOD_OPTIONS, QUIET_TABLES, CommonOptions, add_options, apply_common_options, build
from camcli.cli.streams import print_lines
from camcli.runs.compare import CompareJob, split_layers
from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Counts, make_outcome

if TYPE_CHECKING:
    from camcli.runs.compare.run import CompareRun

# More pairs than this are only in compare.json.
MAX_PAIRS = 60
# The command's options in the order of its help: those shared with a job, and its own.
OPTIONS = (
    *(
        "inputs",
        "model",
        "weights",
        "name",
        "labels",
        "text",
        "texts",
        "template",
        "text_tower",
        "trust_code",
        "size",
        "crop",
        "preprocess",
        "wrap",
    ),
    *METHOD_OPTIONS,
    *("target", "head", "pool", "activation", "score", "versus", "counterfactual", "output", "region"),
    *("range", "pages", "every", "limit"),
    *(
        "out",
        "root",
        "rows",
        "columns",
        "sheets",
        "per_sheet",
        "save",
        "draw",
        "normalize",
        "plain",
        "colormap",
        "alpha",
        "outside",
        "panel_size",
    ),
    *(
        "background",
        "overwrite",
        "decode",
        "batch_size",
        "recompute",
        "workers",
        "timeout",
        "device",
        "precision",
        "compile",
        "linear",
    ),
    *("keep_memory", "no_keep_memory", "seed", "null_separated", "as_json", "debug", "quiet"),
)
# Options that the job of each network gets from those of the comparison.
OWN_FIELDS = frozenset({"model", "weights", "scales", "normalize", "save"})
OPTION_OVERRIDES: dict[str, dict[str, Any]] = {
    "inputs": {"type": list[str], "default": ...},
    "layers": {
        "help": "Layer path, slice or glob: layer4, blocks[-3:].norm1; joined by commas, or repeat. See: camcli layers "
        "MODEL"
    },
    "target": {
        "help": "Target: predicted, top:3 (each place by itself), rank:2, folder, a class (281, 'tabby cat'), "
        "channel:12, similar:FILE; repeat for several"
    },
    "out": {"help": "Output folder"},
    "panel_size": {
        "help": "Longer side of each image on a sheet, in pixels; 0 = 232, or 512 where SVG or PDF is saved. Texts "
        "grow with it"
    },
    "overwrite": {"help": "Replace the sheets of a different job"},
    "as_json": {"help": "Print a line of JSON for each image instead of the table"},
    "quiet": QUIET_TABLES,
}


@add_options(CommonOptions, CompareJob, Job, names=OPTIONS, overrides=OPTION_OVERRIDES)
def compare(**words: Any) -> None:
    """Lay maps side by side on sheets: of images, methods, layers, models, checkpoints, targets, prompts or scales.

    What has several values is in rows and columns; a third thing gets a sheet for each value.

    Methods and layers of a model share one pass; models come one after the other.

    Output: compare.png (or SVG, PDF, HTML: --save), compare.jsonl (all numbers), compare.json (the summary).

    Exit codes: 0 = all done, 1 = some maps failed, 2 = invalid request, 3 = nothing to do, 130 = interrupted.
    """
    session = apply_common_options(CommonOptions, words)
    console = Console(session.quiet, ledger="compare.jsonl")
    with CommandLog(session.debug) as log, exit_codes(console, "no sheet is written before the last image"):
        shared = {name: value for name, value in words.items() if name not in OWN_FIELDS}
        job = build(Job, {**shared, "layers": split_layers(words["layers"] or ())})
        compare_job = build(CompareJob, words, job=job)
        counts = _compare(compare_job, console, session, log)
    raise typer.Exit(counts.exit_code)


def _compare(compare_job: CompareJob, console: Console, session: CommonOptions, log: CommandLog) -> Counts:
    for job in compare_job.iter_jobs():
        check_job(job)
    names = ", ".join(dict.fromkeys(compare_job.model))
    with loading(console, f"loading {names}"):
        from camcli.runs.compare.run import CompareRun

        run = CompareRun(compare_job)
    _introduce(run, console)
    printed = len(run.notes)
    began, counts = time.monotonic(), Counts()
    with run:
        log.open(run.folder.path)
        for done, number in enumerate(run.order, start=1):
            if len(run.subjects) > 1:
                console.say(f"pass {done} of {len(run.subjects)}: {run.grid.name_pass(number)}")
            with console.progress(run.total, Counts()) as reporter:
                for outcomes in run.explain(number):
                    reporter.add_picture(outcomes)
        with console.working("drawing the sheets"):
            for lines in run.draw():
                for one in lines:
                    counts.add([make_outcome(one)])
                if session.as_json:
                    print_lines(lines)
        run.finish()
    if not session.as_json:
        _print_pairs(run, console)
    for note in run.notes[printed:]:
        console.note(note)
    console.print_summary([], counts, time.monotonic() - began, _name_files(run))
    return counts


def _introduce(run: "CompareRun", console: Console) -> None:
    for name, subject in zip(run.grid.names["models"], run.subjects[:: len(run.grid.names["scales"])], strict=True):
        console.say(f"model: {name}, {subject.facts['model']['origin']}")
    first = run.subjects[0]
    where = f" at {', '.join(run.grid.names['layers'])}" if any(first.layers) else ""
    console.say(f"method{'s' * (len(first.methods) > 1)}: {', '.join(first.methods)}{where}")
    console.say(f"target: {', '.join(first.targets)}; {first.facts['explained']}")
    arrangement = run.arrangement
    sheets = f", a sheet for each of the {arrangement.sheets}" if run.uses_sheets else ""
    console.say(f"sheets: {arrangement.rows} in rows, {arrangement.columns} in columns{sheets}")
    console.say(f"output: {run.folder.path}")
    if run.untrained:
        console.note("weights are random: their maps mean nothing, and each is marked so")
    for note in run.notes:
        console.note(note)


def _print_pairs(run: "CompareRun", console: Console) -> None:
    """Print the mean similarity of maps that differ in one thing."""
    from camcli.runs.compare.summary import format_pair

    pairs = run.list_pairs()
    if len(pairs) > MAX_PAIRS:
        console.say(f"{len(pairs)} pairs of maps: their similarities are in {run.folder.path}/compare.json")
        return
    shared = any(pair.shared for pair in pairs)
    headings = ("map", "and", *("of",) * shared, "r", "SSIM", "top 20%", "images")
    rows = (format_pair(pair) for pair in pairs)
    if pairs:
        print_results(headings, (row if shared else (*row[:2], *row[3:]) for row in rows), wrapped=("map", "and", "of"))


def _name_files(run: "CompareRun") -> str:
    """Name the sheets, the first and the last of many."""
    files = run.folder.files
    shown = files if len(files) <= 4 else [files[0], "…", files[-1]]
    return ", ".join(one if one == "…" else f"{run.folder.path}/{one}" for one in (*shown, "compare.jsonl"))
