"""Output of a volume's map as NIfTI, in the space of the volume itself."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
from jaxtyping import Float32

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.images.formats import NIFTI_SUFFIXES, suffix_of
from camcli.images.source import Picture
from camcli.images.stacks import NIFTI_HINT
from camcli.images.volumes import VolumeView
from camcli.outputs.style import Style


def nifti(picture: Picture, explanation: Explanation, style: Style) -> bytes:  # noqa: ARG001
    """Encode the map as NIfTI (``.nii.gz``, float32), with the shape, affine and header of the image's own file.

    Bilinear within slices and linear between them; NaN where the model did not see a voxel. It is signed, in the
    method's own units.

    Raises:
        PictureError: the image is no NIfTI, whose space the map could be in, or nibabel is not installed.
    """
    view = picture.view
    if not isinstance(view, VolumeView):
        raise PictureError("is no volume, whose space its map could be in")
    if suffix_of(picture.source.path.name) not in NIFTI_SUFFIXES:
        raise PictureError("is no NIfTI, whose shape and affine --save nifti could give the map", "use --save array")
    try:
        import nibabel
    except ImportError as error:
        raise PictureError("--save nifti needs nibabel, which is not installed", NIFTI_HINT) from error

    given: Any = nibabel.load(str(picture.source.path))
    count = given.shape["xyz".index(view.axes[0])]
    volume = place_in_volume(view, view.unfold(explanation.map), count)
    header = given.header.copy()
    header.set_data_dtype(np.float32)
    header["cal_min"], header["cal_max"], header["descrip"] = 0, 0, b"camcli"
    made = type(given)(volume.transpose([view.axes.index(axis) for axis in "xyz"]), given.affine, header)
    return gzip.compress(made.to_bytes(), mtime=0)


def place_in_volume(view: VolumeView, planes: Float32[np.ndarray, "d h w"], count: int) -> Float32[np.ndarray, "D H W"]:
    """Resample a map of slices to all slices of a volume, of which the model took evenly spaced ones.

    Args:
        view: says where a slice's pixels are.
        planes: the map.
        count: number of the volume's slices.
    """
    assert view.whole is not None
    deep = len(planes)
    found = []
    for at in range(count):
        place = min(max((at + 0.5) * deep / count - 0.5, 0.0), deep - 1.0)
        below = int(place)
        above = planes[min(below + 1, deep - 1)]
        plane = planes[below] + np.float32(place - below) * (above - planes[below])
        found.append(view.whole.onto_picture(plane))
    return np.stack(found)
