"""Test whether the images of a batch affect each other's scores."""

from __future__ import annotations

import torch

from camcli.engine.forward import COPY_TOLERANCE_EPS, compute_gradients, gradient_points
from camcli.engine.hooks.tensors import at_least_float32
from camcli.engine.layers.layout import to_nchw
from camcli.engine.signals.scored import ScoredForward
from camcli.methods.rounding import reduced_precision_eps

# Greatest difference between two computations of a gradient, relative to its greatest value, in units of rounding.
MIXING_EPS = 256


def mixes_images(scored: ScoredForward) -> bool:
    """Return whether a score depends on more than its own image, judged by the gradients of this forward.

    Each score gets a weight of its own: where images do not mix, an image's gradient is its own times that weight.
    """
    forward, count = scored.forward, len(scored.rows)
    points = gradient_points(forward)
    layouts = [scored.plan.layouts[name] for name in forward.activations] + [None] * len(points)
    # All weights differ, most of them by a large factor.
    weights = torch.tensor([2.0 ** (row % 7 - 3) * (1 + (row // 7) / count) for row in range(count)], device="cpu")
    scores = torch.stack([target.score for target in scored.targets])
    plain = compute_gradients(scores.sum(), points, retain_graph=True)
    weighted = compute_gradients((scores * weights.to(scores)).sum(), points, retain_graph=True)
    for one, other, layout in zip(plain, weighted, layouts, strict=False):
        pair = (
            [at_least_float32(one), at_least_float32(other)]
            if layout is None
            else [to_nchw(at_least_float32(back), layout) for back in (one, other)]
        )
        images = len(forward.images)
        if len(pair[0]) % images:
            return True  # the rows do not belong to images, so assume that they mix
        own, given = (scored.select(back.reshape(images, -1)) for back in pair)
        own = own * weights.to(own)[:, None]
        unit = max(
            MIXING_EPS * torch.finfo(scores.dtype).eps, COPY_TOLERANCE_EPS * reduced_precision_eps(scores.device)
        )
        allowed = unit * own.abs().amax(1)
        if not bool(((own - given).abs().amax(1) <= allowed).all()):
            return True
    return False
