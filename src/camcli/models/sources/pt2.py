"""Programs of ``torch.export`` in ``.pt2`` files, with their submodules and gradients."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.models.adapters import told
from camcli.models.sources import local
from camcli.models.spec import ModelSpec
from camcli.targets.labels import Labels

USAGE = "a program is named by its file: -m path/to/net.pt2, as torch.export.save writes it"


def names() -> list[str]:
    """Return an empty list, since files are not listed."""
    return []


def has(name: str) -> bool:
    """Return whether the name is that of a program."""
    return name.lower().endswith(".pt2")


def cached(name: str) -> bool:
    """Return whether the file exists."""
    return Path(name).expanduser().is_file()


def load(spec: ModelSpec) -> Network:
    """Load a program, with its submodules as layers.

    Reading it may run code in it: PyTorch unpickles what it cannot read as plain tensors.

    Raises:
        RequestError: there is no such file, it is no program of ``torch.export``, takes more than an image, or was
            exported for training or for batches of a few; or nothing says how images are prepared.
    """
    program = _read(spec.name)
    batch, channels, size = _read_shape(program, spec.name)
    _check_is_for_inference(program, spec.name)
    if batch > 1:
        raise RequestError(
            f"{spec.name} takes batches of {batch} images only",
            'export it for any number: dynamic_shapes=({0: torch.export.Dim("batch")},)',
        )
    if size and spec.size not in (None, size):
        raise RequestError(f"{spec.name} takes images of {size[0]}x{size[1]} only", "leave --size out")
    preprocess = told.make_preprocess(spec.preprocess, spec.name, size or spec.size, channels, size is not None)
    output_spec, notes = local.find_output_spec([tuple(one.shape) for one in _list_outputs(program)])
    network = Network(
        name=spec.name,
        module=torch.export.unflatten(program),
        preprocess=preprocess,
        labels=Labels(()),
        weights="file",
        origin=f"the file {spec.name}",
        notes=notes,
        output_spec=output_spec,
    )
    return local.make_network(network, replace(spec, preprocess=None))


def _read(name: str) -> Any:
    """Read a program.

    Raises:
        RequestError: it cannot be read.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise RequestError(f"there is no file {name!r}", USAGE)
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.namelist()
    except zipfile.BadZipFile:
        raise RequestError(f"{name} is no program of torch.export, which is a zip archive", USAGE) from None
    if any("aotinductor" in one for one in inside) and not any("/models/" in one for one in inside):
        raise RequestError(
            f"{name} is a library compiled by AOTInductor, which has neither layers nor gradients",
            "name the program that it was compiled from, which torch.export.save writes",
        )
    try:
        return torch.export.load(path)
    except Exception as error:  # of any version's format, and of what it holds
        line = (str(error).strip().splitlines() or [""])[0]
        raise RequestError(f"{name} cannot be read: {type(error).__name__}: {line[:300]}", USAGE) from error


def _read_shape(program: Any, name: str) -> tuple[int, int, tuple[int, int] | None]:
    """Return the batch (0 for any), the channels (0 for any), and height and width if they are fixed."""
    given = program.graph_signature.user_inputs
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in given]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or values[0].ndim != 4:
        there = ", ".join("x".join(map(str, getattr(one, "shape", ()))) or type(one).__name__ for one in values)
        raise RequestError(f"{name} takes {there or 'nothing'}, and camcli gives it images (n, c, h, w) alone", USAGE)
    batch, channels, height, width = (side if isinstance(side, int) else 0 for side in values[0].shape)
    return batch, channels, (height, width) if height and width else None


def _list_outputs(program: Any) -> list[torch.Tensor]:
    named = program.graph_signature.user_outputs
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in named]
    return [one for one in values if isinstance(one, torch.Tensor)]


def _check_is_for_inference(program: Any, name: str) -> None:
    """Refuse a program that was exported in training mode: its operations have that written in."""
    for node in program.graph.nodes:
        operation = str(node.target)
        in_training = "batch_norm" in operation and len(node.args) > 5 and node.args[5] is True
        drops = "dropout" in operation and len(node.args) > 2 and bool(node.args[1]) and node.args[2] is True
        if in_training or drops:
            raise RequestError(
                f"{name} was exported in training mode: {operation.removeprefix('aten.')} depends on "
                f"{'the other images of a batch' if in_training else 'chance'}",
                "export it again after network.eval()",
            )
