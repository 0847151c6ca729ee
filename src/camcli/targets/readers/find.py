"""Search for the tensor of scores in what a model returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.targets.readers import probabilities

if TYPE_CHECKING:
    from camcli.targets.target import Task

# Names of the output that holds the scores, best first; and the prefix of outputs that only training uses.
SCORE_NAMES = ("logits", "out", "scores", "output")
TRAINING_PREFIX = "aux"
# Kinds of tensors by shape, and for each task those to search for, in order of preference.
TensorForm = Literal["row", "number", "map", "tokens", "squeezed", ""]
FORMS: dict[Task, tuple[tuple[TensorForm, ...], ...]] = {
    "classify": (("row",), ("number",), ("squeezed",)),
    "segment": (("map",),),
    "features": (("map", "tokens"), ("row",)),
}


# ---- where the scores are


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """One tensor in what a model returned, and the path to it."""

    path: str
    tensor: Tensor

    def __str__(self) -> str:
        form = "x".join(map(str, self.tensor.shape)) or "one number"
        return f"{self.path or 'the output'}: {str(self.tensor.dtype).removeprefix('torch.')} {form}"


def named_tensors(output: Any, path: str = "") -> Iterator[NamedTensor]:
    """Iterate over the tensors in nested tuples, lists, mappings, named tuples and dataclasses, in order."""
    if isinstance(output, Tensor):
        yield NamedTensor(path, output)
        return
    for name, value in _named_children(output).items():
        yield from named_tensors(value, f"{path}.{name}" if path else name)


def _named_children(output: Any) -> dict[str, Any]:
    """Return the items of a container by their names in a path."""
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items()}
    if is_dataclass(output) and not isinstance(output, type):
        return {one.name: getattr(output, one.name) for one in fields(output)}
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", None) or range(len(output))
        return dict(zip(map(str, names), output, strict=True))
    return {}


def get_path(output: Any, path: str) -> Any:
    """Return the item at a path; numbers also index named tuples, mappings and dataclasses.

    Raises:
        RequestError: there is none.
    """
    found = output
    # A name may contain dots, so the longest that fits is tried first.
    steps = path.split(".") if path else []
    while steps:
        inside = _named_children(found)
        for taken in range(len(steps), 0, -1):
            name = ".".join(steps[:taken])
            if name in inside:
                found = inside[name]
                break
            if taken == 1 and name.isdecimal() and int(name) < len(inside):
                found = list(inside.values())[int(name)]
                break
        else:
            raise RequestError(f"the model's output has no {path!r}", list_tensors(list(named_tensors(output))))
        steps = steps[taken:]
    return found


def find_scores(
    output: Any, images: int, classes: int = 0, path: str = "", task: Task = "classify", group: bool = False
) -> Tensor:
    """Find the tensor of scores in what a model returned.

    Candidates are floating-point tensors with one row for each image, followed by classes (and for ``segment`` rows and
    columns); for ``features`` channels over rows and columns or tokens, else a row of channels. They are narrowed down
    until one is left:

    1. to those with as many classes as there are names, if there are any;
    2. to those whose name does not begin with ``aux``, which only training uses;
    3. to those that are not the softmax or the sigmoid of another, to prefer logits;
    4. to the one with the name ``logits``, else ``out``, ``scores``, ``output``.

    Args:
        output: what the model returned.
        images: number of images in the batch.
        classes: number of named classes; 0 if unknown.
        path: path in the output to search at.
        task: task, as in :class:`camcli.targets.readers.spec.OutputSpec`.
        group: True if one row for all images is accepted too.

    Returns:
        ``(n, classes)``, or ``(n,)`` or ``(n, classes, 1, 1)`` if there is nothing else, or of one image ``(1,
        classes)`` where the model returns ``(classes,)`` or a number; ``(n, classes, h, w)`` for ``segment``; for
        ``features`` a shape that :func:`pool_features` takes; for ``group`` perhaps with one row.

    Raises:
        RequestError: there is no candidate, or several remain; the message lists them.
    """
    everything = list(named_tensors(get_path(output, path), path))
    group = group and task != "segment"
    matching = (
        [part for part in everything if _classify_tensor(part.tensor, images, group) in forms] for forms in FORMS[task]
    )
    candidates = next(filter(None, matching), [])
    if not candidates:
        raise _unreadable_error(output, everything, images, task, group)
    candidates = [
        part for part in candidates if classes and _count_classes(part.tensor, classes, task) == classes
    ] or candidates
    plain = [part for part in candidates if not _is_for_training(part.path.removeprefix(path))]
    candidates = plain or candidates
    if len(candidates) > 1:
        derived = probabilities.are_derived([part.tensor for part in candidates])
        candidates = [part for part, is_made in zip(candidates, derived, strict=True) if not is_made]
    for name in SCORE_NAMES:
        if len(candidates) > 1:
            candidates = [part for part in candidates if part.path.rpartition(".")[2] == name] or candidates
    if len(candidates) > 1:
        raise RequestError(
            f"the model returns {len(candidates)} tensors that could be its scores",
            f"choose one: --output {candidates[0].path}\n{list_tensors(candidates)}",
        )
    found = candidates[0].tensor
    return found.reshape(1, -1) if _classify_tensor(found, images, group) == "squeezed" else found


def pool_features(features: Tensor, channels: int = 0, prefix: int = 0) -> Tensor:
    """Average every channel over its cells, to ``(n, c)``.

    Args:
        features: ``(n, c)``, which are pooled already; ``(n, c, h, w)``; ``(n, h, w, c)`` if only that fits the number
            of channels; or tokens ``(n, t, c)``.
        channels: number of channels; 0 if unknown.
        prefix: number of tokens before those of the patches.

    Raises:
        RequestError: the channels may be first or last; or there are no tokens after the prefix.
    """
    if features.ndim == 3:
        if features.shape[1] <= prefix:
            raise RequestError(
                f"the model returns {features.shape[1]} tokens, of which {prefix} are declared as prefix tokens",
                "give the output spec the right prefix: camcli.OutputSpec('features', prefix=1)",
            )
        return features[:, prefix:].mean(1)
    if features.ndim == 4:
        first, last = (features.shape[place] == channels for place in (1, 3))
        if first and last and features.shape[2] != 1:
            form = "x".join(map(str, features.shape))
            raise RequestError(
                f"the model's features of shape {form} have {channels} channels, which may be the first or the last",
                "give it images of another size: --size",
            )
        return features.mean((1, 2) if last and not first else (2, 3))
    return features


def _classify_tensor(tensor: Tensor, images: int, group: bool = False) -> TensorForm:
    if not tensor.is_floating_point() or not tensor.numel():
        return ""
    if images == 1 and not group and (not tensor.ndim or (tensor.ndim == 1 and len(tensor) > 1)):
        return "squeezed"  # the scores of one image without a batch dimension
    if not tensor.ndim:
        return ""
    if len(tensor) != images and not (group and len(tensor) == 1):
        return ""
    if tensor.ndim == 2 or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1)):
        return "row"
    forms: dict[int, TensorForm] = {1: "number", 3: "tokens", 4: "map"}
    return forms.get(tensor.ndim, "")


def _count_classes(tensor: Tensor, wanted: int, task: Task) -> int:
    """Return a tensor's number of classes or channels; of features first or last, whichever fits."""
    if task == "features" and tensor.ndim > 2 and (tensor.ndim == 3 or tensor.shape[1] != wanted):
        return tensor.shape[-1]
    return tensor.shape[1] if tensor.ndim > 1 else 1


def _is_for_training(path: str) -> bool:
    return any(step.startswith(TRAINING_PREFIX) for step in path.lower().split("."))


def count_rows(output: Any) -> int | None:
    """Return the number of rows of the first tensor in an output; None if there is none."""
    part = next(named_tensors(output), None)
    return len(part.tensor) if part is not None and part.tensor.ndim else None


def _unreadable_error(
    output: Any, everything: Sequence[NamedTensor], images: int, task: Task, group: bool = False
) -> RequestError:
    what = {"segment": "scores of every pixel", "features": "features"}.get(task, "one row of class scores")
    form = ("x".join(map(str, output.shape)) or "one number") if isinstance(output, Tensor) else type(output).__name__
    if group:
        return RequestError(
            f"the model returns {form} for a group of {count_of(images, 'image')}, neither one row of class scores for "
            "the group nor one for each of its images",
            f"give (1, classes) or ({images}, classes)"
            + ("" if isinstance(output, Tensor) or not everything else f"\n{list_tensors(everything)}"),
        )
    hint = "name a classifier, or a file.py:function that wraps the model in one"
    if task == "classify" and any(_classify_tensor(part.tensor, images) == "map" for part in everything):
        hint += "; if it scores every pixel: camcli.Network(..., output_spec=camcli.OutputSpec('segment'))"
        hint += "; if these are features: camcli.Network(..., output_spec=camcli.OutputSpec('features'), headless=True)"
    return RequestError(
        f"the model returns {form} for {count_of(images, 'image')}, not {what} for each",
        hint + ("" if isinstance(output, Tensor) or not everything else f"\n{list_tensors(everything)}"),
    )


def list_tensors(found: Sequence[NamedTensor]) -> str:
    """Format tensors, one a line, for the hint of an error."""
    return "it gives\n" + "\n".join(f"  {part}" for part in found[:12]) + ("\n  ..." if len(found) > 12 else "")
