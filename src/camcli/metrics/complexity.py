"""Numbers that describe how concentrated a map is, by the magnitudes of its values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64


def sparseness(maps: Float32[np.ndarray, "n h w"]) -> Float64[np.ndarray, " n"]:
    """Compute the Gini index of the magnitudes: 0 if they are equal, 1 - 1/n if one of n is all; NaN if all are 0."""
    shares = np.sort(_share(maps), axis=1)
    count = shares.shape[1]
    # Of equal magnitudes rounding would leave a number like 1e-17.
    return np.asarray(np.round(shares @ (2 * np.arange(1, count + 1) - count - 1) / count, 12))


def entropy(maps: Float32[np.ndarray, "n h w"]) -> Float64[np.ndarray, " n"]:
    """Compute the entropy of the magnitudes' shares, divided by that of equal ones; NaN if all are 0."""
    shares = _share(maps)
    terms = shares * np.log(np.where(shares > 0, shares, 1))
    return np.asarray(-terms.sum(1) / np.log(shares.shape[1]))


def effective_area(maps: Float32[np.ndarray, "n h w"]) -> Float64[np.ndarray, " n"]:
    """Compute 1 over n times the sum of the magnitudes' squared shares: k/n if k of n are equal and others 0."""
    shares = _share(maps)
    return np.asarray(1 / (shares**2).sum(1) / shares.shape[1])


def _share(maps: Float32[np.ndarray, "n h w"]) -> Float64[np.ndarray, "n p"]:
    """Return each magnitude's share of their sum; NaN in a map that is zero everywhere."""
    sizes = np.abs(maps.reshape(len(maps), -1)).astype(np.float64)
    sums = sizes.sum(1, keepdims=True)
    return np.where(sums > 0, sizes / np.where(sums > 0, sums, 1), np.nan)
