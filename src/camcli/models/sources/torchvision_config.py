"""What torchvision says of a model and its weights: how pictures become its input, its classes, its last stage."""

from typing import Any

from torch import nn
from torchvision.models import VisionTransformer, WeightsEnum
from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

from camcli.base.errors import RequestError
from camcli.images.transform import Interpolation, Prepare
from camcli.models.sources import imagenet
from camcli.models.sources.torchvision_surgery import classifier_name
from camcli.targets.labels import Labels
from camcli.targets.target import Task

# Where the boxes of every size come from: the last stage of the backbone before the pyramid.
SSD_STAGES = {"ssd300_vgg16": "backbone.features", "ssdlite320_mobilenet_v3_large": "backbone.features.0"}


def read_prepare(module: nn.Module, weights: WeightsEnum, task: Task) -> tuple[Prepare, tuple[str, ...]]:
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


def last_stage(module: nn.Module, model: str, task: Task) -> str:
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


def read_labels(classes: int, weights: WeightsEnum) -> Labels:
    """The names of the classes, where the weights say as many."""
    names = tuple(weights.meta["categories"])
    if classes != len(names):
        return Labels.numbered(classes)
    ids = imagenet.wordnet()
    return Labels(names, ids if len(names) == len(ids) else ())


def count_classes(module: nn.Module) -> int:
    """How many classes a classifier or a segmentation has: the outputs of its last layer with weights."""
    last: Any = module.get_submodule(classifier_name(module))
    return int(last.out_features if isinstance(last, nn.Linear) else last.out_channels)


def count_detected_classes(module: Any) -> int:
    """How many classes the boxes of a detector can have."""
    if hasattr(module, "roi_heads"):
        return int(module.roi_heads.box_predictor.cls_score.out_features)
    head = module.head.classification_head
    # SSD's word for it is another.
    return int(head.num_columns if hasattr(head, "num_columns") else head.num_classes)


def token_layout(module: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """How many tokens stand before those of the patches, and the patch grid."""
    if not isinstance(module, VisionTransformer):
        return None, None
    side = module.image_size // module.patch_size
    return 1, (side, side)
