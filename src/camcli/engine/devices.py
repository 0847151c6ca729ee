"""Devices of one machine: what they are called, and what is to be done about several."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError

ALL_GPUS = "cuda:all"
# Threads that decode pictures: on the CPU, which computes too, and for each GPU, which would wait for them.
DECODERS, GPU_DECODERS = 4, 16


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


def decoders(several: Sequence[torch.device]) -> int:
    """How many threads decode pictures for these: copies on the CPU share what there is of it, each GPU wants its own.

    No more than there are cores.
    """
    most = DECODERS if several[0].type == "cpu" else GPU_DECODERS * len(several)
    return min(most, os.cpu_count() or 1)


def batch_for(device: torch.device, images: Sequence[Tensor]) -> Tensor:
    """Images of one size as a batch ``(n, ...)`` in main memory, for a GPU where it can fetch them by itself."""
    if device.type != "cuda":
        return torch.stack(list(images))
    pinned = torch.empty((len(images), *images[0].shape), dtype=images[0].dtype, device="cpu", pin_memory=True)
    return torch.stack(list(images), out=pinned)


def home(module: nn.Module) -> torch.device:
    """Where a network is; one that holds nothing is on the CPU."""
    return next((one.device for one in chain(module.parameters(), module.buffers())), torch.device("cpu"))


def like(module: nn.Module, otherwise: torch.dtype = torch.float32) -> Tensor:
    """An empty tensor where a network is, of the real numbers that it counts in; else of those."""
    dtype = next((one.dtype for one in module.parameters() if one.is_floating_point()), otherwise)
    return torch.empty(0, dtype=dtype, device=home(module))


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Give the real numbers of a network this type. ``Module.to`` would make complex ones real, and so others."""
    module._apply(lambda one: one.to(dtype) if one.is_floating_point() else one)  # type: ignore[no-untyped-call]


def copied_to(module: nn.Module, images: Tensor) -> Tensor:
    """A copy of images where a network is, as it counts; a GPU fetches pinned ones while this thread goes on."""
    own = like(module, images.dtype)
    device, dtype = own.device, own.dtype
    if device.type == "cuda" and images.device.type == "cpu" and images.is_pinned():
        # In two steps, since in one the CPU would convert them, into memory that is not pinned.
        return images.to(device, non_blocking=True).to(dtype)
    return images.to(device, dtype, copy=True)


def moved(module: nn.Module, device: torch.device) -> dict[int, Any]:
    """What a network holds, copied to a device, by the identity of each: ``deepcopy`` then copies it nowhere else."""
    there: dict[int, Any] = {id(one): one.detach().to(device, copy=True) for one in module.buffers()}
    for one in module.parameters():
        if type(one) is nn.Parameter:
            there[id(one)] = nn.Parameter(one.detach().to(device, copy=True), requires_grad=one.requires_grad)
    return there


def lacks_memory(error: BaseException) -> bool:
    """Whether something failed because there was not enough memory, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
