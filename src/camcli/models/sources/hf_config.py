"""Reading of a transformers configuration: the kind of model, class names, activation, input size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto import modeling_auto

from camcli.base.errors import RequestError
from camcli.models.sources.hf_files import ModelFiles, list_code_files
from camcli.targets.labels import Labels
from camcli.targets.target import Activation

# What a class of transformers gives: scores of classes, of an image or of each pixel; of prompts; or features.
# Pixels may be scored by masks of queries, each with a class, or have a depth; boxes are of queries too, with the
# model's classes or with prompts.
Kind = Literal["classes", "pixels", "masks", "depth", "boxes", "prompted boxes", "prompts", "features"]
# What code of a model's own may be for, by transformers' name, and what it gives.
OWN_KINDS: dict[str, Kind] = {
    "AutoModelForImageClassification": "classes",
    "AutoModelForSemanticSegmentation": "pixels",
    "AutoModel": "features",
}
# Types of classifiers that no map can be made of, and why.
WITHOUT_A_PLACE = {
    "imagegpt": "it reads an image as a text of colours, which have no gradient",
    "perceiver": "it reads an image into latents, which have no place in it",
    "shieldgemma2": "it answers a text about an image by the next word, and has no class scores of the image alone",
}
# Names of classes that were never given names.
PLACEHOLDER = re.compile(r"LABEL_\d+")
# Types of models without tokens whose output is tokens after all, the pooled one first.
POOLED_FIRST = ("dinov3_convnext",)
# Names of the embeddings' own tokens, which precede those of the patches.
PREFIX_TOKENS = ("cls_token", "class_embedding", "distillation_token", "register_tokens")
# The name of those that follow the patches'.
SUFFIX_TOKENS = "detection_tokens"
# Image towers of CLIP models whose output is their embedding.
PROJECTED = "VisionModelWithProjection"
# Heads whose place is in training only: their body gives features.
PRETRAINING = ("ForMaskedImageModeling", "ForPreTraining", "Backbone")


def find_class(files: ModelFiles) -> tuple[Any, Kind]:
    """Find the class of a model in transformers, and what its output is.

    Raises:
        RequestError: the model runs code of its own, which is not trusted or fails; is unknown to the installed
            version, or is of another kind.
    """
    name, model_type = files.architecture, files.config["model_type"]
    if not name:
        name = _first(modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.get(model_type, ""))
    found = getattr(transformers, name, None) if name else None
    if found is None and "auto_map" in files.config:
        return _import_own_class(files)
    if found is None:
        raise RequestError(
            f"transformers {transformers.__version__} has no {name or f'image classifier of type {model_type!r}'}, "
            f"which {files.name} is built on",
            "another version may have it: pip install -U transformers",
        )
    if model_type in WITHOUT_A_PLACE:
        raise RequestError(
            f"{files.name} is a {name}: {WITHOUT_A_PLACE[model_type]}",
            "choose another model; rise, which needs no layer, works with a function of yours that takes images: "
            "-m my_model.py:make",
        )
    if name in _flatten(modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES):
        return found, "classes"
    if name in _flatten(modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES):
        return found, "pixels"
    if name in _flatten(modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES):
        return found, "masks"
    if name in _flatten(modeling_auto.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES):
        return found, "depth"
    if name in _flatten(modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES):
        return found, "boxes"
    if name in _flatten(modeling_auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES):
        return found, "prompted boxes"
    if name in _flatten(modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES):
        return found, "prompts"
    if name.endswith(PROJECTED):
        return found, "features"
    backbone = modeling_auto.MODEL_MAPPING_NAMES.get(model_type, "")
    body = getattr(transformers, _first(backbone), None) if backbone else None
    if getattr(body, "main_input_name", "") == "pixel_values" and (
        name.endswith(PRETRAINING) or name == _first(backbone)
    ):
        return body, "features"
    raise RequestError(
        f"{files.name} is a {name}, which gives neither classes of an image nor features",
        "camcli reads classifiers (...ForImageClassification), models that score every pixel "
        "(...ForSemanticSegmentation, ...ForUniversalSegmentation, ...ForDepthEstimation), detectors "
        "(...ForObjectDetection), models that compare images with prompts (CLIP, SigLIP) and backbones; another can "
        "be wrapped in a function of yours: -m my_model.py:make",
    )


def _import_own_class(files: ModelFiles) -> tuple[Any, Kind]:
    """Import the class of a model from the Python code that it brings along."""
    own = files.config["auto_map"]
    if not files.may_run_code:
        raise RequestError(
            f"{files.name} runs Python code of its own ({_first(own.values())}), and camcli runs none that a model "
            "brings along unless you say so",
            f"read that code, in {str(files.folder)!r}; if you trust it: --trust-code (in Python trust_code=True)",
        )
    list_code_files(files.config)
    # That of the model itself, if the configuration says which it is.
    named = [one for one in OWN_KINDS if one in own and own[one].endswith(f".{files.architecture}")]
    key = next(iter([*named, *(one for one in OWN_KINDS if one in own)]), "")
    if not key:
        raise RequestError(
            f"{files.name} has code of its own for {', '.join(own)}, and none of these is a classifier or a backbone",
            f"camcli reads {', '.join(OWN_KINDS)}; another can be wrapped in a function of yours: -m my_model.py:make",
        )
    try:
        found = get_class_from_dynamic_module(own[key], files.folder, local_files_only=True)
    except Exception as error:  # the code of others
        raise RequestError(
            f"the Python code of {files.name} ({own[key]}) cannot be imported: {' '.join(str(error).split())}",
            "install what it needs, or another version of transformers",
        ) from error
    return found, OWN_KINDS[key]


def _first(names: Iterable[str] | str) -> str:
    return names if isinstance(names, str) else str(next(iter(names)))


def _flatten(mapping: Mapping[str, Any]) -> set[str]:
    return {one for names in mapping.values() for one in ([names] if isinstance(names, str) else names)}


def read_labels(config: Any) -> Labels:
    """Read the names of the classes; those that were never named are numbered."""
    count, given = int(config.num_labels), {int(key): str(name) for key, name in (config.id2label or {}).items()}
    if all(PLACEHOLDER.fullmatch(name) for name in given.values()):
        return Labels.numbered(count)
    return Labels(tuple(given.get(index, f"class {index}") for index in range(count)))


def choose_activation(config: Any) -> Activation:
    """Choose the activation by the rule of the library's image-classification pipeline."""
    if config.problem_type == "regression":
        return "none"
    return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"


def count_prefix_tokens(module: Any) -> int | None:
    """Count the tokens before those of the patches, by the embeddings' learned ones; None if not the same everywhere.

    Some models add their class token later (CvT, PVT), and have it elsewhere.
    """
    if module.config.model_type in POOLED_FIRST:
        return 1
    owned = [(name.rpartition("."), part) for name, part in module.named_parameters()]
    tokens = [(owner.split("."), part) for (owner, _, last), part in owned if last in PREFIX_TOKENS]
    if not all("embeddings" in owner for owner, _ in tokens):
        return None
    return sum(part.shape[1] if part.ndim == 3 else 1 for _, part in tokens)


def count_suffix_tokens(module: Any) -> int:
    """Count the tokens behind those of the patches: the boxes' of YOLOS."""
    return sum(part.shape[1] for name, part in module.named_parameters() if name.endswith(SUFFIX_TOKENS))


def find_patch_grid(config: Any, size: tuple[int, int]) -> tuple[int, int] | None:
    """Find the patch grid of an input of a size; None if patches are merged on the way, or of unknown size."""
    config = getattr(config, "vision_config", config)
    patch = getattr(config, "patch_size", None)
    if not isinstance(patch, int) or not patch or hasattr(config, "depths") or size[0] % patch or size[1] % patch:
        return None
    return size[0] // patch, size[1] // patch


def read_image_size(config: Any) -> tuple[int, int] | None:
    """Read the height and width that a model is made for; None if its configuration does not say it."""
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) and len(size) == 2 else None
