"""Support for other input sizes in open_clip's image towers."""

import math
from typing import Any

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from camcli.engine.hooks.input_size import adapt_to_input_size, resample_positions
from camcli.models.sources import timm_input_size

POSITIONS_NOTE = "position embeddings are interpolated to each input's grid (bicubic, antialiased)"


def make_resizable(visual: Any) -> None:
    """Make an image tower adapt to the size of its input."""
    if isinstance(visual, TimmModel):
        timm_input_size.make_resizable(visual.trunk)
    elif isinstance(visual, VisionTransformer):
        adapt_to_input_size(visual, tuple(visual.image_size), _set_input_size, POSITIONS_NOTE)
    elif isinstance(visual, ModifiedResNet):
        # Only the attention pooling depends on the size; the convolutions before it do not.
        side = math.isqrt(len(visual.attnpool.positional_embedding) - 1)
        adapt_to_input_size(visual.attnpool, (side, side), _set_pool_grid, POSITIONS_NOTE)


def _set_input_size(visual: Any, size: tuple[int, int]) -> None:
    """Adapt a vision transformer to an input size, interpolating its position embeddings."""
    rows, columns = visual.patch_size
    if size[0] % rows or size[1] % columns:
        raise ValueError(f"it cuts images into patches of {rows}x{columns}, which do not divide it evenly")
    grid = size[0] // rows, size[1] // columns
    visual.positional_embedding = _resample(visual.positional_embedding, visual.grid_size, grid)
    visual.grid_size, visual.image_size = grid, size


def _set_pool_grid(pool: Any, grid: tuple[int, int]) -> None:
    """Adapt an attention pooling to a grid of cells; its first position embedding is for their mean, and is kept."""
    side = math.isqrt(len(pool.positional_embedding) - 1)
    pool.positional_embedding = _resample(pool.positional_embedding, (side, side), grid)


def _resample(table: nn.Parameter, before: tuple[int, int], after: tuple[int, int]) -> nn.Parameter:
    return nn.Parameter(resample_positions(table, before, after, 1), table.requires_grad)
