"""Models of open_clip as zero-shot classifiers: the prompts of ``--text`` are the classes."""

from typing import Any

import open_clip
import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.layers.layout import scale_grid
from camcli.engine.network import Network
from camcli.images.transform import Fit, Preprocess
from camcli.models.adapters import headless, resize, zero_shot
from camcli.models.adapters.templates import expand_templates, fill_templates
from camcli.models.adapters.zero_shot import ZeroShotClassifier
from camcli.models.sources import tokenizer
from camcli.models.sources.open_clip_input_size import make_resizable
from camcli.models.sources.open_clip_weights import (
    OpenClipModelInfo,
    build_model,
    check_text_side,
    convert_state,
    load_pretrained,
    resolve_registered,
    resolve_weights,
)
from camcli.models.spec import ModelSpec
from camcli.models.weights import checkpoint, fit, hub, skip_init
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC

# Fits by open_clip's resize modes.
FIT_OF_RESIZE_MODE: dict[str, Fit] = {"shortest": "shorter", "squash": "squash", "longest": "longer"}
# Number of classes of an untrained network without prompts.
RANDOM_CLASSES = 10


class ImageTower(nn.Module):
    """Image tower whose output is the images' embedding, or the feature map before pooling.

    Attributes:
        visual: the image tower, named as in :class:`camcli.models.adapters.zero_shot.ZeroShotClassifier`.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Float[Tensor, "n d h w"]) -> Float[Tensor, "n *features"]:
        """Compute the embedding ``(n, features)``, not normalised, or without pooling the feature map."""
        return zero_shot.take_features(self.visual(images), len(images))


def names() -> list[str]:
    """List every model with each of its published weights; those without weights by their bare name."""
    return [
        name
        for model in open_clip.list_models()
        for name in [f"{model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(model)] or [model]
    ]


def has(name: str) -> bool:
    """Return whether open_clip has this model; the weights' tag is checked by :func:`load`."""
    return name.partition("/")[0] in open_clip.list_models()


def cached(name: str) -> bool:
    """Return whether the model's weights are on this machine."""
    weights = resolve_registered(name).weights
    return isinstance(weights, hub.HubFile) and weights.find_cached() is not None


def load(spec: ModelSpec) -> Network:
    """Load an open_clip model: ``ViT-B-32/laion2b_s34b_b79k``, ``hf-hub:owner/model`` or ``local-dir:folder``.

    The prompts are embedded once, and the text tower is dropped. They are optional for an untrained network; without
    its head, a model needs none, and gives its image tower's embedding.

    Raises:
        RequestError: there are no prompts, no such model or weights, the weights are unavailable or do not fit, or the
            pooling cannot be removed.
    """
    zero_shot.check_wanted_prompts(spec, f"open_clip:{spec.name}")
    choice = resolve_weights(spec.name, own_weights=not spec.weights)
    check_text_side(choice, prompts=bool(spec.text))
    if spec.weights_file:
        build, remove_head_fn = lambda _classes: build_model(choice), _take_image_tower if spec.headless else None
        module, notes = skip_init.build_without_init(
            lambda: fit.load_weights(
                build, checkpoint.read(spec.weights_file), choice.name, convert_state, remove_head_fn
            )
        )
        return _build_network(module, choice, spec, f"the file {spec.weights_file}", notes)
    if spec.is_random:
        origin = f"random numbers from seed {spec.seed}"
        notes = (
            ()
            if spec.text or spec.headless
            else (f"no --text was given: {RANDOM_CLASSES} random embeddings stand for classes",)
        )
        return _build_network(build_model(choice), choice, spec, origin, notes)
    return _build_network(load_pretrained(choice), choice, spec, choice.origin)


def _build_network(
    model: Any, choice: OpenClipModelInfo, spec: ModelSpec, origin: str, notes: tuple[str, ...] = ()
) -> Network:
    prefix, grid = _find_token_layout(model.visual)
    preprocess, output_spec = _read_preprocess(model), DEFAULT_OUTPUT_SPEC
    make_resizable(model.visual)
    if spec.size:
        resize.resize_module(model.visual, preprocess.size, spec.size, choice.name)
        preprocess, grid = preprocess.adapt(spec.size), scale_grid(grid, preprocess.size, spec.size)
    module: nn.Module
    cosine = None
    if spec.headless:
        if spec.pool == "none":
            remove_pooling(model, choice.name)
        module = _take_image_tower(model).eval()
        labels, output_spec = headless.probe_channels(module, preprocess.size, choice.name, spec.pool, prefix, grid)
    else:
        module, prompt_notes = _build_zero_shot(model.eval(), choice, spec)
        labels = zero_shot.make_labels(spec) if spec.text else Labels.numbered(RANDOM_CLASSES)
        notes, cosine = (*notes, *prompt_notes), (float(module.scale), float(module.bias))
    return Network(
        name=choice.name,
        module=module,
        preprocess=preprocess,
        labels=labels,
        weights=spec.weights_kind,
        origin=origin,
        activation="none" if spec.headless else zero_shot.choose_activation(len(labels), model.logit_bias is not None),
        prefix=prefix,
        grid=grid,
        notes=notes,
        output_spec=output_spec,
        headless=spec.headless,
        cosine=cosine,
    )


def _take_image_tower(model: Any) -> nn.Module:
    return ImageTower(model.visual)


def remove_pooling(model: Any, name: str) -> None:
    """Remove the pooling and the projection after it from the image tower, so that its output is a feature map.

    Raises:
        RequestError: the tower is of an unknown class, or timm cannot remove its pooling.
    """
    visual = model.visual
    if isinstance(visual, TimmModel):
        hint = f"leave --pool none out; {headless.LAYER_HINT}"
        headless.remove_part(lambda: visual.trunk.reset_classifier(0, ""), "pooling", name, hint)
        visual.head = nn.Identity()
    elif isinstance(visual, ModifiedResNet):
        visual.attnpool = nn.Identity()
    elif isinstance(visual, VisionTransformer):
        if visual.attn_pool is not None:
            # CoCa's last norm comes after the pooling, and has the width of its output.
            visual.ln_post = nn.Identity() if visual.attn_pool_contrastive is None else visual.ln_post
            visual.attn_pool = visual.attn_pool_contrastive = None
        visual.pool_type, visual.proj = "none", None
    else:
        raise RequestError(
            f"removing the pooling of the image tower of {name} ({type(visual).__name__}) is not supported",
            f"leave --pool none out; {headless.LAYER_HINT}",
        )


def _build_zero_shot(
    model: Any, choice: OpenClipModelInfo, spec: ModelSpec
) -> tuple[ZeroShotClassifier, tuple[str, ...]]:
    """Make a classifier of the image tower and the prompts' embeddings, and notes on the prompts."""
    notes: tuple[str, ...] = ()
    if spec.text:
        prompts, blank, notes = _embed_prompts(model, choice, spec)
    else:  # random embeddings, for a network with random weights
        *some, blank = nn.functional.normalize(torch.randn(RANDOM_CLASSES + 1, choice.config["embed_dim"]), dim=-1)
        prompts = torch.stack(some)
    scale = model.logit_scale.detach().exp().reshape(())
    bias = torch.zeros(()) if model.logit_bias is None else model.logit_bias.detach().reshape(())
    return ZeroShotClassifier(model.visual, prompts, scale, bias, blank).eval(), notes


def _embed_prompts(model: Any, choice: OpenClipModelInfo, spec: ModelSpec) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Embed the prompts and the empty prompt; return both, and notes on the tokenised prompts."""
    tokenize = _load_tokenizer(choice)
    prompts, templates = (*spec.text, *spec.contrast), expand_templates(spec.template)
    tokenizer.check_prompts(tokenize, [prompt for prompt in prompts if prompt.strip()], choice.name)
    texts = [text for _, text in fill_templates(prompts, templates)]

    def embed(some: list[str]) -> Tensor:
        found: Tensor = model.encode_text(tokenize(some))
        return found

    [blank] = zero_shot.embed_prompts(embed, [""])
    found = zero_shot.embed_prompts(embed, prompts, templates)
    return found, blank, tuple(tokenizer.write_notes(tokenize, prompts, texts))


def _load_tokenizer(choice: OpenClipModelInfo) -> Any:
    try:
        return open_clip.get_tokenizer(choice.create_name)
    except Exception as error:  # the tokenizer's package, its files and the hub raise all kinds of errors
        raise tokenizer.loading_error(choice.name, error, "") from error


def _read_preprocess(model: nn.Module) -> Preprocess:
    settings = open_clip.get_model_preprocess_cfg(model)
    size = settings["size"]
    height, width = (size, size) if isinstance(size, int) else size
    red, green, blue = settings["mean"]
    red_spread, green_spread, blue_spread = settings["std"]
    return Preprocess(
        size=(height, width),
        mean=(red, green, blue),
        std=(red_spread, green_spread, blue_spread),
        resize=(height, width),
        fit=FIT_OF_RESIZE_MODE[settings["resize_mode"]],
        interpolation="bilinear" if settings["interpolation"] == "bilinear" else "bicubic",
        fill=settings["fill_color"],
    )


def _find_token_layout(visual: Any) -> tuple[int | None, tuple[int, int] | None]:
    """Find the number of prefix tokens before the patch tokens, and the patch grid."""
    if isinstance(visual, VisionTransformer):
        rows, columns = visual.grid_size
        return 1, (rows, columns)
    timm_model = getattr(visual, "trunk", None)
    size = getattr(getattr(timm_model, "patch_embed", None), "grid_size", None)
    prefix = getattr(timm_model, "num_prefix_tokens", None)
    return prefix, (size[0], size[1]) if size and prefix is not None else None
