"""Modules that run the parts of an ONNX graph, one after the other, by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

# Types of tensors as ONNX Runtime names them.
INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def open_session(model: bytes | str | os.PathLike[str]) -> onnxruntime.InferenceSession:
    """Open a session on the CPU for a model, or for its file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what it warns of are ways to be faster
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait for the next part would take the time of those that run this one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True)
class Growth:
    """A tensor of sizes that grows with the number of images: by ``step`` for each after the first."""

    first: np.ndarray
    step: np.ndarray

    def at(self, images: int) -> np.ndarray:
        """Return the sizes for a number of images."""
        return np.asarray(self.first + (images - 1) * self.step, self.first.dtype)


class OnnxPart(nn.Module):
    """A part of a graph; its output is the tensor that it is named after.

    Attributes:
        rows: length of the first axis of its input for one image.
        fixed: number of images that the graph takes, or 0 if it takes any.
        channels_last: whether the graph takes images as ``(n, h, w, c)``.
    """

    def __init__(
        self, model: bytes, sizes: Mapping[str, Growth], rows: int, fixed: int, channels_last: bool = False
    ) -> None:
        super().__init__()
        self._model, self._sizes = model, dict(sizes)
        self._session: onnxruntime.InferenceSession | None = None
        self.rows, self.fixed, self.channels_last = rows, fixed, channels_last

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: a session is opened anew."""
        return {**self.__dict__, "_session": None}

    def forward(self, given: Tensor) -> Any:
        """Return the outputs for a batch: a tensor, or those of several names in a dictionary.

        Raises:
            ValueError: the batch is not a whole number of images.
        """
        if len(given) % self.rows:
            raise ValueError(f"{len(given)} rows are no whole number of images of {self.rows}")
        images = len(given) // self.rows
        taken = given.permute(0, 2, 3, 1) if self.channels_last else given
        values = taken.detach().to("cpu", torch.float32).contiguous().numpy()
        pieces = [self._run(piece, images_in) for piece, images_in in self._split(values, images)]
        named = {
            name: torch.from_numpy(np.concatenate([one[name] for one in pieces])).to(given.device) for name in pieces[0]
        }
        return next(iter(named.values())) if len(named) == 1 else named

    def _split(self, values: np.ndarray, images: int) -> Iterator[tuple[np.ndarray, int]]:
        """Iterate over pieces of as many images as the graph takes, and how many of each are no padding."""
        step = self.fixed or images
        for begin in range(0, images, step):
            piece = values[begin * self.rows : (begin + step) * self.rows]
            count = len(piece) // self.rows
            if count < step:
                piece = np.concatenate([piece, np.repeat(piece[-self.rows :], step - count, 0)])
            yield piece, count

    def _run(self, values: np.ndarray, count: int) -> dict[str, np.ndarray]:
        if self._session is None:
            self._session = open_session(self._model)
        session = self._session
        images = len(values) // self.rows
        given = {one.name: one for one in session.get_inputs()}
        name = next(one for one in given if one not in self._sizes)
        feeds = {name: values.astype(INPUT_TYPES[given[name].type], copy=False)}
        feeds |= {one: growth.at(images) for one, growth in self._sizes.items() if one in given}
        outputs = session.run(None, feeds)
        return {
            one.name: _drop_padding(value, count, images)
            for one, value in zip(session.get_outputs(), outputs, strict=True)
        }


def _drop_padding(value: np.ndarray, count: int, images: int) -> np.ndarray:
    value = value.astype(np.float32, copy=False) if value.dtype in (np.float16, np.float64) else value
    return value if count == images else value[: len(value) * count // images]


class OnnxNetwork(nn.Module):
    """An ONNX graph as parts in a row, each of which is a layer; the last gives the scores."""

    def __init__(self, parts: Mapping[str, OnnxPart], digest: str) -> None:
        super().__init__()
        self._digest = digest
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, images: Tensor) -> Any:
        """Return the outputs of the graph for images ``(n, c, h, w)``."""
        tensor: Any = images
        for part in self.children():
            tensor = part(tensor)
        return tensor

    def get_extra_state(self) -> str:
        """Return the SHA-256 of the file, which stands for its weights."""
        return self._digest

    def set_extra_state(self, state: str) -> None:
        """Take the SHA-256 of another file's."""
        self._digest = state


def name_layers(tensors: Sequence[str]) -> list[str]:
    """Return names of layers for tensors: their own, without what exporters put around them, and without dots."""
    names: list[str] = []
    for tensor in tensors:
        name = tensor.removeprefix("/").removesuffix("_output_0").replace(".", "_").replace(":", "_")
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names
