"""Resolution and loading of timm models: by name and tag, from the Hugging Face hub, or from a folder."""

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
from camcli.models.weights.published import unreadable_error

CONFIG_FILES = ("config.json",)
# The model type in folders that transformers wrote for a timm model.
TRANSFORMERS_MODEL_TYPE = "timm_wrapper"
# Names of weights files on the hub; safetensors first, as in timm.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class TimmModelInfo:
    """A model that timm can build.

    Attributes:
        name: its full name, with the source's prefix.
        create_name: its name for ``timm.create_model``.
        weights: its weights: a local file, a file on a hub, or None if none are published.
        custom_load: True if only the model itself can read the file's format.
        origin: the origin of the weights, for people.
        fetched: True if the weights are in a cache; False if they are the user's own.
        from_transformers: True if transformers wrote them, for its wrapper of a timm model.
    """

    name: str
    create_name: str
    weights: Path | hub.RemoteFile | None
    custom_load: bool
    origin: str
    fetched: bool = True
    from_transformers: bool = False


def list_names() -> list[str]:
    """List every architecture with each of its tags; those without weights by their bare name."""
    return list(timm.list_models(include_tags=True))


def list_unlisted() -> list[str]:
    """List the architectures that are not listed, such as retired ones."""
    listed = set(timm.list_models())
    return [name for name in timm.models._registry._model_entrypoints if name not in listed]


def is_known(name: str) -> bool:
    """Return whether timm has this architecture, whatever the tag."""
    return bool(timm.is_model(name.partition(".")[0])) if _is_registry_name(name) else False


def _is_registry_name(name: str) -> bool:
    """Return whether a name may be in timm's registry, and is not that of a repository or folder."""
    return not any(mark in name for mark in "/\\:")


def resolve_weights(name: str, *, own_weights: bool) -> TimmModelInfo:
    """Resolve a name to a model and the place of its weights.

    Args:
        name: a name as in timm: ``resnet50.a1_in1k``, ``hf-hub:owner/model``, ``local-dir:folder``.
        own_weights: True if the model's own weights are requested, and neither a file's nor random ones.

    Raises:
        RequestError: there is no such model or tag, or its files are unavailable or unreadable.
    """
    scheme, colon, place = name.partition(":")
    if colon and scheme == "local-dir":
        return _resolve_folder(Path(place), f"timm:{name}", f"the folder {place}")
    if colon and scheme in ("hf-hub", "hf_hub"):
        return _resolve_repository(place, own_weights=own_weights)
    return resolve_registered(name)


def resolve_registered(name: str) -> TimmModelInfo:
    """Resolve a name in timm's registry, with or without a tag."""
    name = _resolve_retired(name)
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
    weights = _find_weights(config)
    custom = bool(config.custom_load) if isinstance(weights, hub.UrlFile) else config.custom_load == "hf"
    return TimmModelInfo(f"timm:{full}", full, weights, custom, _describe_origin(weights))


def _resolve_retired(name: str) -> str:
    """Replace a retired name by its successor, as timm does."""
    retired: dict[str, str | None] = timm.models._registry._deprecated_models
    if name not in retired:
        return name
    current = retired[name]
    if current is None:
        raise RequestError(f"timm has retired the model {name!r} without a successor", _update_hint())
    return current


def _find_weights(config: Any) -> Path | hub.RemoteFile | None:
    """Find the place of the weights in timm's own order: a file, then the hub, then a URL."""
    if config.file:
        return Path(config.file)
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        return hub.HubFile(repository, _file_names(config.hf_hub_filename), revision or None)
    return hub.UrlFile(config.url) if config.url else None


def _file_names(name: str | None) -> tuple[str, ...]:
    """Return the names of a weights file on the hub, its safetensors version first."""
    if not name or name == WEIGHT_FILES[-1]:
        return WEIGHT_FILES
    if name == "open_clip_pytorch_model.bin":
        return "open_clip_model.safetensors", name
    return (f"{name.removesuffix('.bin')}.safetensors", name) if name.endswith(".bin") else (name,)


def _describe_origin(weights: Path | hub.RemoteFile | None) -> str:
    if isinstance(weights, hub.HubFile):
        return f"{weights.repository} on the Hugging Face hub"
    if isinstance(weights, hub.UrlFile):
        return weights.url
    return f"the file {weights}" if weights else "nowhere"


def _resolve_repository(repository_name: str, *, own_weights: bool) -> TimmModelInfo:
    """Download a model from the hub if needed; its cache folder is then loaded without network access."""
    repository, revision = hub.parse_repository(repository_name)
    name = f"timm:hf-hub:{repository_name}"
    wanted = [CONFIG_FILES, WEIGHT_FILES] if own_weights else [CONFIG_FILES]
    parts = [hub.HubFile(repository, files, revision) for files in wanted]
    folder = {hub.fetch(part, f"the files of {name}").parent for part in parts}
    if len(folder) > 1:  # the cache has the configuration and the weights of different commits
        folder = {part.download().parent for part in parts}
    return replace(_resolve_folder(folder.pop(), name, f"{repository_name} on the Hugging Face hub"), fetched=True)


def _resolve_folder(folder: Path, name: str, origin: str) -> TimmModelInfo:
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
            f"the config.json of {name} is not timm's: it names no architecture",
            f"of a model of transformers: -m hf:{name.rpartition(':')[2]}; see timm.models.save_for_hf",
        ) from error
    if not timm.is_model(architecture):
        raise RequestError(f"timm has no architecture {architecture!r}, which {name} is built on", _update_hint())
    return TimmModelInfo(
        name,
        f"local-dir:{folder}",
        folder,
        custom_load=False,
        origin=origin,
        fetched=False,
        from_transformers=config.get("model_type") == TRANSFORMERS_MODEL_TYPE,
    )


def _update_hint() -> str:
    return f"timm {timm.__version__} is installed; another version may have it"


def build_model(choice: TimmModelInfo, classes: int | None = None) -> nn.Module:
    """Build the model without its weights, optionally with another number of classes."""
    module: nn.Module = timm.create_model(choice.create_name, pretrained=False, num_classes=classes)
    return module


def load_pretrained(choice: TimmModelInfo) -> nn.Module:
    """Load the model with its own weights.

    Raises:
        RequestError: none are published, or they are unavailable or unreadable.
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
    if choice.from_transformers and isinstance(choice.weights, Path):
        return _load_from_transformers(choice, choice.weights)
    # With a file in its config, timm needs no network, and still renames and adapts the weights as its own.
    overlay = None if file.is_dir() else {"file": str(file), "custom_load": choice.custom_load}
    try:
        module: nn.Module = skip_init.build_without_init(
            lambda: timm.create_model(choice.create_name, pretrained=True, pretrained_cfg_overlay=overlay)
        )
    except Exception as error:  # damaged files raise all kinds of errors
        raise unreadable_error(choice.name, file, error, fetched=choice.fetched, files=WEIGHT_FILES) from error
    return module


def _load_from_transformers(choice: TimmModelInfo, folder: Path) -> nn.Module:
    """Load a timm model from a folder that transformers wrote, in which all weights have a prefix."""
    file = next((folder / one for one in WEIGHT_FILES if (folder / one).is_file()), None)
    if file is None:
        raise RequestError(f"{choice.name} has no weights", f"there should be one of: {', '.join(WEIGHT_FILES)}")
    build = partial(build_model, choice)
    return skip_init.build_without_init(lambda: fit.load_weights(build, checkpoint.read(file), choice.name))[0]


def convert_state(state: checkpoint.StateDict, module: nn.Module) -> checkpoint.StateDict:
    """Convert a state to timm's names, with the converter in the architecture's module."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    return convert(state, module) if convert else state
