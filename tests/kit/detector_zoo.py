"""The zoo of detectors: every level that boxes are explained at keeps the law of place."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import hf_detectors
import hf_text_detectors
import torch
import torchvision
from place import broken_law
from torch import Tensor, nn

from camcli import Explainer, Network
from camcli.engine.hooks.capture import find_layer, run_until
from camcli.models.load import load

# Input of torchvision's detectors, smaller than they are made for; SSD's anchors fit only their own size. In the
# coarsest level of D-FINE's kind all cells attend to all, and 4 x 4 hear hardly more of their own quadrant.
SIDE = 256
SIZES = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320, "d_fine": 256, "deimv2": 256}


def models() -> list[str]:
    """Every architecture of torchvision and transformers that finds boxes: ``torchvision:fcos_resnet50_fpn``, ...

    Second versions of torchvision's differ in their training and heads, and have the levels of the first. SSD300 is
    left out: its VGG takes minutes, and SSDLite stands for it.
    """
    names = [
        name for name in torchvision.models.list_models(module=torchvision.models.detection) if not name.endswith("_v2")
    ]
    types = (*hf_detectors.FAMILIES, *hf_text_detectors.FAMILIES)
    return [*(f"torchvision:{name}" for name in sorted(names)), *(f"hf:{one}" for one in sorted(types))]


class UntilLayer(nn.Module):
    """A network that ends as soon as a layer has run: what comes after has no place in this law."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network, self._layer = network, layer

    def forward(self, images: Tensor) -> None:
        """Run the network up to the layer."""
        run_until([find_layer(self.network, self._layer)[0]], lambda: self.network(images))


@cache
def _write(model_type: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"camcli-{model_type}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kit = hf_detectors if model_type in hf_detectors.FAMILIES else hf_text_detectors
    return kit.save(folder, model_type)


def _load(model: str) -> Network:
    library, _, name = model.partition(":")
    size = str(SIZES.get(name, "" if library == "hf" else SIDE))
    return load(f"hf:{_write(name)}" if library == "hf" else model, weights="random", size=size, min_score=0.0)


def examine(model: str) -> tuple[str, str, str]:
    """Hold each level, or the default layer, to the law of place; a level of fewer than four cells locates nothing.

    Returns:
        Input, layers and how these are read, for the table.

    Raises:
        AssertionError: one breaks it.
    """
    network = _load(model)
    height, width = network.preprocess.size
    explain = Explainer(network)
    explain.check(torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(4)))
    for layer in explain.layers:
        layout = explain.layouts[layer]
        if min(layout.grid) > 1:
            until = UntilLayer(network.module, layer).eval()
            broken = broken_law(until, f"network.{layer}", layout, (height, width))
            assert not broken, f"{layer} {layout}: {broken}"
    first, *_, last = (*explain.layers, *explain.layers)
    named = f"`{first}`" if first == last else f"`{first}` to `{last.rpartition(':')[2]}`"
    each = [explain.layouts[layer] for layer in explain.layers]
    grids = ", ".join("x".join(map(str, layout.grid)) for layout in each[1:])
    return f"{height}x{width}", named, f"{each[0]}{', ' if grids else ''}{grids}"
