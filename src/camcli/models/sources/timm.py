"""Models of timm (PyTorch Image Models): by name and tag, from the Hugging Face hub, or from a folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.layers.layout import scale_grid
from camcli.engine.network import Network
from camcli.models import PoolOption
from camcli.models.adapters import headless
from camcli.models.sources import timm_weights
from camcli.models.sources.timm_config import (
    count_prefix_tokens,
    find_patch_grid,
    read_labels,
    read_preprocess,
    read_pretrained_config,
)
from camcli.models.sources.timm_input_size import make_resizable, read_native_size, resize_model
from camcli.models.sources.timm_weights import (
    build_model,
    convert_state,
    is_known,
    list_names,
    load_pretrained,
    resolve_registered,
    resolve_weights,
)
from camcli.models.spec import ModelSpec
from camcli.models.weights import checkpoint, fit, skip_init
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC

# Number of classes of the classifier added to an untrained architecture that has none.
RANDOM_CLASSES = 10


def names() -> list[str]:
    """List every architecture with each of its tags; those without weights by their bare name."""
    return list_names()


def list_unlisted() -> list[str]:
    """List the architectures that can be loaded and are not listed, such as retired ones."""
    return timm_weights.list_unlisted()


def has(name: str) -> bool:
    """Return whether timm has this architecture; the tag is checked by :func:`load`."""
    return is_known(name)


def cached(name: str) -> bool:
    """Return whether the model's weights are on this machine."""
    weights = resolve_registered(name).weights
    return isinstance(weights, Path) or (weights is not None and weights.find_cached() is not None)


def load(spec: ModelSpec) -> Network:
    """Load a timm model: ``resnet50``, ``resnet50.a1_in1k``, ``hf-hub:owner/model`` or ``local-dir:folder``.

    Raises:
        RequestError: there is no such model or tag, or its weights are unavailable or do not fit.
    """
    choice = resolve_weights(spec.name, own_weights=not spec.weights)
    if spec.weights_file:
        build, remove_head_fn = partial(build_model, choice), remove_head if spec.headless else None
        module, notes = skip_init.build_without_init(
            lambda: fit.load_weights(
                build, checkpoint.read(spec.weights_file), choice.name, convert_state, remove_head_fn
            )
        )
        return build_network(module, choice.name, spec, f"the file {spec.weights_file}", notes, choice.create_name)
    if spec.is_random:
        module, about = build_model(choice), tuple[str, ...]()
        if not spec.headless and not getattr(module, "num_classes", 0):
            module = build_model(choice, RANDOM_CLASSES)
            about = (f"{choice.name} has no classifier of its own; a random one of {RANDOM_CLASSES} classes is added",)
        origin = f"random numbers from seed {spec.seed}"
        return build_network(module, choice.name, spec, origin, about, create_name=choice.create_name)
    return build_network(load_pretrained(choice), choice.name, spec, choice.origin, create_name=choice.create_name)


def build_network(
    module: nn.Module, name: str, spec: ModelSpec, origin: str, notes: tuple[str, ...] = (), create_name: str = ""
) -> Network:
    """Make a network of a module by its timm configuration.

    Args:
        module: the model, with its weights.
        name: its full name.
        spec: the requested model.
        origin: the origin of its weights.
        notes: notes for the user.
        create_name: its name for ``timm.create_model``, to rebuild it for another input size.

    Raises:
        RequestError: the model has no classes, the preprocessing for its channels is unknown, it does not take the
            requested size, or its head or pooling cannot be removed.
    """
    config = read_pretrained_config(module)
    classes = int(getattr(module, "num_classes", config.get("num_classes", 0)))
    if classes < 1 and not spec.headless:
        raise RequestError(
            f"{name} returns features, not class scores",
            "explain its features: --head none; or choose one with a classifier, or give its weights with one: "
            "--weights FILE",
        )
    native_size, prefix, grid = read_native_size(module), count_prefix_tokens(module), find_patch_grid(module)
    make_resizable(module, create_name)
    if spec.size:
        module, grid = resize_model(module, spec.size, name, create_name), scale_grid(grid, native_size, spec.size)
    preprocess = read_preprocess(module, name, spec.size)
    if spec.headless:
        remove_head(module, name, spec.pool)
        # Includes class tokens that join in late blocks, since features are read at the end.
        final_prefix = getattr(module, "num_prefix_tokens", None)
        labels, output_spec = headless.probe_channels(
            module, preprocess.size, name, spec.pool, final_prefix, grid, preprocess.channels
        )
        about_labels: tuple[str, ...] = ()
    else:
        (labels, about_labels), output_spec = read_labels(config, classes, spec.weights_file), DEFAULT_OUTPUT_SPEC
    return Network(
        name=name,
        module=module.eval(),
        preprocess=preprocess,
        labels=labels,
        weights=spec.weights_kind,
        origin=origin,
        activation="none" if spec.headless else "softmax",
        prefix=prefix,
        grid=grid,
        notes=notes + about_labels,
        output_spec=output_spec,
        headless=spec.headless,
    )


def remove_head(module: nn.Module, name: str = "the model", pool: PoolOption = "keep") -> nn.Module:
    """Remove a module's classifier in place, and for ``pool="none"`` its pooling too.

    Raises:
        RequestError: timm cannot do that with this model.
    """
    reset: Callable[..., object] | None = getattr(module, "reset_classifier", None)
    if reset is None:
        raise RequestError(f"{name} has no reset_classifier, with which timm removes a head", headless.LAYER_HINT)
    if pool == "keep":
        headless.remove_part(lambda: reset(0), "head", name, headless.LAYER_HINT)
    else:
        headless.remove_part(lambda: reset(0, ""), "pooling", name, f"leave --pool none out; {headless.LAYER_HINT}")
    return module
