"""Arrangement of the maps that are compared: what is in rows, in columns, and on sheets of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import cast

from camcli.base.errors import RequestError
from camcli.runs.compare import AXES, Axis, CompareJob
from camcli.runs.compare.explain import Subject

# In the order of an image's maps: those of a network at a scale are together.
VARIANT_AXES: tuple[Axis, ...] = ("models", "scales", "targets", "prompts", "layers", "methods")
FIXES: Mapping[Axis, str] = {
    "images": "name one image",
    "models": "one --model and one --weights",
    "methods": "one --method",
    "layers": "one --layer, or one map of them: --fuse mean",
    "targets": "one --target",
    "prompts": "one prompt: --target with its text",
    "scales": "one --scales",
}
# Axes that can have several values: rows, columns and sheets.
SHOWN_AXES = 3
# Place of a map, by axis.
Place = Mapping[Axis, int]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Axes in rows, in columns, and on sheets of their own."""

    rows: Axis
    columns: Axis
    sheets: Axis


@dataclass(frozen=True, slots=True)
class Grid:
    """Maps of each image.

    Attributes:
        names: names of the values of each axis but the images; of prompts or targets one has a single value.
    """

    names: Mapping[Axis, Sequence[str]]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def places(self) -> list[dict[Axis, int]]:
        """Place of each map of an image, in their order."""
        ranges = (range(len(self.names[axis])) for axis in VARIANT_AXES)
        return [dict(zip(VARIANT_AXES, place, strict=True)) for place in product(*ranges)]

    def find(self, place: Place) -> int:
        """Return the number of the map at a place; an axis that is not named has one value."""
        number = 0
        for axis in VARIANT_AXES:
            number = number * len(self.names[axis]) + place.get(axis, 0)
        return number

    def list_several(self, images: int | None) -> list[Axis]:
        """Return the axes with several values."""
        return [axis for axis in AXES if (images != 1 if axis == "images" else len(self.names[axis]) > 1)]

    def name(self, number: int) -> str:
        """Return what tells a map from the others of its image."""
        place = self.places[number]
        several = [axis for axis in reversed(VARIANT_AXES) if len(self.names[axis]) > 1]
        return ", ".join(self.names[axis][place[axis]] for axis in several)

    def name_pass(self, number: int) -> str:
        """Return model and scale of a pass, if there are several scales."""
        model, scale = divmod(number, len(self.names["scales"]))
        several = len(self.names["scales"]) > 1
        return ", ".join([self.names["models"][model], *[self.names["scales"][scale]] * several])

    def list_pairs(self) -> list[tuple[int, int]]:
        """Return the pairs of maps that differ in one thing alone."""
        places = self.places
        return [
            (one, other)
            for one in range(len(places))
            for other in range(one + 1, len(places))
            if sum(places[one][axis] != places[other][axis] for axis in VARIANT_AXES) == 1
        ]

    def name_pair(self, one: int, other: int) -> tuple[str, str, str]:
        """Return the values in which a pair differs, and what both have."""
        first, second = self.places[one], self.places[other]
        [axis] = [axis for axis in VARIANT_AXES if first[axis] != second[axis]]
        shared = [
            self.names[one][first[one]] for one in reversed(VARIANT_AXES) if len(self.names[one]) > 1 and one != axis
        ]
        return self.names[axis][first[axis]], self.names[axis][second[axis]], ", ".join(shared)


def arrange(compare_job: CompareJob, grid: Grid, images: int | None) -> Arrangement:
    """Choose what is in rows, in columns and on sheets, as far as the job does not say so.

    Args:
        compare_job: the job.
        grid: the maps of each image.
        images: number of images; None if it is not known.

    Raises:
        RequestError: nothing is to be compared, or more differs than a sheet has room for.
    """
    named = {name: cast("Axis | None", getattr(compare_job, name) or None) for name in ("rows", "columns", "sheets")}
    given = [axis for axis in named.values() if axis]
    several = grid.list_several(images)
    if not several:
        raise RequestError(
            "there is nothing to compare: one image, and one map of it",
            "give several of anything: --method gradcam,layercam; --layer layer3,layer4; --model A --model B; --target "
            "top:3; or more images",
        )
    free = [axis for axis in several if axis not in given]
    empty = [name for name in ("rows", "columns") if not named[name]]
    if len(free) > len(empty) and not named["sheets"] and "images" in free:
        named["sheets"] = "images"
        free.remove("images")
    if len(free) > len(empty):
        raise _make_refusal(grid, several, images, free)
    if len(free) < len(empty):  # one row of an image's maps, or images with one map each
        free += [axis for axis in ("images", "methods") if axis not in (*free, *given)][: len(empty) - len(free)]
        free += [axis for axis in AXES if axis not in (*free, *given)][: len(empty) - len(free)]
    named |= dict(zip(empty, sorted(free, key=AXES.index), strict=True))
    others = [axis for axis in AXES if axis not in named.values()]
    return Arrangement(named["rows"] or "images", named["columns"] or "methods", named["sheets"] or others[0])


def _make_refusal(grid: Grid, several: Sequence[Axis], images: int | None, free: Sequence[Axis]) -> RequestError:
    counts = {axis: images if axis == "images" else len(grid.names[axis]) for axis in several}
    words = ", ".join(axis if counts[axis] is None else f"{counts[axis]} {axis}" for axis in several)
    fixes = "; or ".join(FIXES[axis] for axis in several)
    own_sheets = (
        f"\nor give each value of one a sheet of its own: --sheets {free[0]}" if len(several) <= SHOWN_AXES else ""
    )
    return RequestError(
        f"{len(several)} things have several values ({words}), and a sheet has rows and columns",
        f"fix {'one' if len(several) <= SHOWN_AXES + 1 else 'some'} of them: {fixes}{own_sheets}",
    )


def make_grid(compare_job: CompareJob, subjects: Sequence[Subject]) -> Grid:
    """Return the maps that each image has.

    Raises:
        RequestError: the models have different numbers of layers.
    """
    scales, first = compare_job.inputs_scales, subjects[0]
    models = subjects[:: len(scales)]
    counts = {one.name: one.layers for one in models}
    if len({len(one) for one in counts.values()}) > 1:
        words = "; ".join(f"{name} has {', '.join(layers)}" for name, layers in counts.items())
        raise RequestError(
            f"the layers of the models do not go together: {words}",
            "name layers that each model has once, or one layer, or make one map of them: --fuse mean",
        )
    layers = [" / ".join(dict.fromkeys(names)) for names in zip(*(one.layers for one in models), strict=True)]
    prompted = first.job.prompted and first.targets != first.job.target
    return Grid(
        {
            "models": name_models(models, compare_job.name),
            "scales": [f"scale {one}" for one in scales],
            "targets": [""] if prompted else first.targets,
            "prompts": first.targets if prompted else [""],
            "layers": layers,
            "methods": first.methods,
        }
    )


def name_models(subjects: Sequence[Subject], given: Sequence[str] = ()) -> list[str]:
    """Name each network: by its weights where several have its name, and by their hash where these share a name.

    Args:
        subjects: what each network explains.
        given: names of the user's own, of all or none.
    """
    names = [one.name for one in subjects]
    found = []
    for number, one in enumerate(subjects):
        name = given[number] if given else one.name
        if one.untrained:
            name += " (random weights: means nothing)"
        elif not given and (one.job.weights or names.count(one.name) > 1):
            name += f" ({Path(one.job.weights).stem or 'pretrained'})"
        found.append(name)
    hashes = [str(one.facts["model"]["sha256"])[:8] for one in subjects]
    return [f"{name} {digits}" if found.count(name) > 1 else name for name, digits in zip(found, hashes, strict=True)]
