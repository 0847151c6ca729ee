"""Networks without their classifier: their output is features, and channels take the place of classes."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.devices import reference_tensor
from camcli.engine.hooks.tensors import first_tensor
from camcli.engine.hooks.watch import watch_outputs
from camcli.engine.layers.layout import Layout, narrow, possible_layouts
from camcli.models import PoolOption
from camcli.targets.labels import Labels
from camcli.targets.readers.find import find_scores, get_path, named_tensors
from camcli.targets.readers.spec import OutputSpec

HEADLESS_HINT = (
    "return the module without its head yourself: camcli.Network(..., labels=camcli.Labels.numbered(512, 'channel'), "
    "activation='none', headless=True); for features that are not pooled: output_spec=camcli.OutputSpec('features')"
)
LAYER_HINT = "to see the channels of a layer: --method activation --layer PATH --target channel:12"


def probe_channels(
    module: nn.Module,
    size: tuple[int, int],
    name: str,
    pool: PoolOption,
    prefix: int | None = None,
    grid: tuple[int, int] | None = None,
    in_channels: int = 3,
    path: str = "",
) -> tuple[Labels, OutputSpec]:
    """Find the output channels of a headless module and how to read them, from one forward pass on noise.

    Args:
        module: the module without its head; for ``pool="none"`` without its pooling too.
        size: height and width of its input.
        name: the model's name, for messages.
        pool: ``keep`` if its features are pooled, ``none`` if not.
        prefix: number of prefix tokens before the patch tokens, if known.
        grid: the patch grid, if known.
        in_channels: number of channels of its images.
        path: path of the features in its output; empty to find them.

    Raises:
        RequestError: the output is not one row of features per image, or for ``pool="none"`` not a map of features.
    """
    shapes: list[tuple[int, ...]] = []

    def record_shape(_name: str, output: Any) -> None:
        if (tensor := first_tensor(output)) is not None:
            shapes.append(tuple(tensor.shape))

    with watch_outputs(module, record_shape):
        output = get_path(run_on_noise(module, size, in_channels), path)
    if pool == "keep":
        try:
            row = find_scores(output, 1)
        except RequestError as error:
            raise RequestError(
                f"{name} without its head returns {_describe(output)}: its features are not pooled",
                "read them as a map: --pool none",
            ) from error
        return Labels.numbered(row.shape[1] if row.ndim > 1 else 1, "channel"), OutputSpec(path=path)

    def find_layouts(shape: tuple[int, ...]) -> list[Layout]:
        return [one for one in possible_layouts(shape, size, prefix, grid) if one.order != "ncl"]

    # Layers whose shape allows only one layout settle an ambiguous one.
    unambiguous = frozenset(layouts[0] for layouts in map(find_layouts, shapes) if len(layouts) == 1)
    layout, count = _read_layout(output, name, find_layouts, unambiguous)
    return Labels.numbered(count, "channel"), OutputSpec("features", path, prefix=layout.prefix)


def _read_layout(
    output: Any, name: str, find_layouts: Callable[[tuple[int, ...]], list[Layout]], unambiguous: frozenset[Layout]
) -> tuple[Layout, int]:
    """Find the layout of a feature map, and its number of channels."""
    shapes = [tuple(part.tensor.shape) for part in named_tensors(output) if part.tensor.is_floating_point()]
    layouts = narrow(find_layouts(shapes[0]), unambiguous) if len(shapes) == 1 else []
    if not layouts:
        raise RequestError(
            f"{name} without its head and its pooling returns {_describe(output)}, which is not a feature map",
            f"leave --pool none out; {LAYER_HINT}",
        )
    if len(layouts) > 1:
        raise RequestError(
            f"{name} without its head and its pooling returns {_describe(output)}, which can be read in "
            f"{len(layouts)} ways: {', or '.join(map(str, layouts))}",
            f"give it images of another size: --size; {LAYER_HINT}",
        )
    [layout] = layouts
    return layout, shapes[0][1] if layout.order == "nchw" else shapes[0][-1]


def remove_part(remove: Callable[[], object], what: str, name: str, hint: str) -> None:
    """Remove a part of a model by its library's own function.

    Raises:
        RequestError: the library's function fails.
    """
    try:
        remove()
    except Exception as error:  # libraries assert, raise, or lack the argument
        raise RequestError(f"the {what} of {name} cannot be removed: {summarize_error(error)}", hint) from error


def run_on_noise(module: nn.Module, size: tuple[int, int], channels: int = 3) -> Any:
    """Return a module's output for one image of noise."""
    noise = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module.eval()(noise.to(reference_tensor(module)))


def summarize_error(error: Exception) -> str:
    """Return the first line of an error's message, or its type and the function it came from."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}()"


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return "x".join(map(str, output.shape))
    shapes = ("x".join(map(str, part.tensor.shape)) for part in named_tensors(output))
    return f"a {type(output).__name__} of {', '.join(shapes)}"
