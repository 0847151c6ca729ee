"""Resolution and loading of open_clip models: published ones, from the Hugging Face hub, or from a folder."""

import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.factory import load_checkpoint
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from torch import nn

from camcli.base.errors import RequestError, did_you_mean
from camcli.models.weights import checkpoint, hub, skip_init
from camcli.models.weights.published import unreadable_error

CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # on the hub; safetensors first
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class OpenClipModelInfo:
    """A model that open_clip can build.

    Attributes:
        name: its full name, with the source's prefix.
        create_name: its name for open_clip's ``create_model`` and ``get_tokenizer``.
        config: the configuration of its towers.
        preprocess: the preprocessing settings of its weights; open_clip's defaults apply to the others.
        weights: its weights: a local file, a file on the hub, or None if none are named.
        quick_gelu: True if its weights were trained with the fast approximation of GELU.
        origin: the origin of the weights, for people.
        fetched: True if the weights are in a cache; False if they are the user's own.
    """

    name: str
    create_name: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path | hub.HubFile | None
    quick_gelu: bool
    origin: str
    fetched: bool = True


def resolve_weights(name: str, *, own_weights: bool) -> OpenClipModelInfo:
    """Resolve a name to a model and the place of its weights.

    Args:
        name: ``ViT-B-32/laion2b_s34b_b79k``, ``hf-hub:owner/model`` or ``local-dir:folder``.
        own_weights: True if the model's own weights are requested, and neither a file's nor random ones.

    Raises:
        RequestError: there is no such model, its weights are not named, or its files are unavailable or unreadable.
    """
    scheme, colon, place = name.partition(":")
    if colon and scheme == "local-dir":
        return _resolve_folder(Path(place), f"open_clip:{name}", f"the folder {place}")
    if colon and scheme == "hf-hub":
        return _resolve_repository(place, own_weights=own_weights)
    choice = resolve_registered(name)
    if own_weights and choice.weights is None:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise RequestError(
            f"open_clip:{name} does not name its weights",
            f"name one of them, as {name}/{tags[0]}; there are: {', '.join(tags)}"
            if tags
            else "none are published: give your own with --weights FILE",
        )
    return choice


def resolve_registered(name: str) -> OpenClipModelInfo:
    """Resolve a name in open_clip's own list, with or without the tag of its weights."""
    model, _, tag = name.partition("/")
    config = open_clip.get_model_config(model) if model in open_clip.list_models() else None
    if config is None:
        raise RequestError(
            f"open_clip has no model {model!r}",
            did_you_mean(model, open_clip.list_models()) or "list them: camcli models [PATTERN]",
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag and tag not in tags:
        raise RequestError(
            f"open_clip has no weights {tag!r} for {model}",
            "\n".join(filter(None, (did_you_mean(tag, tags), f"there are: {', '.join(tags) or 'none'}"))),
        )
    known = dict(open_clip.get_pretrained_cfg(model, tag)) if tag else {}
    repository, _, file = known.get("hf_hub", "").rpartition("/")
    weights = hub.HubFile(repository, _file_names(file)) if repository else None
    origin = f"{repository} on the Hugging Face hub" if repository else "nowhere"
    quick = bool(known.get("quick_gelu", config.get("quick_gelu", False)))
    preprocess = {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in known}
    return OpenClipModelInfo(f"open_clip:{name}", model, config, preprocess, weights, quick, origin)


def _file_names(file: str) -> tuple[str, ...]:
    """Return the names of a weights file on the hub, its safetensors version first."""
    return (f"{file.rpartition('.')[0]}.safetensors", file) if file else WEIGHT_FILES


def _resolve_repository(repository_name: str, *, own_weights: bool) -> OpenClipModelInfo:
    """Download a model from the hub if needed; its cache folder is then loaded without network access."""
    repository, revision = hub.parse_repository(repository_name)
    name = f"open_clip:hf-hub:{repository_name}"
    wanted = [(CONFIG_FILE,), WEIGHT_FILES] if own_weights else [(CONFIG_FILE,)]
    parts = [hub.HubFile(repository, files, revision) for files in wanted]
    folders = {hub.fetch(part, f"the files of {name}").parent for part in parts}
    if len(folders) > 1:  # the cache has the configuration and the weights of different commits
        folders = {part.download().parent for part in parts}
    return replace(_resolve_folder(folders.pop(), name, f"{repository_name} on the Hugging Face hub"), fetched=True)


def _resolve_folder(folder: Path, name: str, origin: str) -> OpenClipModelInfo:
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config = content["model_cfg"]
    except OSError as error:
        raise RequestError(
            f"{name} needs an {CONFIG_FILE}, and {str(folder)!r} has none that can be read ({error.strerror})",
            "for timm's folders and repositories leave open_clip: out",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"the {CONFIG_FILE} of {name} is not open_clip's: it has no model_cfg") from error
    files = [folder / file for file in WEIGHT_FILES if (folder / file).is_file()]
    quick = bool(config.get("quick_gelu", False))
    preprocess = content.get("preprocess_cfg", {})
    file = files[0] if files else None
    return OpenClipModelInfo(name, f"local-dir:{folder}", config, preprocess, file, quick, origin, fetched=False)


def check_text_side(choice: OpenClipModelInfo, *, prompts: bool) -> None:
    """Check early that text tower and tokenizer are available if they come from transformers and the hub."""
    text = choice.config["text_cfg"]
    parts = ("hf_tokenizer_name", "hf_model_name") if prompts else ("hf_model_name",)
    elsewhere = [text[key] for key in parts if text.get(key)]
    if not elsewhere:
        return
    if importlib.util.find_spec("transformers") is None:
        raise RequestError(
            f"the text side of {choice.name} ({elsewhere[0]}) needs the package transformers",
            "pip install transformers",
        )
    if not choice.create_name.startswith("local-dir:"):
        for repository in dict.fromkeys(elsewhere):
            hub.fetch(hub.HubFile(repository, TOKENIZER_FILES), f"the text files of {choice.name}")


@contextmanager
def _muted_logging() -> Iterator[None]:
    """Mute open_clip's warning of random weights while the block runs, since weights are loaded separately."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def build_model(choice: OpenClipModelInfo) -> nn.Module:
    """Build the model without its weights."""
    with _muted_logging():
        model: nn.Module = open_clip.create_model(
            choice.create_name,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=choice.quick_gelu,
            force_preprocess_cfg=choice.preprocess,
        )
    return model


def load_pretrained(choice: OpenClipModelInfo) -> nn.Module:
    """Load the model with its own weights.

    Raises:
        RequestError: none are published, or they are unavailable or unreadable.
    """
    if choice.weights is None:
        raise RequestError(f"{choice.name} has no weights", f"there should be one of: {', '.join(WEIGHT_FILES)}")
    file = (
        choice.weights
        if isinstance(choice.weights, Path)
        else hub.fetch(choice.weights, f"the weights of {choice.name}")
    )

    def build() -> nn.Module:
        model = build_model(choice)
        load_checkpoint(model, str(file), strict=True, weights_only=True)
        return model

    try:
        return skip_init.build_without_init(build)
    except Exception as error:  # damaged files raise all kinds of errors
        raise unreadable_error(choice.name, file, error, fetched=choice.fetched) from error


def convert_state(state: checkpoint.StateDict, module: nn.Module) -> checkpoint.StateDict:
    """Convert a state to open_clip's names and shapes, with open_clip's converters for other libraries' models."""
    state = convert_state_dict(module, state)
    if "positional_embedding" in state and not hasattr(module, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        parameter = getattr(module, name)
        if name in state and parameter is not None:
            state[name] = state[name].reshape(parameter.shape)
    resize_pos_embed(state, module)
    resize_text_pos_embed(state, module)
    return state
