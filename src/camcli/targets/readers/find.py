"""Find the tensor of scores in what a model returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.targets.readers import probabilities

if TYPE_CHECKING:
    from camcli.targets.target import Task

# How authors call the output that is the answer, best first; and how the names of those begin that only training uses.
ANSWERS = ("logits", "out", "scores", "output")
TRAINING = "aux"
# What a tensor can be by its shape, and for each task what is looked for, first the one, then the other.
Form = Literal["row", "number", "map", "tokens", "squeezed", ""]
FORMS: dict[Task, tuple[tuple[Form, ...], ...]] = {
    "classify": (("row",), ("number",), ("squeezed",)),
    "segment": (("map",),),
    "features": (("map", "tokens"), ("row",)),
}


# ---- where the scores are


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor in what a model returned, and the path to it."""

    path: str
    tensor: Tensor

    def __str__(self) -> str:
        form = "x".join(map(str, self.tensor.shape)) or "one number"
        return f"{self.path or 'the output'}: {str(self.tensor.dtype).removeprefix('torch.')} {form}"


def parts(output: Any, path: str = "") -> Iterator[Part]:
    """Every tensor in tuples, lists, mappings, named tuples and dataclasses, however deep, in order."""
    if isinstance(output, Tensor):
        yield Part(path, output)
        return
    for name, value in _inside(output).items():
        yield from parts(value, f"{path}.{name}" if path else name)


def _inside(output: Any) -> dict[str, Any]:
    """What is in a container, by the word for it in a path."""
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items()}
    if is_dataclass(output) and not isinstance(output, type):
        return {one.name: getattr(output, one.name) for one in fields(output)}
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", None) or range(len(output))
        return dict(zip(map(str, names), output, strict=True))
    return {}


def at(output: Any, path: str) -> Any:
    """What lies at a path; a number counts also in named tuples, mappings and dataclasses.

    Raises:
        RequestError: nothing does.
    """
    found = output
    # A name may hold dots of its own, so the longest that fits goes first.
    steps = path.split(".") if path else []
    while steps:
        inside = _inside(found)
        for taken in range(len(steps), 0, -1):
            name = ".".join(steps[:taken])
            if name in inside:
                found = inside[name]
                break
            if taken == 1 and name.isdecimal() and int(name) < len(inside):
                found = list(inside.values())[int(name)]
                break
        else:
            raise RequestError(f"the model's output has no {path!r}", list_parts(list(parts(output))))
        steps = steps[taken:]
    return found


def chosen(
    output: Any, images: int, classes: int = 0, path: str = "", task: Task = "classify", group: bool = False
) -> Tensor:
    """The tensor of scores in what a model returned.

    Those that can be scores are considered: floating point, one row for each image, and classes (and for ``segment``
    rows and columns) behind; for ``features`` channels over rows and columns or tokens, else a row of channels. The
    rule, until one is left:

    1. whose number of classes is that of the names, if the names are known and any is;
    2. not those whose name begins with ``aux``, which only training uses;
    3. not those that are the softmax or the sigmoid of another: the logits are meant;
    4. the one whose name is ``logits``, else ``out``, ``scores``, ``output``.

    Args:
        output: what the model returned.
        images: how many it was given.
        classes: how many classes are named; 0 if nobody knows.
        path: only what lies there is considered.
        task: what is looked for, as in :class:`Outlet`.
        group: one row for all images will do as well as one for each.

    Returns:
        ``(n, classes)``, or ``(n,)`` or ``(n, classes, 1, 1)`` if there is nothing else, or of one image ``(1,
        classes)`` where the model gives ``(classes,)`` or a number; ``(n, classes, h, w)`` for ``segment``; for
        ``features`` whatever :func:`pooled` takes; for ``group`` perhaps with one row.

    Raises:
        RequestError: nothing can be scores, or several things remain; the candidates are listed.
    """
    everything = list(parts(at(output, path), path))
    group = group and task != "segment"
    wanted = ([part for part in everything if _form(part.tensor, images, group) in forms] for forms in FORMS[task])
    able = next(filter(None, wanted), [])
    if not able:
        raise _unreadable(output, everything, images, task, group)
    able = [part for part in able if classes and _classes(part.tensor, classes, task) == classes] or able
    plain = [part for part in able if not _is_for_training(part.path.removeprefix(path))]
    able = plain or able
    if len(able) > 1:
        made = probabilities.of_another([part.tensor for part in able])
        able = [part for part, is_made in zip(able, made, strict=True) if not is_made]
    for name in ANSWERS:
        if len(able) > 1:
            able = [part for part in able if part.path.rpartition(".")[2] == name] or able
    if len(able) > 1:
        raise RequestError(
            f"the model gives {len(able)} tensors that could be its scores",
            f"say which: --output {able[0].path}\n{list_parts(able)}",
        )
    found = able[0].tensor
    return found.reshape(1, -1) if _form(found, images, group) == "squeezed" else found


def pooled(features: Tensor, channels: int = 0, prefix: int = 0) -> Tensor:
    """The mean of every channel over its cells, ``(n, c)``.

    Args:
        features: ``(n, c)``, which are pooled already; ``(n, c, h, w)``; ``(n, h, w, c)`` where that, and only that,
            goes with the number of channels; or tokens ``(n, t, c)``.
        channels: how many there are; 0 if nobody knows.
        prefix: how many tokens stand before those of the patches.

    Raises:
        RequestError: the channels may be first or last; there are no tokens behind the prefix.
    """
    if features.ndim == 3:
        if features.shape[1] <= prefix:
            raise RequestError(
                f"the model gives {features.shape[1]} tokens, of which {prefix} are declared as prefix tokens",
                "give the outlet the right prefix: camcli.Outlet('features', prefix=1)",
            )
        return features[:, prefix:].mean(1)
    if features.ndim == 4:
        first, last = (features.shape[place] == channels for place in (1, 3))
        if first and last and features.shape[2] != 1:
            form = "x".join(map(str, features.shape))
            raise RequestError(
                f"the model's features of shape {form} have {channels} channels, which may be the first or the last",
                "give it pictures of another size: --size",
            )
        return features.mean((1, 2) if last and not first else (2, 3))
    return features


def _form(tensor: Tensor, images: int, group: bool = False) -> Form:
    if not tensor.is_floating_point() or not tensor.numel():
        return ""
    if images == 1 and not group and (not tensor.ndim or (tensor.ndim == 1 and len(tensor) > 1)):
        return "squeezed"  # the scores of one image, whose dimension of images is gone
    if not tensor.ndim:
        return ""
    if len(tensor) != images and not (group and len(tensor) == 1):
        return ""
    if tensor.ndim == 2 or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1)):
        return "row"
    forms: dict[int, Form] = {1: "number", 3: "tokens", 4: "map"}
    return forms.get(tensor.ndim, "")


def _classes(tensor: Tensor, wanted: int, task: Task) -> int:
    """How many classes, or channels, a tensor is of; of features that may lie first or last, those that are wanted."""
    if task == "features" and tensor.ndim > 2 and (tensor.ndim == 3 or tensor.shape[1] != wanted):
        return tensor.shape[-1]
    return tensor.shape[1] if tensor.ndim > 1 else 1


def _is_for_training(path: str) -> bool:
    return any(step.startswith(TRAINING) for step in path.lower().split("."))


def first_rows(output: Any) -> int | None:
    """How many rows the first tensor in an output has; None if there is none."""
    part = next(parts(output), None)
    return len(part.tensor) if part is not None and part.tensor.ndim else None


def _unreadable(output: Any, everything: Sequence[Part], images: int, task: Task, group: bool = False) -> RequestError:
    what = {"segment": "scores of every pixel", "features": "features"}.get(task, "one row of class scores")
    form = ("x".join(map(str, output.shape)) or "one number") if isinstance(output, Tensor) else type(output).__name__
    if group:
        return RequestError(
            f"the model gives {form} for a group of {images} picture(s), neither one row of class scores for the group "
            "nor one for each of its pictures",
            f"give (1, classes) or ({images}, classes)"
            + ("" if isinstance(output, Tensor) or not everything else f"\n{list_parts(everything)}"),
        )
    hint = "name a classifier, or a file.py:function that wraps the model in one"
    if task == "classify" and any(_form(part.tensor, images) == "map" for part in everything):
        hint += "; if it scores every pixel: camcli.Network(..., outlet=camcli.Outlet('segment'))"
        hint += "; if these are features: camcli.Network(..., outlet=camcli.Outlet('features'), headless=True)"
    return RequestError(
        f"the model gives {form} for {images} image(s), not {what} for each",
        hint + ("" if isinstance(output, Tensor) or not everything else f"\n{list_parts(everything)}"),
    )


def list_parts(found: Sequence[Part]) -> str:
    """The tensors that there are, a line each, for the hint of an error."""
    return "it gives\n" + "\n".join(f"  {part}" for part in found[:12]) + ("\n  ..." if len(found) > 12 else "")
