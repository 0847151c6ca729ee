"""Classification, segmentation and detection models of torchvision: ``resnet50`` or ``resnet50/IMAGENET1K_V2``."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn
from torchvision.models import MaxVit, VisionTransformer, WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from camcli.base.errors import RequestError
from camcli.engine.hooks.input_size import adapt_to_input_size
from camcli.engine.layers.layout import scale_grid
from camcli.engine.network import Network
from camcli.models.adapters import headless, resize
from camcli.models.sources.torchvision_config import (
    count_classes,
    count_detected_classes,
    find_activation,
    find_last_stage,
    find_token_layout,
    read_labels,
    read_preprocess,
)
from camcli.models.sources.torchvision_surgery import TransformWithoutResize, remove_head, remove_pooling
from camcli.models.sources.torchvision_weights import (
    TASK_MODULES,
    build_model,
    find_task,
    list_weights,
    load_file,
    load_pretrained,
    resolve_weights,
)
from camcli.models.spec import ModelSpec
from camcli.models.weights import hub, skip_init
from camcli.targets.readers.spec import OutputSpec

POSITIONS_NOTE = "position embeddings are interpolated to each input's grid as in torchvision (bicubic)"


def names() -> list[str]:
    """List every model, bare and with each of its published weights."""
    found = []
    for name in (name for home in TASK_MODULES.values() for name in torchvision.models.list_models(module=home)):
        found += [name, *(f"{name}/{weights}" for weights in list_weights(name))]
    return found


def list_unlisted() -> list[str]:
    """List the models that torchvision has and that are not listed, since they give no scores of classes."""
    return list(torchvision.models.list_models())


def has(name: str) -> bool:
    """Return whether torchvision has this model; the weights' name is checked by :func:`load`."""
    return name.partition("/")[0] in torchvision.models.list_models()


def cached(name: str) -> bool:
    """Return whether the model's weights are on this machine."""
    return hub.UrlFile(resolve_weights(name).url).find_cached() is not None


def load(spec: ModelSpec) -> Network:
    """Load a torchvision model with the preprocessing and class names of its weights.

    Raises:
        RequestError: there is no such model or weights, the model returns no class scores, the weights are unavailable
            or do not fit, or its head or pooling cannot be removed.
    """
    weights = resolve_weights(spec.name)
    model = spec.name.partition("/")[0]
    if spec.headless and find_task(model) != "classify":
        raise RequestError(
            f"torchvision:{model} {'scores every pixel' if find_task(model) == 'segment' else 'finds boxes'}, and a "
            "backbone without its head gives features of the whole image",
            f"name the classifier of the same backbone, such as resnet50; {headless.LAYER_HINT}",
        )
    name = f"torchvision:{model}/{weights.name}"
    note = f"preprocessing is that of {weights.name}"
    if spec.weights_file:
        module, notes = skip_init.build_without_init(lambda: load_file(model, weights, name, spec))
        return _build_network(module, name, weights, spec, f"the file {spec.weights_file}", (*notes, note))
    if spec.is_random:
        module = build_model(model, weights)
        return _build_network(module, name, weights, spec, f"random numbers from seed {spec.seed}", (note,))
    return _build_network(load_pretrained(model, weights, name), name, weights, spec, weights.url)


def _build_network(
    module: nn.Module, name: str, weights: WeightsEnum, spec: ModelSpec, origin: str, notes: tuple[str, ...] = ()
) -> Network:
    model = spec.name.partition("/")[0]
    task = find_task(model) or "classify"
    preprocess, preprocess_notes = read_preprocess(module, weights, task)
    native_size, (prefix, grid) = preprocess.size, find_token_layout(module)
    if isinstance(module, VisionTransformer):
        adapt_to_input_size(module, (module.image_size, module.image_size), _set_input_size, POSITIONS_NOTE)
    if spec.size:
        module = resize.resize_module(module, native_size, spec.size, name, _list_rebuilds(module, model, spec.size))
        preprocess, grid = preprocess.adapt(spec.size), scale_grid(grid, native_size, spec.size)
    if task == "detect":
        module.transform = TransformWithoutResize(module.transform)
        # Torchvision's own threshold must not drop boxes above min_score; boxes below it do not affect the others.
        detector: Any = getattr(module, "roi_heads", module)
        detector.score_thresh = min(detector.score_thresh, spec.min_score)
    layer = find_last_stage(module, model, task)
    if spec.headless:
        if spec.pool == "none":
            layer = remove_pooling(module, name, model, preprocess.size)
        else:
            remove_head(module)
        labels, output_spec = headless.probe_channels(module, preprocess.size, name, spec.pool, prefix, grid)
    else:
        labels, output_spec = (
            read_labels(count_detected_classes(module) if task == "detect" else count_classes(module), weights),
            OutputSpec(task),
        )
    return Network(
        name=name,
        module=module.eval(),
        preprocess=preprocess,
        labels=labels,
        weights=spec.weights_kind,
        origin=origin,
        activation="none" if spec.headless else find_activation(module),
        prefix=prefix,
        grid=grid,
        notes=notes + preprocess_notes,
        output_spec=output_spec,
        layer=layer,
        pyramid="backbone" if task == "detect" else "",
        headless=spec.headless,
    )


def _set_input_size(module: Any, size: tuple[int, int]) -> None:
    """Adapt a vision transformer to an input size, with torchvision's interpolation of position embeddings."""
    side, patch, positions = size[0], module.patch_size, module.encoder.pos_embedding
    if side != size[1]:
        raise ValueError("torchvision's vision transformers take squares only (timm's do not)")
    if side % patch:
        raise ValueError(f"it cuts images into patches of {patch}x{patch}, which does not divide it evenly")
    state = interpolate_embeddings(side, patch, OrderedDict({"encoder.pos_embedding": positions}))
    module.image_size = side
    module.encoder.pos_embedding = nn.Parameter(state["encoder.pos_embedding"], positions.requires_grad)


def _list_rebuilds(module: nn.Module, model: str, size: tuple[int, int]) -> list[Callable[[], nn.Module]]:
    """List functions that rebuild a model for an input size; empty if it takes other sizes as it is."""

    def rebuild_max_vit() -> nn.Module:
        made = torchvision.models.get_model(model, weights=None, input_size=size, num_classes=count_classes(module))
        return resize.transplant_weights(module.state_dict(), made)

    return [rebuild_max_vit] if isinstance(module, MaxVit) else []
