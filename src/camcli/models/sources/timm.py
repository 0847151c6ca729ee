"""Models of timm (PyTorch Image Models): by name and tag, from the Hugging Face hub, or from a folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.layers.layout import scaled
from camcli.engine.network import Network
from camcli.models import Pool
from camcli.models.adapters import headless
from camcli.models.sources.timm_config import (
    count_prefix_tokens,
    patch_grid,
    pretrained_config,
    read_labels,
    read_prepare,
)
from camcli.models.sources.timm_input_size import follow_size, input_size, resize_model
from camcli.models.sources.timm_weights import (
    build_model,
    convert_state,
    is_known,
    list_names,
    load_pretrained,
    resolve_registered,
    resolve_weights,
)
from camcli.models.spec import Request
from camcli.models.weights import checkpoint, fit, skip_init
from camcli.targets.readers.spec import PLAIN

# Of the classifier that an architecture gets that has none, where all weights are random.
ANY_CLASSES = 10


def names() -> list[str]:
    """Every architecture with each of its tags; those without weights by their bare name."""
    return list_names()


def has(name: str) -> bool:
    """Whether timm has this architecture; the tag is checked by ``load``."""
    return is_known(name)


def cached(name: str) -> bool:
    """Whether the model's weights are at hand."""
    weights = resolve_registered(name).weights
    return isinstance(weights, Path) or (weights is not None and weights.cached() is not None)


def load(request: Request) -> Network:
    """A model by timm's own words: ``resnet50``, ``resnet50.a1_in1k``, ``hf-hub:owner/model``, ``local-dir:folder``.

    Raises:
        RequestError: there is no such model or tag, or its weights cannot be had or do not fit.
    """
    choice = resolve_weights(request.name, own_weights=not request.weights)
    if request.file:
        build, beheaded = partial(build_model, choice), without_head if request.headless else None
        module, notes = skip_init.built(
            lambda: fit.fit(build, checkpoint.read(request.file), choice.name, convert_state, beheaded)
        )
        return network(module, choice.name, request, f"the file {request.file}", notes, choice.create)
    if request.random:
        module, about = build_model(choice), tuple[str, ...]()
        if not request.headless and not getattr(module, "num_classes", 0):
            module = build_model(choice, ANY_CLASSES)
            about = (f"{choice.name} has no classifier of its own; a random one of {ANY_CLASSES} classes is put on it",)
        origin = f"random numbers from seed {request.seed}"
        return network(module, choice.name, request, origin, about, create=choice.create)
    return network(load_pretrained(choice), choice.name, request, choice.origin, create=choice.create)


def network(
    module: nn.Module, name: str, request: Request, origin: str, notes: tuple[str, ...] = (), create: str = ""
) -> Network:
    """A network of a module that carries timm's configuration.

    Args:
        module: the model, with its weights.
        name: its full name.
        request: what was asked of it.
        origin: where its weights come from.
        notes: what a user of it must know.
        create: what timm builds it by, for another input size.

    Raises:
        RequestError: the model has no classes, or nothing says how pictures become its channels, or it takes none of
            the size asked; or its head or its pooling cannot be taken off.
    """
    config = pretrained_config(module)
    classes = int(getattr(module, "num_classes", config.get("num_classes", 0)))
    if classes < 1 and not request.headless:
        raise RequestError(
            f"{name} gives features, no class scores",
            "explain its features: --head none; or choose one with a classifier, or give its weights with one: "
            "--weights FILE",
        )
    own, prefix, grid = input_size(module), count_prefix_tokens(module), patch_grid(module)
    follow_size(module, create)
    if request.size:
        module, grid = resize_model(module, request.size, name, create), scaled(grid, own, request.size)
    prepare = read_prepare(module, name, request.size)
    if request.headless:
        without_head(module, name, request.pool)
        # Of models whose class token joins late too: at the end it is there.
        before = getattr(module, "num_prefix_tokens", None)
        labels, outlet = headless.channels(module, prepare.size, name, request.pool, before, grid, prepare.channels)
        about_labels: tuple[str, ...] = ()
    else:
        (labels, about_labels), outlet = read_labels(config, classes, request.file), PLAIN
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
        notes=notes + about_labels,
        outlet=outlet,
        headless=request.headless,
    )


def without_head(module: nn.Module, name: str = "the model", pool: Pool = "keep") -> nn.Module:
    """The module itself, its classifier taken off; of ``pool="none"`` its pooling too.

    Raises:
        RequestError: timm cannot do that with this model.
    """
    reset: Callable[..., object] | None = getattr(module, "reset_classifier", None)
    if reset is None:
        raise RequestError(f"{name} has no reset_classifier, by which timm takes a head off", headless.AT_A_LAYER)
    if pool == "keep":
        headless.removed(lambda: reset(0), "head", name, headless.AT_A_LAYER)
    else:
        headless.removed(lambda: reset(0, ""), "pooling", name, f"leave --pool none out; {headless.AT_A_LAYER}")
    return module
