"""``camcli explain``."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from camcli.base.errors import RequestError
from camcli.cli.console import LISTED, Voice
from camcli.cli.exit import ending
from camcli.cli.loading import loading
from camcli.cli.options import (
    DEFAULT,
    WRITTEN,
    ActivationOf,
    Alpha,
    AsJson,
    Augment,
    Background,
    BatchSize,
    Call,
    Colormap,
    CompileIt,
    Config,
    Contrast,
    Counterfactual,
    CropTo,
    DecodeAt,
    Device,
    DropOthers,
    Durable,
    EigenSmooth,
    ExtrasFile,
    FuseBy,
    Group,
    HeadOf,
    Inputs,
    KeepMemory,
    Labels,
    Layers,
    LayoutOf,
    Methods,
    MinScore,
    Model,
    NormalizeBy,
    NullSeparated,
    OldRecompute,
    Options,
    Out,
    Output,
    Overwrite,
    Pages,
    PlacementOf,
    PoolOf,
    PrecisionOf,
    Quiet,
    Range,
    Recompute,
    RegionOf,
    Root,
    Save,
    Scales,
    ScoreOf,
    Seed,
    Size,
    Targets,
    TargetsFile,
    Template,
    Text,
    Texts,
    TextTower,
    Timeout,
    TrustConfig,
    Verbose,
    Versus,
    Weights,
    Workers,
    Wrap,
    check_code,
    option,
    split_words,
    told_of_recompute,
)
from camcli.cli.streams import standard_output
from camcli.models import BUNDLED_MODEL
from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Outcome, Tally

AcceptVersions = Annotated[
    bool,
    option(
        WRITTEN,
        "Keep what the same job did here with other versions of camcli, PyTorch or the model's library, and go on.",
        "--accept-versions",
        env=False,
    ),
]


def explain(
    context: typer.Context,
    inputs: Inputs = None,
    model: Model = DEFAULT.model,
    weights: Weights = DEFAULT.weights,
    labels: Labels = DEFAULT.labels,
    text: Text = None,
    texts: Texts = DEFAULT.texts,
    template: Template = None,
    text_tower: TextTower = DEFAULT.text_tower,
    size: Size = DEFAULT.size,
    crop: CropTo = DEFAULT.crop,
    wrap: Wrap = DEFAULT.wrap,
    group: Group = DEFAULT.group,
    extras: ExtrasFile = DEFAULT.extras,
    layers: Layers = None,
    layout: LayoutOf = DEFAULT.layout,
    call: Call = DEFAULT.call,
    method: Methods = None,
    options: Options = None,
    fuse: FuseBy = DEFAULT.fuse,
    scales: Scales = DEFAULT.scales,
    augment: Augment = None,
    placement: PlacementOf = DEFAULT.placement,
    eigen_smooth: EigenSmooth = DEFAULT.eigen_smooth,
    target: Targets = None,
    targets: TargetsFile = DEFAULT.targets,
    score: ScoreOf = DEFAULT.score,
    versus: Versus = None,
    contrast: Contrast = "",
    counterfactual: Counterfactual = DEFAULT.counterfactual,
    head: HeadOf = DEFAULT.head,
    pool: PoolOf = DEFAULT.pool,
    activation: ActivationOf = DEFAULT.activation,
    output: Output = DEFAULT.output,
    region: RegionOf = DEFAULT.region,
    min_score: MinScore = DEFAULT.min_score,
    out: Out = DEFAULT.out,
    root: Root = DEFAULT.root,
    save: Save = None,
    colormap: Colormap = DEFAULT.colormap,
    alpha: Alpha = DEFAULT.alpha,
    normalize: NormalizeBy = DEFAULT.normalize,
    decode: DecodeAt = DEFAULT.decode,
    background: Background = DEFAULT.background,
    range: Range = DEFAULT.range,
    pages: Pages = DEFAULT.pages,
    overwrite: Overwrite = DEFAULT.overwrite,
    drop_others: DropOthers = DEFAULT.drop_others,
    accept_versions: AcceptVersions = DEFAULT.accept_versions,
    durable: Durable = DEFAULT.durable,
    batch_size: BatchSize = DEFAULT.batch_size,
    recompute: Recompute = DEFAULT.recompute,
    checkpoint: OldRecompute = False,
    workers: Workers = DEFAULT.workers,
    timeout: Timeout = DEFAULT.timeout,
    device: Device = DEFAULT.device,
    precision: PrecisionOf = DEFAULT.precision,
    compile: CompileIt = DEFAULT.compile,
    keep_memory: KeepMemory = True,  # noqa: ARG001  its callback has done it
    seed: Seed = DEFAULT.seed,
    null_separated: NullSeparated = DEFAULT.null_separated,
    config: Config = None,  # its callback has made it these options' defaults
    trust_config: TrustConfig = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write heatmaps of what a model looks at in pictures.

    The same command again goes on where it stopped: what is done is skipped.

    Exit codes: 0 all done, 1 some pictures failed, 2 the request was wrong, 3 nothing to do was found, 130 interrupted.
    """
    voice = Voice(quiet, verbose)
    with ending(voice):
        check_code(context, config, trust_config, voice)
        if contrast:
            target, versus = _contrasted(contrast, target, versus, score)
            score = "margin"
        if checkpoint:
            told_of_recompute(inputs or DEFAULT.inputs, voice)
        job = Job(
            model=model,
            weights=weights,
            labels=labels,
            text=tuple(text or DEFAULT.text),
            texts=texts,
            template=tuple(template or DEFAULT.template),
            text_tower=text_tower,
            size=size,
            crop=crop,
            wrap=wrap,
            group=group,
            extras=extras,
            layers=tuple(layers or DEFAULT.layers),
            layout=layout,
            call=call,
            method=",".join(split_words(method or [DEFAULT.method])),
            options=tuple(options or DEFAULT.options),
            fuse=fuse,
            scales=scales,
            augment=split_words(augment or DEFAULT.augment),
            placement=placement,
            eigen_smooth=eigen_smooth,
            target=tuple(target or DEFAULT.target),
            targets=targets,
            score=score,
            versus=tuple(versus or DEFAULT.versus),
            counterfactual=counterfactual,
            head=head,
            pool=pool,
            activation=activation,
            output=output,
            region=region,
            min_score=min_score,
            inputs=tuple(inputs or DEFAULT.inputs),
            null_separated=null_separated,
            out=out,
            root=root,
            save=split_words(save or DEFAULT.save),
            colormap=colormap,
            alpha=alpha,
            normalize=normalize,
            decode=decode,
            background=background,
            range=range,
            pages=pages,
            overwrite=overwrite,
            drop_others=drop_others,
            accept_versions=accept_versions,
            durable=durable,
            batch_size=batch_size,
            recompute=recompute or checkpoint,
            workers=workers,
            timeout=timeout,
            device=device,
            precision=precision,
            compile=compile,
            seed=seed,
        )
        tally = _explain(job, voice, as_json)
    raise typer.Exit(tally.exit_code)


def _contrasted(
    words: str, target: Sequence[str] | None, versus: Sequence[str] | None, score: str
) -> tuple[list[str], list[str]]:
    """The target and the class that it is compared with."""
    if target or versus or score not in (DEFAULT.score, "margin"):
        raise RequestError(
            "--contrast says target, score and rival at once, and one of them is given too",
            "leave --target, --score and --versus out, or say it with them alone",
        )
    this, _, that = (part.strip() for part in words.partition(","))
    if not this or not that:
        raise RequestError(
            f"--contrast {words!r} does not name two classes", "say --contrast A,B: why A and not B; or their numbers"
        )
    return [this], [that]


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
    voice.say(f"explained: {worker.explains}")
    if worker.network.untrained:
        voice.note("the weights are random: these maps mean nothing, and every output says so")
    for note in run.notes:
        voice.note(note)
