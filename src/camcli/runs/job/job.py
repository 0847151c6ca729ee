"""A job: everything that is asked of a run, and how each option of it is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from camcli.engine import FLIPS, Compile, Fuse, Place, Precision
from camcli.images import FIRST, Crop, Decode
from camcli.methods import METHODS
from camcli.models import BUNDLED_MODEL, Activations, Head, Pool
from camcli.outputs import COLORMAPS, OUTPUTS, Normalize
from camcli.runs.job.check import check_options
from camcli.runs.job.content import hash_options
from camcli.runs.job.option import COMPUTE, MODEL, OUTPUT, option
from camcli.targets import AUTO
from camcli.targets.scores import SCORES

# Options by the names that they had before.
RENAMED = {"checkpoint": "recompute"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that is asked of a run. Same job, same picture: same files."""

    model: str = option(
        BUNDLED_MODEL,
        MODEL,
        help="resnet50, timm:resnet50.a1_in1k, torchvision:resnet50/IMAGENET1K_V2, open_clip:ViT-B-32/openai, "
        "hf-hub:..., local-dir:..., path/to/file.py:function. See: camcli models.",
        short="-m",
        metavar="NAME",
        show_default="the bundled EfficientNet-Lite0",
    )
    weights: str = option(
        "",
        MODEL,
        help="A state dict (safetensors or .pth) instead of the model's own weights; or 'random', to try things out.",
        metavar="FILE|random",
    )
    labels: str = option("", MODEL, help="Names of the classes: one a line, JSON or YAML.", metavar="FILE")
    text: tuple[str, ...] = option(
        (),
        MODEL,
        help="A prompt that the picture is compared with, by an open_clip model; each has a map. Repeat for more.",
        metavar="PROMPT",
        env=False,
    )
    texts: str = option(
        "", MODEL, help="Prompts, one a line; CSV or JSONL that lists each picture's own.", metavar="FILE", env=False
    )
    template: tuple[str, ...] = option(
        (),
        MODEL,
        help="What each prompt is put into: 'a photo of a {}.'; or open_clip's imagenet and imagenet-simple; "
        "repeat for more, whose embeddings are averaged.",
        metavar="TEMPLATE",
        show_default="the bare prompt",
        env=False,
    )
    text_tower: str = option(
        "",
        MODEL,
        help="A function of your own that embeds prompts, for a model that reads none: its features are compared "
        "with them.",
        metavar="FILE.py:FUNCTION|MODULE:FUNCTION",
    )
    size: str = option(
        "",
        MODEL,
        help="Of the model's input, height x width, where the model allows it.",
        metavar="N|HxW",
        show_default="the model's own",
    )
    crop: Crop = option(
        "model",
        MODEL,
        help="What the model sees: as it was made for; the middle; all of the picture, padded; all of it, stretched.",
    )
    wrap: str = option(
        "",
        MODEL,
        help="A class of your own that is built around the model, takes images (n, 3, h, w) and gives scores.",
        metavar="FILE.py:CLASS|MODULE:CLASS",
    )
    group: str = option(
        "",
        MODEL,
        help="Hand the model so many pictures at once, or those of one folder, as one sample.",
        metavar="N|folder",
    )
    extras: str = option(
        "",
        MODEL,
        help="CSV or NPZ with features of each picture, which the wrapper is handed beside the images.",
        metavar="FILE",
        env=False,
    )
    layers: tuple[str, ...] = option(
        (),
        MODEL,
        help="layer4, layer4.-1, blocks[-3:].norm1, layer*; repeat for more. See: camcli layers MODEL.",
        flag="--layer",
        short="-l",
        metavar="PATH",
        show_default="chosen and printed",
    )
    layout: str = option(
        "",
        MODEL,
        help="How the layer's output lies in memory, where its shape can be read in several ways: nchw, nhwc, "
        "tokens:PREFIX:HxW, ncl:PREFIX:HxW.",
        metavar="LAYOUT",
        show_default="by shape and metadata",
    )
    call: int = option(
        0,
        MODEL,
        help="Which run of a layer counts that runs several times in one forward; 0: the last.",
        metavar="N",
        min=0,
    )
    method: str = option(
        AUTO,
        MODEL,
        help="{names}; several joined by commas, or repeat. See: camcli methods.",
        metavar="NAME",
        show_default="gradcam; of a detector's boxes hirescam",
        several=True,
        names=METHODS.names,
    )
    options: tuple[str, ...] = option(
        (),
        MODEL,
        help="Of the method: samples=8; of one of several: smoothgrad.samples=8; repeat for more. See: camcli "
        "methods NAME.",
        flag="--option",
        short="-o",
        metavar="NAME=VALUE",
        show_default="as the paper says",
        env=False,
    )
    fuse: Fuse = option(
        "none",
        MODEL,
        help="How the maps of several layers become one, each rectified and scaled to 1 before; sum: as they are; "
        "paper: as the method's paper says.",
    )
    scales: str = option(
        "1",
        MODEL,
        help="The mean of the maps at these factors of the input's size, where the model allows it.",
        metavar="0.75,1,1.25",
    )
    augment: tuple[str, ...] = option(
        (),
        MODEL,
        help="The mean with the maps of mirrored pictures: {names}; several joined by commas.",
        metavar="FLIPS",
        commas=True,
        names=lambda: FLIPS,
    )
    eigen_smooth: bool = option(
        False,
        MODEL,
        help="The first principal component of the weighted channels instead of their sum; for methods that "
        "weight channels.",
    )
    target: tuple[str, ...] = option(
        (AUTO,),
        MODEL,
        help="predicted, top:5, all, all>0.5, folder (the parent folder's name), or a class: 281, 'tabby cat', "
        "n02123045; channel:12,99 (a feature), channels:[none]top[/none]:5 (those that matter most), "
        "similar:FILE; repeat for more.",
        short="-t",
        metavar="TARGET",
        show_default="predicted; all prompts",
        env=False,
    )
    targets: str = option(
        "",
        MODEL,
        help="A table (CSV, TSV; one-hot too) or JSONL that lists each picture's own targets.",
        metavar="FILE",
        env=False,
    )
    head: Head = option(
        "auto",
        MODEL,
        help="none: without the classifier, so that features are explained; auto: where a target asks for it.",
    )
    pool: Pool = option("keep", MODEL, help="none: with --head none also without the pooling: features as maps.")
    activation: Activations = option(
        "model",
        MODEL,
        help="What makes probabilities of the model's scores; none: nothing, as in regression; probabilities: "
        "they are, which is found where the model ends in a sigmoid or softmax.",
    )
    score: str = option(
        AUTO,
        MODEL,
        help="Which number of a class's is explained: {names}.",
        metavar="SCORE",
        show_default="logit; with --versus margin, of prompts probability",
        names=SCORES.names,
        after="targets",
    )
    versus: tuple[str, ...] = option(
        (),
        MODEL,
        help="What the target is compared with: with --score margin a class; for prompts any other text, such as "
        "'background', which competes with them in the softmax too. Repeat for more.",
        metavar="CLASS|PROMPT",
        show_default="of a margin the strongest other class of each picture",
        env=False,
        after="score",
    )
    counterfactual: bool = option(
        False, MODEL, help="Explain what lowers the score: its sign is turned.", env=False, after="versus"
    )
    output: str = option(
        "",
        MODEL,
        help="Where in what the model returns its scores are, if that is not plain: logits, 0, out, aux.0.",
        metavar="PATH",
    )
    region: str = option(
        "",
        MODEL,
        help="For segmentation: where a class's scores are summed, in the picture's pixels; a mask is black outside.",
        metavar="MASK|x0,y0,x1,y1",
        show_default="where it is predicted",
        env=False,
    )
    min_score: float = option(
        0.5, MODEL, help="For detection: boxes below it are left out.", metavar="SCORE", min=0, max=1
    )
    inputs: tuple[str, ...] = option(
        (),
        MODEL,
        help="Pictures: files, folders, globs, @list.txt, or - for names on standard input.",
        positional=True,
        metavar="PICTURES",
    )
    null_separated: bool = option(
        False,
        COMPUTE,
        help="Names in lists and on standard input end in NUL.",
        flag="--null",
        short="-0",
        env=False,
        after="seed",
    )
    out: str = option("camcli-out", OUTPUT, help="The folder that all is written under.", short="-O", metavar="FOLDER")
    root: str = option(
        "",
        OUTPUT,
        help="Outputs are named by their picture's path from here.",
        metavar="FOLDER",
        show_default="the current folder",
    )
    save: tuple[str, ...] = option(
        ("overlay",),
        OUTPUT,
        help="{names}; several joined by commas.",
        metavar="FORMATS",
        show_default="overlay",
        commas=True,
        names=OUTPUTS.names,
    )
    placement: Place = option(
        "measured",
        MODEL,
        help="Where a layer's cells are drawn: where they look, measured on noise, or as if they shared the input "
        "evenly, as other tools draw them.",
        after="augment",
    )
    colormap: str = option("viridis", OUTPUT, help="{names}.", metavar="NAME", names=lambda: COLORMAPS)
    alpha: float = option(0.6, OUTPUT, help="Opacity of the strongest heat.", min=0, max=1)
    normalize: Normalize = option(
        "image",
        OUTPUT,
        help="What full strength is: this map's strongest value (range: and nothing its least), the whole run's, or 1.",
    )
    decode: Decode = option(
        "full",
        COMPUTE,
        help="reduced: large JPEGs at 1/2, 1/4 or 1/8 of their size, where no output shows their own pixels, and "
        "large pictures resized in two steps: faster, but what the model sees differs by some of 255 levels.",
    )
    background: str = option("#ffffff", OUTPUT, help="The colour behind transparent pictures.", metavar="COLOUR")
    range: str = option(
        "",
        MODEL,
        help="Of pictures of more than 8 bits (16-bit PNG and TIFF, floating point): which values are black and "
        "white; auto: each file's least and greatest.",
        metavar="LOW,HIGH|auto",
        show_default="all values of their type",
    )
    pages: str = option(
        FIRST,
        MODEL,
        help="Of files with several pages or frames: first, all, or some by number, 1,3 or 2-5; each is a picture.",
        metavar="PAGES",
    )
    overwrite: bool = option(
        False,
        OUTPUT,
        help="Do again what is done, and put it in the place of what is there, another job's results too.",
        env=False,
    )
    drop_others: bool = option(
        False,
        OUTPUT,
        help="With --overwrite: drop another job's results of pictures that are not named now.",
        env=False,
    )
    accept_versions: bool = option(
        False,
        OUTPUT,
        help="Keep what the same job did here with other versions of camcli, PyTorch or the model's library, and "
        "go on.",
        env=False,
    )
    durable: bool = option(
        False, OUTPUT, help="Wait until the disk has each picture's files and line, against power failures."
    )
    batch_size: int = option(0, COMPUTE, help="Pictures in one forward; 0: by device.", short="-b", metavar="N", min=0)
    recompute: bool = option(
        False,
        COMPUTE,
        help="Gradient checkpointing: compute the network's parts again on the way back instead of keeping them; "
        "slower, less memory.",
    )
    workers: int = option(
        0, COMPUTE, help="Threads that decode, and as many that write; 0: by machine.", metavar="N", min=0
    )
    timeout: float = option(
        60.0,
        COMPUTE,
        help="A picture not decoded after so many seconds has failed, and the others go on; 0: however long it takes.",
        metavar="SECONDS",
        min=0,
    )
    device: str = option(
        "auto",
        COMPUTE,
        help="auto, cpu, cuda, cuda:1, mps; several GPUs share the pictures: cuda:0,cuda:1, or cuda:all.",
        metavar="NAME",
    )
    precision: Precision = option(
        "fp32", COMPUTE, help="Of the network; tf32: fp32 whose products GPUs may round to ten bits; maps are float32."
    )
    compile: Compile = option(
        "auto",
        COMPUTE,
        help="Compile the part of the network that no gradient passes: some seconds, then faster where the "
        "processor gains by it; auto: in runs of many minutes.",
    )
    seed: int = option(0, COMPUTE, help="Of --weights random.", metavar="N")

    def __post_init__(self) -> None:
        """Raises RequestError for what no job can be; what depends on libraries or files is checked later."""
        for one in fields(self):
            given = getattr(self, one.name)
            if str(one.type).startswith("tuple"):  # a list will do, and a string is no list of its letters
                object.__setattr__(self, one.name, (given,) if isinstance(given, str) else tuple(given))
        check_options(self)

    @property
    def prompted(self) -> bool:
        """Whether there are prompts, which are then the classes."""
        return bool(self.text or self.texts)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when anything that is asked for changes that could change a picture's files.

        Files named in the job (weights, labels, targets, features, Python files) count by their content. What is as it
        is by default does not count, so that a version with more options has the same digits.

        Raises:
            RequestError: such a file cannot be read.
        """
        return hash_options(self, Job())

    def as_dict(self) -> dict[str, Any]:
        """The job in the words of a job file: what ``--config`` reads back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
