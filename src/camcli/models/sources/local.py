"""Models of the user's own: ``path/to/file.py:function``, or ``package.module:function``."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine import input_channels
from camcli.engine.devices import reference_tensor
from camcli.engine.hooks.state import frozen
from camcli.engine.network import Network, is_two_sided, make_two_sided
from camcli.engine.volumes import VolumeModule
from camcli.images.transform import Preprocess
from camcli.images.volumes import VolumePreprocess
from camcli.models import user_code
from camcli.models.adapters import copying, headless, resize, told, transforms
from camcli.models.preprocess_words import USAGE
from camcli.models.spec import ModelSpec
from camcli.models.weights import checkpoint, fit
from camcli.targets.labels import Labels, as_labels
from camcli.targets.readers.spec import OutputSpec

MODEL_USAGE = "a model of your own is named path/to/file.py:function, or package.module:function"
RETURN_USAGE = (
    "it returns one of:\n"
    '  (module, camcli.Preprocess(size=(224, 224), mean=(...), std=(...), resize=(256, 256)), ["cat", "dog", ...])\n'
    "  (module, preprocess)  without the names of the classes\n"
    "  a model made by timm.create_model, which carries its preprocessing\n"
    "  a camcli.Network"
)


def names() -> list[str]:
    """Return an empty list, since files are not listed."""
    return []


def has(name: str) -> bool:
    """Return whether the name is that of a Python file and a function in it."""
    return name.rpartition(":")[0].endswith(".py")


def cached(name: str) -> bool:
    """Return whether the file or module exists."""
    place = name.rpartition(":")[0]
    return Path(place).is_file() if place.endswith(".py") else user_code.is_module(place)


def load(spec: ModelSpec) -> Network:
    """Load the model that the user's function returns, with weights from a file or random ones if requested.

    Raises:
        RequestError: there is no such file or function, it fails, or its result lacks the preprocessing; or the model
            is requested without its head, and is neither timm's nor headless already.
    """
    with user_code.neighbours_importable(spec.name):
        return call_function(user_code.import_callable(spec.name, "function", MODEL_USAGE), spec, spec.name)


def call_function(function: Callable[..., Any], spec: ModelSpec, reference: str) -> Network:
    """Make a network of what a function of the user's returns; ``reference`` names its file and the function."""
    made = user_code.call_user_code(function, reference)
    # Loaded models may be changed, and the user's code may hold this one.
    remake = partial(user_code.call_user_code, function, reference)
    made, shared = copying.copy_module(made, remake, deep=bool(spec.weights))
    hint = "build a new one in each call; or return it with its weights loaded, without its head"
    return make_network(made, spec, f"{spec.name} returns the same network in each call", shared, hint)


def adopt(made: Any, spec: ModelSpec) -> Network:
    """Make a network of a model in memory, which stays as it is; ``spec.name`` is its name.

    Args:
        made: a :class:`Network`, a module with timm's configuration, or ``(module, preprocess)``.
        spec: the other options of the requested model.

    Raises:
        RequestError: as in :func:`load`.
    """
    copied, shared = copying.copy_module(made, lambda: made, deep=bool(spec.weights))
    hint = "load the weights, or remove the head, before you hand it over"
    network = make_network(copied, spec, f"{spec.name} is in use elsewhere", shared, hint)
    keeps_origin = isinstance(made, Network) or bool(spec.weights)
    return network if keeps_origin else replace(network, origin="a module in memory")


def prepare_module(model: Any, preprocess: Any = None, labels: str | Sequence[str] | Labels = "") -> tuple[str, Any]:
    """Return the name of a model in memory, and what :func:`adopt` takes of it.

    Args:
        model: a network or a module.
        preprocess: of a module: a :class:`Preprocess`, or a torchvision transform that can be read as one.
        labels: names of the classes.

    Raises:
        RequestError: it is no model; or nothing says how images are prepared for it, or two things do.
    """
    name = model.name if isinstance(model, Network) else type(model).__name__
    if isinstance(model, Network):
        if preprocess is not None:
            raise RequestError(
                f"preprocess= is for a module, and the network {name} has its own",
                "leave it out; or change that: dataclasses.replace(network, preprocess=...)",
            )
        return name, model
    if not isinstance(model, nn.Module):
        raise RequestError(
            f"the model is of type {name}", "give a name such as 'resnet50', a torch.nn.Module or camcli.Network"
        )
    if preprocess is None:
        if not getattr(model, "pretrained_cfg", None):
            raise RequestError(f"nothing says how images are prepared for this {name}", transforms.PREPROCESS_USAGE)
        return name, model
    read = preprocess if isinstance(preprocess, Preprocess) else transforms.read_transform(preprocess)
    if getattr(model, "pretrained_cfg", None):
        return name, _describe_timm_module(model, name, read)
    return name, (model, read, as_labels(labels) if labels and not isinstance(labels, str) else Labels(()))


def _describe_timm_module(module: nn.Module, name: str, preprocess: Preprocess) -> Network:
    """Make a network of timm's module with another preprocessing, without touching the module."""
    from camcli.models.sources import timm_config
    from camcli.models.sources.timm_input_size import read_native_size

    config = timm_config.read_pretrained_config(module)
    labels, notes = timm_config.read_labels(config, int(getattr(module, "num_classes", 0)), "")
    return Network(
        name=name,
        module=module,
        preprocess=preprocess,
        labels=labels,
        weights="pretrained",
        origin="a module in memory",
        prefix=timm_config.count_prefix_tokens(module),
        grid=timm_config.find_patch_grid(module) if read_native_size(module) == preprocess.size else None,
        notes=notes,
    )


def make_network(made: Any, spec: ModelSpec, holder: str = "", shared: str = "", hint: str = "") -> Network:
    """Make a network of a copied model.

    Args:
        made: what :func:`_as_network` takes.
        spec: the requested model.
        holder: words that say who else may hold the model.
        shared: reason why it is still shared; empty if it is not.
        hint: what to do if it is shared and must be changed.
    """
    if shared and (spec.weights or spec.headless):
        raise RequestError(f"{holder}, which must not be changed, and {shared}", hint)
    if spec.headless and isinstance(made, nn.Module):
        return try_and_name(_load_headless(made, spec))
    network = replace(_as_network(made, spec), shared=shared)
    if shared:
        note = f"{holder}, and {shared}: it is used unchanged, which is slower"
        network = replace(network, notes=(*network.notes, note))
    else:
        network.module.eval()
    _check_head(network, spec)
    if spec.weights_file:
        content = checkpoint.read(spec.weights_file)
        module, notes = fit.load_weights(lambda _classes: network.module, content, spec.name)
        network = replace(network, module=module, weights="file", origin=f"the file {spec.weights_file}")
        network = replace(network, notes=(*network.notes, *notes))
    if spec.is_random:
        _randomize(network.module, spec.name)
        network = replace(network, weights="random", origin=f"random numbers from seed {spec.seed}")
    if spec.output:
        network = replace(network, output_spec=replace(network.output_spec, path=spec.output))
    if spec.has_wrapper:  # then the wrapper takes the images, and is tried itself
        preprocess = network.preprocess.adapt(spec.size) if spec.size else network.preprocess
        return replace(network, preprocess=preprocess)
    resizes = spec.size and spec.size != network.preprocess.size
    return try_and_name(_resize(network, spec.size) if resizes and spec.size else network)


# The function's result


def _as_network(made: Any, spec: ModelSpec) -> Network:
    name, origin = spec.name, f"as built by {spec.name}"
    is_bare = isinstance(made, nn.Module) and not getattr(made, "pretrained_cfg", None)
    if spec.preprocess and is_bare:
        preprocess = told.make_preprocess(spec.preprocess, name, spec.size)
        return Network(name, made, preprocess, Labels(()), "pretrained", origin)
    if spec.preprocess:
        raise RequestError(f"{name} says itself how images are prepared", "leave --preprocess out")
    if isinstance(made, Network):
        return made
    if isinstance(made, nn.Module):
        return _from_timm_module(made, name, origin)
    if isinstance(made, tuple) and len(made) in (2, 3) and isinstance(made[0], nn.Module):
        module, preprocess, *labels = made
        if isinstance(preprocess, Preprocess):
            names = _as_labels(labels[0] if labels else [], name)
            if isinstance(preprocess, VolumePreprocess):
                folded = VolumeModule(module, preprocess.slices)
                return Network(name, folded, preprocess, names, "pretrained", origin, wrapped_module=module)
            return Network(name, module, preprocess, names, "pretrained", origin)
    raise RequestError(f"{name} returned {_describe(made)}", RETURN_USAGE)


def _from_timm_module(module: nn.Module, name: str, origin: str) -> Network:
    """Make a network of a bare module by its timm configuration; ImageNet's preprocessing is never assumed."""
    _check_has_timm_config(module, name)
    from camcli.models.sources.timm import build_network

    return replace(build_network(module, name, ModelSpec(name), origin), name=name)


def _check_has_timm_config(module: nn.Module, name: str) -> None:
    if not getattr(module, "pretrained_cfg", None):
        raise told.MissingPreprocessError(
            f"{name} returned a model without its preprocessing", f"{RETURN_USAGE}\nor {USAGE}"
        )


def _load_headless(module: nn.Module, spec: ModelSpec) -> Network:
    """Make a network of a bare module with timm configuration, with the requested weights and without its head."""
    _check_has_timm_config(module, spec.name)
    from camcli.models.sources.timm import build_network, remove_head

    origin, notes = f"as built by {spec.name}", tuple[str, ...]()
    if spec.weights_file:
        content, origin = checkpoint.read(spec.weights_file), f"the file {spec.weights_file}"
        module, notes = fit.load_weights(lambda _classes: module, content, spec.name, remove_head=remove_head)
    if spec.is_random:
        _randomize(module, spec.name)
        origin = f"random numbers from seed {spec.seed}"
    return replace(build_network(module, spec.name, spec, origin, notes), name=spec.name)


def _check_head(network: Network, spec: ModelSpec) -> None:
    """Check that a requested removal of head or pooling is done already: only timm's models have a way to do it."""
    if spec.headless and not network.headless:
        raise RequestError(f"the head of {spec.name} is unknown", headless.HEADLESS_HINT)
    if spec.pool == "none" and network.output_spec.task != "features":
        raise RequestError(f"the pooling of {spec.name} is unknown", headless.HEADLESS_HINT)


def _as_labels(given: Any, name: str) -> Labels:
    if isinstance(given, Labels):
        return given
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(label, str) for label in given):
        return Labels(tuple(given))
    raise RequestError(
        f"the names of the classes that {name} returned are {_describe(given)}", "give a list of strings"
    )


def _resize(network: Network, size: tuple[int, int]) -> Network:
    """Use the unchanged module at another input size; its patch grid is then inferred from its activations."""
    if isinstance(network.preprocess, VolumePreprocess):
        raise RequestError(
            f"{network.name} takes volumes, whose size its own preprocessing says",
            "leave --size out; or change it there: camcli.VolumePreprocess.of(camcli.Preprocess(size=...), ...)",
        )
    return replace(
        network,
        module=resize.resize_module(
            network.module, network.preprocess.size, size, network.name, channels=network.preprocess.channels
        ),
        preprocess=network.preprocess.adapt(size),
        grid=None,
    )


def find_output_spec(shapes: Sequence[tuple[Any, ...]]) -> tuple[OutputSpec, tuple[str, ...]]:
    """Return how outputs of these shapes are read, with a note: by class and pixel if all are of that form."""
    if {len(one) for one in shapes} != {4}:
        return OutputSpec(), ()
    return OutputSpec("segment"), ("its output is read as a score for each class and pixel (segmentation)",)


def _describe(made: Any) -> str:
    if isinstance(made, tuple):
        return f"a tuple of {', '.join(type(part).__name__ for part in made)}"
    return f"a {type(made).__name__}"


def try_and_name(network: Network) -> Network:
    """Check on a blank image that the network gives scores, and number its classes if they have no names."""
    classes = _count_classes(network)
    if classes is None:
        return network
    if not len(network.labels):
        return replace(network, labels=Labels.numbered(classes, "channel" if network.headless else "class"))
    if classes == 1 and is_two_sided(network, network.labels):
        return make_two_sided(network, network.labels)
    if len(network.labels) != classes:
        raise RequestError(
            f"{network.name} returns {classes} scores, and names {len(network.labels)} classes",
            "return one name for each score",
        )
    return network


def _count_classes(network: Network) -> int | None:
    """Count the scores of a blank image; return None for a detector."""
    size, channels = network.preprocess.size, network.preprocess.channels
    picture = torch.zeros(1, channels, *size).to(reference_tensor(network.module))
    try:
        with torch.no_grad(), frozen(network.module):
            output = network.module(picture)
    except Exception as error:
        _check_channels(network, input_channels.find_input_channels(network.module, size, channels))
        raise RequestError(
            f"{network.name} fails on an image of {tuple(picture.shape)}: {user_code.format_error(error)}",
            "does the Preprocess's size fit the model?",
        ) from error
    if network.output_spec.task == "detect" and not len(network.labels):
        raise RequestError(
            f"the names of the classes of {network.name}'s boxes are unknown",
            "give the names of all as labels, in order",
        )
    try:
        return network.read(output, 1).classes if network.output_spec.task != "detect" else None
    except RequestError as error:
        raise RequestError(f"{network.name}: {error.message}", error.hint) from None


def _check_channels(network: Network, in_channels: int | None) -> None:
    """Raise an error if a network fails because it takes images with another number of channels."""
    made = network.preprocess.channels
    if in_channels not in (None, made):
        assert in_channels is not None
        numbers = ", ".join(["0.5"] * in_channels) + "," * (in_channels == 1)
        raise RequestError(
            f"{network.name} takes images of {input_channels.format_channels(in_channels)}, and its Preprocess makes "
            f"{input_channels.format_channels(made)} (the length of its mean and std)",
            f"give one mean and one std for each channel: camcli.Preprocess(..., mean=({numbers}), std=({numbers}))",
        )


def _randomize(module: nn.Module, name: str) -> None:
    """Randomise every layer by its own initialisation."""
    for path, part in module.named_modules():
        reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
        if callable(reset):
            reset()
        elif any(True for _ in part.parameters(recurse=False)):
            raise RequestError(
                f"{name} cannot be given random weights: {path or 'the model'} ({type(part).__name__}) has parameters "
                "and no reset_parameters()",
                "return the untrained model from a function of its own, with weights='random' in a camcli.Network",
            )
