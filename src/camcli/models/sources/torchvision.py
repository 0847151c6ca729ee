"""Models of torchvision: `resnet50`, or `resnet50/IMAGENET1K_V2` for one of several published weights.

Classification, segmentation and detection models.
"""

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import MaxVit, VisionTransformer, WeightsEnum
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

from camcli.base.errors import RequestError, did_you_mean
from camcli.engine.hooks.input_size import follow
from camcli.engine.hooks.watch import listened
from camcli.engine.layers.layout import scaled
from camcli.engine.network import Network
from camcli.images.transform import Interpolation, Prepare
from camcli.models.adapters import headless, resize
from camcli.models.sources import imagenet
from camcli.models.spec import Request
from camcli.models.weights import checkpoint, fit, hub, skip_init
from camcli.models.weights.published import unreadable
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import Outlet
from camcli.targets.target import Task

# Where torchvision keeps the models of each task.
HOMES: dict[Task, Any] = {
    "classify": torchvision.models,
    "segment": torchvision.models.segmentation,
    "detect": torchvision.models.detection,
}
# Models with heads that only training uses: how the names of such a head begin.
TRAINING_HEADS = {"googlenet": "aux1.", "inception_v3": "AuxLogits."}
SEGMENTATION_TRAINING_HEAD = "aux_classifier."
# Where the boxes of every size come from: the last stage of the backbone before the pyramid.
SSD_STAGES = {"ssd300_vgg16": "backbone.features", "ssdlite320_mobilenet_v3_large": "backbone.features.0"}
# Where models have a pooling to one cell that can be left out.
POOLINGS = ("avgpool", "classifier.0")
POSITIONS = "positions are interpolated to the cells of each input as torchvision does it (bicubic)"
# The DenseNet weights that torchvision publishes have names from before dots in module names were forbidden.
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def names() -> list[str]:
    """Every model, bare and with each of its published weights."""
    listed = []
    for name in (name for home in HOMES.values() for name in torchvision.models.list_models(module=home)):
        listed += [name, *(f"{name}/{weights}" for weights in _published(name))]
    return listed


def has(name: str) -> bool:
    """Whether torchvision has this model; which weights are meant is checked by ``load``."""
    return name.partition("/")[0] in torchvision.models.list_models()


def cached(name: str) -> bool:
    """Whether the model's weights are at hand."""
    return hub.UrlFile(_weights(name).url).cached() is not None


def load(request: Request) -> Network:
    """A model with the preprocessing and the class names that belong to its weights.

    Raises:
        RequestError: there is no such model or weights, the model gives no class scores, or the weights cannot be had
            or do not fit; or its head or its pooling cannot be taken off.
    """
    weights = _weights(request.name)
    model = request.name.partition("/")[0]
    if request.headless and _task(model) != "classify":
        raise RequestError(
            f"torchvision:{model} {'scores every pixel' if _task(model) == 'segment' else 'finds boxes'}, and a "
            "backbone without its head gives features of the whole picture",
            f"name the classifier of the same backbone, such as resnet50; {headless.AT_A_LAYER}",
        )
    name = f"torchvision:{model}/{weights.name}"
    like = f"preprocessing is that of {weights.name}"
    if request.file:
        module, notes = skip_init.built(lambda: _fitted(model, weights, name, request))
        return _network(module, name, weights, request, f"the file {request.file}", (*notes, like))
    if request.random:
        module = _build(model, weights)
        return _network(module, name, weights, request, f"random numbers from seed {request.seed}", (like,))
    return _network(_pretrained(model, weights, name), name, weights, request, weights.url)


def _network(
    module: nn.Module, name: str, weights: WeightsEnum, request: Request, origin: str, notes: tuple[str, ...] = ()
) -> Network:
    model = request.name.partition("/")[0]
    task = _task(model) or "classify"
    prepare, about_prepare = _prepare(module, weights, task)
    own, (prefix, grid) = prepare.size, _tokens(module)
    if isinstance(module, VisionTransformer):
        follow(module, (module.image_size, module.image_size), _change, POSITIONS)
    if request.size:
        module = resize.resized(module, own, request.size, name, _ways(module, model, request.size))
        prepare, grid = prepare.changed(request.size), scaled(grid, own, request.size)
    if task == "detect":
        module.transform = _AsGiven(module.transform)
        # Boxes that score less do not change which of the others are kept, so that those asked for can be had.
        judge: Any = getattr(module, "roi_heads", module)
        judge.score_thresh = min(judge.score_thresh, request.min_score)
    layer = _stage(module, model, task)
    if request.headless:
        if request.pool == "none":
            layer = _without_pooling(module, name, model, prepare.size)
        else:
            _without_head(module)
        labels, outlet = headless.channels(module, prepare.size, name, request.pool, prefix, grid)
    else:
        labels, outlet = _labels(_found(module) if task == "detect" else _outputs(module), weights), Outlet(task)
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
        notes=notes + about_prepare,
        outlet=outlet,
        layer=layer,
        pyramid="backbone" if task == "detect" else "",
        headless=request.headless,
    )


# Which model


def _weights(name: str) -> WeightsEnum:
    """The weights meant by ``model`` or ``model/WEIGHTS``."""
    model, _, tag = name.partition("/")
    if _task(model) is None:
        raise _no_model(model)
    published = _published(model)
    tag = tag.rpartition(".")[2] or "DEFAULT"  # torchvision's own full form is ResNet50_Weights.IMAGENET1K_V2
    if tag not in published:
        raise RequestError(
            f"torchvision has no weights {tag!r} for {model} that know classes",
            "\n".join(filter(None, (did_you_mean(tag, published), f"there are: {', '.join(published)}"))),
        )
    return published[tag]


def _published(model: str) -> dict[str, WeightsEnum]:
    """A model's weights by name, ``DEFAULT`` among them; without those that have no classes (VGG16's features)."""
    members = torchvision.models.get_model_weights(model).__members__
    return {name: weights for name, weights in members.items() if weights.meta["categories"]}


def _task(model: str) -> Task | None:
    """What a model is for; None if torchvision has no such model, or it is for none of our tasks."""
    return next((task for task, home in HOMES.items() if model in torchvision.models.list_models(module=home)), None)


def _no_model(model: str) -> RequestError:
    known = [name for home in HOMES.values() for name in torchvision.models.list_models(module=home)]
    near = did_you_mean(model, known) or "list them: camcli models [PATTERN]"
    if model in torchvision.models.list_models():
        return RequestError(f"torchvision:{model} gives no class scores for a picture that a map could explain", near)
    return RequestError(f"torchvision has no model {model!r}", near)


# Building


def _build(model: str, weights: WeightsEnum, state: set[str] | None = None, classes: int | None = None) -> nn.Module:
    """The model as its published weights need it, but without them.

    Args:
        model: its name.
        weights: the published weights it is like.
        state: the names of the weights that are to be loaded, if any.
        classes: its number of classes; None for that of the published weights.
    """
    options: dict[str, Any] = {"num_classes": classes or len(weights.meta["categories"])}
    if _task(model) != "classify":
        return _built_in_parts(model, options, state)
    if "image_size" in inspect.signature(_class(model)).parameters:
        options["image_size"] = weights.meta["min_size"][0]
    if model in TRAINING_HEADS:
        head = TRAINING_HEADS[model]
        options["aux_logits"] = state is None or any(name.startswith(head) for name in state)
        options |= {"transform_input": True, "init_weights": True}
    module: nn.Module = torchvision.models.get_model(model, weights=None, **options)
    return module


def _built_in_parts(model: str, options: dict[str, Any], state: set[str] | None) -> nn.Module:
    """A model whose backbone torchvision would fetch by itself."""
    options["weights_backbone"] = None
    if "aux_loss" in inspect.signature(torchvision.models.get_model_builder(model)).parameters:
        head = SEGMENTATION_TRAINING_HEAD
        options["aux_loss"] = state is None or any(name.startswith(head) for name in state)
    module: nn.Module = torchvision.models.get_model(model, weights=None, **options)
    return module


def _class(model: str) -> type[nn.Module]:
    """The class that a model's function builds: what its annotation says it returns."""
    made: type[nn.Module] = inspect.get_annotations(torchvision.models.get_model_builder(model), eval_str=True)[
        "return"
    ]
    return made


def _fitted(model: str, weights: WeightsEnum, name: str, request: Request) -> tuple[nn.Module, tuple[str, ...]]:
    content = checkpoint.read(request.file)
    build = partial(_build, model, weights, set(content.state))
    return fit.fit(build, content, name, _converted, _without_head if request.headless else None)


def _pretrained(model: str, weights: WeightsEnum, name: str) -> nn.Module:
    file = hub.fetch(hub.UrlFile(weights.url, hashed=True), f"the weights of {name}")
    try:
        state = checkpoint.read(file).state
        # torchvision would read the file as a pickle that may run code; it is handed what was read without that.
        with mock.patch.object(weights, "get_state_dict", lambda *_args, **_options: dict(state)):
            module: nn.Module = skip_init.built(lambda: torchvision.models.get_model(model, weights=weights))
    except Exception as error:  # what a damaged file ends in depends on where the damage is
        raise unreadable(name, file, error, fetched=True) from error
    return module


def _converted(state: checkpoint.State, module: nn.Module) -> checkpoint.State:
    """The state with DenseNet's old names made new."""
    del module
    return {OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}


# Another input size


def _change(module: Any, size: tuple[int, int]) -> None:
    """Make a vision transformer what it must be for input of this size, as torchvision interpolates its positions."""
    side, patch, own = size[0], module.patch_size, module.encoder.pos_embedding
    if side != size[1]:
        raise ValueError("torchvision's vision transformers take squares only (timm's do not)")
    if side % patch:
        raise ValueError(f"it cuts pictures into patches of {patch}x{patch}, which does not go into it evenly")
    state = interpolate_embeddings(side, patch, OrderedDict({"encoder.pos_embedding": own}))
    module.image_size = side
    module.encoder.pos_embedding = nn.Parameter(state["encoder.pos_embedding"], own.requires_grad)


def _ways(module: nn.Module, model: str, size: tuple[int, int]) -> list[Callable[[], nn.Module]]:
    """How a model can be had for another size; none: as it is."""

    def max_vit() -> nn.Module:
        made = torchvision.models.get_model(model, weights=None, input_size=size, num_classes=_outputs(module))
        return resize.transplanted(module.state_dict(), made)

    return [max_vit] if isinstance(module, MaxVit) else []


# Without its head


@dataclass(slots=True)
class _Form:
    """Of the map that is taken apart, images, rows and columns."""

    images: int = 0
    rows: int = 0
    columns: int = 0


class _Apart(nn.Module):
    """In place of a pooling: every cell goes on as an image of its own, ``(n, c, h, w)`` to ``(n h w, c, 1, 1)``.

    So whatever stands between pooling and classifier (flattening, norms, linear layers) is done cell by cell.
    """

    def __init__(self, form: _Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, map: Float[Tensor, "n c h w"]) -> Float[Tensor, "m c 1 1"]:
        """The cells, those of the first image first, row by row."""
        self.form.images, _, self.form.rows, self.form.columns = map.shape
        return map.permute(0, 2, 3, 1).reshape(-1, map.shape[1], 1, 1)


class _Together(nn.Module):
    """In place of the classifier: the cells as a map again, ``(n h w, c)`` to ``(n, c, h, w)``."""

    def __init__(self, form: _Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, cells: Float[Tensor, "m c"]) -> Float[Tensor, "n c h w"]:
        """The map of the last call of :class:`_Apart`."""
        form = self.form
        return cells.reshape(form.images, form.rows, form.columns, -1).permute(0, 3, 1, 2)


def _without_head(module: nn.Module) -> nn.Module:
    """The module itself, its classifier replaced by what passes on; the names of the others stay."""
    module.set_submodule(_classifier(module), nn.Identity())
    return module


def _without_pooling(module: nn.Module, name: str, model: str, size: tuple[int, int]) -> str:
    """Take off a model's pooling and its classifier, so that it gives a map of features ``(n, c, h, w)``.

    Returns:
        The layer that gives this map: the one before the pooling, or where something with weights stands between, the
        module in the classifier's place.

    Raises:
        RequestError: it has no module that pools to one cell.
    """
    parts = dict(module.named_modules())
    place = next((one for one in POOLINGS if isinstance(parts.get(one), nn.AdaptiveAvgPool2d)), "")
    cells = parts[place].output_size if place else None
    if cells not in (1, (1, 1)):
        import timm

        theirs = f"timm's model of that name may do: --model timm:{model}; " if timm.is_model(model) else ""
        raise RequestError(
            f"{name} cannot be had without its pooling: "
            + (
                f"{place!r} pools to {cells[0]}x{cells[1]} cells" if cells else "no module of its own pools to one cell"
            ),
            f"leave --pool none out; {theirs}{headless.AT_A_LAYER}",
        )
    head, form, names = _classifier(module), _Form(), list(parts)
    between = names[names.index(place) + 1 : names.index(head)]
    alone = any(True for one in between for _ in parts[one].parameters(recurse=False))
    module.set_submodule(place, _Apart(form))
    module.set_submodule(head, _Together(form))
    return head if alone else _before(module, place, size)


def _before(module: nn.Module, place: str, size: tuple[int, int]) -> str:
    """The layer whose output a module is given as it is; of one inside another the outer; nothing if there is none."""
    given: list[Tensor] = []
    said: dict[str, Any] = {}
    watch = module.get_submodule(place).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with listened(module, said.__setitem__):
        headless.tried(module, size)
    watch.remove()
    return next((name for name, output in reversed(said.items()) if output is given[0]), "")


def _classifier(module: nn.Module) -> str:
    """The name of a classifier's last layer with weights, which gives the scores."""
    names: list[str] = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


# What torchvision knows about a model


class _AsGiven(GeneralizedRCNNTransform):  # type: ignore[misc]
    """A detector's own preparation, but for the size: the pictures come as large as they shall be."""

    def __init__(self, like: Any) -> None:
        super().__init__(like.min_size, like.max_size, like.image_mean, like.image_std, like.size_divisible)
        self.fixed_size = like.fixed_size

    def resize(self, image: Any, target: Any = None) -> tuple[Any, Any]:
        """The image as it is; padded to whole cells of the pyramid, its grid would reach beyond it."""
        height, width = image.shape[-2:]
        if height % self.size_divisible or width % self.size_divisible:
            raise RequestError(
                f"this detector takes images whose sides are multiples of {self.size_divisible}, not {height}x{width}"
            )
        return image, target


def _prepare(module: nn.Module, weights: WeightsEnum, task: Task) -> tuple[Prepare, tuple[str, ...]]:
    """The preprocessing, and what is to be said of it.

    Pictures of all proportions go into one batch. Torchvision gives segmentation and detection models (SSD aside)
    pictures of a given shorter side and any longer one; here the longer side is given and the rest padded with the mean
    colour, so that the model sees the whole picture.
    """
    if task == "classify":
        return _classifiers(weights), ()
    if task == "segment":
        steps = weights.transforms()
        if not isinstance(steps, SemanticSegmentation):
            raise RequestError(f"the preprocessing of {weights} is not that of a segmentation")
        (side,) = steps.resize_size
        note = (
            f"the picture's longer side is brought to {side} pixels and the rest padded; torchvision: the shorter side"
        )
        mean, std = _three(steps.mean), _three(steps.std)
        return Prepare((side, side), mean, std, (side, side), "longer", steps.interpolation.value, _fill(mean)), (note,)
    own: Any = module.transform
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the model does it
    if own.fixed_size:
        width, height = own.fixed_size
        return Prepare((height, width), mean, std, (height, width), "squash", "bilinear"), ()
    side = own.min_size[-1]
    note = f"the picture's longer side is brought to {side} pixels and the rest padded; torchvision: the shorter side"
    fill = _fill(_three(own.image_mean))
    return Prepare((side, side), mean, std, (side, side), "longer", "bilinear", fill), (note,)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _fill(mean: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in mean)
    return red, green, blue


def _stage(module: nn.Module, model: str, task: Task) -> str:
    """The last stage of the backbone, if it is not the model's own end; what lies behind works on several grids."""
    if task == "classify":
        return ""
    if model in SSD_STAGES:
        return SSD_STAGES[model]
    place = "backbone" if task == "segment" else "backbone.body"
    return f"{place}.{[name for name, _ in module.get_submodule(place).named_children()][-1]}"


def _classifiers(weights: WeightsEnum) -> Prepare:
    steps = weights.transforms()
    if not isinstance(steps, ImageClassification):
        raise RequestError(f"the preprocessing of {weights} is not that of a picture classifier")
    (crop,), (shorter,) = steps.crop_size, steps.resize_size
    interpolation: Interpolation = steps.interpolation.value
    return Prepare(
        size=(crop, crop),
        mean=_three(steps.mean),
        std=_three(steps.std),
        resize=(shorter, shorter),
        fit="shorter",
        interpolation=interpolation,
    )


def _labels(classes: int, weights: WeightsEnum) -> Labels:
    names = tuple(weights.meta["categories"])
    if classes != len(names):
        return Labels.numbered(classes)
    ids = imagenet.wordnet()
    return Labels(names, ids if len(names) == len(ids) else ())


def _outputs(module: nn.Module) -> int:
    """How many classes a classifier or a segmentation has: the outputs of its last layer with weights."""
    last: Any = module.get_submodule(_classifier(module))
    return int(last.out_features if isinstance(last, nn.Linear) else last.out_channels)


def _found(module: Any) -> int:
    """How many classes the boxes of a detector can have."""
    if hasattr(module, "roi_heads"):
        return int(module.roi_heads.box_predictor.cls_score.out_features)
    head = module.head.classification_head
    # SSD's word for it is another.
    return int(head.num_columns if hasattr(head, "num_columns") else head.num_classes)


def _tokens(module: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """How many tokens stand before those of the patches, and the patch grid."""
    if not isinstance(module, torchvision.models.VisionTransformer):
        return None, None
    side = module.image_size // module.patch_size
    return 1, (side, side)
