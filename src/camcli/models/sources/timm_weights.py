"""Which model of timm is meant, and where its weights are: by name and tag, on the Hugging Face hub, or in a folder."""

import json
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
from torch import nn

from camcli.base.errors import RequestError, did_you_mean
from camcli.models.weights import checkpoint, fit, hub, skip_init
from camcli.models.weights.published import unreadable

CONFIG = ("config.json",)
# What transformers calls a model of timm's in the folders that it writes.
TRANSFORMERS = "timm_wrapper"
# What files of weights are called on the hub; safetensors first, as in timm.
FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that timm can build.

    Attributes:
        name: its full name, with our prefix.
        create: what timm's ``create_model`` is called with.
        weights: its weights: a file here, a file on a hub, or None if nobody has any.
        custom: whether the file is of a format that only the model itself can read.
        origin: where the weights come from, for people.
        fetched: whether they lie in a cache; else they are the user's own.
        wrapped: whether transformers wrote them, as those of a model around timm's.
    """

    name: str
    create: str
    weights: Path | hub.Remote | None
    custom: bool
    origin: str
    fetched: bool = True
    wrapped: bool = False


def list_names() -> list[str]:
    """Every architecture with each of its tags; those without weights by their bare name."""
    return list(timm.list_models(include_tags=True))


def is_known(name: str) -> bool:
    """Whether timm has this architecture, whatever the tag."""
    return bool(timm.is_model(name.partition(".")[0])) if _is_plain(name) else False


def _is_plain(name: str) -> bool:
    """Whether a name stands in timm's registry, rather than for a repository or a folder."""
    return not any(mark in name for mark in "/\\:")


def resolve_weights(name: str, *, own_weights: bool) -> Choice:
    """The model meant by a name, and where its weights are.

    Args:
        name: as timm has it: ``resnet50.a1_in1k``, ``hf-hub:owner/model``, ``local-dir:folder``.
        own_weights: whether its own weights are asked for, and not a file of the user's.

    Raises:
        RequestError: there is no such model or tag, or its files cannot be had or read.
    """
    scheme, colon, place = name.partition(":")
    if colon and scheme == "local-dir":
        return _folder(Path(place), f"timm:{name}", f"the folder {place}")
    if colon and scheme in ("hf-hub", "hf_hub"):
        return _repository(place, own_weights=own_weights)
    return resolve_registered(name)


def resolve_registered(name: str) -> Choice:
    """The model meant by a name in timm's registry, perhaps with a tag."""
    name = _current(name)
    architecture, _, tag = name.partition(".")
    if not is_known(name):
        near = did_you_mean(name, list_names())
        raise RequestError(f"timm has no model {name!r}", near or "list them: camcli models [PATTERN]")
    tags = sorted(timm.models.get_arch_pretrained_cfgs(architecture))
    if tag and name not in tags:
        raise RequestError(
            f"timm has no weights {tag!r} for {architecture}",
            "\n".join(filter(None, (did_you_mean(name, tags), f"there are: {', '.join(tags) or 'none'}"))),
        )
    config = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    full = f"{architecture}.{config.tag}" if config.tag else architecture
    weights = _location(config)
    custom = bool(config.custom_load) if isinstance(weights, hub.UrlFile) else config.custom_load == "hf"
    return Choice(f"timm:{full}", full, weights, custom, _origin(weights))


def _current(name: str) -> str:
    """The name that stands for a retired one today, as timm itself would take it."""
    retired: dict[str, str | None] = timm.models._registry._deprecated_models
    if name not in retired:
        return name
    current = retired[name]
    if current is None:
        raise RequestError(f"timm has retired the model {name!r} without a successor", _update())
    return current


def _location(config: Any) -> Path | hub.Remote | None:
    """Where timm itself would look for the weights: a file, then the hub, then an address."""
    if config.file:
        return Path(config.file)
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        return hub.HubFile(repository, _alternatives(config.hf_hub_filename), revision or None)
    return hub.UrlFile(config.url) if config.url else None


def _alternatives(name: str | None) -> tuple[str, ...]:
    """A file of weights on the hub, after its safetensors version."""
    if not name or name == FILES[-1]:
        return FILES
    if name == "open_clip_pytorch_model.bin":
        return "open_clip_model.safetensors", name
    return (f"{name.removesuffix('.bin')}.safetensors", name) if name.endswith(".bin") else (name,)


def _origin(weights: Path | hub.Remote | None) -> str:
    if isinstance(weights, hub.HubFile):
        return f"{weights.repository} on the Hugging Face hub"
    if isinstance(weights, hub.UrlFile):
        return weights.url
    return f"the file {weights}" if weights else "nowhere"


def _repository(place: str, *, own_weights: bool) -> Choice:
    """A model on the hub, brought here: a cached one is a folder, which timm loads without asking the network."""
    repository, revision = hub.repository(place)
    name = f"timm:hf-hub:{place}"
    wanted = [CONFIG, FILES] if own_weights else [CONFIG]
    parts = [hub.HubFile(repository, files, revision) for files in wanted]
    folder = {hub.fetch(part, f"the files of {name}").parent for part in parts}
    if len(folder) > 1:  # an old configuration in the cache, and weights of a newer commit
        folder = {part.download().parent for part in parts}
    return replace(_folder(folder.pop(), name, f"{place} on the Hugging Face hub"), fetched=True)


def _folder(folder: Path, name: str, origin: str) -> Choice:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architecture = config["architecture"]
    except OSError as error:
        raise RequestError(
            f"{name} needs a config.json, and {str(folder)!r} has none that can be read ({error.strerror})",
            "timm.models.save_for_hf writes such a folder; "
            "for open_clip's folders and repositories write open_clip: in front",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"the config.json of {name} is not timm's: it names no architecture", "see timm.models.save_for_hf"
        ) from error
    if not timm.is_model(architecture):
        raise RequestError(f"timm has no architecture {architecture!r}, which {name} is built on", _update())
    wrapped = config.get("model_type") == TRANSFORMERS
    return Choice(name, f"local-dir:{folder}", folder, custom=False, origin=origin, fetched=False, wrapped=wrapped)


def _update() -> str:
    return f"timm {timm.__version__} is installed; another version may have it"


def build_model(choice: Choice, classes: int | None = None) -> nn.Module:
    """The model without its weights, perhaps with another number of classes."""
    module: nn.Module = timm.create_model(choice.create, pretrained=False, num_classes=classes)
    return module


def load_pretrained(choice: Choice) -> nn.Module:
    """The model with its own weights.

    Raises:
        RequestError: there are none, or they cannot be had or read.
    """
    if choice.weights is None:
        raise RequestError(
            f"nobody has published weights for {choice.name}",
            "give your own: --weights FILE; or choose another: camcli models [PATTERN]; "
            "or try the command on an untrained network, whose maps mean nothing: --weights random",
        )
    file = (
        choice.weights
        if isinstance(choice.weights, Path)
        else hub.fetch(choice.weights, f"the weights of {choice.name}")
    )
    if choice.wrapped and isinstance(choice.weights, Path):
        return _of_transformers(choice, choice.weights)
    # Told of a file, timm neither asks the network nor forgets what it does to weights of its own: rename, adapt.
    overlay = None if file.is_dir() else {"file": str(file), "custom_load": choice.custom}
    try:
        module: nn.Module = skip_init.built(
            lambda: timm.create_model(choice.create, pretrained=True, pretrained_cfg_overlay=overlay)
        )
    except Exception as error:  # what a damaged file ends in depends on where the damage is
        raise unreadable(choice.name, file, error, fetched=choice.fetched, files=FILES) from error
    return module


def _of_transformers(choice: Choice, folder: Path) -> nn.Module:
    """The model of a folder that transformers wrote around timm's, whose weights all have a prefix there."""
    file = next((folder / one for one in FILES if (folder / one).is_file()), None)
    if file is None:
        raise RequestError(f"{choice.name} has no weights", f"there should be one of: {', '.join(FILES)}")
    build = partial(build_model, choice)
    return skip_init.built(lambda: fit.fit(build, checkpoint.read(file), choice.name))[0]


def convert_state(state: checkpoint.State, module: nn.Module) -> checkpoint.State:
    """The state in timm's names, by the converter that sits beside each architecture."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    return convert(state, module) if convert else state
