"""Preprocessing that the user says, for models whose files do not say it."""

from __future__ import annotations

from typing import Any

from camcli.base.errors import RequestError
from camcli.images.transform import Preprocess
from camcli.models.adapters.transforms import read_transform
from camcli.models.preprocess_words import USAGE, parse_preprocess

COLOURS = 3


class MissingPreprocessError(RequestError):
    """Nothing says how images are prepared for a model."""


def make_preprocess(
    given: Any, name: str, size: tuple[int, int] | None, channels: int = 0, sizes_fixed: bool = False
) -> Preprocess:
    """Make the preprocessing of a model.

    Args:
        given: words, a :class:`Preprocess`, or a torchvision transform that can be read as one.
        name: the model's name, for messages.
        size: height and width of its input; None if nothing says it.
        channels: number of its channels; 0 if nothing says it.
        sizes_fixed: whether its input has this size only.

    Raises:
        RequestError: nothing says how images are prepared, or of which size; or it does not fit the model.
    """
    if not given:
        raise MissingPreprocessError(f"nothing says how images are prepared for {name}", USAGE)
    if not isinstance(given, str):
        made = given if isinstance(given, Preprocess) else read_transform(given)
        made = made.adapt(size) if size and not sizes_fixed else made
    else:
        made = _build(parse_preprocess(given), name, size, channels)
    if sizes_fixed and size not in (None, made.size):
        raise RequestError(
            f"{name} takes images of {_format(size)}, and its preprocessing gives {_format(made.size)}",
            "say the model's own size",
        )
    if channels not in (0, made.channels):
        raise RequestError(
            f"{name} takes images of {channels} channel{'s' * (channels > 1)}, and its preprocessing gives "
            f"{made.channels}",
            f"give one mean and one std, or {channels} of each",
        )
    return made


def _format(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))


def _build(words: dict[str, Any], name: str, size: tuple[int, int] | None, channels: int) -> Preprocess:
    if size is None:
        raise RequestError(f"nothing says how large the images are that {name} takes", "say it: --size 224, or 256x384")
    asked = words.pop("channels", 0)
    longest = max(len(words["mean"]), len(words["std"]))
    count = asked or (longest if longest > 1 else channels or COLOURS)
    for key in ("mean", "std"):
        if len(words[key]) not in (1, count):
            raise RequestError(
                f"--preprocess gives {len(words[key])} numbers as {key}, and {name} takes {count} channels", USAGE
            )
        words[key] = words[key] * count if len(words[key]) == 1 else words[key]
    return Preprocess(size, **words)
