"""The zoo: models of every architecture family of the libraries, and the laws that each must keep."""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import detector_zoo
import hf_detectors
import hf_zoo
import numpy as np
import torch
import torchvision
from networks import untouched
from place import broken_law
from torch import Tensor, nn

from camcli import Explainer, Network, PictureError, RequestError
from camcli.models.load import load as load_model

TABLE = Path(__file__).parents[2] / "docs" / "architectures.md"
TOLERANCE = 2e-3  # float32, through a whole network

# The smallest model with a classifier of each module of timm, by weights times pixels of its input; where no model of
# a module has one, the smallest.
TIMM: dict[str, str] = json.loads((Path(__file__).parent / "zoo.json").read_text())

# A model of each kind of image tower.
OPEN_CLIP = {
    "ViT": "ViT-S-32-alt",
    "ViT, quick GELU": "ViT-B-32-quickgelu",
    "ModifiedResNet": "RN50",
    "CoCa, pooled by attention": "coca_ViT-B-32",
    "ConvNeXt of timm": "convnext_base",
    "ViT of timm, mean of patches": "vit_medium_patch16_gap_256",
    "Swin of timm": "swin_base_patch4_window7_224",
    "EVA02": "EVA02-B-16",
    "MobileCLIP (FastViT of timm)": "MobileCLIP-S1",
    "ViTamin": "ViTamin-S",
    "SigLIP": "ViT-B-16-SigLIP",
    "PE-Core": "PE-Core-T-16-384",
}

# Everyday: one of each kind: CNNs with and without ReLUs, channels last, class token, pooled tokens, MLP-like.
EVERYDAY = [
    "timm:test_byobnet",
    "timm:test_convnext",
    "timm:test_efficientnet",
    "timm:test_mambaout",
    "timm:test_nfnet",
    "timm:test_resnet",
    "timm:test_vit",
    "timm:test_vit_relpos",
    "timm:convit_tiny",
    "timm:crossvit_tiny_240",
    "timm:levit_128s",
    "timm:mobilenetv3_small_050",
    "torchvision:squeezenet1_1",
]

# Large models are examined at a smaller input than their own.
SMALLER = {
    "timm:deepseek_vit_412m": 224,
    "timm:gemma4_vit_167m": 192,
    "timm:nasnetalarge": 224,
    "timm:pnasnet5large": 224,
    "timm:qwen3_vit_88m": 256,
}
# torchvision's larger siblings are examined at the first of these inputs that they take, or at their own: it is the
# grid that counts. In the deepest of those with squeeze-and-excitation 4 x 4 cells hear hardly more of their own
# quadrant than of all.
SMALL = (128, 112)
DEEP = {"efficientnet": (192,)}


@dataclass(frozen=True)
class Family:
    """One row of the zoo: a family and a model that stands for it."""

    library: str
    name: str
    model: str


@cache
def families() -> tuple[Family, ...]:
    """Every family, in the order of the table."""
    return (
        *(Family("timm", module, f"timm:{model}") for module, model in TIMM.items()),
        *(Family("torchvision", _module(name), f"torchvision:{name}") for name in classifiers()),
        *(Family("open_clip", kind, f"open_clip:{name}") for kind, name in OPEN_CLIP.items()),
        *(Family("hf", name, f"hf:{name}") for name in hf_zoo.FAMILIES),
        *(Family("detectors", name.partition(":")[0], f"detectors:{name}") for name in detector_zoo.models()),
    )


def family(model: str) -> Family:
    """The family that a model stands for."""
    return next(one for one in families() if one.model == model)


def classifiers() -> list[str]:
    """torchvision's models that classify images."""
    return sorted(torchvision.models.list_models(module=torchvision.models))


@cache
def siblings() -> frozenset[str]:
    """torchvision's models that have a smaller one in the same module."""
    smallest: dict[str, tuple[int, str]] = {}
    for name in classifiers():
        size = torchvision.models.get_model_weights(name)["DEFAULT"].meta["num_params"]
        smallest[_module(name)] = min(smallest.get(_module(name), (size, name)), (size, name))
    whole = {name for _, name in smallest.values()}
    return frozenset(f"torchvision:{name}" for name in classifiers() if name not in whole)


def _module(name: str) -> str:
    return torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]


def written(model: str) -> str:
    """What the command line takes for this model: those of transformers are folders."""
    library, _, name = model.partition(":")
    return f"hf:{hf_zoo.write(name)}" if library == "hf" else model


def load(model: str, size: str = "") -> Network:
    """The untrained model."""
    network = load_model(written(model), weights="random", size=size)
    with torch.no_grad():
        network.module(torch.zeros(1, 3, *network.preprocess.size))  # some networks build tables at their first image
    return network


@dataclass(frozen=True)
class Finding:
    """What the laws found in a model: a row of the table.

    Attributes:
        input: the model's input.
        layer: the default layer; of a detector all levels.
        layout: how it is read.
        guided: what guided backprop does.
        oblong: the grid of an input that is not square, or why there is none; empty where it was not tried.
    """

    input: str
    layer: str
    layout: str
    guided: str = ""
    oblong: str = ""


def examine(model: str) -> Finding:
    """Hold a model to the laws.

    Of torchvision's larger siblings of a model that is held to all of them, only what their size may change is seen:
    that there is a map, and that it has its place.

    Raises:
        AssertionError: it breaks one.
        RequestError: it is refused.
    """
    if family(model).library == "detectors":
        return Finding(*detector_zoo.examine(model.partition(":")[2]))
    whole = model not in siblings()
    network = load(model, str(SMALLER.get(model, ""))) if whole else _small(model)
    height, width = network.preprocess.size
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(4))
    explain = Explainer(network)
    with untouched(network.module):
        _hold_maps(explain, images, alone=whole)
        guided = _others(network, images[:1]) if whole else ""
    [layer] = explain.layers
    _hold_place(network, model, layer, (height, width))
    layout = str(explain.layouts[layer])
    del explain
    return Finding(f"{height}x{width}", layer, layout, guided, _oblong(model, network, layer) if whole else "")


def _small(model: str) -> Network:
    """The model for a smaller input, where it takes one."""
    for side in DEEP.get(family(model).name, SMALL):
        try:
            return load(model, str(side))
        except RequestError as error:
            assert "does not take images of" in error.message
    return load(model)


def _hold_maps(explain: Explainer, images: Tensor, alone: bool) -> None:
    """Maps of the grid's size, finite, not constant; those of an image alone are those that it has in a batch."""
    [[single]] = explain(images[1:])
    [layer] = explain.layers
    assert single.map.shape == explain.grids[layer]
    assert np.isfinite(single.map).all()
    assert np.ptp(single.map) > 1e-5 * np.abs(single.map).max(), "the map is constant"
    if alone:
        one = explain(images, [0, single.index])[1][0]
        difference = np.abs(single.map - one.map).max() / np.abs(single.map).max()
        assert difference < TOLERANCE, f"alone it differs by {difference:.1e}"


def _others(network: Network, image: Tensor) -> str:
    """What guided backprop does; the other methods give maps."""
    [found] = Explainer(network, method="layercam,eigencam")(image)
    for one in found:
        assert np.isfinite(one.map).all()
        assert np.ptp(one.map) > 0
    explain = Explainer(network, method="guided-backprop")
    try:
        [[one]] = explain(image)
    except (RequestError, PictureError) as error:
        assert error.message
        return "no ReLU" if "this network has none" in error.message else f"refused: {error.message}"
    assert one.map.shape == tuple(image.shape[1:])
    assert np.isfinite(one.map).all()
    assert np.ptp(one.map) > 0
    return "runs"


def _hold_place(network: Network, model: str, layer: str, size: tuple[int, int]) -> None:
    explain = Explainer(network, layers=[layer])
    explain.check(torch.randn(1, 3, *size))
    PREPARED.get(model, lambda module: None)(network.module)
    broken = broken_law(network.module, layer, explain.layouts[layer], size)
    assert not broken, f"{size} {layer} {explain.layouts[layer]}: {broken}"


def _oblong(model: str, network: Network, layer: str) -> str:
    """The law of place for an input of about three quarters of the height, where the model takes one."""
    height, width = network.preprocess.size
    reasons = []
    # In steps of 32, or of 14 for the transformers whose patches are 14 pixels wide.
    for rows in (32 * math.ceil(0.75 * height / 32), 14 * round(0.75 * height / 14)):
        try:
            other = load(model, f"{rows}x{width}")
            explain = Explainer(other, layers=[layer])
            explain.check(torch.randn(1, 3, rows, width))
        except RequestError as error:
            reasons.append(error.message)
            continue
        _hold_place(other, model, layer, (rows, width))
        return "x".join(map(str, explain.layouts[layer].grid))
    square = all("does not take images of" in reason or "no multiple" in reason for reason in reasons)
    return "square only" if square else f"refused: {reasons[0].partition(': ')[2].partition(', so')[0]}"


def _near_hears_near(module: nn.Module) -> None:
    """LeViT's attention with biases that fall with the distance between query and key."""
    for part in module.modules():
        if hasattr(part, "attention_biases"):
            side = math.isqrt(part.attention_biases.shape[1])
            cells = torch.arange(side * side)
            part.attention_biases.data[:] = -2.0 * (cells // side + cells % side)
            part.attention_bias_cache.clear()


def _softer(module: nn.Module) -> None:
    """Gemma 4's attention scaled as that of other transformers, by the gain of its queries."""
    for part in module.modules():
        if hasattr(part, "q_norm"):
            part.q_norm.weight.data /= math.sqrt(part.head_dim)


# Models whose untrained weights say nothing about places, and what is done to them before the law of place is asked of
# them. Each has its reason in the table.
PREPARED = {"timm:levit_128s": _near_hears_near, "hf:levit": _near_hears_near, "timm:gemma4_vit_167m": _softer}
REASONS = {
    "timm:gemma4_vit_167m": "its attention has a learned gain instead of a scale, so before training each head looks "
    "at one random patch in every block; it is checked with a gain of one by the root of the head's width",
    "hf:levit": "its last attention is checked as that of timm's LeViT",
    "timm:levit_128s": "its last attention has no residual connection, and the biases that tell near from far start at "
    "zero, so before training each cell is the same mean of all; it is checked with biases that fall with distance",
}


def holds(model: str) -> None:
    """The table has the line that the laws find."""
    assert row(family(model), examine(model)) == rows(TABLE.read_text()).get(model), (
        "docs/architectures.md says something else; if it is to: python tools/make_architectures.py " + model
    )


INTRODUCTION = """# Architectures

How camcli reads each model family of the libraries it builds on, without any option. `python
tools/make_architectures.py` writes this page, and a test (`tests/zoo/test_zoo.py`) holds every row to it.

Each model has random weights from seed 0 and must pass these checks: the map has the grid's size, is finite and not
constant; an image alone has the same map as in a batch; the model is left unchanged; LayerCAM and EigenCAM give maps;
guided backprop does too, or says why not. The **placement check** finds transposed, shifted or wrongly reshaped grids:
a change in one quadrant of the input must change the layer most in that quadrant of its grid, and each border of the
grid must respond to its own side of the input more than the opposite border does. It runs in double precision with
calibrated batch norms and the same settings for all models (`tests/kit/place.py`), also for an input that is not square
(three quarters as high) where the model takes one. Large models are checked at a smaller input than their own; the
larger variants of a torchvision model only have their maps and their placement checked.

- **layer**: the default layer, by the rule in [decisions.md](decisions.md#the-default-layer).
- **read as**: its memory layout, its grid, and the tokens before and after the patches.
- **not square**: the grid for such an input; "square only" where the library cannot give the model one; empty where it
  was not tried.

Of detectors only the placement is checked, of every level that boxes are read from, or of the default layer.
torchvision's segmentation and detection models are compared with gradients written out by hand too, in
`tests/targets/test_segmentation_and_detection.py` and `tests/targets/test_output_spec.py`, those of transformers in
`tests/models/sources/test_hf_detection.py` and `test_hf_text_detection.py`. Volumes and videos are
refused, because a map lies in the image plane.

## A family that needs special treatment

How an output is read follows from its shape and from two facts about the model: its prefix tokens and its patch grid.
Where a library states them wrongly or not at all, they are corrected in one place,
`src/camcli/models/sources/timm_config.py`, for transformers `hf_config.py`: the functions `count_prefix_tokens` and
`find_patch_grid`, and the name `LATE_CLASS_TOKEN` for networks whose class token is added late. A new kind of layout
goes into `src/camcli/engine/layers/layout.py`, a new reason not to choose a layer into
`src/camcli/engine/layers/ranking.py`, and a new family of a library is a line in
`tests/kit/zoo.json` or `hf_zoo.py`."""

ABOUT = {
    "timm": "The smallest model of each of timm's modules.",
    "torchvision": "Every classification model.",
    "open_clip": "A model of each kind of image encoder, with random embeddings in place of prompts.",
    "hf": "A small configuration of every architecture of transformers 5.24 with an image-classification head; "
    "`model` is the `model_type` in its `config.json`.",
    "detectors": "Every detector of torchvision but SSD300 (second versions have the levels of the first), at an "
    "input of 256 pixels where it takes that, and a small configuration of every type of transformers that is read. "
    "A level of a single row or column is not checked.",
}
DETECTORS_HEAD = """| library | model | input | layers | read as |
|---|---|---|---|---|"""
HEAD = """| family | model | input | layer | read as | guided backprop | not square |
|---|---|---|---|---|---|---|"""


def row(one: Family, found: Finding) -> str:
    """The line of a family in the table."""
    model = one.model.partition(":")[2]
    if one.library == "detectors":
        return f"| {one.name} | {model} | {found.input} | {found.layer} | {found.layout} |"
    return (
        f"| {one.name} | {model} | {found.input} | `{found.layer}` | {found.layout} | {found.guided} | {found.oblong} |"
    )


def rows(text: str) -> dict[str, str]:
    """The lines of a written table, by model."""
    found: dict[str, str] = {}
    library = ""
    for line in text.splitlines():
        if line.startswith("## "):
            library = line.removeprefix("## ").partition(":")[0]
        elif line.startswith("| ") and not HEAD.startswith(line) and not DETECTORS_HEAD.startswith(line):
            found[f"{library}:{line.split(' | ')[1]}"] = line
    return found


def page(lines: dict[str, str]) -> str:
    """The whole page, of the lines by model."""
    parts = [INTRODUCTION]
    for library, about in ABOUT.items():
        members = [one for one in families() if one.library == library]
        have = [one for one in members if one.model in lines]
        parts += [f"## {library}: {len(have)} of {len(members)}", about]
        head = DETECTORS_HEAD if library == "detectors" else HEAD
        parts.append("\n".join([head, *(lines[one.model] for one in have)]))
        parts += [f"{one.model.partition(':')[2]}: {REASONS[one.model]}." for one in have if one.model in REASONS]
    left_out = {**hf_zoo.LEFT_OUT, **hf_detectors.LEFT_OUT}
    parts.append("\n".join(["Not in the table:\n", *(f"- {name}: {why}." for name, why in left_out.items())]))
    return "\n\n".join(parts) + "\n"
