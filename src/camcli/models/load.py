"""A model by its name: from its source, with what is put around it, and the names of its classes."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from camcli.base.errors import RequestError
from camcli.images import Crop
from camcli.models import SOURCES, Activations, Pool, input_size
from camcli.models.listing import resolve
from camcli.models.spec import Request

if TYPE_CHECKING:
    from torch import nn

    from camcli.engine.network import Network
    from camcli.images.features import Features

TEXTLESS = ("bundled", "timm", "torchvision", "local")


def load(
    model: str,
    *,
    weights: str = "",
    labels: str = "",
    text: str | Sequence[str] = (),
    contrast: str | Sequence[str] = (),
    template: str | Sequence[str] = (),
    text_tower: str = "",
    seed: int = 0,
    size: str = "",
    crop: Crop = "model",
    output: str = "",
    min_score: float = 0.5,
    head: Literal["keep", "none"] = "keep",
    pool: Pool = "keep",
    activation: Activations = "model",
    wrap: str = "",
    group: int = 0,
    extras: Features | None = None,
) -> Network:
    """The model of this name, ready to use. Only the libraries it needs are imported.

    Args:
        model: ``source:name``; a bare name, looked for in timm, torchvision and open_clip; timm's ``hf-hub:`` and
            ``local-dir:``; or ``path/to/file.py:function`` or ``package.module:function``.
        weights: empty for the model's own, ``random``, or a file with a state dict.
        labels: a file with the names of the classes, if the model's own do not fit.
        text: prompts that are the classes, for an open_clip model or beside a text tower.
        contrast: prompts that only compete with these: in the softmax, and as rivals. They stand behind the others.
        template: what each prompt is put into, such as ``a photo of a {}.``, or ``imagenet`` or ``imagenet-simple``; of
            several the mean of the embeddings counts.
        text_tower: ``path/to/file.py:function`` or ``package.module:function``, which embeds texts, for a model without
            a text tower of its own: its head is left out, and its pooled features are compared with these.
        seed: of random weights; the caller's random state stays as it is.
        size: of the input, ``256`` or ``256x384`` (height x width); empty for the model's own.
        crop: which part of a picture the model sees, as in :meth:`camcli.Prepare.changed`.
        output: where in what the model returns its scores are, such as ``logits`` or ``0``, if that is not plain.
        min_score: boxes of a detector below it are left out.
        head: ``none`` for the model without its classifier: it gives features, and its channels are its "classes".
        pool: ``none`` for these features before they are pooled.
        activation: what makes probabilities of the scores, if not what the model's source says: ``softmax``; for
            several labels at once ``sigmoid``; for regression ``none``; of outputs that are some ``probabilities``.
        wrap: ``path/to/file.py:Class`` or ``package.module:Class``, a module of the user's own around the model's.
        group: how many pictures that is handed as one group; 0 if it takes batches of any size.
        extras: features of as many pictures (of two, if ``group`` is 0), its second argument, to try it with.

    Returns:
        The network, in evaluation mode, with what its libraries warned of among its notes.

    Raises:
        RequestError: there is no such model, its weights cannot be had or do not fit, it does not take pictures of
            that size, its head or its pooling cannot be taken off, or the request contradicts itself.
    """
    text, contrast, template = ((one,) if isinstance(one, str) else tuple(one) for one in (text, contrast, template))
    if text_tower:
        head = "none"  # what it gives is compared with the texts
    else:
        _check_head(head, pool, activation, text)
    place, name = resolve(model)
    _check_prompts(model, place, text, contrast or template, text_tower)
    # What a wrapper gives may lie elsewhere than what the model gives.
    own_output = "" if wrap else output
    request = Request(
        name=name,
        weights=weights,
        labels=labels,
        text=text,
        contrast=contrast,
        template=template,
        text_tower=text_tower,
        seed=seed,
        size=input_size(size),
        output=own_output,
        min_score=min_score,
        head=head,
        pool=pool,
        wrapped=bool(wrap),
    )
    with _seeded(seed), _in_main_memory(), _heard() as said:
        network = _make(place, request)
        if wrap:
            network = _wrapped(network, wrap, output, group, extras)
        if request.random:
            _awaken(network.module)
    # What lies at a path in what the model gives, a text tower has read already.
    path = "" if text_tower and not wrap else output
    return _labelled(_activated(_finished(network, said, path, min_score, crop), activation), labels)


def _make(place: str, request: Request) -> Network:
    """The network of a source, with the texts of a text tower for classes if there is one."""
    from camcli.models.lazy_imports import light

    with light():
        make = SOURCES.load(place)
    network: Network = make(request)
    if not request.text_tower:
        return network
    from camcli.models.adapters.text_tower import prompted

    _evaluating(network)
    outlet = dataclasses.replace(network.outlet, path=request.output or network.outlet.path)
    return prompted(dataclasses.replace(network, outlet=outlet), request)


def _finished(network: Network, said: Iterable[str], path: str, min_score: float, crop: Crop) -> Network:
    """A network with what its libraries said, where its scores are, and what it is shown of pictures."""
    _evaluating(network)
    return dataclasses.replace(
        network,
        notes=tuple(dict.fromkeys((*network.notes, *said))),
        prepare=network.prepare.changed(crop=crop),
        outlet=dataclasses.replace(network.outlet, path=path or network.outlet.path, min_score=min_score),
    )


def _wrapped(network: Network, wrap: str, output: str, group: int, extras: Features | None) -> Network:
    from camcli.models.adapters.wrapper import wrapped

    _evaluating(network)
    network = dataclasses.replace(network, outlet=dataclasses.replace(network.outlet, path=output))
    return wrapped(network, wrap, group, extras)


def _evaluating(network: Network) -> None:
    """Its module in evaluation mode, if that is nobody else's; else it is so whenever it is explained."""
    if not network.shared:
        network.module.eval()


def _check_prompts(model: str, place: str, text: Sequence[str], around: Sequence[str], text_tower: str) -> None:
    """See that there is something that reads prompts, and something for it to read."""
    if text and place in TEXTLESS and not text_tower:
        raise RequestError(
            f"prompts are for models with a text encoder, and {model!r} has classes of its own",
            "choose a model of open_clip, or leave --text and --texts out; or bring something that embeds them: "
            "--text-tower path/to/file.py:function",
        )
    if text_tower and place not in TEXTLESS:
        raise RequestError(f"{model!r} has a text tower of its own", "leave --text-tower out")
    if text_tower and not text:
        raise RequestError(f"{text_tower} has nothing to embed", "give prompts: --text 'a photo of a cat'")
    if around and not text:
        raise RequestError(
            f"{', '.join(map(repr, around))} means nothing without prompts", "give prompts: --text 'a cat'"
        )


def _check_head(head: str, pool: str, activation: str, text: tuple[str, ...]) -> None:
    if pool == "none" and head != "none":
        raise RequestError(
            "the pooling can be left out only together with the head, which takes what is pooled",
            "add --head none, or leave --pool none out",
        )
    if head == "none" and activation not in ("model", "none"):
        raise RequestError(
            f"without its head the model gives features, of which nothing makes probabilities ({activation})",
            "leave --activation out, or --head none",
        )
    if head == "none" and text:
        raise RequestError(
            "prompts are the classes of a model, and without its head it has none", "leave --text out, or --head none"
        )


def _activated(network: Network, activation: Activations) -> Network:
    """The network with what makes probabilities of its scores, if that is asked for."""
    if activation == "model":
        return network
    if network.outlet.task == "detect":
        raise RequestError(
            f"{network.name} gives each box a probability already, so there is nothing to be made of its scores",
            "leave --activation out",
        )
    return dataclasses.replace(network, activation=activation, activation_asked=True)


@contextmanager
def _in_main_memory() -> Iterator[None]:
    """While it lasts, what is built is built there, whatever device the caller builds things on."""
    import torch

    with nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"):
        yield


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from this seed inside; the caller's go on outside as if nothing had been drawn."""
    import torch

    before = torch.random.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        torch.random.set_rng_state(before)


def _awaken(module: nn.Module) -> None:
    """Draws the weights that libraries start at zero, such as heads and the last scale of a residual branch.

    Training moves them away from zero at once; until then no gradient passes, and an untrained network would show
    less of its structure than any trained one.
    """
    for name, parameter in module.named_parameters():
        if not name.endswith("bias") and parameter.is_floating_point() and not bool(parameter.any()):
            parameter.data.normal_(std=0.02)


class _Notes(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What libraries warn of, by warnings or by logging, as a list; without it they would write to the terminal."""
    said: list[str] = []
    handler = _Notes(said)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            yield said
        said += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    finally:
        logging.getLogger().removeHandler(handler)


def _labelled(network: Network, file: str) -> Network:
    """The network with the names in the file, if one is given; without any names it says so."""
    from camcli.engine.network import tells_apart, two_sided
    from camcli.targets import labels
    from camcli.targets.class_list import is_title

    if not file:
        count = len(network.labels)
        if network.labels != labels.Labels.numbered(count):  # channels have no other names
            return network
        note = f"the names of the {count} classes are unknown, so they are called class 0, class 1, ...: --labels FILE"
        return dataclasses.replace(network, notes=(*network.notes, note))
    names = dataclasses.replace(labels.read(Path(file)), noun=network.labels.noun, asked=network.labels.asked)
    if len(network.labels) == 1 and tells_apart(network, names):
        return two_sided(network, names)
    if len(names) != len(network.labels):
        headed = len(names) == len(network.labels) + 1 and is_title(names.names[0])
        raise RequestError(
            f"the labels file {file!r} has {len(names)} names, and {network.name} has {len(network.labels)} "
            f"{names.nouns}",
            f"its first line, {names.names[0]!r}, looks like a title: take it out"
            if headed
            else f"write one name for each {names.noun}, in the model's order",
        )
    return dataclasses.replace(network, labels=names)
