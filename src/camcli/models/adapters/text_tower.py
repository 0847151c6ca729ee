"""Text towers of the user's own: comparison of any model's pooled features with embeddings of prompts."""

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
from camcli.engine.devices import cast_floats, reference_tensor
from camcli.engine.network import Network
from camcli.models import TEXT_TOWER_USAGE, user_code
from camcli.models.adapters import headless, zero_shot
from camcli.models.adapters.templates import expand_templates
from camcli.models.spec import ModelSpec
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC

# Keys of the mapping that the function may return.
RETURN_KEYS = ("embeddings", "projection", "scale", "bias")
RETURN_USAGE = (
    "it is called with a list of texts and returns their embeddings (texts, d), a tensor; or a mapping with "
    "'embeddings' and perhaps 'projection' (a module or a (features, d) matrix), 'scale' and 'bias'"
)


def compare_with_prompts(network: Network, spec: ModelSpec) -> Network:
    """Turn a headless network into a zero-shot classifier, with a text tower of the user's own.

    Args:
        network: a network whose output is pooled features.
        spec: the prompts, their templates and the function that embeds texts, ``path/to/file.py:function`` or
            ``package.module:function``. It is called with batches of texts; projection, scale and bias are taken from
            the first call.

    Raises:
        RequestError: there is no such function; it raises; or it does not return one embedding for each text, of the
            width of the model's features.
    """
    zero_shot.check_prompts(spec)
    reference, templates = spec.text_tower, expand_templates(spec.template)
    with user_code.neighbours_importable(reference):
        tower = _TextTower(reference)
        prompts = zero_shot.embed_prompts(tower, (*spec.text, *spec.contrast), templates)
        blank = tower.embed_blank()
    like = reference_tensor(network.module)
    count = len(network.labels)
    features = network.output_spec.read_rows(
        headless.run_on_noise(network.module, network.preprocess.size, network.preprocess.channels), 1, count
    )
    projection = None if tower.projection is None else _as_projection(tower.projection, features.cpu(), reference)
    projected = features if projection is None else projection(features.cpu())
    _check_width(projected, prompts, network, projection, reference)

    module = zero_shot.ZeroShotClassifier(
        network.module,
        prompts.to(like),
        torch.tensor(tower.scale).to(like),
        torch.tensor(tower.bias or 0.0).to(like),
        None if blank is None else blank.to(like),
        None if projection is None else _match_device_and_dtype(projection, like),
        partial(network.output_spec.read_rows, width=count),
    )
    unscaled = (
        f"{reference} returns no scale, so the scores are plain cosines, and their softmax is nearly uniform: CLIP "
        "learns a scale of 100"
    )
    return replace(
        network,
        module=module.eval(),
        labels=zero_shot.make_labels(spec),
        origin=f"{network.origin}, compared with the texts of {reference}",
        activation=zero_shot.choose_activation(len(prompts), sigmoid=tower.bias is not None),
        notes=(*network.notes, *([] if tower.has_scale else [unscaled])),
        output_spec=DEFAULT_OUTPUT_SPEC,
        layer=f"visual.{network.layer}" if network.layer else "",
        headless=False,
        wrapped_module=network.wrapped_module or network.module,
        cosine=(tower.scale, tower.bias or 0.0),
    )


class _TextTower:
    """The user's function, with the projection, scale and bias that its first call returned."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self._function = user_code.import_callable(reference, "function", TEXT_TOWER_USAGE)
        self.projection: Any = None
        self.scale, self.has_scale = 1.0, False
        self.bias: float | None = None
        self._was_called = False

    def __call__(self, texts: list[str]) -> Tensor:
        made = user_code.call_user_code(self._function, self.reference, list(texts))
        given = made if isinstance(made, Mapping) else {"embeddings": made}
        unknown = [str(name) for name in given if name not in RETURN_KEYS]
        if unknown or "embeddings" not in given:
            what = f"a mapping with {', '.join(unknown)}" if unknown else "a mapping without 'embeddings'"
            raise RequestError(f"{self.reference} returns {what}", RETURN_USAGE)
        found = given["embeddings"]
        if isinstance(found, np.ndarray):
            found = torch.from_numpy(found)
        if not isinstance(found, Tensor) or not found.is_floating_point():
            raise RequestError(f"{self.reference} returns {_describe(found)} for the embeddings", RETURN_USAGE)
        if found.ndim != 2 or len(found) != len(texts) or not found.shape[1]:
            raise RequestError(
                f"{self.reference} returns embeddings of shape {_format_shape(found)} for {len(texts)} texts",
                f"return one row for each text: ({len(texts)}, d)",
            )
        if not self._was_called:
            self._was_called = True
            self.projection = given.get("projection")
            self.has_scale = given.get("scale") is not None
            self.scale = self._read_number(given, "scale") if self.has_scale else 1.0
            self.bias = None if given.get("bias") is None else self._read_number(given, "bias")
            if self.scale <= 0:
                raise RequestError(
                    f"{self.reference} returns a scale of {self.scale:g}",
                    "it is what cosines are multiplied by, and above zero: of CLIP exp(logit_scale)",
                )
        return found.detach().cpu()

    def embed_blank(self) -> Tensor | None:
        """Return the unit vector of the empty text; None if the function fails on it."""
        try:
            return zero_shot.embed_prompts(self, [""])[0]
        except RequestError:  # it is optional
            return None

    def _read_number(self, given: Mapping[str, Any], name: str) -> float:
        try:
            number = float(given[name])
        except (TypeError, ValueError, RuntimeError):  # not a number, or a tensor of several
            number = nan
        if not isfinite(number):
            raise RequestError(
                f"{self.reference} returns {_describe(given[name])} for the {name}", "give one finite number"
            )
        return number


def _match_device_and_dtype(projection: nn.Module, example: Tensor) -> nn.Module:
    """Move a projection to the device and float dtype of a tensor."""
    cast_floats(projection, example.dtype)
    return projection.to(example.device)


def _as_projection(given: Any, features: Tensor, reference: str) -> nn.Module:
    """Convert a projection to a module on the CPU, and check its output for the features of one image."""
    if isinstance(given, nn.Module):
        module = deepcopy(given).cpu().eval()  # the user's code may hold the original
        try:
            with torch.no_grad():
                made = module(features)
        except Exception as error:  # the user's module may raise anything
            raise RequestError(
                f"the projection of {reference} fails on features of shape {_format_shape(features)}: "
                f"{user_code.format_error(error)}",
                user_code.format_user_traceback(error, user_code.source_file(reference))
                or "it is given the pooled features, (n, features)",
            ) from error
        if not isinstance(made, Tensor) or made.ndim != 2 or len(made) != 1:
            raise RequestError(
                f"the projection of {reference} returns {_describe(made)} for features of shape "
                f"{_format_shape(features)}",
                "give a module from (n, features) to (n, d)",
            )
        return module
    matrix = torch.from_numpy(given) if isinstance(given, np.ndarray) else given
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.shape[0] != features.shape[1]:
        raise RequestError(
            f"{reference} returns {_describe(given)} for the projection, and the model has {features.shape[1]} "
            "features",
            f"give a module, or a matrix ({features.shape[1]}, d)",
        )
    if not matrix.isfinite().all():
        raise RequestError(f"the projection of {reference} contains NaN or infinite values")
    module = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False)
    with torch.no_grad():
        module.weight.copy_(matrix.T)
    return module.eval()


def _check_width(
    features: Tensor, prompts: Tensor, network: Network, projection: nn.Module | None, reference: str
) -> None:
    if features.shape[1] == prompts.shape[1]:
        return
    whose = f"the projection of {reference} returns" if projection else f"{network.name} without its head has"
    raise RequestError(
        f"{whose} {features.shape[1]} features for an image, and {reference} returns {prompts.shape[1]} for a text",
        f"give a 'projection' between them, ({features.shape[1]}, {prompts.shape[1]})"
        if projection is None
        else f"let it return {prompts.shape[1]}",
    )


def _describe(made: Any) -> str:
    if isinstance(made, Tensor | np.ndarray):
        return f"a {str(made.dtype).removeprefix('torch.')} {type(made).__name__} of shape {_format_shape(made)}"
    return repr(made) if isinstance(made, int | float) else f"a {type(made).__name__}"


def _format_shape(tensor: Tensor | np.ndarray) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
