"""Every layout becomes ``(n, c, h, w)`` here; no method knows what a token is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from camcli.errors import RequestError

Order = Literal["nchw", "nhwc", "tokens"]

# Class, distillation and register tokens: no published vision transformer has more in front.
MOST_PREFIX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """How a layer's output lies in memory.

    Attributes:
        order: channels first, channels last, or a sequence of tokens ``(n, t, c)``.
        grid: rows and columns of the map.
        prefix: tokens before the first patch.
    """

    order: Order
    grid: tuple[int, int]
    prefix: int = 0

    def __str__(self) -> str:
        rows, columns = self.grid
        behind = f" after {self.prefix} prefix" if self.prefix else ""
        return f"{self.order} {rows}x{columns}{behind}"


def canonical(tensor: Float[Tensor, "n *dims"], layout: Layout) -> Float[Tensor, "n c h w"]:
    """The layer's output as channels over a grid, a view where possible."""
    if layout.order == "nchw":
        return tensor
    if layout.order == "nhwc":
        return tensor.permute(0, 3, 1, 2)
    patches = tensor[:, layout.prefix :]
    return patches.transpose(1, 2).reshape(len(patches), -1, *layout.grid)


def readings(
    shape: Sequence[int],
    input_size: tuple[int, int],
    prefix: int | None = None,
    grid: tuple[int, int] | None = None,
) -> list[Layout]:
    """All layouts that a layer's output of this shape can have, for one input of ``input_size`` (h, w) pixels.

    A grid must have the input's aspect: one stride must explain its rows and its columns. An output that has cut the
    image into several samples, as attention in windows does, is no grid over it and has no reading.

    Args:
        shape: of the output for one image, batch first.
        input_size: of the model's input.
        prefix: how many tokens the model's metadata puts before the patches, if it says.
        grid: the patch grid its metadata names, if it does.
    """
    if not shape or shape[0] != 1:
        return []
    if len(shape) == 4:
        _, a, b, c = shape
        found: list[Layout] = []
        if _covers((b, c), input_size):
            found.append(Layout("nchw", (b, c)))
        if _covers((a, b), input_size):
            found.append(Layout("nhwc", (a, b)))
        return found
    if len(shape) == 3:
        tokens = shape[1]
        if grid is not None and prefix is not None and tokens == prefix + grid[0] * grid[1]:
            return [Layout("tokens", grid, prefix)]
        counts = range(MOST_PREFIX_TOKENS + 1) if prefix is None else [prefix]
        return [
            Layout("tokens", cells, count)
            for count in counts
            if (cells := _grid_of(tokens - count, input_size)) is not None
        ]
    return []


def _grid_of(patches: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """The grid with this many cells and exactly the input's aspect, if there is one with more than one cell."""
    height, width = input_size
    rows = round((patches * height / width) ** 0.5) if patches > 1 else 0
    if rows and patches % rows == 0 and rows * width == (patches // rows) * height:
        return rows, patches // rows
    return None


def _covers(grid: tuple[int, int], input_size: tuple[int, int]) -> bool:
    """Whether one stride, with a cell lost or gained at the border, explains both sides of the grid."""
    if min(grid) < 1 or max(grid) == 1:
        return False
    least, most = zip(*(_strides(cells, pixels) for cells, pixels in zip(grid, input_size, strict=True)), strict=True)
    return bool(max(least) <= min(most))


def _strides(cells: int, pixels: int) -> tuple[float, float]:
    return pixels / (cells + 1), pixels / (cells - 1) if cells > 1 else float("inf")


def decide(candidates: Sequence[Layout], shape: Sequence[int], orders: frozenset[Order] = frozenset()) -> Layout:
    """The one layout among the readings of a shape.

    Args:
        candidates: what :func:`readings` gave.
        shape: for the message.
        orders: the orders in which the model's other layers can only be read; they settle a tie.

    Raises:
        RequestError: the output has no grid, or two readings remain.
    """
    if len(candidates) > 1 and (agreeing := [one for one in candidates if one.order in orders]):
        candidates = agreeing
    if len(candidates) == 1:
        return candidates[0]
    form = "x".join(map(str, shape))
    if not candidates:
        raise RequestError(
            f"its output of shape {form} has no spatial grid, so no map can be made of it",
            "choose a layer before pooling; `camcli layers MODEL` lists those with a grid",
        )
    raise RequestError(
        f"its output of shape {form} can be read in {len(candidates)} ways: {', or '.join(map(str, candidates))}",
        "choose a neighbouring layer; `camcli layers MODEL` shows how each is read",
    )
