"""Who makes a Grad-CAM in the benchmarks: camcli, other libraries as their pages show them and tuned, and by hand.

``tuned`` is what a user who knows PyTorch gives a library: channels last, no weight with a gradient but the last one of
the layer, where the graph then begins, no gradient of the image, and on a CPU freed memory kept. ``naive`` is
``model(x)`` under ``inference_mode`` as everybody writes it, and ``naive tuned`` has the same advantages.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

import camcli
from camcli import Explainer
from camcli.engine.devices import cast_floats
from camcli.engine.precision import DTYPES
from camcli.engine.speed.tune import compile_prefix, optimize_weights

CLASS = 3
# The layer of each; of others the default one.
LAYERS = {"resnet50": "layer4"}
CONTENDERS = (
    *("naive tuned", "camcli", "camcli bf16", "camcli compiled", "camcli compiled bf16", "hand-written"),
    *("pytorch-grad-cam tuned", "torchcam tuned", "captum tuned"),
    *("naive", "pytorch-grad-cam", "torchcam", "captum"),
)
GUIDED = ("naive tuned", "camcli guided", "captum guided")

Turn = Callable[[], Any]


def network(name: str, device: str = "cpu") -> tuple[Any, tuple[int, int], str]:
    """The network untrained, the size of its input, and the layer; the same in every process."""
    made = camcli.load(name if ":" in name else f"timm:{name}", weights="random")
    explainer = Explainer(made, layers=[LAYERS[name]] if name in LAYERS else [])
    explainer.check(torch.zeros(1, 3, *made.preprocess.size))
    made.module.to(device)
    return made, made.preprocess.size, explainer.layers[0]


def keeps_memory(who: str) -> bool:
    """Whether a contender's process keeps freed memory."""
    return who.startswith(("camcli", "hand-written")) or who.endswith("tuned")


def contender(who: str, made: Any, size: tuple[int, int], layer: str, batch: int) -> Turn:
    """What one turn of a contender is, on the network's device and in its precision."""
    like = next(made.module.parameters())
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(like)
    name, _, how = who.partition(" ")
    if name == "camcli":
        return ours(how.split(), made, layer, images)
    if how == "tuned":
        images = images.contiguous(memory_format=torch.channels_last)
        made.module.to(memory_format=torch.channels_last).requires_grad_(False)
        list(made.module.get_submodule(layer).parameters())[-1].requires_grad_(True)
    elif name == "torchcam" or how == "guided":
        images.requires_grad_()
    turns = {"naive": naive, "hand-written": by_hand, "pytorch-grad-cam": pytorch_grad_cam, "torchcam": torchcam}
    return turns.get(name, guided_captum if how == "guided" else captum)(made.module, layer, images)


def ours(how: list[str], made: Any, layer: str, images: Any) -> Turn:
    """Camcli as its command runs it: the network is its own to rearrange."""
    explainer = Explainer(made, layers=[layer], method="guided-gradcam" if "guided" in how else "gradcam")
    optimize_weights(explainer, images[:1])
    for precision in DTYPES.keys() & how:
        cast_floats(made.module, DTYPES[precision])
    explainer.check(images[:1])
    if "compiled" in how:
        done = compile_prefix(explainer, images)
        print(done.reason or f"compiled in {done.compile_seconds:.1f} s", file=sys.stderr)
    # As a run does it: an image whose map is zero everywhere, which happens without training, does not end it.
    return lambda: explainer.results(images, lambda row, scores: [CLASS])


def naive(module: Any, _: str, images: Any) -> Turn:
    """A forward pass."""

    def run() -> Any:
        with torch.inference_mode():
            return module(images)

    return run


def by_hand(module: Any, layer: str, images: Any) -> Turn:
    """The script of hand_written.py."""
    from hand_written import grad_cam

    explain = grad_cam(module, layer)
    return lambda: explain(images, CLASS)


def pytorch_grad_cam(module: Any, layer: str, images: Any) -> Turn:
    """pytorch-grad-cam."""
    from hand_written import grid
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = GradCAM(module, [module.get_submodule(layer)], reshape_transform=grid)
    return lambda: cam(images, [ClassifierOutputTarget(CLASS)] * len(images))


def torchcam(module: Any, layer: str, images: Any) -> Turn:
    """Torchcam."""
    from torchcam.methods import GradCAM

    extractor = GradCAM(module, layer)
    return lambda: extractor([CLASS] * len(images), module(images))


def captum(module: Any, layer: str, images: Any) -> Turn:
    """Captum's LayerGradCam."""
    from captum.attr import LayerGradCam

    attribution = LayerGradCam(module, module.get_submodule(layer))
    return lambda: attribution.attribute(images, target=CLASS)


def guided_captum(module: Any, layer: str, images: Any) -> Turn:
    """Captum's GuidedGradCam."""
    from captum.attr import GuidedGradCam

    attribution = GuidedGradCam(module, module.get_submodule(layer))
    return lambda: attribution.attribute(images, target=CLASS)
