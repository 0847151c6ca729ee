"""Loading of a model by name, with the user's wrapper, text tower, activation and class names applied."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camcli.base.errors import RequestError
from camcli.images import Crop
from camcli.models import SOURCES, TOLD_SOURCES, ActivationOption, PoolOption, parse_size
from camcli.models.listing import find_other_library, resolve
from camcli.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from camcli.engine.network import Network
    from camcli.images.features import Features
    from camcli.images.transform import Preprocess
    from camcli.targets.labels import Labels

SOURCES_WITHOUT_TEXT = ("bundled", "timm", "torchvision", "ultralytics", "libreyolo", "onnx", "pt2", "hub", "local")


def load(
    model: str | Network | nn.Module,
    *,
    preprocess: str | Preprocess | Callable[..., Any] | None = None,
    weights: str = "",
    labels: str | Sequence[str] | Labels = "",
    text: str | Sequence[str] = (),
    contrast: str | Sequence[str] = (),
    template: str | Sequence[str] = (),
    text_tower: str = "",
    trust_code: bool = False,
    seed: int = 0,
    size: str = "",
    crop: Crop = "model",
    output: str = "",
    min_score: float = 0.5,
    head: Literal["keep", "none"] = "keep",
    pool: PoolOption = "keep",
    activation: ActivationOption = "model",
    wrap: str = "",
    group: int = 0,
    extras: Features | None = None,
) -> Network:
    """Load a model by name, or make a :class:`camcli.Network` of a module, importing only the libraries it needs.

    ``network = camcli.load(my_module, preprocess=camcli.Preprocess(...), labels=["cat", "dog"])``

    Args:
        model: ``source:name``; a bare name, looked for in timm, torchvision and open_clip; timm's ``hf-hub:`` and
            ``local-dir:``; or ``path/to/file.py:function`` or ``package.module:function``. Or a module, or a network,
            which stays as it is: the result shares its weights' memory and nothing else.
        preprocess: how images are prepared for a module, or for a file that does not say it (ONNX, torch.export,
            torch.hub): a :class:`camcli.Preprocess`, the torchvision transform that evaluation uses (resize, centre
            crop, tensor, normalisation), or for a file words as those of ``--preprocess``. timm's modules say it
            themselves.
        weights: empty for the model's own, ``random``, or the path of a file with a state dict.
        labels: the class names, if the model's own do not fit: a list, or the path of a file with them.
        text: prompts that are the classes, for an open_clip model or with ``text_tower``.
        contrast: prompts that only compete with those of ``text``: in the softmax, and as rivals. They come last.
        template: templates for the prompts, such as ``a photo of a {}.``, or ``imagenet`` or ``imagenet-simple``;
            embeddings are averaged over several.
        text_tower: ``path/to/file.py:function`` or ``package.module:function``, a function that embeds texts, for a
            model without a text tower: its head is removed, and its pooled features are compared with the embeddings.
        trust_code: whether a model of transformers may run the Python code that its repository brings along.
        seed: seed of random weights; the caller's random state is left unchanged.
        size: the input size, ``256`` or ``256x384`` (height x width); empty for the model's own.
        crop: the part of an image that the model sees, as in :meth:`camcli.Preprocess.adapt`.
        output: path to the scores in the model's output, such as ``logits`` or ``0``; empty to find them automatically.
        min_score: threshold below which a detector's boxes are dropped.
        head: ``none`` for the model without its classifier: its output is features, and its channels the "classes".
        pool: ``none`` for the features before pooling.
        activation: the activation that turns scores into probabilities, if not the model's own: ``softmax``;
            ``sigmoid`` for multi-label; ``none`` for regression; ``probabilities`` for outputs that already are.
        wrap: ``path/to/file.py:Class`` or ``package.module:Class``, a module of the user's own around the model's.
        group: number of images passed to the wrapper as one group; 0 if it takes batches of any size.
        extras: features of that many images (of two, if ``group`` is 0), the wrapper's second argument in its trial.

    Returns:
        The network, in evaluation mode, with the warnings of its libraries among its notes.

    Raises:
        RequestError: there is no such model, its weights are unavailable or do not fit, it does not take images of
            that size, its head or pooling cannot be removed, or the arguments contradict each other.
    """
    text, contrast, template = ((one,) if isinstance(one, str) else tuple(one) for one in (text, contrast, template))
    if text_tower:
        head = "none"  # the features are compared with the texts
    else:
        _check_head(head, pool, activation, text)
    place, name, make = _find_source(model, preprocess or None, labels)
    _check_prompts(model, place, text, contrast or template, text_tower)
    _check_remote_code(model, place, trust_code)
    spec = ModelSpec(
        name=name,
        weights=weights,
        labels=labels if isinstance(labels, str) else "",
        text=text,
        contrast=contrast,
        template=template,
        text_tower=text_tower,
        trust_code=trust_code,
        seed=seed,
        size=parse_size(size),
        # A wrapper's scores may be at another path than the model's, so `output` is then the wrapper's.
        output="" if wrap else output,
        min_score=min_score,
        head=head,
        pool=pool,
        has_wrapper=bool(wrap),
        preprocess=(preprocess or None) if isinstance(model, str) else None,
    )
    with _seeded(seed), _on_cpu(), _captured_warnings() as messages:
        other = find_other_library(model) if isinstance(model, str) and spec.weights_file else ""
        network = _load_from_source(make, spec, other)
        if wrap:
            network = _wrap(network, wrap, output, group, extras)
        if spec.is_random:
            _randomize_zero_weights(network.module)
    # With a text tower, `output` has been applied already, to the features.
    path = "" if text_tower and not wrap else output
    return _set_labels(_set_activation(_complete(network, messages, path, min_score, crop), activation), labels)


def _find_source(
    model: str | Network | nn.Module,
    preprocess: str | Preprocess | Callable[..., Any] | None,
    labels: str | Sequence[str] | Labels,
) -> tuple[str, str, Callable[[ModelSpec], Network]]:
    """Return the source of a model, its name there, and the function that loads it; of one in memory too."""
    if isinstance(model, str):
        place, name = resolve(model)
        if preprocess is not None and place not in TOLD_SOURCES:
            raise RequestError(
                f"the preprocessing is said of models that have none, and {model!r} has its own",
                "leave it out; --size and --crop (size=, crop=) change it",
            )
        return place, name, lambda spec: _import_source(place)(spec)
    from camcli.models.sources.local import adopt, prepare_module

    name, made = prepare_module(model, preprocess, labels)
    return "local", name, partial(adopt, made)


def _import_source(source: str) -> Callable[[ModelSpec], Network]:
    from camcli.models.lazy_imports import without_compiler

    with without_compiler():
        return SOURCES.load(source)


def _load_from_source(make: Callable[[ModelSpec], Network], spec: ModelSpec, other: str) -> Network:
    """Load a network from its source, with the embedded prompts as classes if there is a text tower.

    Args:
        make: loads it.
        spec: what is requested.
        other: another library's model of the same name, which the user's own weights may be of; or empty.
    """
    network = _load_of_two(make, spec, other) if other else make(spec)
    if not spec.text_tower:
        return network
    from camcli.models.adapters.text_tower import compare_with_prompts

    _set_eval(network)
    output_spec = dataclasses.replace(network.output_spec, path=spec.output or network.output_spec.path)
    return compare_with_prompts(dataclasses.replace(network, output_spec=output_spec), spec)


def _load_of_two(make: Callable[[ModelSpec], Network], spec: ModelSpec, other: str) -> Network:
    """Load a network whose name two libraries know, with the user's own weights, and say which one it is."""
    from camcli.models.weights.fit import WeightsFitError

    try:
        network = make(spec)
    except WeightsFitError as error:
        raise RequestError(error.message, f"torchvision has another {spec.name}: -m {other}\n{error.hint}") from None
    given = network.preprocess
    note = (
        f"{spec.name} is timm's, with timm's preprocessing (resize {min(given.resize)} {given.interpolation}, crop "
        f"{min(given.size)}); if the weights were trained with torchvision's: -m {other}"
    )
    return dataclasses.replace(network, notes=(*network.notes, note))


def _complete(network: Network, messages: Iterable[str], path: str, min_score: float, crop: Crop) -> Network:
    """Add the libraries' messages, the path to the scores and the crop to a network."""
    _set_eval(network)
    return dataclasses.replace(
        network,
        notes=tuple(dict.fromkeys((*network.notes, *messages))),
        preprocess=network.preprocess.adapt(crop=crop),
        output_spec=dataclasses.replace(
            network.output_spec, path=path or network.output_spec.path, min_score=min_score
        ),
    )


def _wrap(network: Network, wrap: str, output: str, group: int, extras: Features | None) -> Network:
    from camcli.models.adapters.wrapper import wrap_network

    _set_eval(network)
    network = dataclasses.replace(network, output_spec=dataclasses.replace(network.output_spec, path=output))
    return wrap_network(network, wrap, group, extras)


def _set_eval(network: Network) -> None:
    """Set the module to evaluation mode unless it is shared, in which case that is done for each explanation."""
    if not network.shared:
        network.module.eval()


def _check_remote_code(model: str | Network | nn.Module, source: str, trusted: bool) -> None:
    if trusted and source != "hf":
        raise RequestError(
            f"{model} brings no code of its own along" if isinstance(model, str) else "a module brings no files along",
            "trust_code is for models of transformers, hf:...: leave it out",
        )


def _check_prompts(
    model: str | Network | nn.Module,
    source: str,
    text: Sequence[str],
    contrast_or_template: Sequence[str],
    text_tower: str,
) -> None:
    """Check that something can embed the prompts, and that there are prompts for a text tower or template."""
    if text and not isinstance(model, str) and not text_tower:
        raise RequestError(
            "prompts become classes while a model is loaded, and this one is in memory already",
            "load it with them: camcli.load('open_clip:...', text=['a cat', 'a dog']); or bring something that embeds "
            "them: text_tower='path/to/file.py:function'",
        )
    if text and source in SOURCES_WITHOUT_TEXT and not text_tower:
        raise RequestError(
            f"prompts are for models with a text encoder, and {model!r} has classes of its own",
            "choose a model of open_clip, or leave --text and --texts out; or add a text encoder: --text-tower "
            "path/to/file.py:function",
        )
    if text_tower and source not in (*SOURCES_WITHOUT_TEXT, "hf"):
        raise RequestError(f"{model!r} has a text tower of its own", "leave --text-tower out")
    if text_tower and not text:
        raise RequestError(f"{text_tower} has nothing to embed", "give prompts: --text 'a photo of a cat'")
    if contrast_or_template and not text:
        raise RequestError(
            f"{', '.join(map(repr, contrast_or_template))} has no effect without prompts",
            "give prompts: --text 'a cat'",
        )


def _check_head(head: str, pool: str, activation: str, text: tuple[str, ...]) -> None:
    if pool == "none" and head != "none":
        raise RequestError(
            "the pooling can be removed only together with the head, which takes its output",
            "add --head none, or leave --pool none out",
        )
    if head == "none" and activation not in ("model", "none"):
        raise RequestError(
            f"without its head the model returns features, which have no probabilities ({activation})",
            "leave --activation out, or --head none",
        )
    if head == "none" and text:
        raise RequestError(
            "prompts are the classes of a model, and without its head it has none", "leave --text out, or --head none"
        )


def _set_activation(network: Network, activation: ActivationOption) -> Network:
    """Replace the network's activation, unless ``model`` asks for its own."""
    if activation == "model":
        return network
    if network.output_spec.task == "detect":
        raise RequestError(
            f"{network.name} returns a probability for each box already, so no activation applies to its scores",
            "leave --activation out",
        )
    return dataclasses.replace(network, activation=activation, activation_asked=True)


@contextmanager
def _on_cpu() -> Iterator[None]:
    """Build modules on the CPU while the block runs, whatever the default device is."""
    import torch

    with nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"):
        yield


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's random numbers while the block runs, and restore the caller's generator state afterwards."""
    import torch

    before = torch.random.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        torch.random.set_rng_state(before)


def _randomize_zero_weights(module: nn.Module) -> None:
    """Randomise the weights that libraries start at zero, such as heads and the last scale of a residual branch.

    Training moves them away from zero at once; at zero no gradient passes, and an untrained network would show less
    of its structure than any trained one.
    """
    for name, parameter in module.named_parameters():
        if not name.endswith("bias") and parameter.is_floating_point() and not bool(parameter.any()):
            parameter.data.normal_(std=0.02)


class _MessageHandler(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _captured_warnings() -> Iterator[list[str]]:
    """Collect what libraries log or warn of while the block runs, and keep it from the terminal."""
    messages: list[str] = []
    handler = _MessageHandler(messages)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            yield messages
        messages += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    finally:
        logging.getLogger().removeHandler(handler)


def _set_labels(network: Network, given: str | Sequence[str] | Labels) -> Network:
    """Name the network's classes if names or a file of them are given; add a note if their names are unknown."""
    from camcli.engine.network import is_two_sided, make_two_sided
    from camcli.targets import labels
    from camcli.targets.class_list import is_title

    if not given:
        count = len(network.labels)
        if network.labels != labels.Labels.numbered(count):  # they have names, or are channels, which are only numbered
            return network
        note = (
            f"the names of the {count} classes are unknown, so they are called class 0, class 1, ...; --labels FILE "
            "names them"
        )
        return dataclasses.replace(network, notes=(*network.notes, note))
    read = labels.read(Path(given)) if isinstance(given, str) else labels.as_labels(given)
    names = dataclasses.replace(read, noun=network.labels.noun, asked=network.labels.asked)
    if len(network.labels) == 1 and is_two_sided(network, names):
        return make_two_sided(network, names)
    if len(names) != len(network.labels):
        headed = len(names) == len(network.labels) + 1 and is_title(names.names[0])
        raise RequestError(
            f"{f'the labels file {given!r} has' if isinstance(given, str) else 'labels= has'} {len(names)} names, and "
            f"{network.name} has {len(network.labels)} {names.nouns}",
            f"its first line, {names.names[0]!r}, looks like a header: remove it"
            if headed
            else f"write one name for each {names.noun}, in the model's order",
        )
    return dataclasses.replace(network, labels=names)
