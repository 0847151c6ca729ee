"""From a picture to the model's input, and where each part of that input lies in the picture."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from camcli.images import Crop
from camcli.images.view import GAP, LEAST, View

Fit = Literal["shorter", "longer", "squash"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

# Of how many channels a picture can be made: grey, and red, green and blue.
PICTURES = (1, 3)

# A resized picture of more pixels than this is not built whole: a strip of 100,000 x 1 pixels, its shorter side
# brought to 256, would take 20 GB.
WHOLE = 2**26


@dataclass(frozen=True, slots=True)
class Prepare:
    """From an upright RGB picture to the model's input: resize, cut out the centre, scale the values.

    For one channel the picture is first brought to grey, by Pillow's ``L`` (ITU-R 601-2: 0.299 of red, 0.587 of green,
    0.114 of blue), as timm's data sets do it. For other numbers of channels than 1 and 3 there are no pictures, but
    arrays: :meth:`planes`.

    Equal to the last bit to timm's ``create_transform`` (evaluation; crop modes center, squash, border), to
    torchvision's ``weights.transforms()`` on PIL pictures and to open_clip's ``image_transform`` (shortest, squash,
    longest; not square and shortest, it is always bicubic there). Only of a strip so long and thin that those would
    build a picture of more than ``WHOLE`` pixels is the kept part made alone, which differs by rounding.

    Attributes:
        size: height and width of the model's input.
        mean: what is subtracted from values in 0..1, for red, green and blue; or for each of the model's channels.
        std: what they are then divided by, likewise.
        resize: height and width before the centre is cut out.
        fit: how ``resize`` is reached: ``shorter`` keeps the picture's proportions and covers it, ``longer`` keeps
            them and stays inside it, ``squash`` stretches the picture to it.
        interpolation: Pillow's filter of this name.
        fill: the value 0..255, one for all or for each channel, where the input reaches beyond the resized picture.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, int]
    fit: Fit = "shorter"
    interpolation: Interpolation = "bicubic"
    fill: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        """Raises ValueError if it is not said of each channel alike what is done to it."""
        counts = {len(self.mean), len(self.std)} | (set() if isinstance(self.fill, int) else {len(self.fill)})
        if len(counts) > 1 or not self.mean:
            raise ValueError(f"mean, std and fill are of one number a channel each, and here of {sorted(counts)}")

    @property
    def channels(self) -> int:
        """How many the model's input has."""
        return len(self.mean)

    def __call__(self, picture: Image.Image) -> tuple[Float[Tensor, "d h w"], View]:
        """The picture as the model's input (float32), and which part of it that is.

        Raises:
            ValueError: the picture is not RGB, or the model wants other channels than a picture has.
        """
        if picture.mode != "RGB":
            raise ValueError(f"an RGB picture is needed, not {picture.mode}")
        return self._values(self._cut(self._coloured(picture))), self.view(picture.width, picture.height)

    def planes(self, values: Float32[np.ndarray, "H W d0"]) -> tuple[Float[Tensor, "d h w"], View]:
        """Likewise of an array with values in 0..1, each channel by itself, without rounding to 255 levels.

        Raises:
            ValueError: it has other channels than the model's input.
        """
        height, width, channels = values.shape
        if channels != self.channels:
            raise ValueError(f"it has {channels} channels, and the model takes {self.channels}")
        fills = (self.fill,) * channels if isinstance(self.fill, int) else self.fill
        cut = [
            np.asarray(self._cut(Image.fromarray(np.ascontiguousarray(values[..., at]) * np.float32(255)), fill=fill))
            for at, fill in enumerate(fills)
        ]
        return self._scaled(torch.from_numpy(np.stack(cut))), self.view(width, height)

    def reduced(
        self, picture: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]
    ) -> tuple[Float[Tensor, "d h w"], View]:
        """Likewise of a picture that was perhaps decoded at a part of its size, and faster, in two steps.

        It is first shrunk by the whole number that leaves it at least ``GAP`` times as large as it will be, each pixel
        the mean of those it stands for.

        Args:
            picture: RGB.
            size: width and height of the whole picture.
            box: x0, y0, x1, y1 of where that lies in ``picture``.

        Returns:
            Input and view; the view is in pixels of the whole.
        """
        return self._values(self._cut(self._coloured(picture), size, box, GAP)), self.view(*size)

    def spare(self, width: int, height: int) -> float:
        """By how much a picture of this size may be divided and still be ``GAP`` times as large as it will be."""
        if self.interpolation == "nearest":  # single pixels are picked, and no mean may stand for them
            return 1.0
        resized_height, resized_width = self._resized(width, height)
        return min(width / resized_width / GAP, height / resized_height / GAP, min(width, height) / LEAST)

    def changed(self, size: tuple[int, int] | None = None, crop: Crop = "model") -> "Prepare":
        """The same preparation for another input size, or for another part of the picture.

        Args:
            size: height and width of the input; None leaves it. ``resize`` goes along in proportion, rounded down, so
                that the same share of a picture is cut away (timm keeps its ``crop_pct`` likewise).
            crop: ``model`` leaves the way that ``resize`` is reached; ``center`` covers it in the picture's
                proportions; ``none`` fits the whole picture into the input, in its proportions, and pads with the mean
                colour on both sides alike; ``squash`` stretches the whole picture to the input.
        """
        changed = self
        if size is not None and size != self.size:
            height, width = (now * before // own for now, before, own in zip(size, self.resize, self.size, strict=True))
            changed = replace(changed, size=size, resize=(height, width))
        if crop == "center":
            return replace(changed, fit="shorter")
        if crop == "squash":
            return replace(changed, fit="squash", resize=changed.size)
        if crop == "none":
            fill = self.fill if self.fit == "longer" else tuple(round(255 * value) for value in self.mean)
            return replace(changed, fit="longer", resize=changed.size, fill=fill)
        return changed

    def view(self, width: int, height: int) -> View:
        """Which part of a picture of this size the model sees."""
        (resized_height, resized_width), (top, left) = self._plan(width, height)
        across, down = width / resized_width, height / resized_height
        bottom, right = top + self.size[0], left + self.size[1]
        return View((height, width), self.size, (left * across, top * down, right * across, bottom * down))

    def _plan(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the resized picture, and top and left of the input in it."""
        resized = self._resized(width, height)
        return resized, (_offset(resized[0], self.size[0]), _offset(resized[1], self.size[1]))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        target_height, target_width = self.resize
        if self.fit == "squash":
            return self.resize
        if self.fit == "shorter" and target_height == target_width:
            # torchvision's rule for a square, which timm and open_clip share: the longer side is rounded down.
            shorter = min(width, height)
            return int(target_height * height / shorter), int(target_width * width / shorter)
        # timm's rule for the rest: rounded to the nearest.
        choose = min if self.fit == "shorter" else max
        ratio = choose(height / target_height, width / target_width)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _cut(
        self,
        picture: Image.Image,
        size: tuple[int, int] | None = None,
        box: tuple[float, float, float, float] | None = None,
        gap: float | None = None,
        fill: int | tuple[int, ...] | None = None,
    ) -> Image.Image:
        (height, width), (top, left) = self._plan(*(size or picture.size))
        fill = self.fill if fill is None else fill
        bands = len(picture.getbands())
        fills = (fill,) * bands if isinstance(fill, int) else fill
        cut = Image.new(picture.mode, (self.size[1], self.size[0]), fills if bands > 1 else fills[0])
        filter_ = Image.Resampling[self.interpolation.upper()]
        if height * width <= WHOLE:
            cut.paste(picture.resize((width, height), filter_, box, gap), (-left, -top))
            return cut
        begin, above, end, below = box or (0.0, 0.0, float(picture.width), float(picture.height))
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + self.size[1], width), min(top + self.size[0], height)
        across, down = (end - begin) / width, (below - above) / height
        kept = (begin + x0 * across, above + y0 * down, min(begin + x1 * across, end), min(above + y1 * down, below))
        cut.paste(picture.resize((x1 - x0, y1 - y0), filter_, kept, gap), (x0 - left, y0 - top))
        return cut

    def _coloured(self, picture: Image.Image) -> Image.Image:
        """The picture in as many channels as the model takes.

        Raises:
            ValueError: these are neither grey nor red, green and blue.
        """
        if self.channels not in PICTURES:
            raise ValueError(f"a picture has 3 channels, and the model takes {self.channels}")
        return picture if self.channels == 3 else picture.convert("L")

    def _values(self, cut: Image.Image) -> Float[Tensor, "d h w"]:
        levels = np.array(cut)
        values = torch.from_numpy(levels if levels.ndim == 3 else levels[..., np.newaxis])
        return self._scaled(values.permute(2, 0, 1).contiguous())

    def _scaled(self, levels: Tensor) -> Float[Tensor, "d h w"]:
        """Values of 0..255 as the model wants them."""
        mean, std = (
            torch.tensor(each, dtype=torch.float32, device="cpu").view(-1, 1, 1) for each in (self.mean, self.std)
        )
        return levels.to(torch.float32).div_(255).sub_(mean).div_(std)


def _offset(outer: int, inner: int) -> int:
    """Where the centred ``inner`` begins in ``outer``; negative where it is the larger. torchvision's rounding."""
    return round((outer - inner) / 2) if outer >= inner else -((inner - outer) // 2)
