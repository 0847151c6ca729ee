"""A text tower of the user's own: any model's pooled features compared with embeddings of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from math import isfinite, nan
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.devices import cast, like
from camcli.engine.network import Network
from camcli.models import TOWERS, user_code
from camcli.models.adapters import headless, zero_shot
from camcli.models.adapters.templates import templates
from camcli.models.spec import Request
from camcli.targets.readers.spec import PLAIN

# What the function may give beside the embeddings.
PARTS = ("embeddings", "projection", "scale", "bias")
RETURNS = (
    "it is called with a list of texts and returns their embeddings (texts, d), a tensor; or a mapping with "
    "'embeddings' and perhaps 'projection' (a module or a (features, d) matrix), 'scale' and 'bias'"
)


def prompted(network: Network, request: Request) -> Network:
    """A network without its head as one that compares pictures with prompts.

    Args:
        network: gives features; layers are named as in it.
        request: with prompts, templates and the function that embeds texts, ``path/to/file.py:function`` or
            ``package.module:function``. It is called with some of the texts at a time; projection, scale and bias are
            those of the first call.

    Raises:
        RequestError: there is no such function; it raises; what it gives is no embedding of each text, or does not go
            together with the model's features.
    """
    zero_shot.check(request)
    words, patterns = request.text_tower, templates(request.template)
    with user_code.neighbours(words):
        tower = _Tower(words)
        prompts = zero_shot.embedded(tower, (*request.text, *request.contrast), patterns)
        blank = tower.blank()
    counts = like(network.module)
    count = len(network.labels)
    features = network.outlet.row(
        headless.tried(network.module, network.prepare.size, network.prepare.channels), 1, count
    )
    projection = None if tower.projection is None else _projection(tower.projection, features.cpu(), words)
    _check_width(features if projection is None else projection(features.cpu()), prompts, network, projection, words)

    module = zero_shot.Prompted(
        network.module,
        prompts.to(counts),
        torch.tensor(tower.scale).to(counts),
        torch.tensor(tower.bias or 0.0).to(counts),
        None if blank is None else blank.to(counts),
        None if projection is None else _there(projection, counts),
        partial(network.outlet.row, width=count),
    )
    unscaled = (
        f"{words} gives no scale, so the scores are the cosines as they are, and their softmax is nearly even: CLIP "
        "learns a scale of 100"
    )
    return replace(
        network,
        module=module.eval(),
        labels=zero_shot.labels(request),
        origin=f"{network.origin}, compared with the texts of {words}",
        activation=zero_shot.activation(len(prompts), sigmoid=tower.bias is not None),
        notes=(*network.notes, *([] if tower.scaled else [unscaled])),
        outlet=PLAIN,
        layer=f"visual.{network.layer}" if network.layer else "",
        headless=False,
        wrapped=network.wrapped or network.module,
        cosine=(tower.scale, tower.bias or 0.0),
    )


class _Tower:
    """The user's function, and what it gave beside the embeddings when it was called first."""

    def __init__(self, words: str) -> None:
        self.words = words
        self._function = user_code.found(words, "function", TOWERS)
        self.projection: Any = None
        self.scale, self.scaled = 1.0, False
        self.bias: float | None = None
        self._called = False

    def __call__(self, texts: list[str]) -> Tensor:
        made = user_code.called(self._function, self.words, list(texts))
        given = made if isinstance(made, Mapping) else {"embeddings": made}
        unknown = [str(name) for name in given if name not in PARTS]
        if unknown or "embeddings" not in given:
            what = f"a mapping with {', '.join(unknown)}" if unknown else "a mapping without 'embeddings'"
            raise RequestError(f"{self.words} gives {what}", RETURNS)
        found = given["embeddings"]
        if isinstance(found, np.ndarray):
            found = torch.from_numpy(found)
        if not isinstance(found, Tensor) or not found.is_floating_point():
            raise RequestError(f"{self.words} gives {_described(found)} for the embeddings", RETURNS)
        if found.ndim != 2 or len(found) != len(texts) or not found.shape[1]:
            raise RequestError(
                f"{self.words} gives embeddings of shape {_shape(found)} for {len(texts)} texts",
                f"return one row for each text: ({len(texts)}, d)",
            )
        if not self._called:
            self._called = True
            self.projection = given.get("projection")
            self.scaled = given.get("scale") is not None
            self.scale = self._number(given, "scale") if self.scaled else 1.0
            self.bias = None if given.get("bias") is None else self._number(given, "bias")
            if self.scale <= 0:
                raise RequestError(
                    f"{self.words} gives a scale of {self.scale:g}",
                    "it is what cosines are multiplied by, and above zero: of CLIP exp(logit_scale)",
                )
        return found.detach().cpu()

    def blank(self) -> Tensor | None:
        """The unit vector of the empty text; None where the function has none."""
        try:
            return zero_shot.embedded(self, [""])[0]
        except RequestError:  # nobody asked for it
            return None

    def _number(self, given: Mapping[str, Any], name: str) -> float:
        try:
            number = float(given[name])
        except (TypeError, ValueError, RuntimeError):  # what is no number, and tensors of several
            number = nan
        if not isfinite(number):
            raise RequestError(f"{self.words} gives {_described(given[name])} for the {name}", "give one finite number")
        return number


def _there(projection: nn.Module, like: Tensor) -> nn.Module:
    """A projection where a network is, of the real numbers that it counts in."""
    cast(projection, like.dtype)
    return projection.to(like.device)


def _projection(given: Any, features: Tensor, words: str) -> nn.Module:
    """The projection as a module on the CPU, tried on the features of one picture."""
    if isinstance(given, nn.Module):
        module = deepcopy(given).cpu().eval()  # others may hold it
        try:
            with torch.no_grad():
                made = module(features)
        except Exception as error:  # whatever the user's module says
            raise RequestError(
                f"the projection of {words} fails on features of shape {_shape(features)}: {user_code.said(error)}",
                user_code.tail(error, user_code.file(words)) or "it is given the pooled features, (n, features)",
            ) from error
        if not isinstance(made, Tensor) or made.ndim != 2 or len(made) != 1:
            raise RequestError(
                f"the projection of {words} gives {_described(made)} for features of shape {_shape(features)}",
                "give a module from (n, features) to (n, d)",
            )
        return module
    matrix = torch.from_numpy(given) if isinstance(given, np.ndarray) else given
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.shape[0] != features.shape[1]:
        raise RequestError(
            f"{words} gives {_described(given)} for the projection, and the model has {features.shape[1]} features",
            f"give a module, or a matrix ({features.shape[1]}, d)",
        )
    if not matrix.isfinite().all():
        raise RequestError(f"the projection of {words} holds NaN or infinite values")
    module = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False)
    with torch.no_grad():
        module.weight.copy_(matrix.T)
    return module.eval()


def _check_width(features: Tensor, prompts: Tensor, network: Network, projection: nn.Module | None, words: str) -> None:
    if features.shape[1] == prompts.shape[1]:
        return
    whose = f"the projection of {words} gives" if projection else f"{network.name} without its head has"
    raise RequestError(
        f"{whose} {features.shape[1]} features for a picture, and {words} gives {prompts.shape[1]} for a text",
        f"give a 'projection' between them, ({features.shape[1]}, {prompts.shape[1]})"
        if projection is None
        else f"let it give {prompts.shape[1]}",
    )


def _described(made: Any) -> str:
    if isinstance(made, Tensor | np.ndarray):
        return f"a {str(made.dtype).removeprefix('torch.')} {type(made).__name__} of shape {_shape(made)}"
    return repr(made) if isinstance(made, int | float) else f"a {type(made).__name__}"


def _shape(tensor: Tensor | np.ndarray) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
