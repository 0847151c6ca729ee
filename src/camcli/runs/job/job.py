"""Job: the options of a run, each with its flag and help."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from camcli.engine import FLIPS, LAYOUTS, Backward, Compile, Fuse, Linear, Place, Precision
from camcli.images import FIRST_PAGE, Crop, Decode
from camcli.methods import METHODS
from camcli.models import BUNDLED_MODEL, PLACEHOLDER, TEMPLATE_SETS, ActivationOption, HeadOption, PoolOption
from camcli.outputs import COLORMAPS, OUTPUTS, Normalize, Outside
from camcli.runs.job.check import check_options
from camcli.runs.job.content import hash_options
from camcli.runs.job.option import COMPUTE, MODEL, OUTPUT, accept_flag_names, option
from camcli.targets import AUTO
from camcli.targets.scores import SCORES

# Current names of options, by their old names.
RENAMED_OPTIONS = {"checkpoint": "recompute"}


@accept_flag_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Options of a run. Same job, same image: same files.

    Each field is an option of ``camcli explain``, described in its help and in docs/cli.md.
    """

    model: str = option(
        BUNDLED_MODEL,
        MODEL,
        help="Model name: resnet50, timm:resnet50.a1_in1k, torchvision:resnet50/IMAGENET1K_V2, "
        "open_clip:ViT-B-32/openai, hf:USER/REPO or hf:./FOLDER (transformers), hf-hub:USER/REPO, local-dir:PATH, "
        "net.onnx, net.pt2, hub:FOLDER:ENTRY, path/to/file.py:function. See: camcli models",
        short="-m",
        metavar="NAME",
        show_default="the bundled EfficientNet-Lite0",
    )
    weights: str = option(
        "",
        MODEL,
        help="Checkpoint to load instead of the model's own weights: a state dict (safetensors or .pth); "
        "or 'random' for an untrained model",
        metavar="FILE",
    )
    labels: str = option("", MODEL, help="Class names: a text file with one a line, JSON or YAML", metavar="FILE")
    text: tuple[str, ...] = option(
        (),
        MODEL,
        help="Prompt to compare each image with (CLIP models); repeat for several, each gets a map",
        metavar="PROMPT",
        env=False,
    )
    texts: str = option(
        "",
        MODEL,
        help="File of prompts: one a line, or CSV/JSONL with prompts for each image",
        metavar="FILE",
        env=False,
    )
    template: tuple[str, ...] = option(
        (),
        MODEL,
        help=f"Prompt template, such as 'a photo of a {PLACEHOLDER}.', or open_clip's {' or '.join(TEMPLATE_SETS)}; "
        "repeat to average the embeddings of several",
        metavar="TEXT",
        show_default="the bare prompt",
        env=False,
    )
    text_tower: str = option(
        "",
        MODEL,
        help="Your own text encoder, for a model without one: file.py:function or package.module:function; its "
        "embeddings are compared with the model's image features",
        metavar="FUNCTION",
    )
    trust_code: bool = option(
        False,
        MODEL,
        help="Let a model of transformers (hf:...) run the Python code that its repository or folder brings along",
        env=False,
    )
    size: str = option("", MODEL, help="Input resolution: N or HxW", metavar="N|HxW", show_default="the model's own")
    crop: Crop = option(
        "model",
        MODEL,
        help="Part of the image that the model sees: model = its own preprocessing, center = centre crop, none = whole "
        "image, padded, squash = whole image, stretched",
        metavar="MODE",
    )
    preprocess: str = option(
        "",
        MODEL,
        help="How images are prepared for a model that does not say it (ONNX, torch.export, torch.hub): imagenet, "
        "clip, 0..1, -1..1, 0..255, or mean=... std=...; and resize=, fit=, interpolation=, bgr",
        metavar="WORDS",
        show_default="the model's own",
    )
    wrap: str = option(
        "",
        MODEL,
        help="Your own torch module to put around the model: file.py:Class or package.module:Class; it takes images "
        "(n, 3, h, w) and returns logits",
        metavar="CLASS",
    )
    group: str = option(
        "",
        MODEL,
        help="Images that the model takes together as one sample: N consecutive ones, or those of a folder",
        metavar="N|folder",
    )
    extras: str = option(
        "",
        MODEL,
        help="CSV or NPZ file with extra features for each image, passed to the --wrap module",
        metavar="FILE",
        env=False,
    )
    layers: tuple[str, ...] = option(
        (),
        MODEL,
        help="Layer path, slice or glob: layer4, layer4.-1, blocks[-3:].norm1, layer*; repeat for several. See: camcli "
        "layers MODEL",
        flag="--layer",
        short="-l",
        metavar="PATH",
        show_default="chosen and printed",
    )
    layout: str = option(
        "",
        MODEL,
        help=f"Memory layout of the layer's output, if its shape is ambiguous: {LAYOUTS}",
        metavar="LAYOUT",
        show_default="by shape and metadata",
    )
    call: int = option(
        0,
        MODEL,
        help="For a layer called more than once per forward pass: which call (1 = first, 0 = last)",
        metavar="N",
        min=0,
    )
    method: str = option(
        AUTO,
        MODEL,
        help="Method, or several joined by commas: {names}. See: camcli methods",
        metavar="NAME",
        show_default="gradcam; odam for detection boxes; recipro-cam without gradients",
        several=True,
        names=METHODS.names,
    )
    options: tuple[str, ...] = option(
        (),
        MODEL,
        help="Method parameter, such as samples=8, or smoothgrad.samples=8 for one of several methods; repeat for "
        "several. See: camcli methods NAME",
        flag="--option",
        short="-o",
        metavar="NAME=VALUE",
        show_default="as in the paper",
        env=False,
    )
    fuse: Fuse = option(
        "none",
        MODEL,
        help="How to combine the maps of several layers, each after ReLU and scaled to 1: none = a map for each layer, "
        "mean, max, product, sum = of the raw maps, paper = as in the method's paper",
        metavar="MODE",
    )
    scales: str = option(
        "1", MODEL, help="Average the maps over these scales of the input, such as 0.75,1,1.25", metavar="FACTORS"
    )
    augment: tuple[str, ...] = option(
        (),
        MODEL,
        help="Average with the maps of mirrored images: {names}, joined by commas",
        metavar="FLIPS",
        commas=True,
        names=lambda: FLIPS,
    )
    eigen_smooth: bool = option(
        False,
        MODEL,
        help="Use the first principal component of the weighted channels instead of their sum (for methods that weight "
        "channels)",
    )
    backward: Backward = option(
        "plain",
        MODEL,
        help="Gradient's way through a transformer, for any method with gradients: plain = the derivative; cp, libra, "
        "attnlrp = by the rules of these papers",
        metavar="RULES",
    )
    target: tuple[str, ...] = option(
        (AUTO,),
        MODEL,
        # Without the tag Rich would show an emoji for `:top:`.
        help="Target: predicted, top:5, rank:2 (the second alone), all, all>0.5, folder (name of the parent "
        "folder), a class (281, 'tabby cat', n02123045), channel:12,99 (features), channels:[none]top[/none]:5 (most "
        "important channels), similar:FILE, box:3 (a detector's third best); repeat for several",
        short="-t",
        metavar="TARGET",
        show_default="predicted; all prompts",
        env=False,
    )
    targets: str = option(
        "",
        MODEL,
        help="File with targets for each image: CSV or TSV (class names or one-hot), or JSONL",
        metavar="FILE",
        env=False,
    )
    true_boxes: str = option(
        "",
        MODEL,
        help="For detection: explain what the model considered at each of these boxes, found or missed: CSV "
        "(image,x0,y0,x1,y1 and perhaps label), COCO's JSON, or a folder of Pascal VOC's XML or of YOLO's text files",
        flag="--boxes",
        metavar="FILE",
        env=False,
        after="min_score",
    )
    head: HeadOption = option(
        "auto",
        MODEL,
        help="Classifier head: keep, none = remove it to explain features, auto = remove it if a target needs that",
        metavar="MODE",
    )
    pool: PoolOption = option(
        "keep", MODEL, help="Pooling with --head none: keep, none = remove it, to get feature maps", metavar="MODE"
    )
    activation: ActivationOption = option(
        "model",
        MODEL,
        help="What turns logits into probabilities: model = the model's own, softmax, sigmoid, none = nothing "
        "(regression), probabilities = the outputs already are",
        metavar="MODE",
    )
    score: str = option(
        AUTO,
        MODEL,
        help="Score of the target that is explained: {names}",
        metavar="SCORE",
        show_default="logit; margin with --versus; probability for prompts with --versus",
        names=SCORES.names,
        after="targets",
    )
    versus: tuple[str, ...] = option(
        (),
        MODEL,
        help="Contrast with this class (--score margin) or this prompt, such as 'background', which also enters the "
        "softmax; repeat for several",
        metavar="CLASS",
        show_default="for a margin: the highest other class of each image",
        env=False,
        after="score",
    )
    counterfactual: bool = option(
        False, MODEL, help="Explain what lowers the score (negated score)", env=False, after="versus"
    )
    output: str = option(
        "",
        MODEL,
        help="Path to the logits in the model's output, if not found automatically: logits, 0, out, aux.0",
        metavar="PATH",
    )
    region: str = option(
        "",
        MODEL,
        help="For segmentation: pixels over which to sum the class scores, as a mask image (black = outside) or "
        "x0,y0,x1,y1",
        metavar="REGION",
        show_default="where the class is predicted",
        env=False,
    )
    min_score: float = option(
        0.5, MODEL, help="For detection: ignore boxes with a lower score", metavar="P", min=0, max=1
    )
    inputs: tuple[str, ...] = option(
        (),
        MODEL,
        help="Image files, folders, globs, archives (.tar, .zip), addresses (s3://, gs://, hf://, https://), @list.txt,"
        " or - for names on standard input",
        positional=True,
        metavar="IMAGES",
    )
    null_separated: bool = option(
        False,
        COMPUTE,
        help="Names in lists and on standard input are NUL-separated",
        flag="--null",
        short="-0",
        env=False,
        after="seed",
    )
    carry: tuple[str, ...] = option(
        (),
        OUTPUT,
        help="Columns of the table that lists the images (@files.csv, .jsonl, .parquet) to repeat in outcomes.jsonl, "
        "joined by commas",
        metavar="COLUMNS",
        commas=True,
    )
    out: str = option(
        "",
        OUTPUT,
        help="Output folder; of camcli explain also an address: s3://bucket/maps",
        short="-O",
        metavar="FOLDER",
        show_default="one for each job in camcli-out",
    )
    root: str = option(
        "",
        OUTPUT,
        help="Name outputs by their image's path relative to this folder",
        metavar="FOLDER",
        show_default="the current folder; of images outside, their common parent",
    )
    save: tuple[str, ...] = option(
        ("overlay",),
        OUTPUT,
        help="Output formats, joined by commas: {names}",
        metavar="FORMATS",
        show_default="overlay",
        commas=True,
        names=OUTPUTS.names,
    )
    placement: Place = option(
        "measured",
        MODEL,
        help=(
            "Where a layer's cells are drawn: measured = at their receptive fields (tested with noise), even = spread "
            "evenly over the input, as other tools do"
        ),
        metavar="MODE",
        after="augment",
    )
    colormap: str = option("inferno", OUTPUT, help="Colour map: {names}", metavar="NAME", names=lambda: COLORMAPS)
    alpha: float = option(0.75, OUTPUT, help="Opacity of the heatmap at its maximum", metavar="A", min=0, max=1)
    outside: Outside = option(
        "dim", OUTPUT, help="Part of an image that the model does not see: dim, hatch, hide, keep", metavar="MODE"
    )
    normalize: Normalize = option(
        "image",
        OUTPUT,
        help="Colour scale: image = 0..max of each map, range = min..max, run = 0..max over all images, none = 0..1",
        metavar="MODE",
    )
    panel_size: int = option(
        0,
        OUTPUT,
        help="Longer side of each image in a panel, in pixels; 0 = as 448 high, or 896 wide, allows",
        metavar="N",
        min=0,
    )
    decode: Decode = option(
        "full",
        COMPUTE,
        help="Image decoding: full, reduced = large JPEGs at 1/2, 1/4 or 1/8 size where no output shows their pixels, "
        "and large images resized in two steps; faster, but inputs differ by a few of 255 levels",
        metavar="MODE",
    )
    background: str = option("#ffffff", OUTPUT, help="Background colour for transparent images", metavar="COLOUR")
    range: str = option(
        "",
        MODEL,
        help="For images of more than 8 bits (16-bit PNG, TIFF, NPY, float, DICOM): values of black and white as "
        "LOW,HIGH, or CENTRE/WIDTH of a window; percentiles of each file as 1%,99%; auto = min and max of each file",
        metavar="LOW,HIGH",
        show_default="full range of the data type; of DICOM, the file's own window",
    )
    bands: str = option(
        "",
        MODEL,
        help="Bands of multispectral TIFF and NPY images that the model gets, in its order, counted from 1: 4,3,2,8",
        metavar="NUMBERS",
        show_default="all; of pictures, their colours",
    )
    rgb: str = option(
        "",
        OUTPUT,
        help="Bands of such images that are drawn as red, green and blue under the map, or one as grey: 4,3,2",
        metavar="NUMBERS",
        show_default="the first three of --bands",
        after="background",
    )
    pages: str = option(
        FIRST_PAGE,
        MODEL,
        help="Pages or frames of files with several: first, all, or numbers such as 1,3 or 2-5; each is an image",
        metavar="PAGES",
    )
    every: str = option(
        "",
        MODEL,
        help="Frames of videos: one in each 1s (or 500ms, 2min), or each 10th; each is an image. Needs PyAV",
        metavar="STEP",
        show_default="videos are not read",
    )
    limit: int = option(
        0, MODEL, help="Only the first N images; the same command without it continues. 0 = all", metavar="N", min=0
    )
    shard: str = option(
        "",
        COMPUTE,
        help="One of N parts of the images, such as 3/16; all may run at once, with one --out. env = the part that "
        "SLURM, torchrun or AWS Batch names; Kubernetes: env/16. See: camcli status, camcli merge",
        metavar="K/N|env",
        env=False,
        after="device",
    )
    overwrite: bool = option(
        False, OUTPUT, help="Recompute finished images and replace results of a different job", env=False
    )
    drop_others: bool = option(
        False, OUTPUT, help="With --overwrite: delete results of a different job for images not in this run", env=False
    )
    accept_versions: bool = option(
        False,
        OUTPUT,
        help="Keep results of the same job made with other versions of camcli, PyTorch or the model library, and "
        "continue",
        env=False,
    )
    durable: bool = option(
        False, OUTPUT, help="Flush each image's files and records to disk (fsync), to survive power failures"
    )
    batch_size: int = option(0, COMPUTE, help="Images per batch; 0 = by device", short="-b", metavar="N", min=0)
    recompute: bool = option(
        False, COMPUTE, help="Gradient checkpointing: recompute activations in the backward pass; slower, less memory"
    )
    workers: int = option(
        0, COMPUTE, help="Threads that decode images, and as many that write; 0 = by machine", metavar="N", min=0
    )
    timeout: float = option(
        60.0,
        COMPUTE,
        help="Seconds after which an image that is not decoded counts as failed; 0 = no limit",
        metavar="S",
        min=0,
    )
    device: str = option(
        "auto",
        COMPUTE,
        help="auto, cpu, cuda, cuda:1, mps; cuda:0,cuda:1 or cuda:all to split the images over several GPUs",
        metavar="NAME",
    )
    precision: Precision = option(
        "fp32",
        COMPUTE,
        help="Floating-point precision of the network; maps are always float32: fp32, tf32 (GPUs may round products to "
        "10 bits), bf16, fp16",
        metavar="TYPE",
    )
    compile: Compile = option(
        "auto",
        COMPUTE,
        help="Compile the layers that need no gradient (torch.compile): auto = in long runs, on, off",
        metavar="MODE",
    )
    linear: Linear = option(
        "auto",
        COMPUTE,
        help="Library for linear layers on a CPU in fp32: torch = PyTorch's own choice (MKL on x86), onednn, auto = "
        "the faster here",
        metavar="LIBRARY",
    )
    seed: int = option(0, COMPUTE, help="Random seed for --weights random", metavar="N")

    def __post_init__(self) -> None:
        """Raise RequestError for invalid options; what depends on libraries or files is checked later."""
        for one in fields(self):
            given = getattr(self, one.name)
            if str(one.type).startswith("tuple"):  # a list will do, and a string is not a list of its letters
                object.__setattr__(self, one.name, (given,) if isinstance(given, str) else tuple(given))
        # Under one name, however it was spelled, it is the same job.
        object.__setattr__(self, "method", METHODS.canonical_names(self.method))
        object.__setattr__(self, "options", tuple(map(METHODS.canonical_option, self.options)))
        check_options(self)

    @property
    def prompted(self) -> bool:
        """True if there are prompts, which are then the classes."""
        return bool(self.text or self.texts)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of 16 hex digits that changes with every option that could change an image's files.

        Files named in the job (weights, labels, targets, features, Python files) count by their content. Options at
        their defaults do not count, so that a version with more options gives the same digits.

        Raises:
            RequestError: such a file cannot be read.
        """
        return hash_options(self, Job())

    def as_dict(self) -> dict[str, Any]:
        """Return the job as the options of a job file, which ``--config`` reads back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
