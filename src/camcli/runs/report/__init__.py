"""Pages that show a run in a browser: what is asked of one, and the names and sizes of its files."""

from __future__ import annotations

from dataclasses import dataclass

from camcli.base.errors import RequestError
from camcli.runs.job.option import OUTPUT, option

# The page in the output folder; its data and thumbnails are in the folder REPORT_FOLDER beside it.
PAGE = "report.html"
# Thumbnails fit in squares of so many pixels, so many a side in a sheet, which has those of a block of images.
CELL, SIDE = 160, 4
BLOCK = SIDE * SIDE
# Longer side of the images in a single file; beyond so many maps it holds thumbnails alone unless a size is given.
EMBEDDED_SIZE, MANY_MAPS = 768, 500
# Formats of maps that a page shows, the best first; arrays and vector formats are none.
SHOWN = ("overlay", "overlay-png", "contour", "box", "heatmap", "panel")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        columns: tables whose numbers are joined to the images.
        copy_images: copy the images into the report, which then can be moved.
        single_file: one file with everything in it.
        image_size: longer side of the images in a single file; 0 for thumbnails only, None for the default.
        workers: threads that make thumbnails; 0 for one a core.
    """

    columns: tuple[str, ...] = option(
        (),
        OUTPUT,
        help="Table with numbers of the images to filter and sort by: .csv, .jsonl or .parquet with a column of names; "
        "also evaluation.jsonl of camcli evaluate; repeat for several",
        metavar="FILE",
        env=False,
    )
    copy_images: bool = option(
        False, OUTPUT, help="Copy the images into the report, so that the folder can be moved or sent", env=False
    )
    single_file: bool = option(
        False, OUTPUT, help="Write one HTML file with everything in it, to send or to archive", env=False
    )
    image_size: int | None = option(
        None,
        OUTPUT,
        help="Longer side in pixels of the images in a single file; 0 = thumbnails only",
        metavar="N",
        min=0,
        max=8192,
        unset=True,
        show_default=f"{EMBEDDED_SIZE}; thumbnails only beyond {MANY_MAPS} maps",
        env=False,
    )
    workers: int = option(
        0, OUTPUT, help="Threads that make thumbnails", metavar="N", min=0, max=256, show_default="all cores", env=False
    )

    def __post_init__(self) -> None:
        """Raise RequestError for options that exclude each other."""
        if self.image_size is not None and not self.single_file:
            raise RequestError(
                "--image-size is of a single file, and a folder shows the images at their own size",
                "add --single-file, or leave --image-size out",
            )
        if self.copy_images and self.single_file:
            raise RequestError("--copy-images is of a folder, and a single file holds its images", "leave one out")
