"""Write docs/methods.md out of the table of methods and their docstrings: ``python tools/make_methods.py [NAME ...]``.

With ``--pictures`` the bundled model draws docs/images/methods/NAME.jpg too, of the methods named or of all.
"""

import re
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

import camcli
from camcli import RequestError
from camcli.engine.maps.method import describe_method, read_method_options
from camcli.methods import METHODS, MethodRow, works_at
from camcli.runs.job.job import Job

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kit"))  # what tests share

import dino

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
PICTURES = ROOT / "docs" / "images" / "methods"
SHEET = ROOT / "docs" / "images" / "methods.jpg"
SAMPLE = "sample_images/cat-and-espresso.jpg"
CLASS = "espresso"
WIDTH = 320

# What the papers' defaults would take minutes for.
QUICK = {"ss-cam": ["samples=2"], "is-cam": ["samples=3"], "rise": ["samples=1000", "center=true"]}
# What shows channels is asked for the one that has most in the class.
BY_CHANNEL = ("activation",)
# What is of one sign everywhere, so that only differences tell.
BY_RANGE = ("attention", "fullgrad", "rollout", "gae", "legrad", "maskclip", "clip-surgery", "m2ib", "lafam", "fem")
BY_RANGE += ("ss-cam",)
# What the bundled model cannot show is drawn by a transformer with real weights: see dino.py.
BY_TRANSFORMER = ("rollout", "gae", "attention", "legrad", "grad-eclip", "maskclip", "clip-surgery", "m2ib")
# Of these, what compares images with prompts.
BY_PROMPTS = ("clip-surgery", "m2ib")

HEAD = """# Methods

`python tools/make_methods.py` writes this page from the registry of methods and their docstrings; `camcli methods`
and `camcli methods NAME` print the same.

![Every method on one image, with the espresso as its target](images/methods.jpg)

`A` are a layer's activations, `A_k` channel k, `y` the class logit (before softmax), `g = dy/dA`. Maps are stored
signed, as the formula gives them; overlays show their positive part. The images are made with the bundled
EfficientNet-Lite0 at its default layer, with the espresso as the target. Those of attention methods are made with a
DINOv2 ViT-S/14 fine-tuned for saliency, whose head was solved from crops of three of the sample photographs. For CLIP
Surgery and M2IB the rows of this head stand in for prompts; it is no CLIP model, and says nothing about how good the
methods made for CLIP are there.

Which one? Start with `gradcam`: it is fast, robust, and depends on model and class. To see only what the model uses,
`hirescam`. For fine maps of early layers, `layercam` with `--fuse paper`. Without gradients, `scorecam` or
`ablation-cam`, at a price. At pixel resolution, `integrated-gradients` or `smoothgrad`. For any model at all, `rise`
or `occlusion`, or sooner `hsic`. For vision transformers also `gae`; for those of CLIP models `legrad` or
`grad-eclip`, with several prompts `clip-surgery`, and for how much of the image a prompt needs `m2ib`. Without a
class, `eigencam` or `lafam`. To judge what a map is worth, compare it with `random`.

Several methods in one run share the forward and backward passes: `--method gradcam,hirescam,layercam`. Options are
set by `-o name=value`. These apply to any method: `--fuse` for several layers, `--scales` and `--augment flip` for
several views of the image, `--eigen-smooth`.

On tokens HiResCAM costs the same as Grad-CAM. Which localises the target better was measured on a DINOv2 ViT-S/14
with a linear probe: 208 maps of 104 images, each of two crops side by side that are both explained
(`benchmarks/localisation.py`; means, with 95 % bootstrap intervals over images). The target is among the probe's top
two classes in 64 % of the cases.

| at `blocks.11.norm1` | share of the positive part in the target's crop | peaks in it |
|---|---|---|
| gradcam | 0.348 (0.306 to 0.394) | 0.567 (0.500 to 0.635) |
| hirescam | 0.382 (0.337 to 0.431) | 0.510 (0.447 to 0.572) |
| random | 0.249 (0.249 to 0.250) | 0.207 (0.159 to 0.255) |
| hirescam less gradcam | 0.034 (0.005 to 0.066) | -0.058 (-0.111 to -0.005) |
| the same, of the 133 maps whose class is known | 0.054 (0.024 to 0.093) | -0.023 (-0.083 to 0.036) |

HiResCAM has more of its heat on the target, Grad-CAM more of its peaks: neither is better in both, and the default
stays Grad-CAM.

`--precision fp32` is fp32 on GPUs too: by default PyTorch lets convolutions use TF32 there; camcli turns that off
while it computes, and restores it. `--precision tf32` allows it: this is faster, and what the dry run verifies
(folding, replays, the images of a group) is verified to TF32's ten bits. `bf16` and `fp16` change the network's
arithmetic more, and maps with it; maps themselves are always summed in float32. With bf16 the maps of gradients at
the bundled model's default layer correlate 0.997 and more with those of fp32 on the sample images, guided backprop
0.97 and more, plain gradients of the input only 0.75 and more: they pass all layers, and each rounds.

Where other libraries deviate from the papers: [deviations.md](deviations.md). How to add a method:
[CONTRIBUTING.md](../CONTRIBUTING.md)."""


def page() -> str:
    """The whole page."""
    table = ["| method | works at | cost | what it is |", "|---|---|---|---|"]
    table += [
        f"| [{row.name}](#{_anchor(row)}) | {works_at(row)} | {row.cost} | {_escaped(row.summary)} |"
        for row in METHODS.builtin_rows
    ]
    return "\n\n".join([HEAD, "\n".join(table), *map(_section, METHODS.builtin_rows)]) + "\n"


def _anchor(row: MethodRow) -> str:
    """As pages make it of a heading: without signs, and counted where that leaves two alike."""
    plain = row.name.replace("+", "")
    before = [one.name.replace("+", "") for one in METHODS.builtin_rows[: METHODS.builtin_rows.index(row)]].count(plain)
    return f"{plain}-{before}" if before else plain


def _section(row: MethodRow) -> str:
    parts = [f"## {row.name}", f"{_linked(row.paper)}. Works at: {works_at(row)}. Cost: {row.cost}."]
    options = "".join(f" -o {option}" for option in QUICK.get(row.name, []))
    options += " --normalize range" if row.name in BY_RANGE else ""
    by = "DINOv2, " if row.name in BY_TRANSFORMER else ""
    parts.append(f"![{row.name}{options}: {by}{CLASS}](images/methods/{row.name}.jpg)")
    if row.parts:
        parts.append(f"The product of {' and '.join(row.parts)} at the input's resolution.")
    else:
        parts += [_paragraphs(text) for text in describe_method(row)]
    if row.caveat:
        parts.append(f"**Note:** {_escaped(row.caveat)}.")
    options_table = [
        f"| `{one.name}` | {one.allowed_values} | {one.default_text} | {_escaped(one.meaning)} |"
        for one in read_method_options(row).values()
    ]
    if options_table:
        parts.append("\n".join(["| option | values | default | meaning |", "|---|---|---|---|", *options_table]))
    return "\n\n".join(parts)


def _paragraphs(text: str) -> str:
    """A docstring as Markdown: paragraphs, what it is for and what not as a list."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        words = _escaped(re.sub(r":func:`(\w+)`", r"`\1`", block))
        items = re.split(r"\n(?=(?:Use|Not for): )", words)
        if items[0].startswith(("Use: ", "Not for: ")):
            found.append("\n".join(_wrapped("- " + " ".join(item.split()), "  ") for item in items))
        else:
            found.append(_wrapped(" ".join(words.split())))
    return "\n\n".join(found)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _escaped(text: str) -> str:
    """What Markdown would take for its own, outside of code."""
    parts = re.split(r"(``?[^`]+``?)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<|])", r"\\\1", part) for part in parts)


def _linked(paper: str) -> str:
    paper = re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)
    return re.sub(r"doi:(\S+)", r"[doi:\1](https://doi.org/\1)", paper)


def draw(name: str, transformer: Path) -> None:
    """The image of a method: what the command line draws, made small. The transformer is a folder, filled once."""
    from camcli.runs.explain.run import Run

    with tempfile.TemporaryDirectory() as out:
        job = Job(
            inputs=(str(ROOT / SAMPLE),), root=str(ROOT), out=f"{out}/out", method=name,
            target=(f"channels:top:1:{CLASS}" if name in BY_CHANNEL else CLASS,),
            options=tuple(QUICK.get(name, ())), save=("overlay",), device="cpu",
            normalize="range" if name in BY_RANGE else "image",
        )  # fmt: skip
        if name in BY_TRANSFORMER:
            weights, labels = transformer / "dino.safetensors", Path(out, "labels.txt")
            if not weights.exists():
                dino.write(weights, ROOT / "sample_images")
            labels.write_text("\n".join(dino.CLASSES), encoding="utf-8")
            model, size = f"timm:{dino.ARCHITECTURE}", str(dino.SIZE)
            job = replace(job, model=model, weights=str(weights), labels=str(labels), size=size, crop="squash")
            if name in BY_PROMPTS:
                model = dino.compared(weights, Path(out, "compared.py"))
                job = replace(job, model=model, weights="", labels="", size="")
        with Run(job) as run:
            [outcomes] = list(run)
        if outcomes[0].error:
            raise RequestError(f"{name}: {outcomes[0].error}")
        tiles = [Image.open(Path(out, "out") / one.files["overlay"]).convert("RGB") for one in outcomes]
    tiles = [tile.resize((WIDTH, round(tile.height * WIDTH / tile.width)), Image.Resampling.LANCZOS) for tile in tiles]
    whole = Image.new("RGB", (WIDTH * len(tiles), tiles[0].height))
    for number, tile in enumerate(tiles):
        whole.paste(tile, (number * WIDTH, 0))
    PICTURES.mkdir(parents=True, exist_ok=True)
    whole.save(PICTURES / f"{name}.jpg", quality=80)
    peak = outcomes[0].peak
    print(f"{name}: {outcomes[0].low:.3g} to {outcomes[0].high:.3g}, peak {peak}", flush=True)


def draw_sheet(columns: int = 5) -> None:
    """All images side by side, each under its name."""
    names = [row.name for row in METHODS.builtin_rows if (PICTURES / f"{row.name}.jpg").exists()]
    tiles = [Image.open(PICTURES / f"{name}.jpg").crop((0, 0, WIDTH, 240)).resize((240, 180)) for name in names]
    height = tiles[0].height + 18
    sheet = Image.new("RGB", (240 * columns, height * -(-len(tiles) // columns)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (name, tile) in enumerate(zip(names, tiles, strict=True)):
        left, top = 240 * (number % columns), height * (number // columns)
        sheet.paste(tile, (left, top + 18))
        pen.text((left + 4, top + 3), name, "black")
    sheet.save(SHEET, quality=80)


def main() -> None:
    """Write the page; with ``--pictures`` draw."""
    names = [word for word in sys.argv[1:] if not word.startswith("--")] or METHODS.names()
    if "--pictures" in sys.argv:
        with tempfile.TemporaryDirectory() as transformer:
            for name in names:
                draw(name, Path(transformer))
        draw_sheet()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    print(camcli.__version__)
    main()
