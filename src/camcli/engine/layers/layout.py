"""Layouts of layers' outputs, and their conversion to ``(n, c, h, w)``, so that no method needs to know of tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import RequestError

Order = Literal["nchw", "nhwc", "tokens", "ncl", "ncthw", "ncdhw", "ndhwc"]

# Class, distillation and register tokens: no published vision transformer has more in front.
MAX_PREFIX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Memory layout of a layer's output.

    Attributes:
        order: channels first, channels last, a sequence of tokens ``(n, t, c)``, one with its channels first
            ``(n, c, t)``, films ``(g, c, t, h, w)`` whose ``n = g t`` frames are the images of a group, or volumes,
            channels first or last, whose slices stand one above the other.
        grid: rows and columns of the map.
        prefix: tokens before the first patch.
        suffix: tokens after the last patch.
        slices: slices of a volume, among which the rows are shared.
    """

    order: Order
    grid: tuple[int, int]
    prefix: int = 0
    suffix: int = 0
    slices: int = 1

    def __str__(self) -> str:
        rows, columns = self.grid
        if self.slices > 1 or (len(self.order) == 5 and self.order != "ncthw"):
            return f"{self.order} {self.slices}x{rows // self.slices}x{columns}"
        before = f" after {self.prefix} prefix" if self.prefix else ""
        behind = f" before {self.suffix} suffix" if self.suffix else ""
        return f"{self.order} {rows}x{columns}{before}{behind}"


def to_nchw(tensor: Float[Tensor, "m *dims"], layout: Layout) -> Float[Tensor, "n c h w"]:
    """Convert a layer's output to channels over a grid, a view where possible; films frame by frame."""
    if layout.order == "ncthw":
        return tensor.transpose(1, 2).flatten(0, 1)
    if layout.order == "nchw":
        return tensor
    if layout.order == "ncdhw":
        return tensor.flatten(2, 3)
    if layout.order == "ndhwc":
        return tensor.permute(0, 4, 1, 2, 3).flatten(2, 3)
    if layout.order == "nhwc":
        return tensor.permute(0, 3, 1, 2)
    tokens = tensor.transpose(1, 2) if layout.order == "ncl" else tensor
    patches = tokens[:, layout.prefix : tokens.shape[1] - layout.suffix]
    return patches.transpose(1, 2).reshape(len(patches), -1, *layout.grid)


def from_nchw(
    cells: Float[Tensor, "m c h w"], layout: Layout, like: Float[Tensor, "n *dims"]
) -> Float[Tensor, "m *dims"]:
    """Convert channels over a grid back to the layer's layout: the inverse of :func:`to_nchw`.

    Args:
        cells: ``m`` outputs, ``m / n`` of each image, those of the first image first.
        layout: the layout of the layer's output.
        like: the layer's output for the ``n`` images, whose prefix and suffix tokens are kept.
    """
    cells = cells.to(like.dtype)
    if layout.order == "nchw":
        return cells
    if layout.order in ("ncdhw", "ndhwc"):
        volumes = cells.reshape(*cells.shape[:2], layout.slices, -1, cells.shape[3])
        return volumes if layout.order == "ncdhw" else volumes.permute(0, 2, 3, 4, 1)
    if layout.order == "nhwc":
        return cells.permute(0, 2, 3, 1)
    tokens = like.transpose(1, 2) if layout.order == "ncl" else like
    kept = tokens.repeat_interleave(len(cells) // len(like), 0)
    patches = cells.flatten(2).transpose(1, 2)
    whole = torch.cat([kept[:, : layout.prefix], patches, kept[:, tokens.shape[1] - layout.suffix :]], 1)
    return whole.transpose(1, 2) if layout.order == "ncl" else whole


def possible_layouts(
    shape: Sequence[int],
    input_size: tuple[int, int],
    prefix: int | None = None,
    grid: tuple[int, int] | None = None,
    images: int = 1,
    slices: int = 0,
    suffix: int = 0,
) -> list[Layout]:
    """List the layouts that a layer's output of this shape can have, for inputs of ``input_size`` (h, w) pixels.

    A grid must have the input's aspect: one stride must explain its rows and its columns. An output that cuts the image
    into several samples, as attention in windows does, has no layout. Tokens that are not patches are taken for a
    prefix, as in nearly every transformer, but for a suffix that the source knows. Sequences with their channels
    first are only candidates; :func:`narrow` decides by the other layers.

    Args:
        shape: the shape of the output, batch first.
        input_size: the height and width of the model's input.
        prefix: the number of prefix tokens by the model's metadata, if known.
        grid: the patch grid by the model's metadata, if known.
        images: the batch size; if more than one, films with as many frames are read as images.
        slices: the number of slices of the model's input, where it takes volumes: then only volumes are read.
        suffix: the number of tokens behind the patches by the model's metadata; needs ``prefix`` and ``grid``.
    """
    if slices:
        return _possible_volumes(shape, input_size, images, slices)
    if images > 1 and len(shape) == 5 and shape[0] * shape[2] == images:
        frame = (shape[3], shape[4])
        return [Layout("ncthw", frame)] if _fits_input(frame, input_size) else []
    if not shape or shape[0] != images:
        return []
    if len(shape) == 4:
        _, a, b, c = shape
        found: list[Layout] = []
        if _fits_input((b, c), input_size):
            found.append(Layout("nchw", (b, c)))
        if _fits_input((a, b), input_size):
            found.append(Layout("nhwc", (a, b)))
        return found
    if len(shape) == 3:
        lengths: list[tuple[Order, int]] = [("tokens", shape[1]), ("ncl", shape[2])]
        if grid is not None and prefix is not None:
            known = [
                Layout(order, grid, prefix, behind)
                for order, length in lengths
                for behind in sorted({0, suffix})
                if length == prefix + grid[0] * grid[1] + behind
            ]
            if known:
                return known
        before = {
            "tokens": range(MAX_PREFIX_TOKENS + 1) if prefix is None else [prefix],
            # A few tokens of many channels are class tokens, whatever square the channels happen to make.
            "ncl": [prefix or 0] if shape[1] > MAX_PREFIX_TOKENS else [],
        }
        return [
            Layout(order, cells, count)
            for order, length in lengths
            for count in before[order]
            if (cells := _find_grid(length - count, input_size)) is not None
        ]
    return []


def _possible_volumes(shape: Sequence[int], input_size: tuple[int, int], images: int, slices: int) -> list[Layout]:
    """List the readings of a layer's output as volumes, whose slices must have the aspect of the input's."""
    if len(shape) != 5 or shape[0] != images:
        return []
    readings: list[tuple[Order, Sequence[int]]] = [("ncdhw", shape[2:]), ("ndhwc", shape[1:4])]
    each = (input_size[0] // slices, input_size[1])
    return [
        Layout(order, (deep * rows, columns), slices=deep)
        for order, (deep, rows, columns) in readings
        if 1 <= deep <= slices + 1 and _fits_input((rows, columns), each)
    ]


def parse_layout(word: str, shape: Sequence[int], images: int = 1, suffix: int = 0) -> Layout:
    """Parse a ``--layout`` option, for an output of this shape.

    Args:
        word: ``nchw``, ``nhwc``, ``tokens:PREFIX:HxW`` or ``ncl:PREFIX:HxW``; the rest of a sequence is its suffix.
        shape: the shape of the output, batch first.
        images: the batch size.
        suffix: the number of tokens behind the patches by the model's metadata.

    Raises:
        RequestError: the output cannot have this layout.
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
    if not 0 <= behind <= max(MAX_PREFIX_TOKENS, suffix):
        raise RequestError(
            f"its output of shape {form} cannot be read as {word}: of {length} tokens, {before} + {rows} x {columns} "
            + (f"leave {behind}" if behind > 0 else f"are {-behind} too many"),
            "give the number of tokens before the patches, and the rows and columns of patches",
        )
    return Layout("tokens" if order == "tokens" else "ncl", (rows, columns), int(before), behind)


def scale_grid(grid: tuple[int, int] | None, before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int] | None:
    """Scale the patch grid to input of another size; None if it is unknown, or whole patches do not cover that input.

    Args:
        grid: the patch grid for input of the size ``before``, if known.
        before: the height and width that ``grid`` is for.
        after: the height and width wanted.
    """
    if grid is None or before == after:
        return grid
    sides = [divmod(cells * new, old) for cells, old, new in zip(grid, before, after, strict=True)]
    (rows, above), (columns, beside) = sides
    return None if above or beside else (rows, columns)


def _find_grid(patches: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """Find the grid with this many cells and exactly the input's aspect, if there is one with more than one cell."""
    height, width = input_size
    rows = round((patches * height / width) ** 0.5) if patches > 1 else 0
    if rows and patches % rows == 0 and rows * width == (patches // rows) * height:
        return rows, patches // rows
    return None


def _fits_input(grid: tuple[int, int], input_size: tuple[int, int]) -> bool:
    """Return whether one stride, with a cell lost or gained at the border, explains both sides of the grid."""
    if min(grid) < 1 or max(grid) == 1:
        return False
    least, most = zip(
        *(_stride_bounds(cells, pixels) for cells, pixels in zip(grid, input_size, strict=True)), strict=True
    )
    return bool(max(least) <= min(most))


def _stride_bounds(cells: int, pixels: int) -> tuple[float, float]:
    return pixels / (cells + 1), pixels / (cells - 1) if cells > 1 else float("inf")


def narrow(candidates: Sequence[Layout], unambiguous: frozenset[Layout]) -> list[Layout]:
    """Narrow the possible layouts of an output by the layouts of the model's other layers.

    A sequence with its channels first must have a grid that another layer has, since many numbers of channels are
    squares. Beyond that the other layers settle a tie: by their grids, by their order, by their prefix.

    Args:
        candidates: the layouts found by :func:`possible_layouts`.
        unambiguous: the layouts of the layers that have only one possible layout.
    """
    grids = {one.grid for one in unambiguous}
    remaining = [one for one in candidates if one.order != "ncl" or one.grid in grids]
    likenesses: list[Callable[[Layout], object]] = [
        lambda one: one.grid,
        lambda one: one.order,
        lambda one: (one.order, one.prefix),
    ]
    for likeness in likenesses:
        known = {likeness(one) for one in unambiguous}
        remaining = [one for one in remaining if likeness(one) in known] or remaining
    return remaining


def decide(candidates: Sequence[Layout], shape: Sequence[int], unambiguous: frozenset[Layout] = frozenset()) -> Layout:
    """Decide on one of the possible layouts of an output.

    Args:
        candidates: the layouts found by :func:`possible_layouts`.
        shape: the shape of the output, for the message.
        unambiguous: the layouts of the layers that have only one possible layout; see :func:`narrow`.

    Raises:
        RequestError: the output has no grid, or several layouts remain.
    """
    candidates = narrow(candidates, unambiguous)
    if len(candidates) == 1:
        return candidates[0]
    form = "x".join(map(str, shape))
    if len(shape) == 5:
        raise RequestError(
            f"its output of shape {form} is a volume or a video, and the images are not",
            "choose a layer whose output has rows and columns only; `camcli layers MODEL` lists them; of a network of "
            "volumes return camcli.VolumePreprocess.of(...) with it",
        )
    if not candidates:
        raise RequestError(
            f"its output of shape {form} has no spatial grid, so no map can be made of it",
            "choose a layer before pooling; `camcli layers MODEL` lists those with a grid; or give its layout: "
            "--layout tokens:PREFIX:HxW",
        )
    raise RequestError(
        f"its output of shape {form} can be read in {len(candidates)} ways: {', or '.join(map(str, candidates))}",
        "choose one: --layout nchw, nhwc, tokens:PREFIX:HxW or ncl:PREFIX:HxW; or choose a neighbouring layer; "
        "`camcli layers MODEL` shows how each is read",
    )
