"""``camcli prompts``."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from camcli.cli.channels import Pictures
from camcli.cli.console import Voice, print_table
from camcli.cli.exit import ending
from camcli.cli.explain import AcceptVersions
from camcli.cli.loading import loading
from camcli.cli.options import (
    DEFAULT,
    SAID,
    WHAT,
    WRITTEN,
    Alpha,
    Augment,
    Background,
    BatchSize,
    Call,
    Colormap,
    CompileIt,
    CropTo,
    DecodeAt,
    Device,
    DropOthers,
    Durable,
    EigenSmooth,
    FuseBy,
    KeepMemory,
    Layers,
    LayoutOf,
    NullSeparated,
    Options,
    Out,
    Overwrite,
    Pages,
    PlacementOf,
    PrecisionOf,
    Quiet,
    Range,
    Root,
    Scales,
    ScoreOf,
    Seed,
    Size,
    Template,
    TextTower,
    Timeout,
    Versus,
    Weights,
    Workers,
    complete_from,
    option,
    split_words,
)
from camcli.cli.streams import standard_output
from camcli.images import page_of
from camcli.methods import METHODS
from camcli.runs.job.job import Job
from camcli.runs.prompts import Inquiry, Measure
from camcli.runs.record.outcome import Tally

# The matrix of more prompts than this is no part of the table; prompts.json has it.
COLUMNS = 8

ASKED = Inquiry(job=Job(text=("",), save=("sheet",)))

Model = Annotated[
    str,
    option(
        WHAT,
        "A model that is asked by prompts: open_clip:ViT-B-32/openai, open_clip:local-dir:... See: camcli models.",
        "--model",
        "-m",
        metavar="NAME",
        show_default=False,
    ),
]
Text = Annotated[
    list[str] | None,
    option(WHAT, "A prompt; repeat for more.", "--text", env=False, metavar="PROMPT", show_default=False),
]
Texts = Annotated[
    str,
    option(WHAT, "More prompts, one a line.", "--texts", env=False, metavar="FILE", show_default=False),
]
Paraphrase = Annotated[
    list[str] | None,
    option(
        WHAT,
        "A template that makes a prompt of each --text: 'a photo of a {}.'; {} is the text alone, imagenet and "
        "imagenet-simple are open_clip's own; repeat for more. Then the prompts of one text are compared.",
        "--paraphrase",
        env=False,
        metavar="TEMPLATE",
        show_default=False,
    ),
]
Method = Annotated[
    str,
    option(
        WHAT,
        "One that asks for a class: gradcam, hirescam, layercam, gae, ... See: camcli methods.",
        "--method",
        metavar="NAME",
        show_default="gradcam",
        autocompletion=complete_from(METHODS.names),
    ),
]
Save = Annotated[
    list[str] | None,
    option(
        WRITTEN,
        "For each picture: sheet (picture, maps, mean, deviation), array (the maps, as NumPy's .npz); several joined "
        "by commas.",
        "--save",
        env=False,
        metavar="KINDS",
        show_default="sheet",
    ),
]
By = Annotated[
    Measure,
    option(
        WRITTEN,
        "The similarity that pictures are sorted by, and that the table has for each two prompts.",
        "--measure",
        env=False,
    ),
]
PicturesShown = Annotated[
    int,
    option(WRITTEN, "How many of the least stable pictures are shown.", "--pictures", env=False, min=1, metavar="N"),
]
AsJson = Annotated[
    bool, option(SAID, "Print a line of JSON for each picture, instead of the table.", "--json", env=False)
]


def prompts(
    pictures: Pictures,
    model: Model,
    text: Text = None,
    texts: Texts = DEFAULT.texts,
    paraphrase: Paraphrase = None,
    template: Template = None,
    text_tower: TextTower = DEFAULT.text_tower,
    weights: Weights = DEFAULT.weights,
    size: Size = DEFAULT.size,
    crop: CropTo = DEFAULT.crop,
    layers: Layers = None,
    layout: LayoutOf = DEFAULT.layout,
    call: Call = DEFAULT.call,
    method: Method = DEFAULT.method,
    options: Options = None,
    fuse: FuseBy = DEFAULT.fuse,
    scales: Scales = DEFAULT.scales,
    augment: Augment = None,
    placement: PlacementOf = DEFAULT.placement,
    eigen_smooth: EigenSmooth = DEFAULT.eigen_smooth,
    score: ScoreOf = DEFAULT.score,
    versus: Versus = None,
    out: Out = DEFAULT.out,
    root: Root = DEFAULT.root,
    save: Save = None,
    measure: By = ASKED.measure,
    shown: PicturesShown = ASKED.pictures,
    colormap: Colormap = DEFAULT.colormap,
    alpha: Alpha = DEFAULT.alpha,
    decode: DecodeAt = DEFAULT.decode,
    background: Background = DEFAULT.background,
    range: Range = DEFAULT.range,
    pages: Pages = DEFAULT.pages,
    overwrite: Overwrite = DEFAULT.overwrite,
    drop_others: DropOthers = DEFAULT.drop_others,
    accept_versions: AcceptVersions = DEFAULT.accept_versions,
    durable: Durable = DEFAULT.durable,
    batch_size: BatchSize = DEFAULT.batch_size,
    workers: Workers = DEFAULT.workers,
    timeout: Timeout = DEFAULT.timeout,
    device: Device = DEFAULT.device,
    precision: PrecisionOf = DEFAULT.precision,
    compile: CompileIt = DEFAULT.compile,
    keep_memory: KeepMemory = True,  # noqa: ARG001  its callback has done it
    seed: Seed = DEFAULT.seed,
    null_separated: NullSeparated = DEFAULT.null_separated,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare the maps of several prompts in each picture: do other words for a thing point elsewhere?

    Written are a sheet for each picture, prompts.jsonl (a line for each picture, with all numbers), prompts.png and
    prompts.json (the summary over all pictures, and what made it). The same command again goes on where it stopped.

    Exit codes: 0 all done, 1 some pictures failed, 2 the request was wrong, 3 nothing to do was found, 130 interrupted.
    """
    voice = Voice(quiet, ledger="prompts.jsonl")
    with ending(voice):
        job = Job(
            model=model,
            weights=weights,
            text=tuple(text or ()),
            texts=texts,
            template=tuple(template or ()),
            text_tower=text_tower,
            size=size,
            crop=crop,
            layers=tuple(layers or DEFAULT.layers),
            layout=layout,
            call=call,
            method=method,
            options=tuple(options or DEFAULT.options),
            fuse=fuse,
            scales=scales,
            augment=split_words(augment or DEFAULT.augment),
            placement=placement,
            eigen_smooth=eigen_smooth,
            score=score,
            versus=tuple(versus or DEFAULT.versus),
            inputs=tuple(pictures),
            null_separated=null_separated,
            out=out,
            root=root,
            colormap=colormap,
            alpha=alpha,
            save=split_words(save or ASKED.job.save),
            decode=decode,
            background=background,
            range=range,
            pages=pages,
            overwrite=overwrite,
            drop_others=drop_others,
            accept_versions=accept_versions,
            durable=durable,
            batch_size=batch_size,
            workers=workers,
            timeout=timeout,
            device=device,
            precision=precision,
            compile=compile,
            seed=seed,
        )
        inquiry = Inquiry(
            job=job,
            paraphrases=tuple(paraphrase or ()),
            measure=measure,
            pictures=shown,
        )
        tally = _compare(inquiry, voice, as_json)
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
    voice.say(f"explained: {worker.explains}, of {len(sensitivity.prompts)} prompts")
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
