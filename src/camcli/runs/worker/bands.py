"""Bands of the images, and channels of the model."""

from __future__ import annotations

from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.engine.input_channels import format_channels
from camcli.engine.network import Network
from camcli.images import Bands, parse_bands
from camcli.images.decoded import DecodedPicture
from camcli.images.transform import PICTURE_CHANNELS, Preprocess
from camcli.images.view import View
from camcli.runs.job.job import Job


def choose_bands(job: Job, network: Network) -> Bands | None:
    """Return the bands of each image that the model takes; None where these are the colours of a picture.

    Raises:
        RequestError: the model takes another number of them, or colours, of which none are chosen.
    """
    bands, takes = parse_bands(job.bands, job.rgb), network.preprocess.channels
    if bands and bands.chosen and len(bands.chosen) != takes:
        raise RequestError(
            f"--bands {job.bands} chooses {len(bands.chosen)} of an image's bands, and {network.name} takes "
            f"{format_channels(takes)}",
            f"choose {takes}, in the order of the model",
        )
    if bands and not bands.chosen and takes in PICTURE_CHANNELS:
        raise RequestError(
            f"--rgb {job.rgb} says which bands are drawn, and {network.name} takes a picture's colours",
            "leave it out, or choose the bands that the model gets: --bands",
        )
    return bands or (None if takes in PICTURE_CHANNELS else Bands())


def make_input(
    decoded: DecodedPicture, preprocess: Preprocess, model: str, in_steps: bool = False
) -> tuple[Tensor, View]:
    """Return an image as the model's input, by all the bits of its values, and the view that it shows.

    Args:
        decoded: the image; grey stands for colours, and colours for grey.
        preprocess: preprocessing of the model.
        model: its name, for messages.
        in_steps: True to resize an image of 8 bits faster, in two steps, as it was perhaps decoded at a fraction of its
            size.

    Raises:
        PictureError: it has other bands than the model takes.
    """
    has, takes = 3 if decoded.planes is None else decoded.planes.shape[2], preprocess.channels
    if has != takes and not {has, takes} <= set(PICTURE_CHANNELS):
        raise PictureError(
            f"has {has} band{'s' * (has != 1)}, and {model} takes {format_channels(takes)}",
            "--bands chooses them, in the order of the model"
            if has > takes
            else "other bands than colours are read from TIFF and NPY",
        )
    if decoded.planes is not None:
        return preprocess.from_planes(decoded.planes)
    return preprocess.from_reduced(decoded.image, decoded.size, decoded.box) if in_steps else preprocess(decoded.image)
