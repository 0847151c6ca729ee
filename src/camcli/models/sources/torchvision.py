"""Models of torchvision: `resnet50`, or `resnet50/IMAGENET1K_V2` for one of several published weights.

Classification, segmentation and detection models.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn
from torchvision.models import MaxVit, VisionTransformer, WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from camcli.base.errors import RequestError
from camcli.engine.hooks.input_size import follow
from camcli.engine.layers.layout import scaled
from camcli.engine.network import Network
from camcli.models.adapters import headless, resize
from camcli.models.sources.torchvision_config import (
    count_classes,
    count_detected_classes,
    last_stage,
    read_labels,
    read_prepare,
    token_layout,
)
from camcli.models.sources.torchvision_surgery import SizeAsGiven, without_head, without_pooling
from camcli.models.sources.torchvision_weights import (
    HOMES,
    build_model,
    fit_file,
    load_pretrained,
    published_weights,
    resolve_weights,
    task_of,
)
from camcli.models.spec import Request
from camcli.models.weights import hub, skip_init
from camcli.targets.readers.spec import Outlet

POSITIONS = "positions are interpolated to the cells of each input as torchvision does it (bicubic)"


def names() -> list[str]:
    """Every model, bare and with each of its published weights."""
    listed = []
    for name in (name for home in HOMES.values() for name in torchvision.models.list_models(module=home)):
        listed += [name, *(f"{name}/{weights}" for weights in published_weights(name))]
    return listed


def has(name: str) -> bool:
    """Whether torchvision has this model; which weights are meant is checked by ``load``."""
    return name.partition("/")[0] in torchvision.models.list_models()


def cached(name: str) -> bool:
    """Whether the model's weights are at hand."""
    return hub.UrlFile(resolve_weights(name).url).cached() is not None


def load(request: Request) -> Network:
    """A model with the preprocessing and the class names that belong to its weights.

    Raises:
        RequestError: there is no such model or weights, the model gives no class scores, or the weights cannot be had
            or do not fit; or its head or its pooling cannot be taken off.
    """
    weights = resolve_weights(request.name)
    model = request.name.partition("/")[0]
    if request.headless and task_of(model) != "classify":
        raise RequestError(
            f"torchvision:{model} {'scores every pixel' if task_of(model) == 'segment' else 'finds boxes'}, and a "
            "backbone without its head gives features of the whole picture",
            f"name the classifier of the same backbone, such as resnet50; {headless.AT_A_LAYER}",
        )
    name = f"torchvision:{model}/{weights.name}"
    like = f"preprocessing is that of {weights.name}"
    if request.file:
        module, notes = skip_init.built(lambda: fit_file(model, weights, name, request))
        return _network(module, name, weights, request, f"the file {request.file}", (*notes, like))
    if request.random:
        module = build_model(model, weights)
        return _network(module, name, weights, request, f"random numbers from seed {request.seed}", (like,))
    return _network(load_pretrained(model, weights, name), name, weights, request, weights.url)


def _network(
    module: nn.Module, name: str, weights: WeightsEnum, request: Request, origin: str, notes: tuple[str, ...] = ()
) -> Network:
    model = request.name.partition("/")[0]
    task = task_of(model) or "classify"
    prepare, about_prepare = read_prepare(module, weights, task)
    own, (prefix, grid) = prepare.size, token_layout(module)
    if isinstance(module, VisionTransformer):
        follow(module, (module.image_size, module.image_size), _change, POSITIONS)
    if request.size:
        module = resize.resized(module, own, request.size, name, _ways(module, model, request.size))
        prepare, grid = prepare.changed(request.size), scaled(grid, own, request.size)
    if task == "detect":
        module.transform = SizeAsGiven(module.transform)
        # Boxes that score less do not change which of the others are kept, so that those asked for can be had.
        judge: Any = getattr(module, "roi_heads", module)
        judge.score_thresh = min(judge.score_thresh, request.min_score)
    layer = last_stage(module, model, task)
    if request.headless:
        if request.pool == "none":
            layer = without_pooling(module, name, model, prepare.size)
        else:
            without_head(module)
        labels, outlet = headless.channels(module, prepare.size, name, request.pool, prefix, grid)
    else:
        labels, outlet = (
            read_labels(count_detected_classes(module) if task == "detect" else count_classes(module), weights),
            Outlet(task),
        )
    return Network(
        name=name,
        module=module.eval(),
        prepare=prepare,
        labels=labels,
        weights=request.kind,
        origin=origin,
        activation="none" if request.headless else "softmax",
        prefix=prefix,
        grid=grid,
        notes=notes + about_prepare,
        outlet=outlet,
        layer=layer,
        pyramid="backbone" if task == "detect" else "",
        headless=request.headless,
    )


def _change(module: Any, size: tuple[int, int]) -> None:
    """Make a vision transformer what it must be for input of this size, as torchvision interpolates its positions."""
    side, patch, own = size[0], module.patch_size, module.encoder.pos_embedding
    if side != size[1]:
        raise ValueError("torchvision's vision transformers take squares only (timm's do not)")
    if side % patch:
        raise ValueError(f"it cuts pictures into patches of {patch}x{patch}, which does not go into it evenly")
    state = interpolate_embeddings(side, patch, OrderedDict({"encoder.pos_embedding": own}))
    module.image_size = side
    module.encoder.pos_embedding = nn.Parameter(state["encoder.pos_embedding"], own.requires_grad)


def _ways(module: nn.Module, model: str, size: tuple[int, int]) -> list[Callable[[], nn.Module]]:
    """How a model can be had for another size; none: as it is."""

    def max_vit() -> nn.Module:
        made = torchvision.models.get_model(model, weights=None, input_size=size, num_classes=count_classes(module))
        return resize.transplanted(module.state_dict(), made)

    return [max_vit] if isinstance(module, MaxVit) else []
