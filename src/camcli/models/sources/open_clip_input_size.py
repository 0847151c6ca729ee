"""An image tower of open_clip for input of another size."""

import math
from typing import Any

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from camcli.engine.hooks.input_size import follow, interpolated
from camcli.models.sources import timm_input_size

POSITIONS = "positions are interpolated to the cells of each input (bicubic, antialiased)"


def follow_size(visual: Any) -> None:
    """Have an image tower follow the size of its input."""
    if isinstance(visual, TimmModel):
        timm_input_size.follow_size(visual.trunk)
    elif isinstance(visual, VisionTransformer):
        follow(visual, tuple(visual.image_size), _change, POSITIONS)
    elif isinstance(visual, ModifiedResNet):
        # It looks at the cells of its input, which the convolutions before take of any size.
        side = math.isqrt(len(visual.attnpool.positional_embedding) - 1)
        follow(visual.attnpool, (side, side), _change_cells, POSITIONS)


def _change(visual: Any, size: tuple[int, int]) -> None:
    """Make a vision transformer what it must be for input of this size."""
    rows, columns = visual.patch_size
    if size[0] % rows or size[1] % columns:
        raise ValueError(f"it cuts pictures into patches of {rows}x{columns}, which do not go into it evenly")
    grid = size[0] // rows, size[1] // columns
    visual.positional_embedding = _interpolated(visual.positional_embedding, visual.grid_size, grid)
    visual.grid_size, visual.image_size = grid, size


def _change_cells(pool: Any, cells: tuple[int, int]) -> None:
    """Make a pooling by attention what it must be for so many cells; the first position is that of their mean."""
    side = math.isqrt(len(pool.positional_embedding) - 1)
    pool.positional_embedding = _interpolated(pool.positional_embedding, (side, side), cells)


def _interpolated(table: nn.Parameter, before: tuple[int, int], after: tuple[int, int]) -> nn.Parameter:
    return nn.Parameter(interpolated(table, before, after, 1), table.requires_grad)
