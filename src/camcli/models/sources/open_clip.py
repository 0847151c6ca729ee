"""CLIP models of open_clip as ordinary classifiers: the prompts of ``--text`` are the classes."""

import importlib.util
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float
from open_clip.convert import convert_state_dict
from open_clip.factory import load_checkpoint
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from camcli.base.errors import RequestError, did_you_mean
from camcli.engine.hooks.input_size import follow, interpolated
from camcli.engine.layers.layout import scaled
from camcli.engine.network import Network
from camcli.images.transform import Fit, Prepare
from camcli.models.adapters import headless, resize, zero_shot
from camcli.models.adapters.templates import filled, templates
from camcli.models.adapters.zero_shot import Prompted
from camcli.models.sources import tokenizer
from camcli.models.sources.timm import follow_size
from camcli.models.spec import Request
from camcli.models.weights import checkpoint, fit, hub, skip_init
from camcli.models.weights.published import unreadable
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import PLAIN

FITS: dict[str, Fit] = {"shortest": "shorter", "squash": "squash", "longest": "longer"}  # open_clip's resize modes
CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # on the hub; safetensors first
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
# Of an untrained network for which no prompts are given.
ANY_CLASSES = 10
POSITIONS = "positions are interpolated to the cells of each input (bicubic, antialiased)"


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


class Tower(nn.Module):
    """Pictures to what the image tower says of them: their embedding, or the map before it is pooled.

    Attributes:
        visual: the image tower, named as in :class:`camcli.models.adapters.zero_shot.Prompted`.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Float[Tensor, "n d h w"]) -> Float[Tensor, "n *features"]:
        """The embedding ``(n, features)``, not normalised."""
        return zero_shot.first(self.visual(images), len(images))


def names() -> list[str]:
    """Every model with each of its published weights; those without weights by their bare name."""
    return [
        name
        for model in open_clip.list_models()
        for name in [f"{model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(model)] or [model]
    ]


def has(name: str) -> bool:
    """Whether open_clip has this model; the weights' tag is checked by ``load``."""
    return name.partition("/")[0] in open_clip.list_models()


def cached(name: str) -> bool:
    """Whether the model's weights are at hand."""
    weights = _listed(name).weights
    return isinstance(weights, hub.HubFile) and weights.cached() is not None


def load(request: Request) -> Network:
    """A model as ``ViT-B-32/laion2b_s34b_b79k``, ``hf-hub:owner/model`` or ``local-dir:folder``, for these prompts.

    The prompts are embedded once; the text tower is not kept. An untrained network may do without; without its head a
    model gives its image tower's embedding, and needs none.

    Raises:
        RequestError: there are no prompts, no such model or weights, or the weights cannot be had or do not fit; or
            the pooling cannot be taken off.
    """
    _check_prompts(request)
    choice = _choice(request.name, own_weights=not request.weights)
    _check_text_side(choice, prompts=bool(request.text))
    if request.file:
        build, beheaded = lambda _classes: _build(choice), _tower if request.headless else None
        module, notes = skip_init.built(
            lambda: fit.fit(build, checkpoint.read(request.file), choice.name, _converted, beheaded)
        )
        return _network(module, choice, request, f"the file {request.file}", notes)
    if request.random:
        origin = f"random numbers from seed {request.seed}"
        about = (
            ()
            if request.text or request.headless
            else (f"no --text was given: {ANY_CLASSES} random embeddings stand for classes",)
        )
        return _network(_build(choice), choice, request, origin, about)
    return _network(_pretrained(choice), choice, request, choice.origin)


def _network(model: Any, choice: Choice, request: Request, origin: str, notes: tuple[str, ...] = ()) -> Network:
    prefix, grid = _tokens(model.visual)
    prepare, outlet = _prepare(model), PLAIN
    _follow(model.visual)
    if request.size:
        resize.resized(model.visual, prepare.size, request.size, choice.name)
        prepare, grid = prepare.changed(request.size), scaled(grid, prepare.size, request.size)
    module: nn.Module
    cosine = None
    if request.headless:
        if request.pool == "none":
            _without_pooling(model, choice.name)
        module = _tower(model).eval()
        labels, outlet = headless.channels(module, prepare.size, choice.name, request.pool, prefix, grid)
    else:
        module, said = _prompted(model.eval(), choice, request)
        labels = zero_shot.labels(request) if request.text else Labels.numbered(ANY_CLASSES)
        notes, cosine = (*notes, *said), (float(module.scale), float(module.bias))
    return Network(
        name=choice.name,
        module=module,
        prepare=prepare,
        labels=labels,
        weights=request.kind,
        origin=origin,
        activation="none" if request.headless else zero_shot.activation(len(labels), model.logit_bias is not None),
        prefix=prefix,
        grid=grid,
        notes=notes,
        outlet=outlet,
        headless=request.headless,
        cosine=cosine,
    )


def _tower(model: Any) -> nn.Module:
    return Tower(model.visual)


def _without_pooling(model: Any, name: str) -> None:
    """Take the pooling and the projection behind it off the image tower, which then gives its map as it stands.

    Raises:
        RequestError: the tower is of none of the kinds for which that is known.
    """
    visual = model.visual
    if isinstance(visual, TimmModel):
        hint = f"leave --pool none out; {headless.AT_A_LAYER}"
        headless.removed(lambda: visual.trunk.reset_classifier(0, ""), "pooling", name, hint)
        visual.head = nn.Identity()
    elif isinstance(visual, ModifiedResNet):
        visual.attnpool = nn.Identity()
    elif isinstance(visual, VisionTransformer):
        if visual.attn_pool is not None:
            # CoCa's last norm stands behind the pooling, and is as wide as what that gives.
            visual.ln_post = nn.Identity() if visual.attn_pool_contrastive is None else visual.ln_post
            visual.attn_pool = visual.attn_pool_contrastive = None
        visual.pool_type, visual.proj = "none", None
    else:
        raise RequestError(
            f"how the pooling is taken off the image tower of {name} ({type(visual).__name__}) is not known",
            f"leave --pool none out; {headless.AT_A_LAYER}",
        )


# Which model


def _check_prompts(request: Request) -> None:
    if not request.text and not request.random and not request.headless:
        raise RequestError(
            f"open_clip:{request.name} has no classes of its own",
            "name some with --text, once for each: --text 'a photo of a cat' --text 'a photo of a dog'; or explain the "
            "features of its image tower: --head none",
        )
    zero_shot.check(request)


def _choice(name: str, *, own_weights: bool) -> Choice:
    scheme, colon, place = name.partition(":")
    if colon and scheme == "local-dir":
        return _folder(Path(place), f"open_clip:{name}", f"the folder {place}")
    if colon and scheme == "hf-hub":
        return _repository(place, own_weights=own_weights)
    choice = _listed(name)
    if own_weights and choice.weights is None:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise RequestError(
            f"open_clip:{name} does not say which weights",
            f"name one of them, as {name}/{tags[0]}; there are: {', '.join(tags)}"
            if tags
            else "nobody has published any: give your own with --weights FILE",
        )
    return choice


def _listed(name: str) -> Choice:
    model, _, tag = name.partition("/")
    config = open_clip.get_model_config(model) if has(model) else None
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


def _check_text_side(choice: Choice, *, prompts: bool) -> None:
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


# Building


@contextmanager
def _silent() -> Iterator[None]:
    """open_clip warns of random weights whenever it loads none itself; whoever asks here knows."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _build(choice: Choice) -> nn.Module:
    with _silent():
        model: nn.Module = open_clip.create_model(
            choice.create,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=choice.quick_gelu,
            force_preprocess_cfg=choice.preprocess,
        )
    return model


def _pretrained(choice: Choice) -> nn.Module:
    if choice.weights is None:
        raise RequestError(f"{choice.name} has no weights", f"there should be one of: {', '.join(FILES)}")
    file = (
        choice.weights
        if isinstance(choice.weights, Path)
        else hub.fetch(choice.weights, f"the weights of {choice.name}")
    )

    def build() -> nn.Module:
        model = _build(choice)
        load_checkpoint(model, str(file), strict=True, weights_only=True)
        return model

    try:
        return skip_init.built(build)
    except Exception as error:  # what a damaged file ends in depends on where the damage is
        raise unreadable(choice.name, file, error, fetched=choice.fetched) from error


def _converted(state: checkpoint.State, module: nn.Module) -> checkpoint.State:
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


def _prompted(model: Any, choice: Choice, request: Request) -> tuple[Prompted, tuple[str, ...]]:
    """The image tower with the prompts' embeddings, and what must be said of these; the text tower is not kept."""
    said: tuple[str, ...] = ()
    if request.text:
        prompts, blank, said = _embedded(model, choice, request)
    else:  # what stands for the prompts of a network whose weights are random too
        *some, blank = nn.functional.normalize(torch.randn(ANY_CLASSES + 1, choice.config["embed_dim"]), dim=-1)
        prompts = torch.stack(some)
    scale = model.logit_scale.detach().exp().reshape(())
    bias = torch.zeros(()) if model.logit_bias is None else model.logit_bias.detach().reshape(())
    return Prompted(model.visual, prompts, scale, bias, blank).eval(), said


def _embedded(model: Any, choice: Choice, request: Request) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The embeddings of the prompts and of the empty one, and how the tokenizer reads the prompts."""
    tokenize = _tokenizer(choice)
    prompts, patterns = (*request.text, *request.contrast), templates(request.template)
    tokenizer.check(tokenize, [prompt for prompt in prompts if prompt.strip()], choice.name)
    texts = [text for _, text in filled(prompts, patterns)]

    def embed(some: list[str]) -> Tensor:
        found: Tensor = model.encode_text(tokenize(some))
        return found

    [blank] = zero_shot.embedded(embed, [""])
    found = zero_shot.embedded(embed, prompts, patterns)
    return found, blank, tuple(tokenizer.notes(tokenize, prompts, texts))


def _tokenizer(choice: Choice) -> Any:
    try:
        return open_clip.get_tokenizer(choice.create)
    except Exception as error:  # the tokenizer's package, its files and the hub each fail in their own way
        raise RequestError(
            f"the tokenizer of {choice.name} cannot be loaded: "
            f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        ) from error


# Another input size


def _follow(visual: Any) -> None:
    """Have an image tower follow the size of its input."""
    if isinstance(visual, TimmModel):
        follow_size(visual.trunk)
    elif isinstance(visual, VisionTransformer):
        follow(visual, tuple(visual.image_size), _change, POSITIONS)
    elif isinstance(visual, ModifiedResNet):
        # It looks at the cells of its input, which the convolutions before take of any size.
        side = math.isqrt(len(visual.attnpool.positional_embedding) - 1)
        follow(visual.attnpool, (side, side), _change_cells, POSITIONS)


def _change(visual: Any, size: tuple[int, int]) -> None:
    """Make a vision transformer what it must be for input of this size."""
    rows, columns = visual.patch_size
    if size[0] % rows or size[1] % columns:
        raise ValueError(f"it cuts pictures into patches of {rows}x{columns}, which do not go into it evenly")
    grid = size[0] // rows, size[1] // columns
    visual.positional_embedding = _interpolated(visual.positional_embedding, visual.grid_size, grid)
    visual.grid_size, visual.image_size = grid, size


def _change_cells(pool: Any, cells: tuple[int, int]) -> None:
    """Make a pooling by attention what it must be for so many cells; the first position is that of their mean."""
    side = math.isqrt(len(pool.positional_embedding) - 1)
    pool.positional_embedding = _interpolated(pool.positional_embedding, (side, side), cells)


def _interpolated(table: nn.Parameter, before: tuple[int, int], after: tuple[int, int]) -> nn.Parameter:
    return nn.Parameter(interpolated(table, before, after, 1), table.requires_grad)


# What open_clip knows about a model


def _prepare(model: nn.Module) -> Prepare:
    settings = open_clip.get_model_preprocess_cfg(model)
    size = settings["size"]
    height, width = (size, size) if isinstance(size, int) else size
    red, green, blue = settings["mean"]
    red_spread, green_spread, blue_spread = settings["std"]
    return Prepare(
        size=(height, width),
        mean=(red, green, blue),
        std=(red_spread, green_spread, blue_spread),
        resize=(height, width),
        fit=FITS[settings["resize_mode"]],
        interpolation="bilinear" if settings["interpolation"] == "bilinear" else "bicubic",
        fill=settings["fill_color"],
    )


def _tokens(visual: Any) -> tuple[int | None, tuple[int, int] | None]:
    """How many tokens stand before those of the patches, and the patch grid."""
    if isinstance(visual, VisionTransformer):
        rows, columns = visual.grid_size
        return 1, (rows, columns)
    trunk = getattr(visual, "trunk", None)
    size = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    prefix = getattr(trunk, "num_prefix_tokens", None)
    return prefix, (size[0], size[1]) if size and prefix is not None else None
