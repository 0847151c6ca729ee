"""Words around the cells of a sheet: title, models, what is the same in all cells, and what the numbers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from camcli.images import describe_page
from camcli.metrics.similarity import TOP_SHARE
from camcli.runs.compare import Axis
from camcli.runs.compare.explain import Subject
from camcli.runs.compare.grid import Arrangement, Grid
from camcli.runs.compare.merge import ComparedImage
from camcli.runs.job.job import Job


def name_image(image: ComparedImage) -> str:
    """Return the name of an image's file, and its page if that matters."""
    return describe_page(Path(image.source.location).name, image.source.page)


def make_title(grid: Grid, arrangement: Arrangement, images: Sequence[ComparedImage], fixed: Mapping[Axis, int]) -> str:
    """Return the title of a sheet.

    Args:
        grid: the maps of each image.
        arrangement: what is in rows and columns.
        images: the images of the sheet.
        fixed: what the sheet has one value of, of several.
    """
    shown = (axis for axis in (arrangement.rows, arrangement.columns) if axis != "images")
    several = [axis for axis in shown if len(grid.names[axis]) > 1]
    title = f"{' and '.join(several).capitalize()} compared" if several else "Images compared"
    names = [grid.names[axis][value] for axis, value in fixed.items()]
    names += [name_image(images[0])] if len(images) == 1 else []
    return ": ".join([title, ", ".join(names)]) if names else title


def describe_fixed(grid: Grid, subjects: Sequence[Subject], shown: set[Axis]) -> Iterator[str]:
    """Yield lines on the models, and on what is the same in all cells.

    Args:
        grid: the maps of each image.
        subjects: what each pass explains.
        shown: axes that the sheet shows otherwise.
    """
    for name, subject in zip(grid.names["models"], subjects[:: len(grid.names["scales"])], strict=True):
        model = subject.facts["model"]
        yield f"{name}: {model['origin']}, sha256 {str(model['sha256'])[:8]}"
    axes: tuple[Axis, ...] = ("methods", "layers", "targets", "prompts")
    words = [
        f"{axis[:-1]} {names[0]}"
        for axis in axes
        if axis not in shown and len(names := grid.names[axis]) == 1 and names[0]
    ]
    scale = subjects[0].job.scales
    words += [f"scale of the input {scale}"] if len(grid.names["scales"]) == 1 and scale != Job().scales else []
    yield "; ".join([*words, f"explained: {subjects[0].facts['explained']}"])


def describe_numbers(grid: Grid, drawing: str, framed: bool, numbered: bool) -> Iterator[str]:
    """Yield lines on how maps are drawn, and what the numbers are.

    Args:
        grid: the maps of each image.
        drawing: how maps are drawn.
        framed: a frame is drawn in some.
        numbered: the sheet has a matrix, in which maps have numbers.
    """
    match drawing:
        case "signed":
            yield "Blue is below zero, red above; the stronger, the more opaque."
        case "contour":
            yield "Lines are at 25, 50 and 75 % of the scale."
        case _:
            yield "Values below zero are not drawn."
    if framed:
        yield "White frame: the part of the image that the model sees; what is outside is dimmed."
    if len(grid) > 1:
        yield describe_measures()
    if numbered:
        yield list_numbers(grid)


def describe_measures() -> str:
    """Describe the measures of similarity."""
    return (
        "How alike two maps are: r is Pearson's correlation, SSIM structural similarity (Wang et al. 2004), "
        f"top {TOP_SHARE:.0%} the overlap of their strongest {TOP_SHARE:.0%} (intersection over union). 1 is the same. "
        "Maps of one grid are compared cell by cell, others pixel by pixel where all models see the image."
    )


def list_numbers(grid: Grid) -> str:
    """List an image's maps behind their numbers in a matrix."""
    return f"Maps by number: {'; '.join(f'{number + 1} {grid.name(number)}' for number in range(len(grid)))}."
