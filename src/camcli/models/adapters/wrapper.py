"""Wrapping of a loaded model in a module of the user's own that maps a batch of images to scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.devices import reference_tensor
from camcli.engine.layers.paths import find_outer_name
from camcli.engine.network import Network
from camcli.models import WRAPPER_USAGE, user_code
from camcli.targets.labels import Labels
from camcli.targets.readers.find import count_rows

# Batch size of the trial without --group: a single image would not show whether images are mixed up.
PROBE_BATCH_SIZE = 2


def wrap_network(
    network: Network, reference: str, group: int = 0, extras: Tensor | Mapping[str, Tensor] | None = None
) -> Network:
    """Wrap a network's module in one of the user's own, and check the result on a batch of noise.

    Args:
        network: the network as its source returned it.
        reference: ``path/to/file.py:Class`` or ``package.module:Class``; the class, or function, is called with the
            network's module and returns a module from images ``(n, 3, h, w)`` to scores.
        group: number of images passed to it as one group; 0 if it takes batches of any size.
        extras: features of that many images (of two, if ``group`` is 0), its second argument.

    Returns:
        The network; its classes keep their names if there are as many scores as names.

    Raises:
        RequestError: there is no such class; it raises; or its result is not a module, does not contain the model,
            raises on a batch, or does not return scores for each image (or one row for a group).
    """
    with user_code.neighbours_importable(reference):
        module = user_code.call_user_code(
            user_code.import_callable(reference, "class", WRAPPER_USAGE), reference, network.module
        )
    if not isinstance(module, nn.Module):
        raise RequestError(
            f"{reference} returns a {type(module).__name__}, not a torch.nn.Module",
            "it is called with the model's module, and returns a module from images (n, 3, h, w) to scores",
        )
    module.eval()
    inner = {id(part) for part in network.module.modules()} | {id(one) for one in network.module.parameters()}
    if not any(id(part) in inner for part in (*module.modules(), *module.parameters())):
        raise RequestError(
            f"the module that {reference} returns does not contain the model, so its weights and layers cannot be "
            "found",
            "keep it as an attribute of the module: self.network = network",
        )
    layer, pyramid = (
        find_outer_name(module, network.module, name) if name else "" for name in (network.layer, network.pyramid)
    )
    network = replace(
        network,
        module=module,
        wrapped_module=network.wrapped_module or network.module,
        layer=layer or "",
        pyramid=pyramid or "",
        origin=f"{network.origin}, wrapped by {reference}",
        cosine=None,  # the wrapper's scores need not be cosines
    )
    classes = _count_classes(network, reference, group, extras)
    if classes is None or classes == len(network.labels):
        return network
    # The wrapper turns numbered features into class scores.
    return replace(network, labels=Labels.numbered(classes), headless=False)


def _count_classes(
    network: Network, reference: str, group: int, extras: Tensor | Mapping[str, Tensor] | None
) -> int | None:
    """Count the scores of the wrapped model; return None for a detector."""
    count = group or PROBE_BATCH_SIZE
    noise_shape = count, network.preprocess.channels, *network.preprocess.size
    noise = torch.randn(noise_shape, generator=torch.Generator().manual_seed(0), device="cpu")
    images = noise.to(reference_tensor(network.module))
    given = (images,) if extras is None else (images, extras)
    shape = "x".join(map(str, images.shape))
    beside = "" if extras is None else f" and {describe_extras(extras)}"
    try:
        with torch.no_grad():
            output: Any = network.module(*given)
    except Exception as error:
        several = (
            "is it meant for several images at once? --group N passes it N at a time"
            if not group
            else f"it is called with {group} images at a time (--group)"
        )
        hint = user_code.format_user_traceback(error, user_code.source_file(reference)) or several
        raise RequestError(
            f"{reference} fails on images of shape {shape}{beside}: {user_code.format_error(error)}", hint
        ) from error
    output_spec = replace(network.output_spec, group=bool(group))
    try:
        # The model's own class names may not be those of the wrapper's scores.
        return output_spec.read(output, count, network.labels.names, network.activation).classes
    except RequestError as error:
        rows = count_rows(output)
        hint = error.hint
        if not group and rows == 1:
            hint = "for one prediction for several images, set the size of a group: --group N, or --group folder"
        raise RequestError(f"{reference}, given images of shape {shape}{beside}: {error.message}", hint) from None


def describe_extras(extras: Tensor | Mapping[str, Tensor]) -> str:
    """Describe the shapes of extra features, for messages."""
    if isinstance(extras, Tensor):
        return f"features of shape {'x'.join(map(str, extras.shape))}"
    return "features " + ", ".join(f"{name} {'x'.join(map(str, one.shape))}" for name, one in extras.items())
