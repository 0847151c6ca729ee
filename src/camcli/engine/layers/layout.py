"""Every layout becomes ``(n, c, h, w)`` here; no method knows what a token is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import RequestError

Order = Literal["nchw", "nhwc", "tokens", "ncl", "ncthw"]

# Class, distillation and register tokens: no published vision transformer has more in front.
MOST_PREFIX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """How a layer's output lies in memory.

    Attributes:
        order: channels first, channels last, a sequence of tokens ``(n, t, c)``, one with its channels first
            ``(n, c, t)``, or films ``(g, c, t, h, w)`` whose ``n = g t`` frames are the images of a group.
        grid: rows and columns of the map.
        prefix: tokens before the first patch.
        suffix: tokens behind the last patch.
    """

    order: Order
    grid: tuple[int, int]
    prefix: int = 0
    suffix: int = 0

    def __str__(self) -> str:
        rows, columns = self.grid
        before = f" after {self.prefix} prefix" if self.prefix else ""
        behind = f" before {self.suffix} suffix" if self.suffix else ""
        return f"{self.order} {rows}x{columns}{before}{behind}"


def canonical(tensor: Float[Tensor, "m *dims"], layout: Layout) -> Float[Tensor, "n c h w"]:
    """The layer's output as channels over a grid, a view where possible; of films frame by frame."""
    if layout.order == "ncthw":
        return tensor.transpose(1, 2).flatten(0, 1)
    if layout.order == "nchw":
        return tensor
    if layout.order == "nhwc":
        return tensor.permute(0, 3, 1, 2)
    tokens = tensor.transpose(1, 2) if layout.order == "ncl" else tensor
    patches = tokens[:, layout.prefix : tokens.shape[1] - layout.suffix]
    return patches.transpose(1, 2).reshape(len(patches), -1, *layout.grid)


def restored(
    cells: Float[Tensor, "m c h w"], layout: Layout, like: Float[Tensor, "n *dims"]
) -> Float[Tensor, "m *dims"]:
    """Channels over a grid, back as the layer's output lies in memory: the inverse of :func:`canonical`.

    Args:
        cells: ``m`` outputs, ``m / n`` of each image, those of the first image first.
        layout: how the layer's output lies.
        like: its own output for the ``n`` images, whose tokens in front of and behind the patches are kept.
    """
    cells = cells.to(like.dtype)
    if layout.order == "nchw":
        return cells
    if layout.order == "nhwc":
        return cells.permute(0, 2, 3, 1)
    tokens = like.transpose(1, 2) if layout.order == "ncl" else like
    kept = tokens.repeat_interleave(len(cells) // len(like), 0)
    patches = cells.flatten(2).transpose(1, 2)
    whole = torch.cat([kept[:, : layout.prefix], patches, kept[:, tokens.shape[1] - layout.suffix :]], 1)
    return whole.transpose(1, 2) if layout.order == "ncl" else whole


def readings(
    shape: Sequence[int],
    input_size: tuple[int, int],
    prefix: int | None = None,
    grid: tuple[int, int] | None = None,
    images: int = 1,
) -> list[Layout]:
    """All layouts that a layer's output of this shape can have, for inputs of ``input_size`` (h, w) pixels.

    A grid must have the input's aspect: one stride must explain its rows and its columns. An output that has cut the
    image into several samples, as attention in windows does, is no grid over it and has no reading. Tokens that are no
    patches are taken to stand in front, as in every published transformer; :func:`asked` reads those behind. That a
    sequence has its channels first is only possible; :func:`settled` asks the other layers.

    Args:
        shape: of the output, batch first.
        input_size: of the model's input.
        prefix: how many tokens the model's metadata puts before the patches, if it says.
        grid: the patch grid its metadata names, if it does.
        images: how many it was given; if there are several, as many frames in films are read as images.
    """
    if images > 1 and len(shape) == 5 and shape[0] * shape[2] == images:
        frame = (shape[3], shape[4])
        return [Layout("ncthw", frame)] if _covers(frame, input_size) else []
    if not shape or shape[0] != images:
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
        lengths: list[tuple[Order, int]] = [("tokens", shape[1]), ("ncl", shape[2])]
        if grid is not None and prefix is not None:
            known = [Layout(order, grid, prefix) for order, length in lengths if length == prefix + grid[0] * grid[1]]
            if known:
                return known
        before = {
            "tokens": range(MOST_PREFIX_TOKENS + 1) if prefix is None else [prefix],
            # A few tokens of many channels are class tokens, whatever square the channels happen to make.
            "ncl": [prefix or 0] if shape[1] > MOST_PREFIX_TOKENS else [],
        }
        return [
            Layout(order, cells, count)
            for order, length in lengths
            for count in before[order]
            if (cells := _grid_of(length - count, input_size)) is not None
        ]
    return []


def asked(word: str, shape: Sequence[int], images: int = 1) -> Layout:
    """The layout that ``--layout`` names, for an output of this shape.

    Args:
        word: ``nchw``, ``nhwc``, ``tokens:PREFIX:HxW`` or ``ncl:PREFIX:HxW``; what is left of a sequence stands behind.
        shape: of the output, batch first.
        images: how many it was given.

    Raises:
        RequestError: the output cannot be read in this way.
    """
    form = "x".join(map(str, shape))
    order, _, rest = word.partition(":")
    dimensions = 3 if rest else 4
    if len(shape) != dimensions or shape[0] != images:
        first = "one image" if images == 1 else f"{images} images"
        raise RequestError(
            f"its output of shape {form} cannot be read as {word}, which has {dimensions} dimensions, {first} first",
            "`camcli layers MODEL` shows the shapes",
        )
    if order == "nchw":
        return Layout("nchw", (shape[2], shape[3]))
    if order == "nhwc":
        return Layout("nhwc", (shape[1], shape[2]))
    before, _, cells = rest.partition(":")
    rows, columns = map(int, cells.split("x"))
    length = shape[1] if order == "tokens" else shape[2]
    behind = length - int(before) - rows * columns
    if not 0 <= behind <= MOST_PREFIX_TOKENS:
        raise RequestError(
            f"its output of shape {form} cannot be read as {word}: of {length} tokens, {before} + {rows} x {columns} "
            + (f"leave {behind}" if behind > 0 else f"are {-behind} too many"),
            "give the number of tokens in front of the patches, and the rows and columns of the patches",
        )
    return Layout("tokens" if order == "tokens" else "ncl", (rows, columns), int(before), behind)


def scaled(grid: tuple[int, int] | None, before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int] | None:
    """The patch grid for input of another size; None where it is not known, or whole patches do not cover that input.

    Args:
        grid: for input of the size ``before``, if it is known.
        before: height and width.
        after: likewise.
    """
    if grid is None or before == after:
        return grid
    sides = [divmod(cells * new, old) for cells, old, new in zip(grid, before, after, strict=True)]
    (rows, above), (columns, beside) = sides
    return None if above or beside else (rows, columns)


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


def settled(candidates: Sequence[Layout], plain: frozenset[Layout]) -> list[Layout]:
    """The readings that remain in view of how the model's other layers are read.

    A sequence with its channels first must have a grid that another layer has, since many numbers of channels are
    squares. Beyond that the others settle a tie: by their grids, by their order, by their tokens in front.

    Args:
        candidates: what :func:`readings` gave.
        plain: the layouts of the layers that can be read in one way only.
    """
    grids = {one.grid for one in plain}
    remaining = [one for one in candidates if one.order != "ncl" or one.grid in grids]
    likenesses: list[Callable[[Layout], object]] = [
        lambda one: one.grid,
        lambda one: one.order,
        lambda one: (one.order, one.prefix),
    ]
    for likeness in likenesses:
        known = {likeness(one) for one in plain}
        remaining = [one for one in remaining if likeness(one) in known] or remaining
    return remaining


def decide(candidates: Sequence[Layout], shape: Sequence[int], plain: frozenset[Layout] = frozenset()) -> Layout:
    """The one layout among the readings of a shape.

    Args:
        candidates: what :func:`readings` gave.
        shape: for the message.
        plain: the layouts of the layers that can be read in one way only; see :func:`settled`.

    Raises:
        RequestError: the output has no grid, or two readings remain.
    """
    candidates = settled(candidates, plain)
    if len(candidates) == 1:
        return candidates[0]
    form = "x".join(map(str, shape))
    if len(shape) == 5:
        raise RequestError(
            f"its output of shape {form} is a volume or a video, and a map lies in the image plane",
            "choose a layer whose output has rows and columns only; `camcli layers MODEL` lists them",
        )
    if not candidates:
        raise RequestError(
            f"its output of shape {form} has no spatial grid, so no map can be made of it",
            "choose a layer before pooling; `camcli layers MODEL` lists those with a grid; "
            "or say how it is to be read: --layout tokens:PREFIX:HxW",
        )
    raise RequestError(
        f"its output of shape {form} can be read in {len(candidates)} ways: {', or '.join(map(str, candidates))}",
        "say which: --layout nchw, nhwc, tokens:PREFIX:HxW or ncl:PREFIX:HxW; or choose a neighbouring layer; "
        "`camcli layers MODEL` shows how each is read",
    )
