"""Whether the images of a batch have a part in one another's scores."""

from __future__ import annotations

import torch

from camcli.engine.forward import ROUNDED, gradients_at, points_of
from camcli.engine.hooks.tensors import wide
from camcli.engine.layers.layout import canonical
from camcli.engine.signals.scored import ScoredForward
from camcli.methods.rounding import coarse

# Of the greatest gradient, in units of rounding, how far two ways of computing it may differ.
UNMIXED = 256


def mixes(scored: ScoredForward) -> bool:
    """Whether any of the scores explained depends on more than its own image, by the gradients of this very forward.

    Each score is weighted differently: where images do not mix, the gradient at each is its own, so many times.
    """
    forward, count = scored.forward, len(scored.rows)
    points = points_of(forward)
    layouts = [scored.plan.layouts[name] for name in forward.taps] + [None] * len(points)
    # No two alike, and most of them far from one another.
    weights = torch.tensor([2.0 ** (row % 7 - 3) * (1 + (row // 7) / count) for row in range(count)], device="cpu")
    scores = torch.stack([subject.score for subject in scored.subjects])
    plain = gradients_at(scores.sum(), points, keep=True)
    weighted = gradients_at((scores * weights.to(scores)).sum(), points, keep=True)
    for one, other, layout in zip(plain, weighted, layouts, strict=False):
        pair = [wide(one), wide(other)] if layout is None else [canonical(wide(back), layout) for back in (one, other)]
        images = len(forward.image)
        if len(pair[0]) % images:
            return True  # not row by row, so it cannot be told
        own, given = (scored.select(back.reshape(images, -1)) for back in pair)
        own = own * weights.to(own)[:, None]
        unit = max(UNMIXED * torch.finfo(scores.dtype).eps, ROUNDED * coarse(scores.device))
        allowed = unit * own.abs().amax(1)
        if not bool(((own - given).abs().amax(1) <= allowed).all()):
            return True
    return False
