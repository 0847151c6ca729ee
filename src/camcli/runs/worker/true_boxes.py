"""Boxes of a file, for each of which a detector's map is made, whether it found the object or missed it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.base.errors import PictureError, RequestError
from camcli.images.objects.boxes import Boxes
from camcli.images.source import PictureSource
from camcli.images.view import View
from camcli.runs.job.job import Job
from camcli.targets.labels import find_whole_name
from camcli.targets.target import WantedBox

if TYPE_CHECKING:
    from camcli.engine.network import Network
    from camcli.targets import TargetRule


class TrueBoxes:
    """The boxes of a job's ``--boxes``.

    Args:
        job: names the file or folder.
        network: the detector.

    Attributes:
        notes: notes for the user.

    Raises:
        RequestError: the network finds no boxes; the file names no image that is there; or as in
            :class:`camcli.images.objects.boxes.Boxes`.
    """

    def __init__(self, job: Job, network: Network) -> None:
        if network.output_spec.task != "detect":
            raise RequestError(
                f"{network.name} finds no boxes, so --boxes cannot be explained",
                "leave --boxes out; camcli evaluate --boxes compares maps of a classifier with boxes",
            )
        given = [Path(one) for one in job.inputs]
        folders = [one if one.is_dir() else one.parent for one in given if one.exists()]
        find_known = partial(find_whole_name, network.labels)
        self._boxes = Boxes(Path(job.true_boxes), network.labels.find, find_known, folders)
        self.notes = self._boxes.notes
        if unmatched := self._boxes.describe_unmatched():
            if not self._boxes.describe_images():
                raise RequestError(
                    f"{job.true_boxes} has boxes of no image that is there: it names {unmatched}",
                    "write paths from the current folder, from the folder of that file, or from those of the images",
                )
            self.notes.append(f"{job.true_boxes} names what is no image here: {unmatched}")

    def make_rule(self, source: PictureSource, view: View) -> TargetRule:
        """Return the target rule of one image: all its boxes.

        Raises:
            PictureError: it has none, or they are of an image of another size.
        """
        wanted = [
            WantedBox(number, index, box)
            for number, (index, box) in enumerate(self._boxes.list_boxes(source, view), start=1)
        ]
        if not wanted:
            raise PictureError(
                "the file of --boxes has no box of it",
                f"leave it out, or add its boxes: those there are of {self._boxes.describe_images()}",
            )
        return lambda path, scores: wanted


def read_true_boxes(job: Job, network: Network) -> TrueBoxes | None:
    """Read the boxes that a job names, if any."""
    return TrueBoxes(job, network) if job.true_boxes else None
