"""Words that say how images are prepared, for models whose files do not: ``imagenet resize=256 fit=shorter``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from camcli.base.errors import RequestError, did_you_mean

# Ranges of values that networks take, as mean and std of values in 0..1.
RANGES: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        "0..1": ((0.0,), (1.0,)),
        "-1..1": ((0.5,), (0.5,)),
        "0..255": ((0.0,), (1 / 255,)),
    }
)
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fit": ("shorter", "longer", "squash"),
        "interpolation": ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
    }
)
SETTINGS = ("mean", "std", "resize", "fit", "interpolation", "fill", "channels")
USAGE = (
    "say it, as it was in training: --preprocess imagenet (mean and std of ImageNet), 0..1, -1..1 or 0..255 (values of "
    "black and white), or 'mean=0.5,0.5,0.5 std=0.25,0.25,0.25'; and what else it needs: 'imagenet resize=256 "
    "interpolation=bilinear' (docs/models.md)"
)


def parse_preprocess(text: str) -> dict[str, Any]:
    """Parse words into :class:`camcli.Preprocess`'s arguments, and ``channels``.

    Raises:
        RequestError: a word is unknown or has no such value, or one of mean and std is missing.
    """
    if not text:
        return {}
    found: dict[str, Any] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        parsed = _parse_setting(key, value) if equals else _parse_word(word)
        if twice := parsed.keys() & found.keys():
            raise RequestError(f"--preprocess says {min(twice)} twice", USAGE)
        found |= parsed
    if missing := {"mean", "std"} - found.keys():
        raise RequestError(f"--preprocess {text!r} does not say {' and '.join(sorted(missing))}", USAGE)
    return found


def _parse_word(word: str) -> dict[str, Any]:
    if word == "bgr":
        return {"bgr": True}
    if word not in RANGES:
        near = did_you_mean(word, (*RANGES, "bgr", *(f"{one}=..." for one in SETTINGS)))
        raise RequestError(f"--preprocess cannot be {word!r}", "\n".join(filter(None, (near, USAGE))))
    mean, std = RANGES[word]
    return {"mean": mean, "std": std}


def _parse_setting(key: str, value: str) -> dict[str, Any]:
    if key not in SETTINGS:
        near = did_you_mean(key, SETTINGS)
        raise RequestError(f"--preprocess has no {key!r}", near or f"there are: {', '.join(SETTINGS)}, bgr")
    if key in CHOICES:
        if value not in CHOICES[key]:
            raise RequestError(f"--preprocess: {key} cannot be {value!r}", f"there are: {', '.join(CHOICES[key])}")
        return {key: value}
    try:
        if key in ("mean", "std"):
            numbers = tuple(float(one) for one in value.split(","))
            if key == "std" and not all(0 < one < float("inf") for one in numbers):
                raise ValueError
            return {key: numbers}
        whole = tuple(int(one) for one in value.split("x" if key == "resize" else ","))
    except ValueError:
        raise RequestError(f"--preprocess: {key} cannot be {value!r}", USAGE) from None
    if min(whole) < (key != "fill") or len(whole) > (2 if key == "resize" else 1):
        raise RequestError(f"--preprocess: {key} cannot be {value!r}", USAGE)
    return {key: (whole[0], whole[-1]) if key == "resize" else whole[0]}
