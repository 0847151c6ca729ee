"""Models of transformers that score every pixel by masks, or by a depth, as one tensor of scores."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.hooks.patch import replace_forward
from camcli.models.sources.hf_config import Kind

# What a model of masks returns: classes and a mask of each query.
CLASSES, MASKS = "class_queries_logits", "masks_queries_logits"
DEPTH = "predicted_depth"
MASKS_NOTE = (
    "the logit of a class at a pixel is the log of its sum over the masks, each times the probability of its class"
)


class _PixelForward:
    """A module's forward that returns scores of every pixel, computed from what the module itself returns."""

    def __init__(self, forward: Any, kind: Kind) -> None:
        self._forward, self._kind = forward, kind

    def __call__(self, module: Any, *given: Any, **named: Any) -> dict[str, Tensor]:
        output = self._forward(module, *given, **named)
        return {"logits": output[DEPTH][:, None] if self._kind == "depth" else score_classes(output)}


def score_classes(output: Any) -> Tensor:
    """Compute the scores of classes at each pixel from queries, each with a class and a mask.

    log s_c(x), where s_c(x) = sum over queries q of p_q(c) m_q(x): Cheng et al. 2021 (MaskFormer, arXiv:2107.06278),
    sec. 3.4, "semantic inference", in which "no object" takes no part. Its softmax is the share of a class in the sum.

    Args:
        output: with logits of each query's class, ``(n, q, classes + 1)``, and of its mask, ``(n, q, h, w)``.

    Returns:
        ``(n, classes, h, w)``.
    """
    classes = output[CLASSES].softmax(-1)[..., :-1]
    shares = torch.einsum("nqc,nqhw->nchw", classes, output[MASKS].sigmoid())
    return shares.clamp_min(torch.finfo(shares.dtype).tiny).log()


def score_pixels(module: Any, kind: Kind, name: str) -> tuple[str, ...]:
    """Let a model of masks or of depth return scores of every pixel, in place, with its layers' names.

    Returns:
        Notes for users.

    Raises:
        RequestError: a model of masks wants more than an image, or gives no class to its masks.
    """
    if kind == "masks" and type(module).__name__.startswith(("OneFormer", "Videomt", "Detr")):
        raise RequestError(
            f"{name} ({type(module).__name__}) does not give each pixel its classes from the image alone",
            "choose a MaskFormer, Mask2Former or EoMT; or return the module from a function of yours, -m "
            "my_model.py:make, with camcli.OutputSpec('segment')",
        )
    forward = getattr(vars(module).get("forward"), "__func__", type(module).forward)
    # A bound method, since deepcopy rebinds it to the copy of the module.
    replace_forward(module, MethodType(_PixelForward(forward, kind), module))
    return (MASKS_NOTE,) if kind == "masks" else ()
