"""Networks without their classifier: what is left gives features, and channels stand where classes stood."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.devices import like
from camcli.engine.hooks.tensors import first_tensor
from camcli.engine.hooks.watch import listened
from camcli.engine.layers.layout import Layout, readings, settled
from camcli.models import Pool
from camcli.targets.labels import Labels
from camcli.targets.readers.find import chosen, parts
from camcli.targets.readers.spec import Outlet

OWN = (
    "return the module without its head yourself: camcli.Network(..., labels=camcli.Labels.numbered(512, 'channel'), "
    "activation='none', headless=True); for features that are not pooled: outlet=camcli.Outlet('features')"
)
AT_A_LAYER = "to see the channels of a layer: --method activation --layer PATH --target channel:12"


def channels(
    module: nn.Module,
    size: tuple[int, int],
    name: str,
    pool: Pool,
    prefix: int | None = None,
    grid: tuple[int, int] | None = None,
    taken: int = 3,
) -> tuple[Labels, Outlet]:
    """The channels that a module gives, and how they are read: tried on one image of noise.

    Args:
        module: without its head; of ``pool="none"`` without its pooling too.
        size: height and width of its input.
        name: what the model is called in messages.
        pool: whether its features are pooled.
        prefix: how many tokens stand before those of the patches, if the source says so.
        grid: the patch grid, if the source says so.
        taken: how many channels its images have.

    Raises:
        RequestError: what it gives is no row of features, or of ``pool="none"`` no map of them.
    """
    shapes: list[tuple[int, ...]] = []

    def hear(_name: str, said: Any) -> None:
        if (tensor := first_tensor(said)) is not None:
            shapes.append(tuple(tensor.shape))

    with listened(module, hear):
        output = tried(module, size, taken)
    if pool == "keep":
        try:
            row = chosen(output, 1)
        except RequestError as error:
            raise RequestError(
                f"{name} without its head gives {_described(output)}: its features are not pooled",
                "read them as a map: --pool none",
            ) from error
        return Labels.numbered(row.shape[1] if row.ndim > 1 else 1, "channel"), Outlet()

    def ways_of(shape: tuple[int, ...]) -> list[Layout]:
        return [one for one in readings(shape, size, prefix, grid) if one.order != "ncl"]

    # Where there are two, those layers settle it that can be read in one way only.
    plain = frozenset(ways[0] for ways in map(ways_of, shapes) if len(ways) == 1)
    layout, count = _read(output, name, ways_of, plain)
    return Labels.numbered(count, "channel"), Outlet("features", prefix=layout.prefix)


def _read(
    output: Any, name: str, ways_of: Callable[[tuple[int, ...]], list[Layout]], plain: frozenset[Layout]
) -> tuple[Layout, int]:
    """How a map of features lies, and how many channels it has."""
    shapes = [tuple(part.tensor.shape) for part in parts(output) if part.tensor.is_floating_point()]
    ways = settled(ways_of(shapes[0]), plain) if len(shapes) == 1 else []
    if not ways:
        raise RequestError(
            f"{name} without its head and its pooling gives {_described(output)}, which is no map of the picture",
            f"leave --pool none out; {AT_A_LAYER}",
        )
    if len(ways) > 1:
        raise RequestError(
            f"{name} without its head and its pooling gives {_described(output)}, which can be read in {len(ways)} "
            f"ways: {', or '.join(map(str, ways))}",
            f"give it pictures of another size: --size; {AT_A_LAYER}",
        )
    [layout] = ways
    return layout, shapes[0][1] if layout.order == "nchw" else shapes[0][-1]


def removed(remove: Callable[[], object], what: str, name: str, hint: str) -> None:
    """Take something off a model by its library's own means.

    Raises:
        RequestError: the library refuses.
    """
    try:
        remove()
    except Exception as error:  # libraries assert, raise, or lack the argument
        raise RequestError(f"{name} cannot be had without its {what}: {said(error)}", hint) from error


def tried(module: nn.Module, size: tuple[int, int], channels: int = 3) -> Any:
    """What a module gives for one image of noise."""
    noise = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module.eval()(noise.to(like(module)))


def said(error: Exception) -> str:
    """The first line of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}()"


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return "x".join(map(str, output.shape))
    return f"a {type(output).__name__} of {', '.join('x'.join(map(str, part.tensor.shape)) for part in parts(output))}"
