"""Devices of one machine, and copies of tensors and networks on them."""

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
# Decoding threads: in all where the CPU computes too, and for each GPU, which would otherwise wait for images.
CPU_DECODERS, GPU_DECODERS = 4, 16


def parse_devices(text: str) -> tuple[torch.device, ...]:
    """Parse device names joined by commas; a device may be named several times.

    ``auto`` is the best device available, ``cuda`` the first GPU, ``cuda:all`` all GPUs.

    Raises:
        RequestError: there is no such device, or the devices cannot be combined.
    """
    here = _list_devices()
    gpus = [name for name in here if name.startswith("cuda")]
    words_in_turn = [word.strip() for word in text.split(",")]
    if len(words_in_turn) > 1 and "auto" in words_in_turn:
        raise RequestError(
            f"--device {text} combines auto, which chooses one, with others", f"name each: {', '.join(here)}"
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
            f"--device {text} names devices of several kinds, which round differently: an image's map would depend on "
            "which one was free",
            "name devices of one kind, or a single one",
        )
    if len(found) > 1 and found[0].type == "mps":
        raise RequestError(f"--device {text} names mps several times, and there is only one", "name it once")
    return found


def _list_devices() -> list[str]:
    """Return the names of all devices, the CPU first."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{number}" for number in range(gpus)), *mps]


def count_decoders(several: Sequence[torch.device]) -> int:
    """Count the decoding threads for these devices: each GPU needs its own, copies on the CPU share theirs.

    There are never more threads than cores.
    """
    most = CPU_DECODERS if several[0].type == "cpu" else GPU_DECODERS * len(several)
    return min(most, os.cpu_count() or 1)


def stack_for(device: torch.device, images: Sequence[Tensor]) -> Tensor:
    """Stack images of one size to a batch ``(n, ...)`` in main memory, pinned if it is for a GPU."""
    if device.type != "cuda":
        return torch.stack(list(images))
    pinned = torch.empty((len(images), *images[0].shape), dtype=images[0].dtype, device="cpu", pin_memory=True)
    return torch.stack(list(images), out=pinned)


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a network; the CPU if it has no parameters or buffers."""
    return next((one.device for one in chain(module.parameters(), module.buffers())), torch.device("cpu"))


def reference_tensor(module: nn.Module, default: torch.dtype = torch.float32) -> Tensor:
    """Return an empty tensor of a network's device and floating-point dtype; ``default`` if it has none."""
    dtype = next((one.dtype for one in module.parameters() if one.is_floating_point()), default)
    return torch.empty(0, dtype=dtype, device=device_of(module))


def cast_floats(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a network's real floating-point tensors; ``Module.to`` would cast complex ones too, and make them real."""
    module._apply(lambda one: one.to(dtype) if one.is_floating_point() else one)  # type: ignore[no-untyped-call]


def copy_to_module(module: nn.Module, images: Tensor) -> Tensor:
    """Copy images to a network's device and dtype; from pinned memory to a GPU asynchronously."""
    own = reference_tensor(module, images.dtype)
    device, dtype = own.device, own.dtype
    if device.type == "cuda" and images.device.type == "cpu" and images.is_pinned():
        # In two steps, since in one the CPU would convert them first, into memory that is not pinned.
        return images.to(device, non_blocking=True).to(dtype)
    return images.to(device, dtype, copy=True)


def copy_tensors_to(module: nn.Module, device: torch.device) -> dict[int, Any]:
    """Copy a network's parameters and buffers to a device, by ``id``, as a memo for ``deepcopy``."""
    there: dict[int, Any] = {id(one): one.detach().to(device, copy=True) for one in module.buffers()}
    for one in module.parameters():
        if type(one) is nn.Parameter:
            there[id(one)] = nn.Parameter(one.detach().to(device, copy=True), requires_grad=one.requires_grad)
    return there


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error was caused by a lack of memory, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
