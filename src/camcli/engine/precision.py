"""Precision of a network's computation: its dtype, and for float32 whether a GPU may round to TF32's ten bits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

# What PyTorch calls the instructions for bf16; a processor without any converts each value to float32 and back.
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def note_precision(precision: str, device: torch.device) -> list[str]:
    """Return notes on a precision from which a device gains nothing, as far as PyTorch knows its instructions."""
    if precision == "tf32" and device.type != "cuda":
        return [f"TF32 is for GPUs: on {device}, fp32 is used"]
    if precision != "bf16" or device.type != "cpu":
        return []
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of PyTorch 2.10 nothing is known
    told = [known[name] for name in BF16_INSTRUCTIONS if name in known]
    if told and not any(told):
        return ["this processor has no instructions for bf16, so it can take many times as long as --precision fp32"]
    return []


class _PrecisionSwitch:
    """Process-wide switch of float32 rounding; the last thread to leave restores the settings.

    PyTorch has an older setting (``allow_tf32``) and a newer one (``fp32_precision``). If only the newer one is set,
    reading the older one, as PyTorch's compiler does, fails; so both are set.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._entered: list[str] = []
        self._saved_precisions: list[str] = []
        self._saved_legacy: tuple[bool, str] | None = None

    @contextmanager
    def __call__(self, precision: str) -> Iterator[None]:
        """Compute float32 as TF32 if ``precision`` is ``tf32``, else by IEEE 754, while the block runs."""
        with self._lock:
            if not self._entered:
                self._saved_legacy, self._saved_precisions = (
                    _read_legacy(),
                    [one.fp32_precision for one in _list_backends()],
                )
            self._entered.append(precision)
            self._set(precision)
        try:
            yield
        finally:
            with self._lock:
                self._entered.remove(precision)
                if self._entered:
                    self._set(self._entered[-1])
                else:
                    _apply(self._saved_legacy, self._saved_precisions)

    def _set(self, precision: str) -> None:
        allowed = precision == "tf32"
        word = "tf32" if allowed else "ieee"
        _apply(self._saved_legacy and (allowed, "high" if allowed else "highest"), [word] * len(_list_backends()))


def _list_backends() -> list[Any]:
    backends: Any = torch.backends
    return [
        *(backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul),
        *(backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul),
    ]


def _read_legacy() -> tuple[bool, str] | None:
    """Return the older settings; None where they cannot be read, since only the newer ones were set."""
    backends: Any = torch.backends
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _apply(legacy: tuple[bool, str] | None, precisions: list[str]) -> None:
    backends: Any = torch.backends
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if legacy is not None:
            backends.cudnn.allow_tf32 = legacy[0]
            torch.set_float32_matmul_precision(legacy[1])
        for one, word in zip(_list_backends(), precisions, strict=True):
            one.fp32_precision = word


# While this context is entered in any thread, float32 is computed in the given precision.
float32_precision = _PrecisionSwitch()
