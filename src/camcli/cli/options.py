"""The options of the commands, in panels of the help."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from camcli.base import allocator, weight_files
from camcli.base.errors import CamcliError, RequestError
from camcli.cli.console import Voice
from camcli.engine import FLIPS, LAYOUTS, Compile, Fuse, Place, Precision
from camcli.images import Crop, Decode
from camcli.methods import METHODS
from camcli.models import PLACE, TEMPLATES, Activations, Head, Pool
from camcli.outputs import COLORMAPS, OUTPUTS, Normalize
from camcli.runs.job import job_file as job_files
from camcli.runs.job.job import Job
from camcli.targets.scores import SCORES

WHAT = "What is explained"
WRITTEN = "What is written"
COMPUTED = "How it is computed"
SAID = "What is said"

DEFAULT = Job()
# Where what a job file names of code is kept until all words are read.
CODE = "camcli.code"


def option(panel: str, meaning: str, *names: str, env: bool = True, **more: Any) -> Any:
    """An option in a panel of the help; ``env`` options can also be set as ``CAMCLI_`` and their name."""
    long = next((name for name in names if name.startswith("--")), "")
    variable = "CAMCLI_" + long.strip("-").replace("-", "_").upper() if env else None
    return typer.Option(*names, help=meaning, envvar=variable, show_envvar=False, rich_help_panel=panel, **more)


def join_names(names: Sequence[str]) -> str:
    """Names, joined by commas."""
    return ", ".join(names)


def complete_from(names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """Complete a word by one of these names."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def split_words(given: Sequence[str]) -> tuple[str, ...]:
    """Words, some of them perhaps joined by commas."""
    return tuple(word.strip() for words in given for word in words.split(",") if word.strip())


def _load_config(context: typer.Context, path: Path | None) -> Path | None:
    """The job file's options become the defaults of this command."""
    if path is not None:
        try:
            options = job_files.read(path, asdict(DEFAULT), Voice().note)
        except CamcliError as error:
            Voice().error(error)
            raise typer.Exit(error.exit_code) from None
        if "method" in options:  # one string in a job file, and here as many as are given
            options["method"] = [options["method"]]
        context.default_map = {**(context.default_map or {}), **options}
        context.meta[CODE] = job_files.code_in(options)
    return path


def check_code(context: typer.Context, path: Path | None, trusted: bool, voice: Voice) -> None:
    """See that what the job file names of code may be run, unless flags or variables name something else; say it."""
    if path is None:
        return
    code = {
        name: words
        for name, words in context.meta.get(CODE, {}).items()
        if getattr(context.get_parameter_source(name), "name", "") == "DEFAULT_MAP"
    }
    job_files.check_trusted(path, code, trusted)
    for name, words in code.items():
        voice.say(f"runs code that {path} names: {name} {words}")


def _keep_memory(wanted: bool) -> bool:
    if wanted:
        allocator.keep_memory()
    return wanted


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        help="Pictures: files, folders, globs, @list.txt, or - for names on standard input.", metavar="PICTURES"
    ),
]
Model = Annotated[
    str,
    option(
        WHAT,
        "resnet50, timm:resnet50.a1_in1k, torchvision:resnet50/IMAGENET1K_V2, open_clip:ViT-B-32/openai, hf-hub:..., "
        "local-dir:..., path/to/file.py:function. See: camcli models.",
        "--model",
        "-m",
        metavar="NAME",
        show_default="the bundled EfficientNet-Lite0",
    ),
]
Weights = Annotated[
    str,
    option(
        WHAT,
        "A state dict (safetensors or .pth) instead of the model's own weights; or 'random', to try things out.",
        "--weights",
        metavar="FILE|random",
        show_default=False,
    ),
]
Labels = Annotated[
    str,
    option(WHAT, "Names of the classes: one a line, JSON or YAML.", "--labels", metavar="FILE", show_default=False),
]
Text = Annotated[
    list[str] | None,
    option(
        WHAT,
        "A prompt that the picture is compared with, by an open_clip model; each has a map. Repeat for more.",
        "--text",
        env=False,
        metavar="PROMPT",
        show_default=False,
    ),
]
Texts = Annotated[
    str,
    option(
        WHAT,
        "Prompts, one a line; CSV or JSONL that lists each picture's own.",
        "--texts",
        env=False,
        metavar="FILE",
        show_default=False,
    ),
]
Template = Annotated[
    list[str] | None,
    option(
        WHAT,
        f"What each prompt is put into: 'a photo of a {PLACE}.'; or open_clip's {' and '.join(TEMPLATES)}; repeat for "
        "more, whose embeddings are averaged.",
        "--template",
        env=False,
        metavar="TEMPLATE",
        show_default="the bare prompt",
    ),
]
TextTower = Annotated[
    str,
    option(
        WHAT,
        "A function of your own that embeds prompts, for a model that reads none: its features are compared with them.",
        "--text-tower",
        metavar="FILE.py:FUNCTION|MODULE:FUNCTION",
        show_default=False,
    ),
]
Size = Annotated[
    str,
    option(
        WHAT,
        "Of the model's input, height x width, where the model allows it.",
        "--size",
        metavar="N|HxW",
        show_default="the model's own",
    ),
]
CropTo = Annotated[
    Crop,
    option(
        WHAT,
        "What the model sees: as it was made for; the middle; all of the picture, padded; all of it, stretched.",
        "--crop",
    ),
]
Wrap = Annotated[
    str,
    option(
        WHAT,
        "A class of your own that is built around the model, takes images (n, 3, h, w) and gives scores.",
        "--wrap",
        metavar="FILE.py:CLASS|MODULE:CLASS",
        show_default=False,
    ),
]
Group = Annotated[
    str,
    option(
        WHAT,
        "Hand the model so many pictures at once, or those of one folder, as one sample.",
        "--group",
        metavar="N|folder",
        show_default=False,
    ),
]
ExtrasFile = Annotated[
    str,
    option(
        WHAT,
        "CSV or NPZ with features of each picture, which the wrapper is handed beside the images.",
        "--extras",
        env=False,
        metavar="FILE",
        show_default=False,
    ),
]
Layers = Annotated[
    list[str] | None,
    option(
        WHAT,
        "layer4, layer4.-1, blocks[-3:].norm1, layer*; repeat for more. See: camcli layers MODEL.",
        "--layer",
        "-l",
        metavar="PATH",
        show_default="chosen and printed",
    ),
]
LayoutOf = Annotated[
    str,
    option(
        WHAT,
        f"How the layer's output lies in memory, where its shape can be read in several ways: {LAYOUTS}.",
        "--layout",
        metavar="LAYOUT",
        show_default="by shape and metadata",
    ),
]
Call = Annotated[
    int,
    option(
        WHAT,
        "Which run of a layer counts that runs several times in one forward; 0: the last.",
        "--call",
        min=0,
        metavar="N",
    ),
]
Methods = Annotated[
    list[str] | None,
    option(
        WHAT,
        f"{join_names(METHODS.names())}; several joined by commas, or repeat. See: camcli methods.",
        "--method",
        metavar="NAME",
        show_default="gradcam; of a detector's boxes hirescam",
        autocompletion=complete_from(METHODS.names),
    ),
]
Options = Annotated[
    list[str] | None,
    option(
        WHAT,
        "Of the method: samples=8; of one of several: smoothgrad.samples=8; repeat for more. See: camcli methods NAME.",
        "--option",
        "-o",
        env=False,
        metavar="NAME=VALUE",
        show_default="as the paper says",
    ),
]
FuseBy = Annotated[
    Fuse,
    option(
        WHAT,
        "How the maps of several layers become one, each rectified and scaled to 1 before; sum: as they are; paper: as "
        "the method's paper says.",
        "--fuse",
    ),
]
Scales = Annotated[
    str,
    option(
        WHAT,
        "The mean of the maps at these factors of the input's size, where the model allows it.",
        "--scales",
        metavar="0.75,1,1.25",
    ),
]
Augment = Annotated[
    list[str] | None,
    option(
        WHAT,
        f"The mean with the maps of mirrored pictures: {join_names(FLIPS)}; several joined by commas.",
        "--augment",
        metavar="FLIPS",
        show_default=False,
        autocompletion=complete_from(lambda: FLIPS),
    ),
]
PlacementOf = Annotated[
    Place,
    option(
        WHAT,
        "Where a layer's cells are drawn: where they look, measured on noise, or as if they shared the input evenly, "
        "as other tools draw them.",
        "--placement",
    ),
]
EigenSmooth = Annotated[
    bool,
    option(
        WHAT,
        "The first principal component of the weighted channels instead of their sum; for methods that weight "
        "channels.",
        "--eigen-smooth",
    ),
]
Targets = Annotated[
    list[str] | None,
    option(
        WHAT,
        "predicted, top:5, all, all>0.5, folder (the parent folder's name), or a class: 281, 'tabby cat', n02123045; "
        # Without the tag Rich would show a picture of `:top:`.
        "channel:12,99 (a feature), channels:[none]top[/none]:5 (those that matter most), similar:FILE; repeat for "
        "more.",
        "--target",
        "-t",
        env=False,
        metavar="TARGET",
        show_default="predicted; all prompts",
    ),
]
TargetsFile = Annotated[
    str,
    option(
        WHAT,
        "A table (CSV, TSV; one-hot too) or JSONL that lists each picture's own targets.",
        "--targets",
        env=False,
        metavar="FILE",
        show_default=False,
    ),
]
HeadOf = Annotated[
    Head,
    option(
        WHAT,
        "none: without the classifier, so that features are explained; auto: where a target asks for it.",
        "--head",
    ),
]
PoolOf = Annotated[Pool, option(WHAT, "none: with --head none also without the pooling: features as maps.", "--pool")]
ActivationOf = Annotated[
    Activations,
    option(
        WHAT,
        "What makes probabilities of the model's scores; none: nothing, as in regression; probabilities: they are, "
        "which is found where the model ends in a sigmoid or softmax.",
        "--activation",
    ),
]
ScoreOf = Annotated[
    str,
    option(
        WHAT,
        f"Which number of a class's is explained: {join_names(SCORES.names())}.",
        "--score",
        metavar="SCORE",
        show_default="logit; with --versus margin, of prompts probability",
        autocompletion=complete_from(SCORES.names),
    ),
]
Versus = Annotated[
    list[str] | None,
    option(
        WHAT,
        "What the target is compared with: with --score margin a class; for prompts any other text, such as "
        "'background', which competes with them in the softmax too. Repeat for more.",
        "--versus",
        env=False,
        metavar="CLASS|PROMPT",
        show_default="of a margin the strongest other class of each picture",
    ),
]
Contrast = Annotated[
    str,
    option(
        WHAT,
        "Why A and not B: short for --target A --score margin --versus B.",
        "--contrast",
        env=False,
        metavar="A,B",
        show_default=False,
    ),
]
Counterfactual = Annotated[
    bool, option(WHAT, "Explain what lowers the score: its sign is turned.", "--counterfactual", env=False)
]
Output = Annotated[
    str,
    option(
        WHAT,
        "Where in what the model returns its scores are, if that is not plain: logits, 0, out, aux.0.",
        "--output",
        metavar="PATH",
        show_default=False,
    ),
]
RegionOf = Annotated[
    str,
    option(
        WHAT,
        "For segmentation: where a class's scores are summed, in the picture's pixels; a mask is black outside.",
        "--region",
        env=False,
        metavar="MASK|x0,y0,x1,y1",
        show_default="where it is predicted",
    ),
]
MinScore = Annotated[
    float, option(WHAT, "For detection: boxes below it are left out.", "--min-score", min=0, max=1, metavar="SCORE")
]
Out = Annotated[str, option(WRITTEN, "The folder that all is written under.", "--out", "-O", metavar="FOLDER")]
Root = Annotated[
    str,
    option(
        WRITTEN,
        "Outputs are named by their picture's path from here.",
        "--root",
        metavar="FOLDER",
        show_default="the current folder",
    ),
]
Save = Annotated[
    list[str] | None,
    option(
        WRITTEN,
        f"{join_names(OUTPUTS.names())}; several joined by commas.",
        "--save",
        metavar="FORMATS",
        show_default=join_names(DEFAULT.save),
        autocompletion=complete_from(OUTPUTS.names),
    ),
]
Colormap = Annotated[
    str,
    option(
        WRITTEN,
        f"{join_names(COLORMAPS)}.",
        "--colormap",
        metavar="NAME",
        autocompletion=complete_from(lambda: COLORMAPS),
    ),
]
Alpha = Annotated[float, option(WRITTEN, "Opacity of the strongest heat.", "--alpha", min=0, max=1)]
NormalizeBy = Annotated[
    Normalize,
    option(
        WRITTEN,
        "What full strength is: this map's strongest value (range: and nothing its least), the whole run's, or 1.",
        "--normalize",
    ),
]
Background = Annotated[
    str, option(WRITTEN, "The colour behind transparent pictures.", "--background", metavar="COLOUR")
]
Range = Annotated[
    str,
    option(
        WHAT,
        "Of pictures of more than 8 bits (16-bit PNG and TIFF, floating point): which values are black and white; "
        "auto: each file's least and greatest.",
        "--range",
        metavar="LOW,HIGH|auto",
        show_default="all values of their type",
    ),
]
Pages = Annotated[
    str,
    option(
        WHAT,
        "Of files with several pages or frames: first, all, or some by number, 1,3 or 2-5; each is a picture.",
        "--pages",
        metavar="PAGES",
    ),
]
Overwrite = Annotated[
    bool,
    option(
        WRITTEN,
        "Do again what is done, and put it in the place of what is there, another job's results too.",
        "--overwrite",
        env=False,
    ),
]
DropOthers = Annotated[
    bool,
    option(
        WRITTEN,
        "With --overwrite: drop another job's results of pictures that are not named now.",
        "--drop-others",
        env=False,
    ),
]
Durable = Annotated[
    bool,
    option(WRITTEN, "Wait until the disk has each picture's files and line, against power failures.", "--durable"),
]
BatchSize = Annotated[
    int, option(COMPUTED, "Pictures in one forward; 0: by device.", "--batch-size", "-b", min=0, metavar="N")
]
Recompute = Annotated[
    bool,
    option(
        COMPUTED,
        "Gradient checkpointing: compute the network's parts again on the way back instead of keeping them; slower, "
        "less memory.",
        "--recompute",
    ),
]
OldRecompute = Annotated[bool, option(COMPUTED, "The old name of --recompute.", "--checkpoint", hidden=True)]
Workers = Annotated[
    int,
    option(COMPUTED, "Threads that decode, and as many that write; 0: by machine.", "--workers", min=0, metavar="N"),
]
Timeout = Annotated[
    float,
    option(
        COMPUTED,
        "A picture not decoded after so many seconds has failed, and the others go on; 0: however long it takes.",
        "--timeout",
        min=0,
        metavar="SECONDS",
    ),
]
Device = Annotated[
    str,
    option(
        COMPUTED,
        "auto, cpu, cuda, cuda:1, mps; several GPUs share the pictures: cuda:0,cuda:1, or cuda:all.",
        "--device",
        metavar="NAME",
    ),
]
PrecisionOf = Annotated[
    Precision,
    option(
        COMPUTED,
        "Of the network; tf32: fp32 whose products GPUs may round to ten bits; maps are float32.",
        "--precision",
    ),
]
CompileIt = Annotated[
    Compile,
    option(
        COMPUTED,
        "Compile the part of the network that no gradient passes: some seconds, then faster where the processor gains "
        "by it; auto: in runs of many minutes.",
        "--compile",
    ),
]
DecodeAt = Annotated[
    Decode,
    option(
        COMPUTED,
        "reduced: large JPEGs at 1/2, 1/4 or 1/8 of their size, where no output shows their own pixels, and large "
        "pictures resized in two steps: faster, but what the model sees differs by some of 255 levels.",
        "--decode",
    ),
]
KeepMemory = Annotated[
    bool,
    option(
        COMPUTED,
        "Keep freed memory for the next batch, where the C library is glibc: faster, for a little more memory.",
        "--keep-memory/--no-keep-memory",
        callback=_keep_memory,
    ),
]
Seed = Annotated[int, option(COMPUTED, "Of --weights random.", "--seed", metavar="N")]
NullSeparated = Annotated[
    bool, option(COMPUTED, "Names in lists and on standard input end in NUL.", "--null", "-0", env=False)
]
Config = Annotated[
    Path | None,
    option(
        COMPUTED,
        "A job file (TOML), or an earlier run's run.json. Flags and environment variables (CAMCLI_MODEL, ...) win.",
        "--config",
        "-c",
        metavar="FILE",
        is_eager=True,
        callback=_load_config,
    ),
]
TrustConfig = Annotated[
    bool,
    option(
        COMPUTED,
        "Run the Python code that the job file names as its model, wrapper or text tower.",
        "--trust-config",
        env=False,
    ),
]
AsJson = Annotated[bool, option(SAID, "Print a line of JSON for each map on standard output.", "--json", env=False)]
Quiet = Annotated[bool, option(SAID, "Only errors and failures.", "--quiet", "-q", env=False)]
Verbose = Annotated[bool, option(SAID, "A line for every map.", "--verbose", "-v", env=False)]


def told_of_recompute(inputs: Sequence[str], voice: Voice) -> None:
    """Refuse what --checkpoint means elsewhere, a file of weights, and say what it is called."""
    if given := next(filter(weight_files.not_a_picture, inputs), ""):
        raise RequestError(
            f"--checkpoint takes no file such as {given!r}: it is the old name of --recompute, gradient checkpointing",
            f"a file of weights is named by --weights, and with it the network: -m resnet50 --weights {given}",
        )
    voice.note("--checkpoint is called --recompute now")
