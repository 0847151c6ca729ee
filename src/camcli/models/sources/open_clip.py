"""CLIP models of open_clip as ordinary classifiers: the prompts of ``--text`` are the classes."""

from typing import Any

import open_clip
import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.layers.layout import scaled
from camcli.engine.network import Network
from camcli.images.transform import Fit, Prepare
from camcli.models.adapters import headless, resize, zero_shot
from camcli.models.adapters.templates import filled, templates
from camcli.models.adapters.zero_shot import Prompted
from camcli.models.sources import tokenizer
from camcli.models.sources.open_clip_input_size import follow_size
from camcli.models.sources.open_clip_weights import (
    Choice,
    build_model,
    check_text_side,
    convert_state,
    load_pretrained,
    resolve_listed,
    resolve_weights,
)
from camcli.models.spec import Request
from camcli.models.weights import checkpoint, fit, hub, skip_init
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import PLAIN

FITS: dict[str, Fit] = {"shortest": "shorter", "squash": "squash", "longest": "longer"}  # open_clip's resize modes
# Of an untrained network for which no prompts are given.
ANY_CLASSES = 10


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
    weights = resolve_listed(name).weights
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
    choice = resolve_weights(request.name, own_weights=not request.weights)
    check_text_side(choice, prompts=bool(request.text))
    if request.file:
        build, beheaded = lambda _classes: build_model(choice), _tower if request.headless else None
        module, notes = skip_init.built(
            lambda: fit.fit(build, checkpoint.read(request.file), choice.name, convert_state, beheaded)
        )
        return _network(module, choice, request, f"the file {request.file}", notes)
    if request.random:
        origin = f"random numbers from seed {request.seed}"
        about = (
            ()
            if request.text or request.headless
            else (f"no --text was given: {ANY_CLASSES} random embeddings stand for classes",)
        )
        return _network(build_model(choice), choice, request, origin, about)
    return _network(load_pretrained(choice), choice, request, choice.origin)


def _network(model: Any, choice: Choice, request: Request, origin: str, notes: tuple[str, ...] = ()) -> Network:
    prefix, grid = _tokens(model.visual)
    prepare, outlet = _prepare(model), PLAIN
    follow_size(model.visual)
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


def _check_prompts(request: Request) -> None:
    if not request.text and not request.random and not request.headless:
        raise RequestError(
            f"open_clip:{request.name} has no classes of its own",
            "name some with --text, once for each: --text 'a photo of a cat' --text 'a photo of a dog'; or explain the "
            "features of its image tower: --head none",
        )
    zero_shot.check(request)


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
