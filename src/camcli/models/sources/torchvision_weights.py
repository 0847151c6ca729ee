"""Which model of torchvision is meant, and with which of its published weights; and the model with them."""

import inspect
import re
from functools import partial
from typing import Any
from unittest import mock

import torchvision
from torch import nn
from torchvision.models import WeightsEnum

from camcli.base.errors import RequestError, did_you_mean
from camcli.models.sources.torchvision_surgery import without_head
from camcli.models.spec import Request
from camcli.models.weights import checkpoint, fit, hub, skip_init
from camcli.models.weights.published import unreadable
from camcli.targets.target import Task

# Where torchvision keeps the models of each task.
HOMES: dict[Task, Any] = {
    "classify": torchvision.models,
    "segment": torchvision.models.segmentation,
    "detect": torchvision.models.detection,
}
# Models with heads that only training uses: how the names of such a head begin.
TRAINING_HEADS = {"googlenet": "aux1.", "inception_v3": "AuxLogits."}
SEGMENTATION_TRAINING_HEAD = "aux_classifier."
# The DenseNet weights that torchvision publishes have names from before dots in module names were forbidden.
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def resolve_weights(name: str) -> WeightsEnum:
    """The weights meant by ``model`` or ``model/WEIGHTS``."""
    model, _, tag = name.partition("/")
    if task_of(model) is None:
        raise _no_model(model)
    published = published_weights(model)
    tag = tag.rpartition(".")[2] or "DEFAULT"  # torchvision's own full form is ResNet50_Weights.IMAGENET1K_V2
    if tag not in published:
        raise RequestError(
            f"torchvision has no weights {tag!r} for {model} that know classes",
            "\n".join(filter(None, (did_you_mean(tag, published), f"there are: {', '.join(published)}"))),
        )
    return published[tag]


def published_weights(model: str) -> dict[str, WeightsEnum]:
    """A model's weights by name, ``DEFAULT`` among them; without those that have no classes (VGG16's features)."""
    members = torchvision.models.get_model_weights(model).__members__
    return {name: weights for name, weights in members.items() if weights.meta["categories"]}


def task_of(model: str) -> Task | None:
    """What a model is for; None if torchvision has no such model, or it is for none of our tasks."""
    return next((task for task, home in HOMES.items() if model in torchvision.models.list_models(module=home)), None)


def _no_model(model: str) -> RequestError:
    known = [name for home in HOMES.values() for name in torchvision.models.list_models(module=home)]
    near = did_you_mean(model, known) or "list them: camcli models [PATTERN]"
    if model in torchvision.models.list_models():
        return RequestError(f"torchvision:{model} gives no class scores for a picture that a map could explain", near)
    return RequestError(f"torchvision has no model {model!r}", near)


def build_model(
    model: str, weights: WeightsEnum, state: set[str] | None = None, classes: int | None = None
) -> nn.Module:
    """The model as its published weights need it, but without them.

    Args:
        model: its name.
        weights: the published weights it is like.
        state: the names of the weights that are to be loaded, if any.
        classes: its number of classes; None for that of the published weights.
    """
    options: dict[str, Any] = {"num_classes": classes or len(weights.meta["categories"])}
    if task_of(model) != "classify":
        return _built_in_parts(model, options, state)
    if "image_size" in inspect.signature(_class(model)).parameters:
        options["image_size"] = weights.meta["min_size"][0]
    if model in TRAINING_HEADS:
        head = TRAINING_HEADS[model]
        options["aux_logits"] = state is None or any(name.startswith(head) for name in state)
        options |= {"transform_input": True, "init_weights": True}
    module: nn.Module = torchvision.models.get_model(model, weights=None, **options)
    return module


def _built_in_parts(model: str, options: dict[str, Any], state: set[str] | None) -> nn.Module:
    """A model whose backbone torchvision would fetch by itself."""
    options["weights_backbone"] = None
    if "aux_loss" in inspect.signature(torchvision.models.get_model_builder(model)).parameters:
        head = SEGMENTATION_TRAINING_HEAD
        options["aux_loss"] = state is None or any(name.startswith(head) for name in state)
    module: nn.Module = torchvision.models.get_model(model, weights=None, **options)
    return module


def _class(model: str) -> type[nn.Module]:
    """The class that a model's function builds: what its annotation says it returns."""
    made: type[nn.Module] = inspect.get_annotations(torchvision.models.get_model_builder(model), eval_str=True)[
        "return"
    ]
    return made


def fit_file(model: str, weights: WeightsEnum, name: str, request: Request) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with the weights of the user's file, and what is to be said of these."""
    content = checkpoint.read(request.file)
    build = partial(build_model, model, weights, set(content.state))
    return fit.fit(build, content, name, _converted, without_head if request.headless else None)


def load_pretrained(model: str, weights: WeightsEnum, name: str) -> nn.Module:
    """The model with published weights."""
    file = hub.fetch(hub.UrlFile(weights.url, hashed=True), f"the weights of {name}")
    try:
        state = checkpoint.read(file).state
        # torchvision would read the file as a pickle that may run code; it is handed what was read without that.
        with mock.patch.object(weights, "get_state_dict", lambda *_args, **_options: dict(state)):
            module: nn.Module = skip_init.built(lambda: torchvision.models.get_model(model, weights=weights))
    except Exception as error:  # what a damaged file ends in depends on where the damage is
        raise unreadable(name, file, error, fetched=True) from error
    return module


def _converted(state: checkpoint.State, module: nn.Module) -> checkpoint.State:
    """The state with DenseNet's old names made new."""
    del module
    return {OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
