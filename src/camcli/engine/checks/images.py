"""Check that the network takes the images."""

from __future__ import annotations

from contextlib import AbstractContextManager

from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.hooks.state import frozen
from camcli.engine.input_channels import find_input_channels, format_channels
from camcli.engine.network import Network
from camcli.engine.setup import Setup
from camcli.images.features import Features, take_first


def check_batch(images: Tensor, network: Network | None) -> None:
    """Check that these are images with the network's number of channels.

    Raises:
        RequestError: they are not.
    """
    wanted = network.preprocess.channels if network else None
    if images.ndim != 4 or not images.shape[1] or wanted not in (None, images.shape[1]):
        form = "x".join(map(str, images.shape))
        takes = f", and {network.name} takes {format_channels(wanted)}" if network and wanted else ""
        kind = f"(n, {wanted}, h, w)" if wanted else "(n, 3, h, w), or grey ones (n, 1, h, w)"
        raise RequestError(f"images of shape {form} were given{takes}", f"give a batch of images: {kind}")


def check_call(setup: Setup, has_targets: bool, region: Tensor | None) -> None:
    """Check that the arguments of a call beside the images suit the model and the methods.

    Args:
        setup: settings of the explainer.
        has_targets: True if targets are given.
        region: the pixels to sum over.

    Raises:
        RequestError: an argument means nothing here, or one is missing.
    """
    if region is not None and setup.output_spec.task != "segment":
        raise RequestError(
            "a region is given, but the model does not score every pixel", "leave the region out: --region"
        )
    if not has_targets and setup.explains_channels:
        named = " and ".join(method.row.name for method in setup.bound_methods)
        raise RequestError(
            f"{named} shows a channel of the layer, and no channel is given",
            "give channels: --target channel:12,99; or those that matter most to the class: --target channels:top:5",
        )


def check_input_channels(setup: Setup, image: Float[Tensor, "n d h w"]) -> None:
    """Check, after the network has failed on images, that their number of channels is not the reason.

    Raises:
        RequestError: the network takes another number of channels.
    """
    given = image.shape[1]
    with frozen(setup.module):
        wanted = find_input_channels(setup.module, (image.shape[2], image.shape[3]), given)
    if wanted not in (None, given):
        raise RequestError(
            f"the network takes images with {format_channels(wanted)}, and these have {given}",
            f"give a batch (n, {wanted}, h, w)",
        )


def providing_extras(setup: Setup, image: Tensor, extras: Features | None) -> AbstractContextManager[None]:
    """Pass features beside these images to the network while the block runs, if there are any."""
    return setup.runner.extra_inputs.providing(None if extras is None else take_first(extras, len(image)))
