"""``concepts.png``: a row for each concept, with crops of the images that it is strongest in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from camcli.engine.maps.concepts import MAX_PICTURES, sample_positions
from camcli.engine.maps.method import BoundMethod
from camcli.images import describe_page
from camcli.images.placement import Placement
from camcli.methods import METHODS
from camcli.methods.factors import solve_weights
from camcli.outputs import encode
from camcli.outputs.sheet import THUMBNAIL_SIDE, SheetRow, SheetTile, compose_sheet
from camcli.outputs.style import Style
from camcli.runs.worker.item import Item
from camcli.runs.worker.worker import Worker

FILE = "concepts.png"
# Most crops of a concept, each of another image.
CROPS = 8
# Least strength of a concept in a crop, by its greatest in any.
MIN_SHARE = 0.2
# Side of a crop by that of the model's input: CRAFT's crops have 64 of 224 pixels.
CROP_SHARE = 2 / 7
# Greatest side of the images that are kept until concepts are found, in pixels.
MAX_SIDE = 512


@dataclass(frozen=True, slots=True)
class KeptImage:
    """Image that waits for its concepts.

    Attributes:
        name: its name.
        pixels: the model's input as pixels, perhaps smaller.
        size: height and width of that input.
    """

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]


class ConceptSheet:
    """Sheet of the concepts that are found in the images of a run.

    Args:
        worker: the resolved job.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._images: list[KeptImage] = []
        self._cells: dict[str, list[Tensor]] = {}

    @property
    def methods(self) -> list[BoundMethod]:
        """The methods whose concepts are directions among the channels, and are drawn."""
        return [one for one in self._worker.explainer.bound_methods if one.fit and one.row is METHODS.find("dff")]

    def keep(self, items: Sequence[Item], cells: Mapping[str, Float[Tensor, "n m c"]]) -> None:
        """Keep images and their cells, by layer, until concepts are found in them."""
        if self.methods:
            self._images += [self._make_image(item.source.name, item.source.page, item.input) for item in items]
            for layer, rows in cells.items():
                self._cells.setdefault(layer, []).extend(rows)

    def draw(self, style: Style) -> bytes | None:
        """Draw the sheet as a PNG; None if no method has concepts to draw."""
        fitted, layers = self._worker.explainer.fitted_concepts, self._worker.explainer.layers
        rows = [
            row
            for method in self.methods
            for layer in layers
            if (method.row.name, layer) in fitted
            for row in self._make_rows(layer, fitted[method.row.name, layer], method.options["iterations"])
        ]
        if not rows:
            return None
        heading = [f"{self._worker.job.model}, found in {len(self._images)} images"]
        return encode.png(compose_sheet(f"Concepts of {', '.join(layers)}", heading, rows, [FOOTING], style, CROPS))

    def _make_rows(self, layer: str, directions: Float[Tensor, "k c"], iterations: int) -> list[SheetRow]:
        weights = [
            solve_weights(rows[None].clamp(min=0), directions.to(rows), iterations)[0] for rows in self._cells[layer]
        ]
        sums = torch.stack([one.nan_to_num().sum(0) for one in weights]).sum(0)
        best = torch.stack([one.nan_to_num().max(0).values for one in weights])
        several = len(self._cells) > 1
        found = []
        for number, share in enumerate((sums / sums.sum()).tolist()):
            order = best[:, number].argsort(descending=True, stable=True)[:CROPS].tolist()
            tiles = [
                self._make_tile(layer, place, weights[place][:, number].nan_to_num())
                for place in order
                if best[place, number] > MIN_SHARE * best[:, number].max()
            ]
            lines = [f"{share:.0%} of all"] + ([f"at {layer}"] if several else [])
            found.append(SheetRow(f"concept {number + 1}", lines, tiles, () if tiles else ("zero in every image",)))
        return found

    def _make_tile(self, layer: str, place: int, weights: Float[Tensor, " m"]) -> SheetTile:
        """Make a tile of the crop around the cell where a concept is strongest in an image."""
        image, explainer = self._images[place], self._worker.explainer
        grid, located = explainer.layouts[layer].grid, explainer.locations.get(layer)
        cell = int(weights.argmax())
        if (
            positions := sample_positions(grid[0] * grid[1], explainer.channel_counts[layer], MAX_PICTURES)
        ) is not None:
            cell = int(positions[cell])
        placement = located.placement if located and located.placement else Placement.even(grid, image.size)
        side = max(1, round(CROP_SHARE * min(image.pixels.shape[:2])))
        corner = [
            int(np.clip(round((first + step * at) * there / here - side / 2), 0, there - side))
            for at, first, step, here, there in zip(
                divmod(cell, grid[1]),
                placement.first,
                placement.stride,
                image.size,
                image.pixels.shape[:2],
                strict=True,
            )
        ]
        crop = image.pixels[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
        enlarged = Image.fromarray(crop).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
        return SheetTile(f"{float(weights.max()):.3g}  {image.name}", np.asarray(enlarged))

    def _make_image(self, name: str, page: int, given: Tensor | None) -> KeptImage:
        """Turn a model's input back into pixels, of the first three channels, no larger than needed."""
        assert given is not None
        preprocess = self._worker.network.preprocess
        mean, std = (torch.tensor(one).reshape(-1, 1, 1) for one in (preprocess.mean, preprocess.std))
        pixels = (255 * (given.float() * std + mean)).round().clamp(0, 255).to(torch.uint8)
        whole = Image.fromarray(pixels[:3].expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
        whole.thumbnail((MAX_SIDE, MAX_SIDE))
        return KeptImage(
            describe_page(name.rpartition("/")[2], page), np.asarray(whole), (given.shape[1], given.shape[2])
        )


FOOTING = (
    "Each row shows, of the images in which a concept is strongest, the part of the model's input around its strongest "
    "cell, two sevenths of the input's shorter side; below each the concept's strength there. Concepts have the "
    "numbers that they have in the images' own files."
)
