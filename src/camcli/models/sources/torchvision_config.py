"""Reading of torchvision's settings of models and weights: preprocessing, classes, last stage, token layout."""

from typing import Any

from torch import nn
from torchvision.models import VisionTransformer, WeightsEnum
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

from camcli.base.errors import RequestError
from camcli.images.transform import Interpolation, Preprocess
from camcli.models.sources import imagenet
from camcli.models.sources.torchvision_surgery import find_classifier_name
from camcli.targets.labels import Labels
from camcli.targets.target import Activation, Task

# The last stage of SSD backbones before the feature pyramid, which boxes of every size depend on.
SSD_STAGES = {"ssd300_vgg16": "backbone.features", "ssdlite320_mobilenet_v3_large": "backbone.features.0"}


def read_preprocess(module: nn.Module, weights: WeightsEnum, task: Task) -> tuple[Preprocess, tuple[str, ...]]:
    """Read the preprocessing, and notes about it.

    Images of all aspect ratios must fit into one batch. For segmentation and detection models (except SSD),
    torchvision fixes the shorter side only; here the longer side is fixed and the rest padded with the mean colour, so
    that the model sees the whole image.
    """
    if task == "classify":
        return _read_classifier_preprocess(weights), ()
    if task == "segment":
        steps = weights.transforms()
        if not isinstance(steps, SemanticSegmentation):
            raise RequestError(f"the preprocessing of {weights} is not that of a segmentation")
        (side,) = steps.resize_size
        note = f"the image's longer side is resized to {side} pixels and the rest padded; torchvision: the shorter side"
        mean, std = _as_rgb(steps.mean), _as_rgb(steps.std)
        return Preprocess(
            (side, side), mean, std, (side, side), "longer", steps.interpolation.value, _fill_colour(mean)
        ), (note,)
    transform: Any = module.transform
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the model normalises itself
    if transform.fixed_size:
        width, height = transform.fixed_size
        return Preprocess((height, width), mean, std, (height, width), "squash", "bilinear"), ()
    side = transform.min_size[-1]
    note = f"the image's longer side is resized to {side} pixels and the rest padded; torchvision: the shorter side"
    fill = _fill_colour(_as_rgb(transform.image_mean))
    return Preprocess((side, side), mean, std, (side, side), "longer", "bilinear", fill), (note,)


def _as_rgb(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _fill_colour(mean: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in mean)
    return red, green, blue


def find_last_stage(module: nn.Module, model: str, task: Task) -> str:
    """Find a backbone's last stage in segmentation and detection models, whose later layers use several grids."""
    if task == "classify":
        return ""
    if model in SSD_STAGES:
        return SSD_STAGES[model]
    backbone = "backbone" if task == "segment" else "backbone.body"
    return f"{backbone}.{[name for name, _ in module.get_submodule(backbone).named_children()][-1]}"


def _read_classifier_preprocess(weights: WeightsEnum) -> Preprocess:
    steps = weights.transforms()
    if not isinstance(steps, ImageClassification):
        raise RequestError(f"the preprocessing of {weights} is not that of an image classifier")
    (crop,), (shorter,) = steps.crop_size, steps.resize_size
    interpolation: Interpolation = steps.interpolation.value
    return Preprocess(
        size=(crop, crop),
        mean=_as_rgb(steps.mean),
        std=_as_rgb(steps.std),
        resize=(shorter, shorter),
        fit="shorter",
        interpolation=interpolation,
    )


def read_labels(classes: int, weights: WeightsEnum) -> Labels:
    """Read the class names of the weights; number the classes if their count differs."""
    names = tuple(weights.meta["categories"])
    if classes != len(names):
        return Labels.numbered(classes)
    ids = imagenet.list_wordnet_ids()
    return Labels(names, ids if len(names) == len(ids) else ())


def count_classes(module: nn.Module) -> int:
    """Count the classes of a classification or segmentation model: the outputs of its last layer with weights."""
    last: Any = module.get_submodule(find_classifier_name(module))
    return int(last.out_features if isinstance(last, nn.Linear) else last.out_channels)


def count_detected_classes(module: Any) -> int:
    """Count the classes that a detector's boxes can have."""
    if hasattr(module, "roi_heads"):
        return int(module.roi_heads.box_predictor.cls_score.out_features)
    head = module.head.classification_head
    # SSD's attribute has another name.
    return int(head.num_columns if hasattr(head, "num_columns") else head.num_classes)


def find_activation(module: nn.Module) -> Activation:
    """Return what makes probabilities of a model's scores: sigmoid for detectors whose classes are independent."""
    return "sigmoid" if isinstance(module, RetinaNet | FCOS) else "softmax"


def find_token_layout(module: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """Find the number of prefix tokens before the patch tokens, and the patch grid."""
    if not isinstance(module, VisionTransformer):
        return None, None
    side = module.image_size // module.patch_size
    return 1, (side, side)
