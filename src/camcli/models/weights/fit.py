"""Loading of a file's weights into a model: all of them, or an error that says what does not fit and what to do."""

import copy
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.input_channels import format_channels
from camcli.models.weights import heads
from camcli.models.weights.checkpoint import Checkpoint, StateDict, shorten_names


@dataclass(frozen=True, slots=True)
class StateMismatch:
    """Difference between a state dict and a model.

    Attributes:
        missing: names that only the model has.
        unexpected: names that only the state dict has.
        shapes: shapes in the file and in the model, by name, where they differ.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: Mapping[str, tuple[torch.Size, torch.Size]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    @property
    def input_channels(self) -> tuple[int, int] | None:
        """Image channels of the file and of the model, if one convolution differs in its input channels only.

        It is taken for the first convolution if it has 1 or 3 input channels, in the file or in the model.
        """
        others = [
            (in_file[1], in_model[1])
            for in_file, in_model in self.shapes.values()
            if len(in_file) == len(in_model) >= 4 and in_file[:1] == in_model[:1] and in_file[2:] == in_model[2:]
        ]
        return others[0] if len(others) == 1 and {1, 3} & {*others[0]} else None

    @property
    def summary(self) -> str:
        """The number of differences of each kind: ``2 missing, 1 unexpected``."""
        counts = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.shapes}
        return ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)

    @property
    def details(self) -> str:
        """The first names of each kind, one kind per line."""
        shapes = [
            f"{name} {tuple(in_file)} in the file, {tuple(in_model)} in the model"
            for name, (in_file, in_model) in self._shape_items
        ]
        kinds = {
            "missing in the file": self.missing,
            "unknown to the model": self.unexpected,
            "of another shape": shapes,
        }
        return "\n".join(f"{what}: {shorten_names(names)}" for what, names in kinds.items() if names)

    @property
    def _shape_items(self) -> Iterator[tuple[str, tuple[torch.Size, torch.Size]]]:
        return iter(self.shapes.items())


def load_weights(
    build: Callable[[int | None], nn.Module],
    checkpoint: Checkpoint,
    name: str,
    convert: Callable[[StateDict, nn.Module], StateDict] | None = None,
    remove_head: Callable[[nn.Module], nn.Module] | None = None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a model and load all of the checkpoint's weights into it.

    A prefix such as ``module.`` of all names is removed. If only the number of classes differs, the model is rebuilt
    with the checkpoint's. With ``remove_head``, the checkpoint may lack the whole head.

    Args:
        build: builds the model, with its default number of classes (None) or a given one.
        checkpoint: the content of the weights file.
        name: the model's name, for messages.
        convert: the source's conversion from other layouts of this model; tried if the names do not fit as they are.
        remove_head: removes the head from a model, if it is not needed; used on a copy to find the head's weights.

    Returns:
        The model, and notes on what was done to make the weights fit.

    Raises:
        WeightsFitError: the weights do not fit; the hint lists the differences.
    """
    module = build(None)
    prefix, state, outside = _strip_prefix(checkpoint, module)
    notes = outside
    load = partial(_load_or_rebuild, build, module, remove_head=remove_head)
    fitted, mismatch = load(state)
    if mismatch and convert is not None:
        fitted, remains = load(_try_convert(convert, state, module))
        notes += ("the weights' names were converted from another layout of this model",)
        mismatch = remains and mismatch
    if (mismatch or outside) and remove_head is None:
        head = heads.find_head(checkpoint.state, prefix, module)
        other = _build_with_head(build, state, head) if head else None
        if head and other:
            return other, (*checkpoint.notes, *heads.describe_head(head))
    if mismatch:
        raise _mismatch_error(checkpoint, prefix, module, name, mismatch)
    if fitted is not module and remove_head is None:
        notes += ("the head was built with the number of classes in the weights file",)
    return fitted, checkpoint.notes + notes


def _build_with_head(
    build: Callable[[int | None], nn.Module], state: StateDict, head: heads.LinearHead
) -> nn.Module | None:
    """Build a model from the body in a state dict and a head found elsewhere in the file; None if they do not fit."""
    made = build(head.num_classes)
    body = {name: value for name, value in state.items() if name in made.state_dict()}
    mismatch = _load_state(made, body)
    place = heads.locate_head(made, (*mismatch.missing, *mismatch.shapes))
    return made if place is not None and not mismatch.unexpected and heads.copy_head(made, place, head) else None


class WeightsFitError(RequestError):
    """Weights do not fit the model."""


def _mismatch_error(
    checkpoint: Checkpoint, prefix: str, module: nn.Module, name: str, mismatch: StateMismatch
) -> WeightsFitError:
    path = str(checkpoint.path)
    message = f"the weights in {path!r} do not fit {name}: {mismatch.summary}"
    place = heads.locate_head(module, (*mismatch.missing, *mismatch.shapes))
    if channels := mismatch.input_channels:
        in_file, in_model = channels
        each = "mean=(0.5,), std=(0.5,)" if in_file == 1 else f"mean and std of {in_file} numbers"
        message += (
            f"; they are of a model whose images have {format_channels(in_file)}, and those of {name} have {in_model}"
        )
        hint = (
            f"make that model in a file of your own, my_model.py: with timm.create_model(..., in_chans={in_file}), or "
            f"with a first convolution of {format_channels(in_file)}; let its function make() return (module, "
            f"camcli.Preprocess(size=..., resize=..., {each}), names of the classes); then use --model "
            f"my_model.py:make --weights {path}"
        )
    elif place is not None:
        message += f"; only its head {place!r} differs"
        hint = heads.write_head_script(checkpoint.state, prefix, place, path, name, module)
    elif mismatch.missing and (hint := heads.write_script_by_order(checkpoint.state, path, name, module)):
        message += "; by order and shape of the layers they do fit, under other names"
    else:
        hint = "are they of another architecture? --model names it"
    return WeightsFitError(message, f"{mismatch.details}\n{hint}")


def _load_or_rebuild(
    build: Callable[[int | None], nn.Module],
    module: nn.Module,
    state: StateDict,
    remove_head: Callable[[nn.Module], nn.Module] | None = None,
) -> tuple[nn.Module, StateMismatch]:
    """Load a state into the module, or one rebuilt with its number of classes; return that module and the mismatch."""
    mismatch = _load_state(module, state)
    if mismatch.missing and remove_head is not None:
        head = module.state_dict().keys() - remove_head(copy.deepcopy(module)).state_dict().keys()
        if head.isdisjoint(state):  # a file with only a part of the head is broken
            mismatch = replace(mismatch, missing=tuple(name for name in mismatch.missing if name not in head))
    classes = _find_class_count(mismatch, state)
    if classes is None:
        return module, mismatch
    resized = build(classes)
    remains = _load_state(resized, state)
    return (module, mismatch) if remains else (resized, remains)


def _load_state(module: nn.Module, state: StateDict) -> StateMismatch:
    model_state = module.state_dict()
    shapes = {
        name: (value.shape, model_state[name].shape)
        for name, value in state.items()
        if name in model_state and isinstance(model_state[name], Tensor) and value.shape != model_state[name].shape
    }
    # The modules themselves decide which names are missing: some accept the names of their older versions.
    given: Any = OrderedDict((name, state[name]) for name in state if name not in shapes)
    if any(not isinstance(value, Tensor) for value in model_state.values()):
        # Without version metadata, quantised modules expect the names of an older version.
        given._metadata = getattr(model_state, "_metadata", {})
    try:
        result = module.load_state_dict(given, strict=False)
    except Exception as error:  # a module's own code, such as set_extra_state, may raise anything
        raise RequestError(
            f"the weights cannot be loaded into the network: {type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}"
        ) from error
    missing = tuple(name for name in result.missing_keys if name not in shapes)
    return StateMismatch(missing, tuple(result.unexpected_keys), shapes)


def _find_class_count(mismatch: StateMismatch, state: StateDict) -> int | None:
    """Return the file's number of classes if it may be the only difference, else None.

    All differing shapes must differ in the first dimension only, by the same pair of numbers; for a model without a
    head, all unexpected tensors must have the same first dimension.
    """
    if mismatch.unexpected and not mismatch.missing and not mismatch.shapes:
        numbers = {state[name].shape[:1] for name in mismatch.unexpected}
        return next(iter(numbers))[0] if len(numbers) == 1 and numbers != {()} else None
    if mismatch.missing or mismatch.unexpected or not mismatch.shapes:
        return None
    pairs = set()
    for in_file, in_model in mismatch.shapes.values():
        if not in_file or not in_model or in_file[1:] != in_model[1:]:
            return None
        pairs.add((in_file[0], in_model[0]))
    return pairs.pop()[0] if len(pairs) == 1 else None


def _strip_prefix(checkpoint: Checkpoint, module: nn.Module) -> tuple[str, StateDict, tuple[str, ...]]:
    """Find the prefix of the model's names; return it, the state without it, and notes on tensors left out."""
    model_state = module.state_dict()
    prefix = _find_prefix(checkpoint, set(model_state))
    state = {name.removeprefix(prefix): value for name, value in checkpoint.state.items() if name.startswith(prefix)}
    # Other values are kept where the model has one too: a module's extra state, quantisation settings.
    for name, value in checkpoint.non_tensors.items():
        there = name.removeprefix(prefix)
        if name.startswith(prefix) and there in model_state and not isinstance(model_state[there], Tensor):
            state[there] = value
    outside = [name for name in checkpoint.state if not name.startswith(prefix)]
    notes = (
        (f"only the weights under {prefix!r} in the file were loaded, not {shorten_names(outside)}",) if outside else ()
    )
    return prefix, state, notes


def _find_prefix(checkpoint: Checkpoint, wanted: set[str]) -> str:
    """Find the prefix of most of the wanted names in the file; empty if there is none."""
    counts = Counter(head for name in checkpoint.state for head, tail in _split_at_dots(name) if tail in wanted)
    whole = [head for head, count in counts.items() if 2 * count > len(wanted)]
    averaged = [head for head in whole if "ema" in re.split(r"[._]", head)]
    found = averaged or whole or [""]
    if len(found) > 1:
        raise RequestError(
            f"the weights file {str(checkpoint.path)!r} contains the model {len(found)} times: "
            f"under {shorten_names(map(repr, found))}",
            "save the one you want to a separate file, in Python:\n  import torch\n  from "
            f"camcli.models.weights.checkpoint import read\n  state = read({str(checkpoint.path)!r}).state\n  mine = "
            f"{{name: value for name, value in state.items() if name.startswith({found[-1]!r})}}\n  torch.save(mine, "
            "'weights.pth')",
        )
    return found[0]


def _split_at_dots(name: str) -> Iterator[tuple[str, str]]:
    yield "", name
    for dot in re.finditer(r"\.", name):
        yield name[: dot.end()], name[dot.end() :]


def _try_convert(
    convert: Callable[[StateDict, nn.Module], StateDict], state: StateDict, module: nn.Module
) -> StateDict:
    try:
        return convert(dict(state), module)
    except Exception:  # converters fail on layouts they do not expect; the unconverted state gives a better message
        return state
