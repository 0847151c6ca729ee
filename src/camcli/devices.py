"""Devices of one machine: what they are called, and what is to be done about several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camcli.errors import RequestError

ALL_GPUS = "cuda:all"


def named(words: str) -> tuple[torch.device, ...]:
    """The devices that these words name, joined by commas; the same one may be named several times.

    ``auto`` is the best there is, ``cuda`` the first GPU, ``cuda:all`` every one.

    Raises:
        RequestError: there is no such device here, or they do not go together.
    """
    here = _here()
    gpus = [name for name in here if name.startswith("cuda")]
    words_in_turn = [word.strip() for word in words.split(",")]
    if len(words_in_turn) > 1 and "auto" in words_in_turn:
        raise RequestError(
            f"--device {words} names auto among others, which chooses one", f"name each: {', '.join(here)}"
        )
    names: list[str] = []
    for word in words_in_turn:
        if word == "auto":
            names.append(here[1] if len(here) > 1 else "cpu")
        elif word == "cuda" and gpus:
            names.append(gpus[0])
        elif word == ALL_GPUS and gpus:
            names += gpus
        elif word in here:
            names.append(word)
        else:
            known = ["auto", *here, *([ALL_GPUS] if len(gpus) > 1 else [])]
            raise RequestError(f"there is no device {word!r} here", f"there are: {', '.join(known)}")
    found = tuple(map(torch.device, names))
    if len({one.type for one in found}) > 1:
        raise RequestError(
            f"--device {words} names devices of several kinds, which round differently: a picture's map would depend "
            "on which was free",
            "name devices of one kind, or one alone",
        )
    if len(found) > 1 and found[0].type == "mps":
        raise RequestError(f"--device {words} names mps several times, and it does one thing at a time", "name it once")
    return found


def _here() -> list[str]:
    """The names of all devices, the CPU first."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{number}" for number in range(gpus)), *mps]


def batch_for(device: torch.device, images: Sequence[Tensor]) -> Tensor:
    """Images of one size as a batch ``(n, ...)`` in main memory, for a GPU where it can fetch them by itself."""
    if device.type != "cuda":
        return torch.stack(list(images))
    pinned = torch.empty((len(images), *images[0].shape), dtype=images[0].dtype, pin_memory=True)
    return torch.stack(list(images), out=pinned)


def copied_to(like: Tensor, images: Tensor) -> Tensor:
    """A copy of images where another tensor is, in its type; a GPU fetches pinned ones while this thread goes on."""
    if like.device.type == "cuda" and images.device.type == "cpu" and images.is_pinned():
        # In two steps, since in one the CPU would convert them, into memory that is not pinned.
        return images.to(like.device, non_blocking=True).to(like.dtype)
    return images.to(like.device, like.dtype, copy=True)
