"""Reading of a torchvision transform as preprocessing, verified by a trial on noise."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.images.transform import Fit, Interpolation, Preprocess

PREPROCESS_USAGE = (
    "say it as preprocess=camcli.Preprocess(size=(224, 224), resize=(256, 256), mean=(0.485, ...), std=(0.229, ...)), "
    "or as the torchvision transform that evaluation uses: preprocess=weights.transforms()"
)
# Steps that turn an image into an RGB tensor with values in 0..1, by torchvision, timm and open_clip.
CONVERSIONS = frozenset(
    {"ToTensor", "MaybeToTensor", "PILToTensor", "ConvertImageDtype", "ToImage", "ToDtype"}
    | {"_convert_to_rgb", "MaybeConvertMode"}
)
# Width and height of the images that a transform is tried on: upright, lying, square.
TRIAL_SIZES = ((233, 321), (402, 260), (300, 300))
TOLERANCE = 1e-5


def read_transform(transform: Any) -> Preprocess:
    """Return the preprocessing that a transform does: resize, centre crop, tensor, normalisation.

    Args:
        transform: torchvision's ``weights.transforms()`` of a classifier, or a ``Compose`` of these four steps.

    Raises:
        RequestError: it has other steps, or gives other values than what was read from it.
    """
    preset = all(hasattr(transform, name) for name in ("crop_size", "resize_size", "mean", "std", "interpolation"))
    try:
        found = _read_preset(transform) if preset else _read_steps(transform)
        same = all(_gives_the_same(found, transform, image) for image in make_trial_images())
    except RequestError:
        raise
    except Exception as error:  # a transform of the user's own can be anything
        raise _unreadable(transform, f"it fails: {error}") from error
    if not same:
        raise _unreadable(transform, "its tensors differ from what its steps say")
    return found


def _read_preset(transform: Any) -> Preprocess:
    (crop,), (shorter,) = transform.crop_size, transform.resize_size
    return _build(transform, (crop, crop), (shorter, shorter), "shorter", transform.interpolation, transform)


def _read_steps(transform: Any) -> Preprocess:
    steps = {getattr(step, "__name__", type(step).__name__): step for step in getattr(transform, "transforms", [])}
    order = [name for name in steps if name not in CONVERSIONS]
    if not steps or order != [name for name in ("Resize", "CenterCrop", "Normalize") if name in steps]:
        raise _unreadable(transform, f"its steps are {', '.join(steps) or 'unknown'}")
    resize, crop = steps.get("Resize"), steps.get("CenterCrop")
    to: Any = getattr(resize, "size", None)
    single = isinstance(to, int) or (to is not None and len(to) == 1)
    if resize is None or (single and not crop):
        raise _unreadable(transform, "it does not bring every image to one size")
    resized = _as_pair(to)
    size = _as_pair(crop.size) if crop else resized
    return _build(
        transform, size, resized, "shorter" if single else "squash", resize.interpolation, steps.get("Normalize")
    )


def _build(
    transform: Any, size: tuple[int, int], resize: tuple[int, int], fit: Fit, interpolation: Any, normalize: Any
) -> Preprocess:
    name = str(getattr(interpolation, "value", interpolation))
    if name not in get_args(Interpolation):
        raise _unreadable(transform, f"its interpolation is {name}")
    mean, std = (
        tuple(map(float, getattr(normalize, key, default))) for key, default in (("mean", [0] * 3), ("std", [1] * 3))
    )
    return Preprocess(size, mean, std, resize, fit, name)  # type: ignore[arg-type]  # the name was checked


def _as_pair(size: Any) -> tuple[int, int]:
    values = [size] if isinstance(size, int) else list(size)
    return int(values[0]), int(values[-1])


def make_trial_images() -> list[Image.Image]:
    """Return images of noise on which a preprocessing is tried."""
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)) for width, height in TRIAL_SIZES]


def _gives_the_same(preprocess: Preprocess, transform: Any, image: Image.Image) -> bool:
    """Return whether a transform gives the same input for an image."""
    given = transform(image)
    ours, _ = preprocess(image)
    is_alike = isinstance(given, Tensor) and (given.shape, given.dtype) == (ours.shape, ours.dtype)
    return is_alike and torch.allclose(given, ours, atol=TOLERANCE)


def _unreadable(transform: Any, reason: str) -> RequestError:
    return RequestError(
        f"the preprocessing cannot be read from a {type(transform).__name__}: {reason}", PREPROCESS_USAGE
    )
