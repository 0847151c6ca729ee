"""Which model of open_clip is meant, and where its weights are: published, on the Hugging Face hub, or in a folder."""

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
from camcli.models.weights.published import unreadable

CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # on the hub; safetensors first
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that open_clip can build.

    Attributes:
        name: its full name, with our prefix.
        create: what open_clip's ``create_model`` and ``get_tokenizer`` are called with.
        config: how its towers are built.
        preprocess: what its weights say about pictures; where they say nothing, open_clip's defaults hold.
        weights: its weights: a file here, a file on the hub, or None if none are named.
        quick_gelu: whether its weights were trained with the fast approximation of GELU, if they say so.
        origin: where the weights come from, for people.
        fetched: whether they lie in a cache; else they are the user's own.
    """

    name: str
    create: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path | hub.HubFile | None
    quick_gelu: bool
    origin: str
    fetched: bool = True


def resolve_weights(name: str, *, own_weights: bool) -> Choice:
    """The model meant by a name, and where its weights are.

    Args:
        name: ``ViT-B-32/laion2b_s34b_b79k``, ``hf-hub:owner/model`` or ``local-dir:folder``.
        own_weights: whether its own weights are asked for, and not a file of the user's.

    Raises:
        RequestError: there is no such model, or its weights are not named, or its files cannot be had or read.
    """
    scheme, colon, place = name.partition(":")
    if colon and scheme == "local-dir":
        return _folder(Path(place), f"open_clip:{name}", f"the folder {place}")
    if colon and scheme == "hf-hub":
        return _repository(place, own_weights=own_weights)
    choice = resolve_listed(name)
    if own_weights and choice.weights is None:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise RequestError(
            f"open_clip:{name} does not say which weights",
            f"name one of them, as {name}/{tags[0]}; there are: {', '.join(tags)}"
            if tags
            else "nobody has published any: give your own with --weights FILE",
        )
    return choice


def resolve_listed(name: str) -> Choice:
    """The model meant by a name of open_clip's own, perhaps with the tag of its weights."""
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
    weights = hub.HubFile(repository, _alternatives(file)) if repository else None
    origin = f"{repository} on the Hugging Face hub" if repository else "nowhere"
    quick = bool(known.get("quick_gelu", config.get("quick_gelu", False)))
    preprocess = {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in known}
    return Choice(f"open_clip:{name}", model, config, preprocess, weights, quick, origin)


def _alternatives(file: str) -> tuple[str, ...]:
    """A file of weights on the hub, after its safetensors version."""
    return (f"{file.rpartition('.')[0]}.safetensors", file) if file else FILES


def _repository(place: str, *, own_weights: bool) -> Choice:
    """A model on the hub, brought here: a cached one is a folder, which open_clip loads without asking the network."""
    repository, revision = hub.repository(place)
    name = f"open_clip:hf-hub:{place}"
    wanted = [(CONFIG,), FILES] if own_weights else [(CONFIG,)]
    parts = [hub.HubFile(repository, files, revision) for files in wanted]
    folders = {hub.fetch(part, f"the files of {name}").parent for part in parts}
    if len(folders) > 1:  # an old configuration in the cache, and weights of a newer commit
        folders = {part.download().parent for part in parts}
    return replace(_folder(folders.pop(), name, f"{place} on the Hugging Face hub"), fetched=True)


def _folder(folder: Path, name: str, origin: str) -> Choice:
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = content["model_cfg"]
    except OSError as error:
        raise RequestError(
            f"{name} needs an {CONFIG}, and {str(folder)!r} has none that can be read ({error.strerror})",
            "for timm's folders and repositories leave open_clip: out",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"the {CONFIG} of {name} is not open_clip's: it has no model_cfg") from error
    files = [folder / file for file in FILES if (folder / file).is_file()]
    quick = bool(config.get("quick_gelu", False))
    preprocess = content.get("preprocess_cfg", {})
    file = files[0] if files else None
    return Choice(name, f"local-dir:{folder}", config, preprocess, file, quick, origin, fetched=False)


def check_text_side(choice: Choice, *, prompts: bool) -> None:
    """Refuse at once what would fail late: text towers and tokenizers that another package and the hub must bring."""
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
    if not choice.create.startswith("local-dir:"):
        for repository in dict.fromkeys(elsewhere):
            hub.fetch(hub.HubFile(repository, TOKENIZER), f"the text files of {choice.name}")


@contextmanager
def _silent() -> Iterator[None]:
    """open_clip warns of random weights whenever it loads none itself; whoever asks here knows."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def build_model(choice: Choice) -> nn.Module:
    """The model without its weights."""
    with _silent():
        model: nn.Module = open_clip.create_model(
            choice.create,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=choice.quick_gelu,
            force_preprocess_cfg=choice.preprocess,
        )
    return model


def load_pretrained(choice: Choice) -> nn.Module:
    """The model with its own weights.

    Raises:
        RequestError: there are none, or they cannot be had or read.
    """
    if choice.weights is None:
        raise RequestError(f"{choice.name} has no weights", f"there should be one of: {', '.join(FILES)}")
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
        return skip_init.built(build)
    except Exception as error:  # what a damaged file ends in depends on where the damage is
        raise unreadable(choice.name, file, error, fetched=choice.fetched) from error


def convert_state(state: checkpoint.State, module: nn.Module) -> checkpoint.State:
    """The state in open_clip's names and shapes, as open_clip itself converts what others trained."""
    state = convert_state_dict(module, state)
    if "positional_embedding" in state and not hasattr(module, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(module, name)
        if name in state and own is not None:
            state[name] = state[name].reshape(own.shape)
    resize_pos_embed(state, module)
    resize_text_pos_embed(state, module)
    return state
