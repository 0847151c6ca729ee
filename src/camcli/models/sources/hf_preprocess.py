"""Reading of an image processor of transformers as preprocessing, equal to it to the bit on images of noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from math import inf
from typing import Any, get_args

import torch
from PIL import Image
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.images.transform import Arithmetic, Fit, Interpolation, Preprocess
from camcli.models.adapters.transforms import make_trial_images

# Difference of values around one that float32 makes where the same steps are done in another order.
ROUNDING = 1e-5
# Arithmetics in the order in which they are tried.
TRIED: tuple[Arithmetic, ...] = ("tensor", "float", "pillow", "sampled", "blurred")
# LeViT's processor multiplies the side by this, whatever its settings.
LEVIT_RATIO = 256 / 224

# A resized height and width, and how it is reached.
Geometry = tuple[tuple[int, int], Fit]


def read_processor(processor: Any, name: str, pads: bool = False) -> tuple[Preprocess, tuple[str, ...]]:
    """Read an image processor's settings, and hold what is read against the processor itself.

    Processors of one setting do different things by their class, so every way in which the settings can be meant is
    tried on three images of noise of odd sizes; the first that gives the processor's values is taken.

    Args:
        processor: as ``AutoImageProcessor`` returns it.
        name: the model's name, for messages.
        pads: True if a processor that leaves each image its own shape may be read as one that makes its longer side the
            length of the shorter, and pads the rest to a square.

    Returns:
        The preprocessing, and notes for users.

    Raises:
        RequestError: the processor does something that no preprocessing of ours does.
    """
    images = make_trial_images()
    wanted = [_run(processor, image, name) for image in images]
    if shape := next((tuple(one.shape) for one in wanted if one.ndim != 3 or one.shape[0] != 3), ()):
        raise _unreadable_error(processor, name, f"it makes {'x'.join(map(str, shape))} of an image, not 3xHxW")
    sizes = [(one.shape[1], one.shape[2]) for one in wanted]
    varies = len(set(sizes)) > 1
    side = _as_dict(getattr(processor, "size", None)).get("shortest_edge")
    if varies and not (pads and side):
        raise _unreadable_error(processor, name, "it leaves each image its own shape, and a network takes one")
    nearly = []
    for one in _list_readings(processor, sizes[0], [(sizes[0], "squash")] if varies else _list_geometries(processor)):
        each = [replace(one, size=size, resize=size) for size in sizes] if varies else [one] * len(images)
        differences = map(_find_difference, each, images, wanted)
        if not (worst := max(_take_while_small(differences))):
            return _pad(one, side) if varies else (one, ())
        nearly += [one] if worst < ROUNDING else []
    if nearly:
        note = f"preprocessing equals that of {type(processor).__name__} up to rounding ({ROUNDING:g}), not to the bit"
        found, notes = _pad(nearly[0], side) if varies else (nearly[0], ())
        return found, (*notes, note)
    raise _unreadable_error(processor, name, "its values differ from what its settings say")


def _pad(preprocess: Preprocess, side: int | None) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the same resampling of the whole image into a square, in its upper left corner, and a note on it."""
    assert side
    colours = preprocess.mean[::-1] if preprocess.bgr else preprocess.mean
    fill = tuple(round(255 * value) for value in colours)
    note = (
        f"the image's longer side is resized to {side} pixels and the rest padded; transformers: the shorter side "
        "(--size takes a larger square)"
    )
    padded = replace(
        preprocess, size=(side, side), resize=(side, side), fit="longer", fill=fill, corner=True, blank=True
    )
    return padded, (note,)


def _list_readings(processor: Any, size: tuple[int, int], geometries: Iterable[Geometry]) -> Iterator[Preprocess]:
    """List what a processor's settings can mean, the plainest first."""
    interpolation = Image.Resampling(getattr(processor, "resample", None) or 0).name.lower()
    if interpolation not in get_args(Interpolation):
        return
    # torchvision resizes tensors by neither of these.
    arithmetics: tuple[Arithmetic, ...] = ("pillow",) if interpolation in ("box", "hamming") else TRIED
    geometries = list(dict.fromkeys(geometries))
    made = (
        processor(images=Image.new("RGB", (64, 64), colour), return_tensors="pt")["pixel_values"][0]
        for colour in ("black", "white", "blue")
    )
    black, white, blue = (one[:, one.shape[1] // 2, one.shape[2] // 2].double() for one in made)
    bgr = bool((blue - black)[0] > (blue - black)[2])
    for (mean, std), (resize, fit) in product(_list_scales(processor, black, white), geometries):
        for arithmetic in arithmetics:
            yield Preprocess(size, mean, std, resize, fit, interpolation, 0, arithmetic, bgr)  # type: ignore[arg-type]


def _list_geometries(processor: Any) -> Iterator[Geometry]:
    given, share = _as_dict(getattr(processor, "size", None)), getattr(processor, "crop_pct", None)
    if not getattr(processor, "do_resize", False):
        return
    height, width, edge = (given.get(key) for key in ("height", "width", "shortest_edge"))
    if height and width:
        yield (height, width), "squash"
    for side in filter(None, (edge, height)):
        yield (side, side), "shorter"
        if share:
            yield (int(side / share),) * 2, "shorter"
        yield (int(LEVIT_RATIO * side),) * 2, "shorter"
        yield (side, side), "squash"
    if height and width and getattr(processor, "do_pad", False):
        yield (height, width), "padded"
    if shorter := getattr(processor, "resize_short", None):
        yield (shorter, shorter), "shorter"


def _list_scales(processor: Any, black: Tensor, white: Tensor) -> Iterator[tuple[tuple[float, ...], tuple[float, ...]]]:
    """List means and standard deviations: of the settings; then by what is made of black and white."""
    if getattr(processor, "do_normalize", False):
        yield tuple(map(float, processor.image_mean)), tuple(map(float, processor.image_std))
    else:
        yield (0.0,) * 3, (1.0,) * 3
    if bool((white > black).all()):
        yield tuple((-black / (white - black)).tolist()), tuple((1 / (white - black)).tolist())


def _run(processor: Any, image: Image.Image, name: str) -> Tensor:
    try:
        made = processor(images=image, return_tensors="pt")
    except Exception as error:  # processors raise all kinds of errors
        raise _unreadable_error(processor, name, f"it fails on an image: {error}") from error
    others = [key for key in made if key not in ("pixel_values", "pixel_mask")]
    if others or "pixel_values" not in made:
        raise _unreadable_error(processor, name, f"it makes {', '.join(made)}, and a network takes pixel_values alone")
    values: Tensor = made["pixel_values"][0]
    return values


def _find_difference(reading: Preprocess, image: Image.Image, wanted: Tensor) -> float:
    """Return the greatest difference from a processor's values, relative where they are greater than one."""
    ours, _ = reading(image)
    if ours.dtype != wanted.dtype:
        return inf
    return 0.0 if torch.equal(ours, wanted) else float(((ours - wanted).abs() / wanted.abs().clamp(min=1)).max())


def _take_while_small(differences: Iterable[float]) -> Iterator[float]:
    """Yield differences up to the first that is more than rounding."""
    for one in differences:
        yield one
        if one >= ROUNDING:
            return


def _as_dict(given: Any) -> dict[str, int]:
    """Return a processor's size by its names; none for what it does not set."""
    if given is None:
        return {}
    if isinstance(given, int):
        return {"shortest_edge": given}
    keys = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
    found = {key: given.get(key) if isinstance(given, dict) else getattr(given, key, None) for key in keys}
    return {key: int(value) for key, value in found.items() if value}


def _unreadable_error(processor: Any, name: str, reason: str) -> RequestError:
    steps = [key for key, value in vars(processor).items() if key.startswith("do_") and value]
    asked = ", ".join([f"size {_as_dict(getattr(processor, 'size', None)) or 'none'}", *steps])
    return RequestError(
        f"the preprocessing of {name} cannot be followed ({type(processor).__name__}: {asked}): {reason}",
        "return the module and a preprocessing that you checked from a function of yours, -m my_model.py:make: "
        "(module, camcli.Preprocess(size=(224, 224), resize=(256, 256), mean=(...), std=(...)), names)",
    )
