"""Maps that know nothing of the model, which a map of a method has to beat."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

# Standard deviations of Gaussians, in shares of the image's shorter side.
SMOOTH_SHARE, CENTRE_SHARE, BLUR_SHARE = 1 / 12, 1 / 4, 1 / 10


def random(image: Float32[np.ndarray, "d h w"], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Draw each pixel's value from 0 to 1."""
    return rng.random(image.shape[1:], np.float32)


def smooth_random(image: Float32[np.ndarray, "d h w"], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Draw noise, smooth it by a Gaussian (``SMOOTH_SHARE``), and scale it to 0..1."""
    wide = _blur(rng.standard_normal(image.shape[1:], np.float32), SMOOTH_SHARE)
    return np.asarray((wide - wide.min()) / max(np.ptp(wide), np.finfo(np.float32).tiny))


def centre(image: Float32[np.ndarray, "d h w"], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:  # noqa: ARG001
    """Make a Gaussian around the centre (``CENTRE_SHARE``)."""
    height, width = image.shape[1:]
    sigma = CENTRE_SHARE * min(height, width)
    down, across = (np.exp(-(((np.arange(side) + 0.5 - side / 2) / sigma) ** 2) / 2) for side in (height, width))
    return np.outer(down, across).astype(np.float32)


def uniform(image: Float32[np.ndarray, "d h w"], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:  # noqa: ARG001
    """Make a map of ones."""
    return np.ones(image.shape[1:], np.float32)


def edges(image: Float32[np.ndarray, "d h w"], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:  # noqa: ARG001
    """Compute the magnitude of Sobel's gradient, in the channel where it is greatest."""
    each = [np.hypot(*(cv2.Sobel(plane, cv2.CV_32F, *order, ksize=3) for order in ((1, 0), (0, 1)))) for plane in image]
    return np.asarray(np.max(each, axis=0))


def blur_map(map: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Blur a map by a Gaussian (``BLUR_SHARE``)."""
    return _blur(map, BLUR_SHARE)


def _blur(map: Float32[np.ndarray, "h w"], share: float) -> Float32[np.ndarray, "h w"]:
    return np.asarray(cv2.GaussianBlur(map, (0, 0), share * min(map.shape), borderType=cv2.BORDER_REFLECT))
