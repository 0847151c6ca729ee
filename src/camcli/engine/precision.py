"""In which precision a network computes: its dtype, and for float32 whether a GPU may round to TF32's ten bits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Switch:
    """What of the whole process says how float32 is rounded, set for a time; the last to leave puts it back.

    PyTorch has two ways to say it, an older one (``allow_tf32``) and a newer one (``fp32_precision``), and where only
    the newer was used the older cannot be read, which its compiler does: so both are told the same.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside: list[str] = []
        self._new: list[str] = []
        self._old: tuple[bool, str] | None = None

    @contextmanager
    def __call__(self, precision: str) -> Iterator[None]:
        """While it lasts, float32 is IEEE's, or TF32 where ``precision`` is ``tf32``."""
        with self._lock:
            if not self._inside:
                self._old, self._new = _old(), [one.fp32_precision for one in _switches()]
            self._inside.append(precision)
            self._set(precision)
        try:
            yield
        finally:
            with self._lock:
                self._inside.remove(precision)
                if self._inside:
                    self._set(self._inside[-1])
                else:
                    _tell(self._old, self._new)

    def _set(self, precision: str) -> None:
        allowed = precision == "tf32"
        word = "tf32" if allowed else "ieee"
        _tell(self._old and (allowed, "high" if allowed else "highest"), [word] * len(_switches()))


def _switches() -> list[Any]:
    backends: Any = torch.backends
    return [
        *(backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul),
        *(backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul),
    ]


def _old() -> tuple[bool, str] | None:
    """The older switches; None where they cannot be read, since somebody used the newer ones alone."""
    backends: Any = torch.backends
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _tell(old: tuple[bool, str] | None, new: list[str]) -> None:
    backends: Any = torch.backends
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if old is not None:
            backends.cudnn.allow_tf32 = old[0]
            torch.set_float32_matmul_precision(old[1])
        for one, word in zip(_switches(), new, strict=True):
            one.fp32_precision = word


# While it lasts, in any thread, float32 is computed as a precision says.
arithmetic = _Switch()
