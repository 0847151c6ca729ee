"""Preprocessing of images to the model's input, and the position of that input in the image."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from camcli.base.deprecated import with_old_names
from camcli.images import Crop
from camcli.images.view import MIN_REDUCED_SIDE, REDUCING_GAP, View

Fit = Literal["shorter", "longer", "squash", "padded"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

# Numbers of input channels that an image can be converted to: grey and RGB.
PICTURE_CHANNELS = (1, 3)
# Shares of red, green and blue in Pillow's grey.
GREY_WEIGHTS = np.array([19595, 38470, 7471], np.float32) / 65536

# By whose arithmetic an image becomes numbers: torchvision's on Pillow images, those of transformers on tensors, or
# torchvision's on the frames of videos, or OpenCV's, which takes four neighbours of a point however small the image
# becomes.
Arithmetic = Literal["pillow", "tensor", "float", "sampled", "blurred", "video", "opencv"]
# Those that resize values of 0 to 1, which are not rounded to levels.
OF_FLOATS = ("float", "sampled", "blurred")

# Larger resized images are not built whole: a strip of 100,000 x 1 pixels, its shorter side resized to 256, would
# take 20 GB.
MAX_RESIZED_PIXELS = 2**26


# Names of the last release.
OLD_NAMES = {"planes": "from_planes", "reduced": "from_reduced", "spare": "max_divisor", "changed": "adapt"}


@with_old_names(attributes=OLD_NAMES)
@dataclass(frozen=True, slots=True)
class Preprocess:
    """Preprocessing of an upright RGB image to the model's input: resize, centre crop, normalize.

    For one channel the image is first converted to grey, by Pillow's ``L`` (ITU-R 601-2: 0.299 of red, 0.587 of
    green, 0.114 of blue), as timm's datasets do. Other numbers of channels than 1 and 3 need arrays: see
    :meth:`from_planes`.

    Equal to the last bit to timm's ``create_transform`` (evaluation; crop modes center, squash, border), to
    torchvision's ``weights.transforms()`` on PIL images and to open_clip's ``image_transform`` (shortest, squash,
    longest; for shortest and not square it is always bicubic there). Only for a strip so thin that the resized image
    would have more than ``MAX_RESIZED_PIXELS`` is the kept part made alone, which differs by rounding.

    With the arithmetic ``tensor`` equal to the last bit to the image processors of transformers that resize tensors:
    the resampling of torchvision's tensors, the crop's corner rounded down, and one division by 255 times ``std``; with
    ``float`` to those that first divide by 255 and then resize (DINOv3); with ``sampled`` to those that do so without
    antialiasing (RF-DETR), and with ``blurred`` after a Gaussian blur (OWLv2); with ``video`` to torchvision's
    ``VideoClassification``, which resizes the tensors of frames without antialiasing. An image decoded at a fraction of
    its size is resized by Pillow all the same.

    Attributes:
        size: height and width of the model's input.
        mean: mean of each channel, subtracted from values in 0..1.
        std: divisor of each channel after that.
        resize: height and width before the centre crop; by default ``size``, so that nothing is cropped of a square.
        fit: how ``resize`` is reached: ``shorter`` keeps the aspect ratio and covers it, ``longer`` keeps the ratio and
            stays inside it, ``squash`` stretches the image to it; ``padded`` first pads it at the bottom or at the
            right to a square, with ``fill``, and stretches that.
        interpolation: name of Pillow's filter.
        fill: value 0..255, one for all or one for each channel, where the input extends beyond the resized image.
        arithmetic: ``pillow``, ``tensor``, ``float``, ``sampled``, ``blurred``, ``video``, or ``opencv``, which is
            bilinear.
        bgr: True if the model's channels are blue, green, red; mean and std are in that order.
        corner: True if an input that extends beyond the resized image has it in its upper left corner, not centred.
        blank: True if the values of the padding are zero, which no colour of 8 bits is where 255 times the mean is no
            whole number, so that padding can be told from an image of that colour. ``fill`` is what is resized into it.
        floor: True if the sides of an image that is fitted by its ``longer`` are rounded down, not to the nearest.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, int] = (0, 0)
    fit: Fit = "shorter"
    interpolation: Interpolation = "bicubic"
    fill: int | tuple[int, ...] = 0
    arithmetic: Arithmetic = "pillow"
    bgr: bool = False
    corner: bool = False
    floor: bool = False
    blank: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless mean, std and fill are of one number of channels; set the default of ``resize``."""
        counts = {len(self.mean), len(self.std)} | (set() if isinstance(self.fill, int) else {len(self.fill)})
        if len(counts) > 1 or not self.mean:
            raise ValueError(f"mean, std and fill need one number per channel, and have {sorted(counts)}")
        if self.resize == (0, 0):
            object.__setattr__(self, "resize", self.size)

    @property
    def channels(self) -> int:
        """Number of channels of the model's input."""
        return len(self.mean)

    def __call__(self, picture: Image.Image) -> tuple[Float[Tensor, "d h w"], View]:
        """Return an image as the model's input (float32), and the view of the image that it shows.

        Raises:
            ValueError: the image is not RGB, or the model takes neither 1 nor 3 channels.
        """
        if picture.mode != "RGB":
            raise ValueError(f"an RGB image is needed, not {picture.mode}")
        picture = self._to_model_channels(picture)
        if self.arithmetic in OF_FLOATS:
            levels = np.asarray(picture, np.float32)
            return self.from_planes((levels if levels.ndim == 3 else levels[..., np.newaxis]) * np.float32(1 / 255))
        values = self._normalize(_to_planes(self._resize_and_crop(picture)))
        return _blank_padding(self, values, picture.width, picture.height), self.view(picture.width, picture.height)

    def from_planes(self, values: Float32[np.ndarray, "H W d0"]) -> tuple[Float[Tensor, "d h w"], View]:
        """Preprocess an array with values in 0..1 channel by channel, without rounding to 8 bits.

        Of a model of colours, grey becomes all three; of a model of grey, colours become grey by the weights of
        Pillow's ``L``.

        Raises:
            ValueError: the array does not have the channels of the model's input.
        """
        height, width, channels = values.shape
        if channels not in (self.channels, *(PICTURE_CHANNELS if self.channels in PICTURE_CHANNELS else ())):
            raise ValueError(f"it has {channels} channels, and the model takes {self.channels}")
        if channels > self.channels:
            values = (values @ GREY_WEIGHTS)[..., np.newaxis]
        white = 1 if self.arithmetic in OF_FLOATS else 255
        fills = (self.fill,) * self.channels if isinstance(self.fill, int) else self.fill
        cut: dict[tuple[int, int], np.ndarray] = {}
        for at, fill in enumerate(fills):
            one = min(at, values.shape[2] - 1), fill
            if one not in cut:
                plane = Image.fromarray(np.ascontiguousarray(values[..., one[0]]) * np.float32(white))
                cut[one] = np.asarray(self._resize_and_crop(plane, fill=fill * white / 255))
        planes = np.stack([cut[min(at, values.shape[2] - 1), fill] for at, fill in enumerate(fills)])
        normalized = self._normalize(torch.from_numpy(planes), white)
        return _blank_padding(self, normalized, width, height), self.view(width, height)

    def from_reduced(
        self, picture: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]
    ) -> tuple[Float[Tensor, "d h w"], View]:
        """Preprocess an image that may have been decoded at a fraction of its size, faster and in two steps.

        The image is first reduced by the integer that leaves it at least ``REDUCING_GAP`` times its final size, each
        pixel the mean of those it stands for.

        Args:
            picture: an RGB image.
            size: width and height of the whole image.
            box: x0, y0, x1, y1 of the whole image in ``picture``.

        Returns:
            Input and view; the view is in pixels of the whole image.
        """
        cut = self._resize_and_crop(self._to_model_channels(picture), size, box, REDUCING_GAP)
        return _blank_padding(self, self._normalize(_to_planes(cut)), *size), self.view(*size)

    def max_divisor(self, width: int, height: int) -> float:
        """Return the greatest divisor that leaves an image of this size ``REDUCING_GAP`` times its final size."""
        if self.interpolation == "nearest":  # single pixels are picked: means must not replace them
            return 1.0
        resized_height, resized_width = self._find_resized_size(width, height)
        width, height = _find_padded_size(self.fit, width, height)
        return min(
            width / resized_width / REDUCING_GAP,
            height / resized_height / REDUCING_GAP,
            min(width, height) / MIN_REDUCED_SIDE,
        )

    def adapt(self, size: tuple[int, int] | None = None, crop: Crop = "model") -> "Preprocess":
        """Return the same preprocessing for another input size, or for another part of the image.

        Args:
            size: height and width of the input; None keeps it. ``resize`` changes in proportion, rounded down, so that
                the same share of an image is cropped away (as timm keeps its ``crop_pct``).
            crop: ``model`` keeps ``fit``; ``center`` covers ``resize`` at the image's aspect ratio; ``none`` fits the
                whole image into the input at its aspect ratio, and pads both sides equally with the mean colour;
                ``squash`` stretches the whole image to the input.
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
            colours = self.mean[::-1] if self.bgr else self.mean
            fill = self.fill if self.fit == "longer" else tuple(round(255 * value) for value in colours)
            return replace(changed, fit="longer", resize=changed.size, fill=fill)
        return changed

    def view(self, width: int, height: int) -> View:
        """Return the view that the model has of an image of this size."""
        (resized_height, resized_width), (top, left) = self._plan(width, height)
        wide, high = _find_padded_size(self.fit, width, height)
        across, down = wide / resized_width, high / resized_height
        bottom, right = top + self.size[0], left + self.size[1]
        return View((height, width), self.size, (left * across, top * down, right * across, bottom * down))

    def _plan(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return height and width of the resized image, and top and left of the input in it."""
        resized = self._find_resized_size(width, height)
        top, left = (
            _offset(*each, self.arithmetic in ("tensor", *OF_FLOATS)) for each in zip(resized, self.size, strict=True)
        )
        if self.corner:
            top, left = max(top, 0), max(left, 0)
        return resized, (top, left)

    def _find_resized_size(self, width: int, height: int) -> tuple[int, int]:
        target_height, target_width = self.resize
        if self.fit in ("squash", "padded"):
            return self.resize
        if self.fit == "shorter" and target_height == target_width:
            # The rule of torchvision, timm and open_clip for a square: the longer side is rounded down.
            shorter = min(width, height)
            return int(target_height * height / shorter), int(target_width * width / shorter)
        if self.fit == "longer" and self.floor:  # as libreyolo computes it: a product may round below a whole number
            share = min(target_height / height, target_width / width)
            return max(1, int(height * share)), max(1, int(width * share))
        # The rule of timm otherwise: rounded to the nearest.
        choose = min if self.fit == "shorter" else max
        ratio = choose(height / target_height, width / target_width)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _resize_and_crop(
        self,
        picture: Image.Image,
        size: tuple[int, int] | None = None,
        box: tuple[float, float, float, float] | None = None,
        gap: float | None = None,
        fill: float | tuple[float, ...] | None = None,
    ) -> Image.Image:
        (height, width), (top, left) = self._plan(*(size or picture.size))
        fill = self.fill if fill is None else fill
        bands = len(picture.getbands())
        fills = fill if isinstance(fill, tuple) else (fill,) * bands
        if self.fit == "padded":
            picture, box = _pad_to_square(picture, box, fills if bands > 1 else fills[0])
        cut = Image.new(picture.mode, (self.size[1], self.size[0]), fills if bands > 1 else fills[0])
        filter_ = Image.Resampling[self.interpolation.upper()]
        if self.arithmetic != "pillow" and box is None and height * width <= MAX_RESIZED_PIXELS:
            if self.arithmetic == "opencv":
                resized = _resize_with_opencv(picture, (height, width))
            else:
                resized = _resize_as_tensor(picture, (height, width), self.interpolation, self.arithmetic)
            cut.paste(resized, (-left, -top))
            return cut
        if height * width <= MAX_RESIZED_PIXELS:
            cut.paste(picture.resize((width, height), filter_, box, gap), (-left, -top))
            return cut
        begin, above, end, below = box or (0.0, 0.0, float(picture.width), float(picture.height))
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + self.size[1], width), min(top + self.size[0], height)
        across, down = (end - begin) / width, (below - above) / height
        kept = (begin + x0 * across, above + y0 * down, min(begin + x1 * across, end), min(above + y1 * down, below))
        cut.paste(picture.resize((x1 - x0, y1 - y0), filter_, kept, gap), (x0 - left, y0 - top))
        return cut

    def _to_model_channels(self, picture: Image.Image) -> Image.Image:
        """Return the image in the channels that the model takes.

        Raises:
            ValueError: these are neither grey nor RGB.
        """
        if self.channels not in PICTURE_CHANNELS:
            raise ValueError(f"an image has 3 channels, and the model takes {self.channels}")
        return picture if self.channels == 3 else picture.convert("L")

    def to_colours(self, values: Float32[np.ndarray, "d h w"]) -> Float32[np.ndarray, "d h w"]:
        """Return the colours in 0..1, red first, that an input of the model was made from, up to rounding."""
        mean, std = np.array([self.mean, self.std], np.float32)[:, :, None, None]
        colours = np.asarray(values * std + mean)
        return colours[::-1] if self.bgr else colours

    def from_colours(self, colours: Float32[np.ndarray, "d h w"]) -> Float32[np.ndarray, "d h w"]:
        """Return the model's input of colours in 0..1, red first, which are not resized: the inverse of to_colours."""
        mean, std = np.array([self.mean, self.std], np.float32)[:, :, None, None]
        return np.asarray(((colours[::-1] if self.bgr else colours) - mean) / std)

    def _normalize(self, levels: Tensor, white: int = 255) -> Float[Tensor, "d h w"]:
        """Normalize values of 0 to ``white`` by mean and std."""
        mean, std = (
            torch.tensor(each, dtype=torch.float32, device="cpu").view(-1, 1, 1) for each in (self.mean, self.std)
        )
        values = (levels.flip(0) if self.bgr else levels).to(torch.float32)
        if self.arithmetic == "tensor" and not any(self.mean) and set(self.std) == {1.0}:  # then it does not divide
            return values.mul_(1 / white)
        if self.arithmetic == "tensor":
            return values.sub_(mean * white).div_(std * white)
        return (values if white == 1 else values.div_(white)).sub_(mean).div_(std)


def _blank_padding(preprocess: Preprocess, values: Tensor, width: int, height: int) -> Float[Tensor, "d h w"]:
    """Set an input's padding to zero where that is asked, for an image of this size."""
    if preprocess.blank:
        (rows, columns), (top, left) = preprocess._plan(width, height)
        shown = torch.zeros(values.shape[1:], dtype=torch.bool, device="cpu")
        shown[max(-top, 0) : rows - top, max(-left, 0) : columns - left] = True
        values = values.where(shown, 0)
    return values


def _find_padded_size(fit: Fit, width: int, height: int) -> tuple[int, int]:
    """Return the width and height of what is resized of an image of this size."""
    return (max(width, height),) * 2 if fit == "padded" else (width, height)


def _to_planes(picture: Image.Image) -> Tensor:
    """Return an image's values, ``(d, h, w)``."""
    levels = np.array(picture)
    return torch.from_numpy(levels if levels.ndim == 3 else levels[..., np.newaxis]).permute(2, 0, 1).contiguous()


def _pad_to_square(
    picture: Image.Image, box: tuple[float, float, float, float] | None, fill: float | tuple[float | int, ...]
) -> tuple[Image.Image, tuple[float, float, float, float] | None]:
    """Pad an image, or the box of it that counts, at the bottom or at the right to a square."""
    begin, above, end, below = box or (0.0, 0.0, float(picture.width), float(picture.height))
    side = max(end - begin, below - above)
    square = Image.new(picture.mode, (math.ceil(begin + side), math.ceil(above + side)), fill)
    square.paste(picture.crop((0, 0, math.ceil(end), math.ceil(below))), (0, 0))
    return square, None if box is None else (begin, above, begin + side, above + side)


def _resize_as_tensor(
    picture: Image.Image, size: tuple[int, int], interpolation: Interpolation, arithmetic: Arithmetic
) -> Image.Image:
    """Resize an image to a height and width as torchvision resizes tensors, or the frames of its videos."""
    from torchvision.transforms import functional as functional_of_videos
    from torchvision.transforms.v2 import InterpolationMode, functional

    mode = InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    resize = functional_of_videos.resize if arithmetic == "video" else functional.resize
    planes = _to_planes(picture)
    if arithmetic == "blurred":
        planes = _blur(planes, size)
    antialias = arithmetic in ("tensor", "float")
    resized = resize(planes, list(size), mode, antialias=antialias).permute(1, 2, 0)
    levels = resized.contiguous().numpy()
    return Image.fromarray(levels if levels.shape[2] > 1 else levels[..., 0])


def _blur(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Blur an image ``(d, h, w)`` before it is made smaller, as OWLv2 does; one that is not smaller both ways stays."""
    from torchvision.transforms.v2 import functional

    sigma = (torch.tensor(planes.shape[1:]) / torch.tensor(size) - 1).clamp(min=0) / 2
    if not bool(sigma.all()):
        return planes
    kernel: list[int] = (2 * torch.ceil(3 * sigma).int() + 1).tolist()
    blurred: Tensor = functional.gaussian_blur(planes, kernel, sigma.tolist())
    return blurred


def _resize_with_opencv(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize an image to a height and width as OpenCV does, bilinearly."""
    if picture.size == size[::-1]:
        return picture
    return Image.fromarray(cv2.resize(np.asarray(picture), size[::-1], interpolation=cv2.INTER_LINEAR))


def _offset(outer: int, inner: int, down: bool = False) -> int:
    """Return the offset of ``inner`` centred in ``outer``, rounded as in torchvision; negative if it is larger."""
    if outer < inner:
        return -((inner - outer) // 2)
    return (outer - inner) // 2 if down else round((outer - inner) / 2)
