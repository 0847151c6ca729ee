"""``camcli.explain``: explanations of images, one after the other."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from camcli.base.errors import PictureError, RequestError, did_you_mean
from camcli.engine.choose import one_of
from camcli.engine.devices import device_of
from camcli.engine.explanation import Explanation
from camcli.engine.layers.paths import name_modules
from camcli.engine.maps.concepts import put_even_sample_first
from camcli.engine.network import Network
from camcli.images import describe_page
from camcli.images.archives import is_archive
from camcli.images.find import find
from camcli.images.pages import expand_pages
from camcli.images.source import PictureSource
from camcli.images.transform import Preprocess
from camcli.models import BUNDLED_MODEL
from camcli.runs.api.drawing import ImageExplanation, attach_image, check_colormap, check_normalize
from camcli.runs.api.explanations import MAX_SHOWN, Explanations
from camcli.runs.api.inputs import ImageInput, as_several, is_path, make_item
from camcli.runs.api.own_targets import OwnTargets, TargetsInput, names_file
from camcli.runs.job.folder_name import find_parent
from camcli.runs.job.job import RENAMED_OPTIONS, Job
from camcli.runs.job.option import OUTPUT, get_option, name_by_field
from camcli.runs.job.values import convert_value
from camcli.runs.worker.fit_concepts import fit_concepts
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import stream_results
from camcli.runs.worker.worker import Worker
from camcli.targets.labels import Labels

logger = logging.getLogger("camcli")

# Options of files that are written, of which there are none here, except those that say how maps are drawn.
DRAWING_OPTIONS = frozenset({"colormap", "alpha", "normalize", "background", "panel_size"})
# One layer or several: paths, or modules of a model in memory.
LayerInput = str | nn.Module | Sequence[str | nn.Module]
TargetInput = str | int | np.integer | np.ndarray | Tensor | Sequence[str | int | np.integer] | None


def explain(
    images: ImageInput | Iterable[ImageInput],
    *,
    model: str | Network | nn.Module = BUNDLED_MODEL,
    preprocess: str | Preprocess | Callable[..., Any] | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | Labels = "",
    layer: LayerInput = (),
    layers: LayerInput = (),
    target: TargetInput = None,
    targets: TargetsInput = None,
    on_error: Callable[[str, PictureError], Any] | None = None,
    **options: Any,
) -> Explanations:
    """Explain images one after the other, lazily: each is read when its turn comes; nothing is written.

    ``for explanation in camcli.explain("photos", model="resnet50", layer="layer4", target="top:2"): ...``

    ``camcli.explain("cat.jpg", model=my_network).overlay()``

    Args:
        images: a file, folder, glob, archive, address or ``@list``; a Pillow image; an array ``(h, w)`` or
            ``(h, w, channels)`` or a tensor ``(channels, h, w)``, with values of 0 to 255 (uint8), 0 to 65535 (other
            integers) or 0 to 1 (floating point), unless ``range`` says otherwise; the bytes of a file, or an open one;
            or several of these, also as an array ``(n, h, w, channels)`` or a tensor ``(n, channels, h, w)``.
        model: a name, as for :func:`camcli.load`; a network that it returned; or a module, which stays as it is. A
            model in memory runs on the device where it is, unless ``device`` says otherwise.
        preprocess: of a module, or of a file that does not say it, as for :func:`camcli.load`.
        labels: names of the classes: a list, or a file of them.
        layer: one or several layers: paths, or modules of a model in memory.
        layers: the same by another name.
        target: one or several classes or rules, each explained in every image: ``"tabby"``, ``281``, ``"top:5"``,
            ``"rank:2"``, ``["cat", "dog"]``.
        targets: classes of each image alone: a list with an entry for each image, which is a class or several; or a
            file, as ``--targets``.
        on_error: called with the image's name and the reason for each map that cannot be made; default: raise it.
        **options: other fields of :class:`camcli.Job`, as ``method``, ``text``, ``batch_size``; a single value will
            do for an option that takes several, ``options`` of methods may be a dict (``{"samples": 8}``), ``scales``
            numbers, and ``size`` a number or height and width. None is the default.

    Returns:
        An iterator: for each image its explanations, class by class, layer by layer, with ``source`` and ``view`` set:
        ``explanation.view.onto_picture(explanation.map)`` is the map at the image's own pixels.

    Raises:
        RequestError: an option is invalid; raised before the first image.
        PictureError: an image has no map, unless ``on_error`` is given; raised at its turn.
    """
    several = as_several(images)
    named = [os.fspath(one) for one in several if is_path(one)] if isinstance(several, Sequence) else []
    known = isinstance(several, Sequence) and len(named) == len(several)
    given = {name: value for name, value in options.items() if value is not None}
    if (whole := _as_single(target, targets)) is not None:
        given["target"] = whole
    elif names_file(targets):
        given["targets"] = targets
    given["layers"] = _name_layers(model, one_of("layer", layer, "layers", layers))
    if isinstance(preprocess, str):
        given["preprocess"] = preprocess
    job = _make_job(given, model, named)
    loading = {"model": model, "preprocess": preprocess, "labels": os.fspath(labels) if is_path(labels) else labels}

    def iter_sources() -> Iterator[PictureSource]:
        return (source for path in named for source in _find_sources(path, job, checked=is_path(images)))

    worker = Worker(job, iter_sources if known else None, loading=loading, recorded=False)
    _log_job(worker)
    listed = targets is not None and not {"target", "targets"} & given.keys()
    own_targets = OwnTargets(targets, several, worker) if listed else None

    def iter_items() -> Iterator[Item]:
        if own_targets:
            own_targets.restart()
        for number, one in enumerate(several):
            rule = own_targets.next_rule() if own_targets else None
            if is_path(one):
                for source in _find_sources(os.fspath(one), job, checked=one is images):
                    yield Item(source, target_rule=rule)
            else:
                item = make_item(one, f"image-{number}", worker.job, worker.network.preprocess.channels)
                yield replace(item, target_rule=rule)

    if worker.explainer.fits_concepts:
        if not isinstance(several, Sequence):
            raise RequestError(
                "concepts are found in several images together before the first is explained, and these come one by "
                "one",
                "give a list of them; or let each image have concepts of its own: options={'over': 'picture'}",
            )
        fit_concepts(worker, put_even_sample_first(iter_items, sum(1 for _ in iter_items())))
    stream = _iter_explanations(worker, stream_results(worker, iter_items()), on_error)
    return Explanations(stream, _summarize(worker, several), _are_few(several))


def _find_sources(path: str, job: Job, checked: bool) -> Iterator[PictureSource]:
    """Return the images that a path stands for; if there are none and not ``checked``, an erroneous one."""
    try:
        return expand_pages(find([path], out=find_parent(job), videos=bool(job.every)), job.pages, job.every)
    except RequestError as error:
        if checked:
            raise
        return iter([PictureSource(path, path, error.message)])


def _iter_explanations(
    worker: Worker, items: Iterator[Item], on_error: Callable[[str, PictureError], Any] | None
) -> Generator[ImageExplanation, None, None]:
    logged = len(worker.notes)
    for item in items:
        for note in worker.notes[logged:]:
            logger.info("%s", note)
        logged = len(worker.notes)
        name = item.source.location
        for result in [item.error] if item.error else item.results:
            if isinstance(result, Explanation):
                yield attach_image(result, item, worker)
            elif on_error is None:
                raise PictureError(f"{describe_page(name, item.source.page)}: {result.message}", result.hint)
            else:
                on_error(name, result)


def _as_single(target: TargetInput, targets: TargetsInput) -> Any:
    """Return what is explained in every image, if that is given: ``target``, or a single number as ``targets``.

    Raises:
        RequestError: both are given.
    """
    if target is not None and targets is not None:
        raise RequestError(
            "both target= and targets= are given",
            "target= holds for every image, and targets= has an entry for each: leave one out",
        )
    is_number = isinstance(targets, int | np.integer) or getattr(targets, "ndim", None) == 0
    return targets if is_number else target


def _name_layers(model: str | Network | nn.Module, layers: LayerInput) -> tuple[str, ...]:
    """Return the layers as paths."""
    if not isinstance(model, str):
        module = model.module if isinstance(model, Network) else model
        return name_modules(module, layers) if isinstance(module, nn.Module) else ()
    given = [layers] if isinstance(layers, str | nn.Module) else layers
    for one in given:
        if isinstance(one, nn.Module):
            raise RequestError(
                f"a {type(one).__name__} was given as a layer of {model!r}, which is loaded anew",
                "give the layer's path; or the model that it is a part of: model=network, layer=network.module.layer4",
            )
    return tuple(map(str, given))


def _make_job(options: Mapping[str, Any], model: str | Network | nn.Module, inputs: Sequence[str]) -> Job:
    """Make a job from keyword options; a single value will do for an option that takes several.

    Raises:
        RequestError: there is no such option, or it is about files that are written.
    """
    named = name_by_field(Job, _apply_new_names(options))
    known = {name: get_option(one) for name, one in Job.__dataclass_fields__.items()}
    for name in named:
        spec = known.get(name)
        if spec is None or name == "inputs":
            raise RequestError(
                f"there is no option {name!r}", did_you_mean(name, known) or f"there are: {', '.join(known)}"
            )
        if spec.panel == OUTPUT and name not in DRAWING_OPTIONS:
            raise RequestError(
                f"camcli.explain writes no files, so {name}= means nothing to it",
                "write one by explanation.save('map.png'); or a folder of them, resumably: "
                f"with camcli.Run(camcli.Job(inputs=[...], {name}=...)) as run: list(run)",
            )
    for name, check in (("normalize", check_normalize), ("colormap", check_colormap)):
        if name in named:
            check(named[name])
    if isinstance(model, str):
        named["model"] = model
    elif "device" not in named:
        module = model.module if isinstance(model, Network) else model
        if isinstance(module, nn.Module):  # anything else is refused when it is loaded
            named["device"] = str(device_of(module))
    return Job(**{name: convert_value(name, value) for name, value in named.items()}, inputs=tuple(inputs))


def _apply_new_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options by their current names, with a warning for each old one."""
    for old in RENAMED_OPTIONS.keys() & options.keys():
        if not isinstance(options[old], bool):
            raise RequestError(
                f"{old} is not a file but true or false: the old name of {RENAMED_OPTIONS[old]}, gradient "
                "checkpointing",
                f"weights are named by weights={str(options[old])!r}",
            )
        warnings.warn(f"{old} is called {RENAMED_OPTIONS[old]} now", FutureWarning, stacklevel=4)
    return {RENAMED_OPTIONS.get(name, name): value for name, value in options.items()}


def _log_job(worker: Worker) -> None:
    """Log what is explained as information, and what makes the maps doubtful as warnings."""
    logger.info("model: %s, %s", worker.network.name, worker.network.origin)
    logger.info("%r on %s; target: %s", worker.explainer, worker.device_names, worker.score_description)
    caveats = {row.caveat for row in worker.explainer.methods if row.caveat}
    if worker.network.untrained:
        logger.warning("the weights are random: these maps mean nothing, and every output says so")
    for note in worker.notes:
        doubtful = any(note.endswith(caveat) for caveat in caveats)
        logger.log(logging.WARNING if doubtful else logging.INFO, "%s", note)


def _summarize(worker: Worker, several: Iterable[ImageInput]) -> str:
    """Describe in a line what is explained, for people."""
    number = f"{len(several)} input{'s' * (len(several) != 1)}" if isinstance(several, Sequence) else "a stream"
    explainer = worker.explainer
    where = f" at {', '.join(explainer.layers)}" if explainer.layers else ""
    methods = ", ".join(row.name for row in explainer.methods)
    return f"{number}; {worker.network.name}; {methods}{where}; target: {worker.score_description}"


def _are_few(several: Iterable[ImageInput]) -> bool:
    """Return whether the inputs are so few single images that a notebook may show them unasked."""
    if not isinstance(several, Sequence) or len(several) > MAX_SHOWN:
        return False
    return all(not is_path(one) or (Path(one).is_file() and not is_archive(os.fspath(one))) for one in several)
