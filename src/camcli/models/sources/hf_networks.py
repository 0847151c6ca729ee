"""Networks of transformers' models: classifiers, zero-shot models and backbones, with their own preprocessing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from transformers import AutoImageProcessor

from camcli.base.errors import RequestError
from camcli.engine.layers.probe import probe_image, probe_layers
from camcli.engine.layers.ranking import rank_layers
from camcli.engine.network import Network
from camcli.models.adapters import headless, resize, zero_shot
from camcli.models.sources import hf_detection, hf_text_detection, hf_zero_shot
from camcli.models.sources.hf_config import (
    PROJECTED,
    Kind,
    choose_activation,
    count_prefix_tokens,
    count_suffix_tokens,
    find_class,
    find_patch_grid,
    read_image_size,
    read_labels,
)
from camcli.models.sources.hf_files import ModelFiles
from camcli.models.sources.hf_pixels import score_pixels
from camcli.models.sources.hf_preprocess import read_processor
from camcli.models.sources.hf_surgery import make_resizable, remove_head
from camcli.models.sources.hf_weights import build_module, read_config
from camcli.models.spec import ModelSpec
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC, OutputSpec

# Kinds of models that give every pixel scores, or a value.
SCORES_PIXELS = ("pixels", "masks", "depth")
# Kinds of models that find boxes.
FINDS_BOXES = ("boxes", "prompted boxes")


def build_network(files: ModelFiles, spec: ModelSpec) -> Network:
    """Make a network of a model's files.

    Raises:
        RequestError: as :func:`camcli.models.sources.hf.load`.
    """
    cls, kind = find_class(files)
    _check_request(files, kind, spec)
    config = read_config(files)
    processor = _load_processor(files)
    preprocess, notes = read_processor(processor, files.name, pads=kind in FINDS_BOXES)
    model, origin, about = build_module(files, cls, config, spec)
    if not cls.__module__.startswith("transformers."):
        about = (*about, f"runs Python code that comes with the model: {cls.__name__}, in {files.folder}")
    tower = hf_zero_shot.find_towers(model, files.name)[0] if kind == "prompts" else model
    native_size = read_image_size(config) or preprocess.size
    activation = "none" if kind == "depth" else choose_activation(model.config)
    if kind == "boxes":
        activation = hf_detection.make_detector(model, processor, files.name).activation
    elif kind == "prompted boxes":
        activation, about = "sigmoid", (*about, *hf_text_detection.make_detector(model, files, spec))
    else:
        make_resizable(tower, native_size)
    if spec.size:
        resize.resize_module(tower, native_size, spec.size, files.name)
        preprocess = preprocess.adapt(spec.size)
    if kind in ("masks", "depth"):
        about = (*about, *score_pixels(model, kind, files.name))
    network = Network(
        name=files.name,
        module=model,
        preprocess=preprocess,
        labels=_name_classes(model, kind, spec),
        weights=spec.weights_kind,
        origin=origin,
        activation=activation,
        prefix=count_prefix_tokens(tower),
        suffix=count_suffix_tokens(tower),
        grid=find_patch_grid(config, preprocess.size),
        notes=(*notes, *about),
        output_spec=_choose_output_spec(kind),
    )
    if spec.headless:
        return _remove_head(network, kind, spec)
    if kind in SCORES_PIXELS:
        return replace(network, layer=_find_backbone_layer(network))
    if kind == "boxes":
        return hf_detection.find_layers(network)
    if kind == "prompted boxes":
        return hf_text_detection.find_layers(network)
    return _compare_with_prompts(network, files, spec) if kind == "prompts" else network


def _name_classes(model: Any, kind: Kind, spec: ModelSpec) -> Labels:
    if kind == "depth":
        return Labels(("depth",))
    if kind == "prompted boxes":
        return hf_zero_shot.name_prompts(spec)
    return read_labels(model.config)


def _choose_output_spec(kind: Kind) -> OutputSpec:
    if kind in SCORES_PIXELS:
        return OutputSpec("segment", "logits")
    return OutputSpec("detect") if kind in FINDS_BOXES else DEFAULT_OUTPUT_SPEC


def _find_backbone_layer(network: Network) -> str:
    """Find the last layer of a segmentation model's backbone: layers behind it see little but their own pixels."""
    module: Any = network.module
    # What is returned by the backbone itself is a tensor for each of its stages.
    body = module.base_model_prefix
    body = body if body and hasattr(module, body) else "backbone"
    names = (name for name, _ in module.named_modules())
    inside = next((name for name in names if name.endswith("pixel_level_module.encoder")), body) + "."
    noise = probe_image(network.preprocess.size, torch.float32, torch.device("cpu"))
    found = probe_layers(module, noise, network.prefix, network.grid, network.read)
    return next(iter(rank_layers(module, [one for one in found if one.name.startswith(inside)])), "")


def _remove_head(network: Network, kind: Kind, spec: ModelSpec) -> Network:
    """Return a network of a model's features instead of its classes or prompts."""
    model: Any = network.module
    module = model
    if kind == "prompts":
        visual, projection = hf_zero_shot.find_towers(model, network.name)
        module = visual if spec.pool == "none" else hf_zero_shot.ImageTower(visual, projection)
    elif kind == "classes":
        module = remove_head(model, network.name, spec.pool)
    path = "last_hidden_state" if spec.pool == "none" else ""
    if kind == "features" and spec.pool == "keep":
        path = "image_embeds" if type(model).__name__.endswith(PROJECTED) else "pooler_output"
        if getattr(headless.run_on_noise(model, network.preprocess.size), path, None) is None:
            raise RequestError(
                f"{network.name} ({type(model).__name__}) gives no pooled features, but tokens",
                "read them as a map, of which a feature is the mean: --pool none",
            )
    labels, output_spec = headless.probe_channels(
        module, network.preprocess.size, network.name, spec.pool, network.prefix, network.grid, path=path
    )
    return replace(network, module=module, labels=labels, activation="none", output_spec=output_spec, headless=True)


def _compare_with_prompts(network: Network, files: ModelFiles, spec: ModelSpec) -> Network:
    """Return a network whose classes are prompts."""
    module, notes = hf_zero_shot.build_classifier(network.module, files, spec)
    labels = hf_zero_shot.name_prompts(spec)
    has_bias = hasattr(network.module, "logit_bias")
    return replace(
        network,
        module=module,
        labels=labels,
        activation=zero_shot.choose_activation(len(labels), has_bias),
        notes=(*network.notes, *notes),
        cosine=(float(module.scale), float(module.bias)),
    )


def _check_request(files: ModelFiles, kind: Kind, spec: ModelSpec) -> None:
    """Check that a kind of model has what is requested of it."""
    if kind == "prompts" and spec.text_tower:
        raise RequestError(f"{files.name} has a text tower of its own", "leave --text-tower out")
    if kind == "prompts":
        zero_shot.check_wanted_prompts(spec, f"{files.name} ({files.architecture})")
    elif kind == "prompted boxes":
        hf_text_detection.check_request(spec, f"{files.name} ({files.architecture})")
    elif spec.text and not spec.text_tower:
        raise RequestError(
            f"prompts are for models with a text encoder, and {files.name} ({files.architecture}) has none",
            "leave --text and --texts out; or add a text encoder: --text-tower path/to/file.py:function",
        )
    if kind in (*SCORES_PIXELS, *FINDS_BOXES) and spec.headless:
        what = "finds boxes" if kind in FINDS_BOXES else "scores every pixel"
        raise RequestError(
            f"{files.name} {what}, and a backbone without its head gives features of the whole image",
            f"name the classifier of the same backbone; {headless.LAYER_HINT}",
        )
    if kind == "features" and not spec.headless:
        raise RequestError(
            f"{files.name} ({files.architecture}) returns features, not class scores",
            "explain its features: --head none --target channel:0; or its similarity to an image: --target "
            "similar:FILE; or choose one with a classifier (...ForImageClassification)",
        )


def _load_processor(files: ModelFiles) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(
            files.folder, local_files_only=True, trust_remote_code=files.may_run_code
        )
    except Exception as error:  # settings of other versions and missing packages raise all kinds of errors
        raise RequestError(
            f"the image processor of {files.name} cannot be loaded: {(str(error).splitlines() or [''])[0]}",
            "another version of transformers may read it; or save it again: processor.save_pretrained(FOLDER)",
        ) from error
