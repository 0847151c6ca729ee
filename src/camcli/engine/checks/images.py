"""Images that the network takes."""

from __future__ import annotations

from contextlib import AbstractContextManager

from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.hooks.state import frozen
from camcli.engine.input_channels import channels_in_words, taken
from camcli.engine.network import Network
from camcli.engine.setup import Setup
from camcli.images.features import Features, first_of


def check_batch(images: Tensor, network: Network | None) -> None:
    """See that these are images, of as many channels as a network takes.

    Raises:
        RequestError: they are not.
    """
    wanted = network.prepare.channels if network else None
    if images.ndim != 4 or not images.shape[1] or wanted not in (None, images.shape[1]):
        form = "x".join(map(str, images.shape))
        takes = f", and {network.name} takes {channels_in_words(wanted)}" if network and wanted else ""
        kind = f"(n, {wanted}, h, w)" if wanted else "(n, 3, h, w), or grey ones (n, 1, h, w)"
        raise RequestError(f"images of shape {form} were given{takes}", f"give a batch of images: {kind}")


def check_call(setup: Setup, chosen: bool, region: Tensor | None) -> None:
    """See that what a call gives beside the images means something to the model and the methods.

    Args:
        setup: what is asked.
        chosen: whether it says what is explained of each image.
        region: over what is summed.

    Raises:
        RequestError: it means nothing, or something is missing.
    """
    if region is not None and setup.outlet.task != "segment":
        raise RequestError(
            "a region is given, but the model does not score every pixel", "leave the region out: --region"
        )
    if not chosen and setup.of_layer:
        named = " and ".join(recipe.row.name for recipe in setup.recipes)
        raise RequestError(
            f"{named} shows a channel of the layer, and none is named",
            "name some: --target channel:12,99; or those that matter most to the class: --target channels:top:5",
        )


def check_input_channels(setup: Setup, image: Float[Tensor, "n d h w"]) -> None:
    """Where the network fails on images, see that it is not for their channels.

    Raises:
        RequestError: it takes another number of them.
    """
    given = image.shape[1]
    with frozen(setup.module):
        wanted = taken(setup.module, (image.shape[2], image.shape[3]), given)
    if wanted not in (None, given):
        raise RequestError(
            f"the network takes images of {channels_in_words(wanted)}, and these have {given}",
            f"give a batch of such: (n, {wanted}, h, w)",
        )


def feeding(setup: Setup, image: Tensor, extras: Features | None) -> AbstractContextManager[None]:
    """While it lasts, the network is given features beside each of these images, if there are some."""
    return setup.witness.feed.giving(None if extras is None else first_of(extras, len(image)))
