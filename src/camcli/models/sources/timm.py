"""Models of timm (PyTorch Image Models): by name and tag, from the Hugging Face hub, or from a folder."""

import inspect
import json
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from timm.layers import PatchEmbed
from torch import nn

from camcli.base.errors import RequestError, did_you_mean
from camcli.engine import input_channels
from camcli.engine.hooks.input_size import follow
from camcli.engine.layers.layout import scaled
from camcli.engine.network import Network
from camcli.images.transform import Fit, Prepare
from camcli.models import Pool
from camcli.models.adapters import headless, resize
from camcli.models.sources import imagenet
from camcli.models.spec import Request
from camcli.models.weights import checkpoint, fit, hub, skip_init
from camcli.models.weights.published import unreadable
from camcli.targets.class_list import WORDNET
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import PLAIN

FITS: dict[str, Fit] = {"center": "shorter", "squash": "squash", "border": "longer"}  # timm's crop modes
# What marks models (CaiT, XCiT, ConViT) whose class token joins after the first blocks: the number of prefix tokens
# that timm has for them is that of the last.
LATE_CLASS_TOKEN = ("blocks_token_only", "cls_attn_blocks", "local_up_to_layer")
# What interpolates its positions in its forward, whatever its configuration says of its size.
INTERPOLATING = ("VisionTransformerSAM",)
# Of the classifier that an architecture gets that has none, where all weights are random.
ANY_CLASSES = 10
POSITIONS = "what belongs to positions is interpolated to each input's size by timm (set_input_size)"
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


def names() -> list[str]:
    """Every architecture with each of its tags; those without weights by their bare name."""
    return list(timm.list_models(include_tags=True))


def has(name: str) -> bool:
    """Whether timm has this architecture; the tag is checked by ``load``."""
    return bool(timm.is_model(name.partition(".")[0])) if _is_plain(name) else False


def cached(name: str) -> bool:
    """Whether the model's weights are at hand."""
    weights = _registered(name).weights
    return isinstance(weights, Path) or (weights is not None and weights.cached() is not None)


def load(request: Request) -> Network:
    """A model by timm's own words: ``resnet50``, ``resnet50.a1_in1k``, ``hf-hub:owner/model``, ``local-dir:folder``.

    Raises:
        RequestError: there is no such model or tag, or its weights cannot be had or do not fit.
    """
    choice = _choice(request.name, own_weights=not request.weights)
    if request.file:
        build, beheaded = partial(_build, choice), without_head if request.headless else None
        module, notes = skip_init.built(
            lambda: fit.fit(build, checkpoint.read(request.file), choice.name, _converted, beheaded)
        )
        return network(module, choice.name, request, f"the file {request.file}", notes, choice.create)
    if request.random:
        module, about = _build(choice), tuple[str, ...]()
        if not request.headless and not getattr(module, "num_classes", 0):
            module = _build(choice, ANY_CLASSES)
            about = (f"{choice.name} has no classifier of its own; a random one of {ANY_CLASSES} classes is put on it",)
        origin = f"random numbers from seed {request.seed}"
        return network(module, choice.name, request, origin, about, create=choice.create)
    return network(_pretrained(choice), choice.name, request, choice.origin, create=choice.create)


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
    config = _config(module)
    classes = int(getattr(module, "num_classes", config.get("num_classes", 0)))
    if classes < 1 and not request.headless:
        raise RequestError(
            f"{name} gives features, no class scores",
            "explain its features: --head none; or choose one with a classifier, or give its weights with one: "
            "--weights FILE",
        )
    own, prefix, grid = _size_of(module), _prefix(module), _grid(module)
    follow_size(module, create)
    if request.size:
        module, grid = _sized(module, request.size, name, create), scaled(grid, own, request.size)
    prepare = _prepare(module, name, request.size)
    if request.headless:
        without_head(module, name, request.pool)
        # Of models whose class token joins late too: at the end it is there.
        before = getattr(module, "num_prefix_tokens", None)
        labels, outlet = headless.channels(module, prepare.size, name, request.pool, before, grid, prepare.channels)
        about_labels: tuple[str, ...] = ()
    else:
        (labels, about_labels), outlet = _labels(config, classes, request.file), PLAIN
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


# Which model


def _is_plain(name: str) -> bool:
    """Whether a name stands in timm's registry, rather than for a repository or a folder."""
    return not any(mark in name for mark in "/\\:")


def _choice(name: str, *, own_weights: bool) -> Choice:
    scheme, colon, place = name.partition(":")
    if colon and scheme == "local-dir":
        return _folder(Path(place), f"timm:{name}", f"the folder {place}")
    if colon and scheme in ("hf-hub", "hf_hub"):
        return _repository(place, own_weights=own_weights)
    return _registered(name)


def _registered(name: str) -> Choice:
    name = _current(name)
    architecture, _, tag = name.partition(".")
    if not has(name):
        near = did_you_mean(name, names())
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


# Building


def _build(choice: Choice, classes: int | None = None) -> nn.Module:
    module: nn.Module = timm.create_model(choice.create, pretrained=False, num_classes=classes)
    return module


def _pretrained(choice: Choice) -> nn.Module:
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
    build = partial(_build, choice)
    return skip_init.built(lambda: fit.fit(build, checkpoint.read(file), choice.name))[0]


def _converted(state: checkpoint.State, module: nn.Module) -> checkpoint.State:
    """The state in timm's names, by the converter that sits beside each architecture."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    return convert(state, module) if convert else state


# Another input size


def follow_size(module: nn.Module, create: str = "", own: tuple[int, int] | None = None) -> None:
    """Have a model of timm follow the size of its input, what belongs to positions interpolated by timm itself.

    A model that timm calls of fixed size and cannot change is refused input of another size, unless it is seen to be
    right as it is: CrossViT would scale any input to its own size, and MViTv2 look up the wrong places, unseen.

    Args:
        module: the model.
        create: what timm builds it by.
        own: what it was built for, if that is not what its configuration says.
    """
    own = own or _size_of(module)
    if hasattr(module, "set_input_size"):
        follow(module, own, _change, POSITIONS)
    elif _is_fixed(module):
        follow(module, own, _Unchanged(own, create), "")


def _is_fixed(module: nn.Module) -> bool:
    return bool(_config(module).get("fixed_input_size")) and type(module).__name__ not in INTERPOLATING


def _size_of(module: nn.Module) -> tuple[int, int]:
    """Height and width of the input that a model is made for."""
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    height, width = size if isinstance(size, tuple) else timm.data.resolve_model_data_config(module)["input_size"][1:]
    return int(height), int(width)


def _change(module: Any, size: tuple[int, int]) -> None:
    """Make a model what it must be for input of this size, by timm's own means."""
    if patches := _uneven(module, size):
        raise ValueError(f"it cuts pictures into patches of {patches}, which do not go into it evenly")
    windows = _windows(module)
    with warnings.catch_warnings():
        # torch's, of how timm looks up tables of relative positions.
        warnings.simplefilter("ignore", UserWarning)
        module.set_input_size(img_size=size, **({"window_size": windows} if windows else {}))


def _uneven(module: nn.Module, size: tuple[int, int]) -> str:
    """The patches that pictures are cut into, if they do not go into this size evenly."""
    embed = getattr(module, "patch_embed", None)
    if not isinstance(embed, PatchEmbed):
        return ""
    rows, columns = embed.patch_size
    return f"{rows}x{columns}" if size[0] % rows or size[1] % columns else ""


def _windows(module: Any) -> Any:
    """The windows of attention that the weights were trained for, which stay; None where they go by the input's size.

    Raises:
        ValueError: this version of timm cannot keep them.
    """
    built, changed = (inspect.signature(one).parameters for one in (type(module), module.set_input_size))
    if "window_size" not in changed or "window_size" not in built or built["window_size"].default is None:
        return None
    if stages := getattr(module, "_ref_window_sizes", None):
        return stages
    windows = {part.window_size for part in module.modules() if hasattr(part, "shift_size")}
    if len(windows) != 1:
        raise ValueError("its attention has windows of several sizes, which this version of timm would not keep")
    return windows.pop()


class _Unchanged:
    """Lets a model of fixed size be as it is for input of another, if that is right.

    It is, if the model that is built for that size, its weights interpolated, says the same.

    Args:
        own: the input that the model is made for.
        create: what timm builds it by; empty if that is not known.
    """

    def __init__(self, own: tuple[int, int], create: str) -> None:
        self._own, self._create = own, create
        self._right: set[tuple[int, int]] = set()

    def __call__(self, module: nn.Module, size: tuple[int, int]) -> None:
        if size in self._right:
            return
        if _is_built_for(module, self._create):
            # Two others with its weights, since somebody may be listening to the module itself.
            with torch.random.fork_rng(devices=[]):
                own, made = (_rebuilt(module, self._own, each, self._create).eval() for each in (self._own, size))
            noise = torch.randn(1, _channels(module), *size, generator=torch.Generator().manual_seed(0))
            if not torch.equal(own(noise), made(noise)):
                raise ValueError("timm interpolates its positions only where it builds the model for one size (--size)")
        elif math.prod(size) == math.prod(self._own):
            raise ValueError(resize.SAME_COUNT)
        self._right.add(size)


def _sized(module: nn.Module, size: tuple[int, int], name: str, create: str) -> nn.Module:
    """The model for pictures of this size, its weights interpolated by timm where they belong to positions."""
    if patches := _uneven(module, size):
        rows, columns = map(int, patches.split("x"))
        near = f"{max(1, round(size[0] / rows)) * rows}x{max(1, round(size[1] / columns)) * columns}"
        raise RequestError(
            f"{name} cuts pictures into patches of {patches}, and {size[0]}x{size[1]} is no multiple",
            f"the nearest: --size {near}",
        )
    own = _size_of(module)
    ways = [lambda: module]
    if _is_fixed(module) and _is_built_for(module, create):
        # Built for the size comes first where timm has no better way, so that its reason is told.
        ways.insert(len(ways) if hasattr(module, "set_input_size") else 0, lambda: _rebuilt(module, own, size, create))
    made = resize.resized(module, own, size, name, ways, _channels(module))
    if made is not module:
        follow_size(made, create, size)
    return made


def _is_built_for(module: nn.Module, create: str) -> bool:
    """Whether timm can build a model for an input size."""
    return bool(create) and "img_size" in inspect.signature(type(module)).parameters


def _rebuilt(module: nn.Module, own: tuple[int, int], size: tuple[int, int], create: str) -> nn.Module:
    """The model built for another input size, with its weights.

    Raises:
        ValueError: timm does not interpolate those that belong to positions.
    """

    def build(height: int, width: int) -> nn.Module:
        # Some classes take no pair.
        side = height if height == width else (height, width)
        made: nn.Module = timm.create_model(create, pretrained=False, num_classes=module.num_classes, img_size=side)
        return made

    made, before = build(*size), dict(module.state_dict())
    after = _converted(dict(before), made)
    if size != own and math.prod(size) == math.prod(own):
        # Where the number of patches stays, timm takes a table over them as it is, though rows begin elsewhere.
        larger = build(2 * own[0], 2 * own[1]).state_dict()
        tables = [name for name in before if name in larger and larger[name].shape != before[name].shape]
        if any(after[name] is before[name] for name in tables if name in after):
            raise ValueError(resize.SAME_COUNT)
    return resize.transplanted(after, made)


# What timm knows about a model


def _config(module: nn.Module) -> dict[str, Any]:
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    return config


def _prepare(module: nn.Module, name: str, size: tuple[int, int] | None = None) -> Prepare:
    data = timm.data.resolve_model_data_config(module)
    height, width = size or data["input_size"][1:]  # at another size timm keeps the share that is cut away: crop_pct
    channels = _channels(module)
    mean, std = (_numbers(data[key], channels, name) for key in ("mean", "std"))
    fit = FITS[data["crop_mode"]]
    return Prepare(
        size=(height, width),
        mean=mean,
        std=std,
        resize=(math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"])),
        fit=fit,
        interpolation=data["interpolation"],
        fill=_colour(mean) if fit == "longer" else 0,  # timm pads with the mean colour
    )


def _channels(module: nn.Module) -> int:
    """How many channels a model's images have, which ``in_chans`` has changed.

    What its first convolution takes; tried where that is not what its configuration says, since others fold the
    picture before it (TResNet: 4 x 4 pixels of 3 channels into 48).
    """
    count, height, width = map(int, timm.data.resolve_model_data_config(module)["input_size"])
    first = _config(module).get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())
    parts = [part for name in names if isinstance(part := dict(module.named_modules()).get(name), nn.Conv2d)]
    if not parts or parts[0].in_channels == count:
        return count
    return input_channels.taken(module.eval(), (height, width), count) or parts[0].in_channels


def _numbers(values: Any, channels: int, name: str) -> tuple[float, ...]:
    """One number for each channel.

    Raises:
        RequestError: the model's configuration has others, of which these do not follow.
    """
    numbers = tuple(map(float, values))
    if len(numbers) == channels:
        return numbers
    # What is the same for each of three colours is so for the grey of them, and of however many channels.
    if len(set(numbers)) == 1:
        return numbers[:1] * channels
    raise RequestError(
        f"{name} takes images of {input_channels.channels_in_words(channels)}, and its configuration has a mean and "
        f"std of {len(numbers)} ({', '.join(f'{one:g}' for one in numbers)})",
        "say how its images were prepared, with a number for each channel: by timm's "
        "pretrained_cfg_overlay=dict(mean=(0.5,), std=(0.5,)); or return (module, camcli.Prepare(size=(224, 224), "
        "resize=(256, 256), mean=(0.5,), std=(0.5,))) from a file.py:function",
    )


def _colour(mean: tuple[float, ...]) -> int | tuple[int, ...]:
    levels = tuple(round(255 * value) for value in mean)
    return levels[0] if len(levels) == 1 else levels


def _labels(config: dict[str, Any], classes: int, file: str) -> tuple[Labels, tuple[str, ...]]:
    """The names of the classes, and what is to be said about them."""
    labels = _own_names(config) or imagenet.named(config.get("tag") or "", classes)
    if labels is None or len(labels) != classes:
        return Labels.numbered(classes), ()
    if file:
        return labels, ("the classes are taken to be the model's usual ones; --labels FILE names others",)
    return labels, ()


def _own_names(config: dict[str, Any]) -> Labels | None:
    """The names that a model brings along in its configuration."""
    given = config.get("label_names")
    if not given:
        return None
    if isinstance(given, dict):
        given = [given[key] for key in sorted(given, key=int)]
    described = config.get("label_descriptions") or {}
    names = tuple(str(described.get(name, name)) for name in given)
    return Labels(names, tuple(given)) if all(WORDNET.fullmatch(str(name)) for name in given) else Labels(names)


def _prefix(module: nn.Module) -> int | None:
    """How many tokens stand before those of the patches, where that holds for every block."""
    if any(hasattr(module, mark) for mark in LATE_CLASS_TOKEN):
        return None
    count = getattr(module, "num_prefix_tokens", None)
    return None if count is None else int(count)


def _grid(module: nn.Module) -> tuple[int, int] | None:
    """The patch grid of a model whose tokens keep it to the end, for input of its own size."""
    if _prefix(module) is None:
        return None
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    return (int(grid[0]), int(grid[1])) if grid else None
