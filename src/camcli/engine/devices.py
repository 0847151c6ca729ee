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
from camcli.engine import check_device_combination

ALL_GPUS = "cuda:all"
RGB_CHANNELS = 3
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
    check_device_combination(text, here)
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
            raise _make_missing_error(word, here, ["auto", *here, *([ALL_GPUS] if len(gpus) > 1 else [])])
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


def _make_missing_error(word: str, here: Sequence[str], known: Sequence[str]) -> RequestError:
    """Return the error for a device that is not here, with the reason where it can be found."""
    there = f"there are: {', '.join(known)}"
    folded = word.casefold()
    if word.isdigit() and f"cuda:{word}" in here:
        return RequestError(f"there is no device {word!r}", f"{there}\ndid you mean 'cuda:{word}'?")
    wants_gpu = folded in ("gpu", "nvidia", "rocm") or folded.startswith(("cuda", "gpu:")) or word.isdigit()
    reason, hint = "", ""
    if wants_gpu and "cuda:0" in here:
        return RequestError(f"there is no device {word!r} here", f"{there}\na GPU is named cuda, cuda:0, ...")
    if wants_gpu:
        reason, hint = find_cuda_problem()
    elif folded in ("mps", "metal"):
        reason = "PyTorch has no Metal here, which takes a Mac with Apple silicon and macOS 14 or later"
    said = f": {reason}" if reason else ""
    return RequestError(f"there is no device {word!r} here{said}", "\n".join(filter(None, [there, hint])))


def find_cuda_problem() -> tuple[str, str]:
    """Return why there is no GPU for PyTorch, and what to do."""
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return (
            f"this PyTorch ({torch.__version__}) is built for the CPU only",
            "install a build for GPUs, as https://pytorch.org/get-started/locally says, or leave --device out",
        )
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if (visible := os.environ.get(variable)) is not None and visible.strip() in ("", "-1", "NoDevFiles"):
            return (f"{variable} is {visible!r}, which hides all GPUs", f"unset {variable}, or name one: {variable}=0")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "no nvidia driver" in text.lower():
            return (
                "no NVIDIA driver is found",
                "install one, and see that nvidia-smi lists the GPU; a container needs docker run --gpus all",
            )
        if "driver" in text.lower() and "too old" in text.lower():
            return (
                f"the NVIDIA driver is too old for this PyTorch, which is built for CUDA {torch.version.cuda}",
                "update the driver, or install PyTorch for an older CUDA",
            )
        return f"PyTorch cannot use one: {text}", "does nvidia-smi list a GPU?"
    return "PyTorch finds a driver and no GPU", "does nvidia-smi list one? is CUDA_VISIBLE_DEVICES set?"


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


def choose_memory_format(module: nn.Module) -> torch.memory_format:
    """Choose channels last if a convolution takes features, and not only the image, as a patch embedding does."""
    if any(parameter.device.type == "mps" for parameter in module.parameters()):
        return torch.contiguous_format
    convolves_features = any(isinstance(one, nn.Conv2d) and one.in_channels > RGB_CHANNELS for one in module.modules())
    return torch.channels_last if convolves_features else torch.contiguous_format
