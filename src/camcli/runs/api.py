"""``camcli.explain``: an iterator over the explanations of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from camcli.base.errors import PictureError, RequestError, did_you_mean
from camcli.base.signature import format_value
from camcli.engine.choose import as_tuple, to_python
from camcli.engine.explanation import Explanation
from camcli.engine.maps.concepts import put_even_sample_first
from camcli.images import describe_page
from camcli.images.decode import from_array, from_image
from camcli.images.find import find
from camcli.images.pages import expand_pages
from camcli.images.source import PictureSource
from camcli.runs.job.folder_name import find_parent
from camcli.runs.job.job import RENAMED_OPTIONS, Job
from camcli.runs.worker.fit_concepts import fit_concepts
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import stream_results
from camcli.runs.worker.worker import Worker

# Inputs that are one image to `explain`.
PictureInput = str | Path | Image.Image | np.ndarray


def explain(
    images: PictureInput | Iterable[PictureInput],
    *,
    on_error: Callable[[str, PictureError], Any] | None = None,
    **options: Any,
) -> Iterator[Explanation]:
    """Explain images one after the other, lazily: each is read when its turn comes; nothing is written.

    ``for explanation in camcli.explain("photos", model="resnet50", layer="layer4", target="top:2"): ...``

    Args:
        images: a file, folder, glob or ``@list``; a Pillow image; an array ``(h, w)`` or ``(h, w, channels)``
            with values of 0 to 255 (uint8), 0 to 65535 (other integers) or 0 to 1 (floating point), unless ``range``
            says otherwise; or several of these.
        on_error: called with the image's name and the reason for each map that cannot be made; default: raise it.
        **options: fields of :class:`camcli.Job`, as ``model``, ``method``, ``text``, ``targets``, ``batch_size``;
            ``layer``, ``method``, ``target`` and ``device`` may be one or several, ``options`` of methods a dict
            (``{"samples": 8}``), ``scales`` numbers, and ``size`` a number or height and width.

    Yields:
        For each image its explanations, class by class, layer by layer, with ``source`` and ``view`` set:
        ``explanation.view.onto_picture(explanation.map)`` is the map at the image's own pixels.

    Raises:
        RequestError: an option is invalid; raised before the first image.
        PictureError: an image has no map, unless ``on_error`` is given.
    """
    is_single = isinstance(images, PictureInput) and not (isinstance(images, np.ndarray) and images.ndim > 3)
    several = cast("Iterable[PictureInput]", [images] if is_single else images)
    named = [str(one) for one in several if isinstance(one, str | Path)] if isinstance(several, Sequence) else []
    job = _make_job(options, named)
    known = len(named) == (len(several) if isinstance(several, Sequence) else -1)

    def iter_sources() -> Iterator[PictureSource]:
        return (source for path in named for source in _find_sources(path, job, checked=isinstance(images, str | Path)))

    worker = Worker(job, iter_sources if known else None)

    def iter_items() -> Iterator[Item]:
        for number, one in enumerate(several):
            if isinstance(one, Image.Image | np.ndarray):
                yield _make_item(one, f"image-{number}", worker.job)
            elif isinstance(one, str | Path):
                yield from map(Item, _find_sources(one, job, checked=one is images))
            else:
                raise RequestError(
                    f"a {type(one).__name__} is not an image",
                    "give a path, a PIL image, or an array (height, width, channels); batches of tensors "
                    "(n, channels, height, width) are explained by camcli.Explainer",
                )

    if worker.explainer.fits_concepts:
        if not isinstance(several, Sequence):
            raise RequestError(
                "concepts are found in several images together before the first is explained, and these come one by "
                "one",
                "give a list of them; or find the concepts of each image separately: options={'over': 'picture'}",
            )
        fit_concepts(worker, put_even_sample_first(iter_items, sum(1 for _ in iter_items())))
    return _iter_explanations(stream_results(worker, iter_items()), on_error)


def _find_sources(path: str | Path, job: Job, checked: bool) -> Iterator[PictureSource]:
    """Return the images that a path stands for; if there are none and not ``checked``, an erroneous one."""
    try:
        return expand_pages(find([str(path)], out=find_parent(job)), job.pages)
    except RequestError as error:
        if checked:
            raise
        return iter([PictureSource(Path(path), str(path), error.message)])


def _make_item(image: Image.Image | np.ndarray, name: str, job: Job) -> Item:
    # Converted before the next is taken, since the caller may then close it.
    try:
        if isinstance(image, np.ndarray):
            return Item(PictureSource(Path(name), name), decoded=from_array(image, job.background, job.range))
        return Item(PictureSource(Path(name), name), decoded=from_image(image, job.background, job.range))
    except PictureError as error:
        return Item(PictureSource(Path(name), name, error.message))


def _iter_explanations(
    items: Iterator[Item], on_error: Callable[[str, PictureError], Any] | None
) -> Iterator[Explanation]:
    for item in items:
        name = str(item.source.path)
        for result in [item.error] if item.error else item.results:
            if isinstance(result, Explanation):
                view = item.picture.view.placed(result.placement) if item.picture else None
                yield replace(result, source=name, view=view, page=item.source.page)
            elif on_error is None:
                raise PictureError(f"{describe_page(name, item.source.page)}: {result.message}", result.hint)
            else:
                on_error(name, result)


def _make_job(options: dict[str, Any], inputs: Sequence[str]) -> Job:
    """Make a job from keyword options; a single value will do for an option that takes several."""
    named = {{"layer": "layers"}.get(name, name): value for name, value in _apply_new_names(options).items()}
    known = Job.__dataclass_fields__
    for name, value in named.items():
        if name not in known or name == "inputs":
            raise RequestError(
                f"there is no option {name!r}", did_you_mean(name, known) or f"there are: {', '.join(known)}"
            )
        if known[name].type.startswith("tuple"):
            if isinstance(value, Mapping):
                value = [f"{option}={format_value(given)}" for option, given in value.items()]
            named[name] = tuple(str(to_python(one)) for one in as_tuple(to_python(value)))
        if name in ("method", "scales", "device") and not isinstance(value, str):
            named[name] = ",".join(map(str, [value] if isinstance(value, int | float | torch.device) else value))
        if name == "group" and isinstance(value, int):
            named[name] = str(value)
        if name == "pages" and isinstance(value, int):
            named[name] = str(value)
        if name == "range" and not isinstance(value, str):
            named[name] = ",".join(map(repr, value))
        if name == "size" and not isinstance(value, str):
            named[name] = "x".join(map(str, [value] if isinstance(value, int) else value))
    return Job(**named, inputs=tuple(inputs))


def _apply_new_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options by their current names, with a warning for each old one."""
    for old in RENAMED_OPTIONS.keys() & options.keys():
        if not isinstance(options[old], bool):
            raise RequestError(
                f"{old} is not a file but true or false: the old name of {RENAMED_OPTIONS[old]}, gradient "
                "checkpointing",
                f"load weights by weights={str(options[old])!r}",
            )
        warnings.warn(f"{old} is called {RENAMED_OPTIONS[old]} now", FutureWarning, stacklevel=4)
    return {RENAMED_OPTIONS.get(name, name): value for name, value in options.items()}
