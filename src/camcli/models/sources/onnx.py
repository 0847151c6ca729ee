"""ONNX files: networks of outputs and layers without gradients, run by ONNX Runtime."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.models.adapters import told
from camcli.models.sources import local
from camcli.models.spec import ModelSpec
from camcli.targets.labels import Labels

INSTALL_HINT = "pip install 'camcli-vision[onnx]'"
USAGE = "a network is named by its file: -m path/to/net.onnx"
NO_GRADIENT = "ONNX Runtime computes outputs and no gradients"
CHANNELS = (1, 3, 4)
# Models of more bytes cannot be given to ONNX Runtime in parts.
MAX_BYTES = 2**31 - 1


def names() -> list[str]:
    """Return an empty list, since files are not listed."""
    return []


def has(name: str) -> bool:
    """Return whether the name is that of an ONNX file."""
    return name.lower().endswith(".onnx")


def cached(name: str) -> bool:
    """Return whether the file exists."""
    return Path(name).expanduser().is_file()


def load(spec: ModelSpec) -> Network:
    """Load an ONNX file, cut into parts at the tensors that can be layers.

    Raises:
        RequestError: ONNX Runtime is not installed; there is no such file, it cannot be read or run, or takes more than
            an image; nothing says how images are prepared; or other weights or no head are requested.
    """
    _check_spec(spec)
    try:
        import onnx
        import onnxruntime  # noqa: F401 - asked for here
    except ImportError as error:
        raise RequestError(
            f"ONNX files need onnx and onnxruntime, which are not installed ({error})", INSTALL_HINT
        ) from None
    path = Path(spec.name).expanduser()
    if not path.is_file():
        raise RequestError(f"there is no file {spec.name!r}", USAGE)
    try:
        model = onnx.load(path)
        is_small = model.ByteSize() < MAX_BYTES
        if is_small:
            onnx.checker.check_model(model)
    except Exception as error:  # of the format, of external data, of the system
        raise _make_error(spec.name, "cannot be read", error) from error
    if not is_small:
        raise RequestError(f"{spec.name} has 2 GB or more, which is too large to be run in parts", "use a smaller one")
    return _build_network(model, spec)


def _check_spec(spec: ModelSpec) -> None:
    """Refuse what an ONNX file cannot be combined with."""
    asked = {
        "prompts": bool(spec.text),
        "--head none": spec.headless,
        "--weights random": spec.is_random,
        "--weights": bool(spec.weights),
    }
    if words := next((words for words, is_asked in asked.items() if is_asked), ""):
        raise RequestError(
            f"{spec.name} is a network with its weights, and has no use for {words}", f"leave {words} out"
        )


def _make_error(name: str, what: str, error: Exception) -> RequestError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RequestError(f"{name} {what}: {line[:300]}", "does it run with onnxruntime elsewhere?")


def _build_network(model: Any, spec: ModelSpec) -> Network:
    from camcli.models.sources.onnx_cuts import Trial, cut_model

    image = _find_image(model, spec.name)
    fixed, shape, channels_last = _read_shape(image, spec.name)
    declared = (shape[0], shape[1])
    size = spec.size or (declared if all(declared) else None)
    sizes_fixed = all(declared)
    if sizes_fixed and spec.size not in (None, declared):
        raise RequestError(
            f"{spec.name} takes images of {declared[0]}x{declared[1]} only, which its graph says", "leave --size out"
        )
    preprocess = told.make_preprocess(spec.preprocess, spec.name, size, shape[2], sizes_fixed)
    trial = Trial(image.name, (preprocess.channels, *preprocess.size), fixed, channels_last)
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    try:
        module, shapes, notes = cut_model(model, trial, digest)
    except Exception as error:  # ONNX Runtime raises all kinds
        raise _make_error(spec.name, "cannot be run", error) from error
    output_spec, remarks = local.find_output_spec(shapes)
    network = Network(
        name=spec.name,
        module=module.eval(),
        preprocess=preprocess,
        labels=Labels(()),
        weights="file",
        origin=f"the file {spec.name}",
        notes=(*notes, *remarks),
        output_spec=replace(output_spec, path=spec.output),
        without_gradient=NO_GRADIENT,
    )
    return network if spec.has_wrapper else local.try_and_name(network)


def _find_image(model: Any, name: str) -> Any:
    """Return the only input that no weight stands for.

    Raises:
        RequestError: there are others, or it is no image.
    """
    stored = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in stored]
    if len(inputs) != 1:
        there = ", ".join(one.name for one in inputs) or "none"
        raise RequestError(f"{name} takes {len(inputs)} inputs ({there}), and camcli gives it images alone", USAGE)
    return inputs[0]


def _read_shape(image: Any, name: str) -> tuple[int, tuple[int, int, int], bool]:
    """Return batch, (height, width, channels), each 0 where it is not fixed, and whether channels are last."""
    from camcli.models.sources.onnx_graph import FLOATS

    kind = image.type.tensor_type
    sizes = [one.dim_value if one.HasField("dim_value") else 0 for one in kind.shape.dim]
    if len(sizes) != 4 or kind.elem_type not in FLOATS:
        form = "x".join(str(one or "?") for one in sizes) or "unknown shape"
        raise RequestError(
            f"the input {image.name!r} of {name} is of {form}, type {kind.elem_type}",
            "camcli gives networks floating-point images (n, c, h, w)",
        )
    batch, second, third, last = sizes
    if last in CHANNELS and second not in CHANNELS:
        return batch, (second, third, last), True
    return batch, (third, last, second), False
