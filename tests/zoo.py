"""The zoo: one model of every architecture family of the libraries, and the laws that each must keep."""

import json
import math
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

from camcli import Explainer, Network, PictureError, RequestError, models
from camcli.layout import Layout
from camcli.survey import probe_image
from networks import untouched
from place import broken_law

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "architectures.md"
RESULTS = Path(__file__).parent / "zoo_results.json"
PROMPTS = ("a photo of a cat", "a photo of a dog", "a drawing")
TOLERANCE = 2e-3

# The smallest model with a classifier of each module of timm, by weights times pixels of its input; where no model of
# a module has one, the smallest.
TIMM: dict[str, str] = json.loads((Path(__file__).parent / "zoo.json").read_text())

# A model of each kind of tower.
OPEN_CLIP = {
    "CLIP ViT": "ViT-S-32-alt",
    "CLIP ModifiedResNet": "RN50",
    "CLIP ViT, pooled by attention": "coca_ViT-B-32",
    "CLIP ConvNeXt of timm": "convnext_base",
    "CLIP ViT of timm": "vit_medium_patch16_gap_256",
    "CLIP Swin of timm": "swin_base_patch4_window7_224",
    "CLIP EVA of timm": "EVA02-B-16",
    "CLIP MobileCLIP (FastViT of timm)": "MobileCLIP-S1",
    "CLIP ViTamin": "ViTamin-S",
    "SigLIP": "ViT-B-16-SigLIP",
    "PE-Core": "PE-Core-T-16-384",
}

# Too large for the usual machine and for the suite's time: run with CAMCLI_HUGE=1.
HUGE = frozenset({"torchvision:vit_h_14", "torchvision:regnet_y_128gf"})

# They take longest.
COSTLY = frozenset(
    f"timm:{name}"
    for name in (
        "deepseek_vit_412m",
        "gemma4_vit_167m",
        "qwen3_vit_88m",
        "naflexvit_base_patch16_parfac_gap",
        "nasnetalarge",
        "pnasnet5large",
        "mobilenetv5_base",
    )
)

# Of torchvision's larger siblings, where they take it: it is the grid that counts.
SMALL = (128, 128)

# Models whose default layer hears every change everywhere while they are untrained, the layer at which the law of place
# is held instead, and the reason.
UNPLACED = {
    "timm:levit_128s": (
        "stages.1",
        "its last attention has no way around it, so that before training each of its cells is the same mean of all",
    )
}

# Families that cannot have a map, each with the words of the refusal.
REFUSED: dict[str, str] = {}


@dataclass(frozen=True)
class Family:
    """One row of the zoo: a family and the model that stands for it."""

    library: str
    name: str
    model: str


def families() -> list[Family]:
    """Every family, in the order of the table."""
    return [
        *(Family("timm", module, f"timm:{model}") for module, model in TIMM.items()),
        *(Family("torchvision", name, f"torchvision:{name}") for name in classifiers()),
        *(Family("open_clip", kind, f"open_clip:{name}") for kind, name in OPEN_CLIP.items()),
    ]


def classifiers() -> list[str]:
    """torchvision's models that classify pictures."""
    return sorted(torchvision.models.list_models(module=torchvision.models))


@dataclass(frozen=True)
class Finding:
    """What the laws found in a model: a row of the table.

    Attributes:
        input: the model's input.
        layer: the default layer.
        layout: how it is read.
        guided: what guided backprop does.
        oblong: the grid of an input that is not square, or why there is none.
    """

    input: str
    layer: str
    layout: str
    guided: str
    oblong: str


def load(model: str) -> Network:
    """The untrained model."""
    return models.load(model, weights="random", text=PROMPTS if model.startswith("open_clip:") else ())


def examine(model: str) -> Finding:
    """Hold a model to the laws.

    Of torchvision's larger siblings of a model that is held to all of them, only what their size may change is seen:
    that there is a map with a place.

    Raises:
        AssertionError: it breaks one.
        RequestError: it is refused.
    """
    whole = model not in siblings()
    network = load(model)
    module = network.module
    height, width = network.prepare.size if whole else _small(module, network.prepare.size)
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        module(images[:1])  # some networks build tables at their first image
    explain = Explainer(network)
    with untouched(module):
        [[alone]] = explain(images[1:], [1])
        [layer] = explain.layers
        layout = explain._layouts[layer]
        assert alone.map.shape == layout.grid, (alone.map.shape, layout)
        assert np.isfinite(alone.map).all()
        assert np.ptp(alone.map) > 1e-5 * np.abs(alone.map).max(), "the map is constant"
        if whole:
            [one] = explain(images, [0, 1])[1]
            difference = np.abs(alone.map - one.map).max() / np.abs(alone.map).max()
            assert difference < TOLERANCE, f"alone it differs by {difference:.1e}"
        guided = _guided(network, images[:1]) if whole else ""
    if model in UNPLACED:
        elsewhere, _ = UNPLACED[model]
        other = Explainer(network, layers=[elsewhere])
        other.check(images[:1])
        _hold_place(module, elsewhere, other._layouts[elsewhere], (height, width))
    else:
        _hold_place(module, layer, layout, (height, width))
    oblong = _oblong(network, layer) if whole else ""
    return Finding(f"{height}x{width}", layer, str(layout), guided, oblong)


def _small(module: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """A smaller input, where the model takes one."""
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, *SMALL))
    except Exception:
        return size
    return SMALL


def _hold_place(module: nn.Module, layer: str, layout: Layout, size: tuple[int, int]) -> None:
    broken = broken_law(module, layer, layout, size)
    assert not broken, f"{size} {layer} {layout}: {broken}"


@cache
def siblings() -> frozenset[str]:
    """torchvision's models that have a smaller one in the same module."""
    smallest: dict[str, tuple[int, str]] = {}
    for name in classifiers():
        builder = torchvision.models.get_model_builder(name)
        size = torchvision.models.get_model_weights(name)["DEFAULT"].meta["num_params"]
        smallest[builder.__module__] = min(smallest.get(builder.__module__, (size, name)), (size, name))
    whole = {name for _, name in smallest.values()}
    return frozenset(f"torchvision:{name}" for name in classifiers() if name not in whole)


def _guided(network: Network, image: torch.Tensor) -> str:
    explain = Explainer(network, method="guided-backprop")
    try:
        [[one]] = explain(image, [0])
    except (RequestError, PictureError) as error:
        assert error.message
        reason = "meets none" in error.message and "no ReLU"
        return f"refused: {reason or error.message}"
    assert one.map.shape == tuple(image.shape[1:])
    assert np.isfinite(one.map).all()
    assert np.ptp(one.map) > 0
    return "runs"


def _oblong(network: Network, layer: str) -> str:
    """The law of place for an input of about half the height, where the model takes one."""
    height, width = network.prepare.size
    size = (32 * math.ceil(height / 64), width)
    module = network.module
    image = probe_image(size, next(module.parameters()).dtype, torch.device("cpu"))
    try:
        with torch.no_grad():
            module(image)
    except Exception:
        return "square only"
    explain = Explainer(network, layers=[layer])
    try:
        explain.check(image)
    except RequestError as error:
        return f"refused: {error.message.partition(': ')[2]}"
    layout = explain._layouts[layer]
    if min(layout.grid) < 3:
        return f"{'x'.join(map(str, layout.grid))}, too few cells for the law"
    _hold_place(module.float(), layer, layout, size)
    return "x".join(map(str, layout.grid))


def is_left_out(model: str) -> bool:
    """Whether a model is too large to be examined here."""
    return model in HUGE and not os.environ.get("CAMCLI_HUGE")


INTRODUCTION = """# Architectures

What camcli reads in each architecture family of the libraries it stands on, without any option. This page is written by
`python tests/make_architectures.py`, and the suite (`pytest tests/test_zoo.py`) holds every row to it.

Each model is untrained, from seed 0, and kept to these laws: the map has the grid's size, is finite, not constant; an
image alone has the map that it has in a batch; the model is left untouched; guided backprop runs or says why not; and
the **law of place**: what changes in one quadrant of the input changes the layer most in that quadrant of its grid, and
each border of the grid hears its own side most, which a transposed, shifted or wrongly reshaped grid breaks. Where the
model takes an input that is not square (about half as high), its grid is held to the law of place too. torchvision's
larger siblings of a model are held to the map's laws and the law of place only, at 128 x 128 where they take it.

- **layer**: the default layer, by the rule in [architecture.md](architecture.md).
- **read as**: its order in memory, the grid, and the tokens before and behind the patches.
- **not square**: the grid of such an input; empty where it was not tried.

## A family that needs special treatment

How an output is read follows from its shape and from two facts of the model, the tokens in front and the patch grid.
Facts that a library gets wrong or does not state are put right in one place, `camcli/models/timm.py`: `_prefix` and
`_grid`, with `LATE_CLASS_TOKEN` for networks whose class token joins late. A new kind of layout is a function beside
`readings` in `camcli/layout.py`; the default layer is chosen in `camcli/survey.py`. A new family is a line in
`tests/zoo.json`.
"""


def page() -> str:
    """The table, out of the stored results."""
    results = json.loads(RESULTS.read_text())
    parts = [INTRODUCTION]
    for library in ("timm", "torchvision", "open_clip"):
        members = [family for family in families() if family.library == library]
        passed = [family for family in members if family.model in results]
        parts += [f"## {library}: {len(passed)} of {len(members)}", _about(library), HEAD]
        rows = [
            f"| {family.name} | {family.model.partition(':')[2]} | {' | '.join(_cells(results[family.model]))} |"
            for family in passed
        ]
        unplaced = [
            f"- {family.name}: the law of place is held at `{UNPLACED[family.model][0]}`, since "
            + UNPLACED[family.model][1]
            for family in passed
            if family.model in UNPLACED
        ]
        parts[-1] = "\n".join([parts[-1], *rows])
        if unplaced:
            parts.append("\n".join(unplaced))
        absent = [family for family in members if family.model not in results]
        if absent:
            reasons = [f"- {family.name} (`{family.model.partition(':')[2]}`): {_reason(family)}" for family in absent]
            parts.append("Without a row:\n\n" + "\n".join(reasons))
    return "\n\n".join(part.strip() for part in parts) + "\n"


HEAD = """| family | model | input | layer | read as | guided backprop | not square |
|---|---|---|---|---|---|---|"""


def _about(library: str) -> str:
    return {
        "timm": "The smallest model of each of timm's modules.",
        "torchvision": "Every classification model.",
        "open_clip": "A model of each kind of image tower, with prompts as classes.",
    }[library]


def _cells(found: dict[str, str]) -> list[str]:
    return [found["input"], f"`{found['layer']}`", found["layout"], found["guided"], found["oblong"]]


def _reason(family: Family) -> str:
    if family.model in REFUSED:
        return REFUSED[family.model]
    if family.model in HUGE:
        return "examined with CAMCLI_HUGE=1 only, for its size; its smaller siblings stand above"
    assert family.model in PENDING
    return "not examined yet"


# Families that have not been examined yet: what is left to do, and no reason.
PENDING = frozenset(json.loads((Path(__file__).parent / "zoo_pending.json").read_text()))
