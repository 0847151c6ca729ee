"""Resolution of torchvision models and their published weights, and loading of both."""

import inspect
import re
from functools import partial
from typing import Any

import torchvision
from torch import nn
from torchvision.models import WeightsEnum

from camcli.base.errors import RequestError, did_you_mean
from camcli.base.patched import patched
from camcli.models.sources.torchvision_surgery import remove_head
from camcli.models.spec import ModelSpec
from camcli.models.weights import checkpoint, fit, hub, skip_init
from camcli.models.weights.published import unreadable_error
from camcli.targets.target import Task

# The torchvision module with the models of each task.
TASK_MODULES: dict[Task, Any] = {
    "classify": torchvision.models,
    "segment": torchvision.models.segmentation,
    "detect": torchvision.models.detection,
}
# Models with auxiliary heads, used in training only, and the prefix of these heads' names.
TRAINING_HEADS = {"googlenet": "aux1.", "inception_v3": "AuxLogits."}
SEGMENTATION_TRAINING_HEAD = "aux_classifier."
# Torchvision's DenseNet weights have old names, from when module names could contain dots.
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def resolve_weights(name: str) -> WeightsEnum:
    """Resolve ``model`` or ``model/WEIGHTS`` to published weights."""
    model, _, tag = name.partition("/")
    if find_task(model) is None:
        raise _unknown_model_error(model)
    published = list_weights(model)
    tag = tag.rpartition(".")[2] or "DEFAULT"  # torchvision's own full form is ResNet50_Weights.IMAGENET1K_V2
    if tag not in published:
        raise RequestError(
            f"torchvision has no weights {tag!r} for {model} with classes",
            "\n".join(filter(None, (did_you_mean(tag, published), f"there are: {', '.join(published)}"))),
        )
    return published[tag]


def list_weights(model: str) -> dict[str, WeightsEnum]:
    """Return a model's weights by name, including ``DEFAULT``, except those without classes (VGG16's features)."""
    members = torchvision.models.get_model_weights(model).__members__
    return {name: weights for name, weights in members.items() if weights.meta["categories"]}


def find_task(model: str) -> Task | None:
    """Find a model's task; None if torchvision has no such model, or none for the supported tasks."""
    return next(
        (task for task, home in TASK_MODULES.items() if model in torchvision.models.list_models(module=home)), None
    )


def _unknown_model_error(model: str) -> RequestError:
    known = [name for home in TASK_MODULES.values() for name in torchvision.models.list_models(module=home)]
    near = did_you_mean(model, known) or "list them: camcli models [PATTERN]"
    if model in torchvision.models.list_models():
        return RequestError(f"torchvision:{model} does not return class scores for an image", near)
    return RequestError(f"torchvision has no model {model!r}", near)


def build_model(
    model: str, weights: WeightsEnum, state_names: set[str] | None = None, classes: int | None = None
) -> nn.Module:
    """Build the model for its published weights, without loading them.

    Args:
        model: the model's name.
        weights: the published weights, which determine its settings.
        state_names: names in the state dict that will be loaded, if any.
        classes: number of classes; None for that of the published weights.
    """
    options: dict[str, Any] = {"num_classes": classes or len(weights.meta["categories"])}
    if find_task(model) != "classify":
        return _build_on_backbone(model, options, state_names)
    if "image_size" in inspect.signature(_model_class(model)).parameters:
        options["image_size"] = weights.meta["min_size"][0]
    if model in TRAINING_HEADS:
        head = TRAINING_HEADS[model]
        options["aux_logits"] = state_names is None or any(name.startswith(head) for name in state_names)
        options |= {"transform_input": True, "init_weights": True}
    module: nn.Module = torchvision.models.get_model(model, weights=None, **options)
    return module


def _build_on_backbone(model: str, options: dict[str, Any], state_names: set[str] | None) -> nn.Module:
    """Build a segmentation or detection model without downloading its backbone's weights."""
    options["weights_backbone"] = None
    if "aux_loss" in inspect.signature(torchvision.models.get_model_builder(model)).parameters:
        head = SEGMENTATION_TRAINING_HEAD
        options["aux_loss"] = state_names is None or any(name.startswith(head) for name in state_names)
    module: nn.Module = torchvision.models.get_model(model, weights=None, **options)
    return module


def _model_class(model: str) -> type[nn.Module]:
    """Return a model's class, by the return annotation of its builder function."""
    made: type[nn.Module] = inspect.get_annotations(torchvision.models.get_model_builder(model), eval_str=True)[
        "return"
    ]
    return made


def load_file(model: str, weights: WeightsEnum, name: str, spec: ModelSpec) -> tuple[nn.Module, tuple[str, ...]]:
    """Load the model with the weights of the user's file; return it and notes on the weights."""
    content = checkpoint.read(spec.weights_file)
    build = partial(build_model, model, weights, set(content.state))
    return fit.load_weights(build, content, name, _convert_densenet, remove_head if spec.headless else None)


def load_pretrained(model: str, weights: WeightsEnum, name: str) -> nn.Module:
    """Load the model with published weights."""
    file = hub.fetch(hub.UrlFile(weights.url, check_hash=True), f"the weights of {name}")
    try:
        state = checkpoint.read(file).state
        # torchvision would unpickle the file, which may run code, so it gets the state read without doing so.
        with patched(weights, "get_state_dict", lambda *_args, **_options: dict(state)):
            module: nn.Module = skip_init.build_without_init(
                lambda: torchvision.models.get_model(model, weights=weights)
            )
    except Exception as error:  # damaged files raise all kinds of errors
        raise unreadable_error(name, file, error, fetched=True) from error
    return module


def _convert_densenet(state: checkpoint.StateDict, module: nn.Module) -> checkpoint.StateDict:
    """Replace DenseNet's old names by the current ones."""
    del module
    return {OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
