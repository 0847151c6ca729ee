"""Weights of a file put into a model: every one of them, or refused with what does not fit and what would."""

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
from camcli.engine.input_channels import channels_in_words
from camcli.models.weights import heads
from camcli.models.weights.checkpoint import Checkpoint, State, listed


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where a state dict and a model differ.

    Attributes:
        missing: names that only the model has.
        unexpected: names that only the state dict has.
        shapes: name to shape in the file and shape in the model, where these differ.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: Mapping[str, tuple[torch.Size, torch.Size]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    @property
    def channels(self) -> tuple[int, int] | None:
        """How many channels the images of the file have, and those of the model, if a convolution is for others alone.

        That it is the first is told by its 1 or 3 of them, in the file or in the model.
        """
        others = [
            (own[1], wanted[1])
            for own, wanted in self.shapes.values()
            if len(own) == len(wanted) >= 4 and own[:1] == wanted[:1] and own[2:] == wanted[2:]
        ]
        return others[0] if len(others) == 1 and {1, 3} & {*others[0]} else None

    @property
    def summary(self) -> str:
        """The counts: ``2 missing, 1 unexpected``."""
        counts = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.shapes}
        return ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)

    @property
    def details(self) -> str:
        """The first names of each kind, one kind a line."""
        shapes = [
            f"{name} {tuple(own)} in the file, {tuple(wanted)} in the model" for name, (own, wanted) in self._shapes
        ]
        kinds = {
            "missing in the file": self.missing,
            "unknown to the model": self.unexpected,
            "of another shape": shapes,
        }
        return "\n".join(f"{what}: {listed(names)}" for what, names in kinds.items() if names)

    @property
    def _shapes(self) -> Iterator[tuple[str, tuple[torch.Size, torch.Size]]]:
        return iter(self.shapes.items())


def fit(
    build: Callable[[int | None], nn.Module],
    checkpoint: Checkpoint,
    name: str,
    convert: Callable[[State, nn.Module], State] | None = None,
    beheaded: Callable[[nn.Module], nn.Module] | None = None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """A model with the checkpoint's weights, every one of them, or none.

    A prefix such as ``module.`` that stands before all names is taken off. If nothing but the number of classes
    differs, the model is built with the checkpoint's. Where the model's head is not wanted, the checkpoint may be
    without it, all of it.

    Args:
        build: makes the model, with its usual number of classes (None) or a given one.
        checkpoint: what was read.
        name: what the model is called in messages.
        convert: the source's way to rename older layouts of this model; tried if the names do not fit as they are.
        beheaded: takes the head off a copy of the model, if it is not wanted; the model is returned with it.

    Returns:
        The model, and what was done to make the weights fit.

    Raises:
        RequestError: they do not fit; the hint lists where.
    """
    module = build(None)
    prefix, state, outside = _addressed(checkpoint, module)
    notes = outside
    load = partial(_loaded, build, module, beheaded=beheaded)
    fitted, mismatch = load(state)
    if mismatch and convert is not None:
        fitted, remains = load(_converted(convert, state, module))
        notes += ("the weights' names were converted from another layout of this model",)
        mismatch = remains and mismatch
    if (mismatch or outside) and beheaded is None:
        head = heads.found(checkpoint.state, prefix, module)
        other = _with_head(build, state, head) if head else None
        if head and other:
            return other, (*checkpoint.notes, *heads.said(head))
    if mismatch:
        raise _unfit(checkpoint, prefix, module, name, mismatch)
    if fitted is not module and beheaded is None:
        notes += ("the head was built with the number of classes in the weights file",)
    return fitted, checkpoint.notes + notes


def _with_head(build: Callable[[int | None], nn.Module], state: State, head: heads.Head) -> nn.Module | None:
    """The model with the body of a state and a head found elsewhere in the file; None if they do not make it up."""
    made = build(head.classes)
    body = {name: value for name, value in state.items() if name in made.state_dict()}
    mismatch = _load(made, body)
    place = heads.place(made, (*mismatch.missing, *mismatch.shapes))
    return made if place is not None and not mismatch.unexpected and heads.put(made, place, head) else None


def _unfit(checkpoint: Checkpoint, prefix: str, module: nn.Module, name: str, mismatch: Mismatch) -> RequestError:
    path = str(checkpoint.path)
    message = f"the weights in {path!r} do not fit {name}: {mismatch.summary}"
    place = heads.place(module, (*mismatch.missing, *mismatch.shapes))
    if channels := mismatch.channels:
        taken, own = channels
        each = "mean=(0.5,), std=(0.5,)" if taken == 1 else f"mean and std of {taken} numbers"
        message += f"; they are of a model whose images have {channels_in_words(taken)}, and those of {name} have {own}"
        hint = (
            f"make that model in a file of your own, my_model.py: with timm.create_model(..., in_chans={taken}), or "
            f"with a first convolution of {channels_in_words(taken)}; let its function make() return (module, "
            f"camcli.Prepare(size=..., resize=..., {each}), names of the classes); then say --model my_model.py:make "
            f"--weights {path}"
        )
    elif place is not None:
        message += f"; only its head {place!r} is another"
        hint = heads.program(checkpoint.state, prefix, place, path, name, module)
    elif mismatch.missing and (hint := heads.in_order(checkpoint.state, path, name, module)):
        message += "; by the order and the shapes of the layers they do, which have other names there"
    else:
        hint = "are they of another architecture? --model names it"
    return RequestError(message, f"{mismatch.details}\n{hint}")


def _loaded(
    build: Callable[[int | None], nn.Module],
    module: nn.Module,
    state: State,
    beheaded: Callable[[nn.Module], nn.Module] | None = None,
) -> tuple[nn.Module, Mismatch]:
    """The module, or one with the state's number of classes, with the state loaded; and what does not fit."""
    mismatch = _load(module, state)
    if mismatch.missing and beheaded is not None:
        head = module.state_dict().keys() - beheaded(copy.deepcopy(module)).state_dict().keys()
        if head.isdisjoint(state):  # a file that has a part of the head is a broken one
            mismatch = replace(mismatch, missing=tuple(name for name in mismatch.missing if name not in head))
    classes = _classes(mismatch, state)
    if classes is None:
        return module, mismatch
    resized = build(classes)
    remains = _load(resized, state)
    return (module, mismatch) if remains else (resized, remains)


def _load(module: nn.Module, state: State) -> Mismatch:
    own = module.state_dict()
    shapes = {
        name: (value.shape, own[name].shape)
        for name, value in state.items()
        if name in own and isinstance(own[name], Tensor) and value.shape != own[name].shape
    }
    # Which names are missing is left to the modules: some accept the names of their own older versions.
    given: Any = OrderedDict((name, state[name]) for name in state if name not in shapes)
    if any(not isinstance(value, Tensor) for value in own.values()):
        # Quantised modules take their names for those of an older version if nothing says which it is.
        given._metadata = getattr(own, "_metadata", {})
    try:
        result = module.load_state_dict(given, strict=False)
    except Exception as error:  # a module's own code, such as set_extra_state, may raise anything
        raise RequestError(
            f"the network does not take the weights: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        ) from error
    missing = tuple(name for name in result.missing_keys if name not in shapes)
    return Mismatch(missing, tuple(result.unexpected_keys), shapes)


def _classes(mismatch: Mismatch, state: State) -> int | None:
    """The file's number of classes, if that may be all that differs: the first dimension, from and to one number.

    Or from none, where the model comes without a head: then all that it does not expect must be of that number.
    """
    if mismatch.unexpected and not mismatch.missing and not mismatch.shapes:
        numbers = {state[name].shape[:1] for name in mismatch.unexpected}
        return next(iter(numbers))[0] if len(numbers) == 1 and numbers != {()} else None
    if mismatch.missing or mismatch.unexpected or not mismatch.shapes:
        return None
    pairs = set()
    for own, wanted in mismatch.shapes.values():
        if not own or not wanted or own[1:] != wanted[1:]:
            return None
        pairs.add((own[0], wanted[0]))
    return pairs.pop()[0] if len(pairs) == 1 else None


def _addressed(checkpoint: Checkpoint, module: nn.Module) -> tuple[str, State, tuple[str, ...]]:
    """The prefix that stands before the model's names, the state without it, and what was left out for it."""
    own = module.state_dict()
    prefix = _prefix(checkpoint, set(own))
    state = {name.removeprefix(prefix): value for name, value in checkpoint.state.items() if name.startswith(prefix)}
    # What is no tensor counts where the model has such a thing: a module's extra state, how it is quantised.
    for name, value in checkpoint.rest.items():
        there = name.removeprefix(prefix)
        if name.startswith(prefix) and there in own and not isinstance(own[there], Tensor):
            state[there] = value
    outside = [name for name in checkpoint.state if not name.startswith(prefix)]
    notes = (f"only what the file has under {prefix!r} was taken, not {listed(outside)}",) if outside else ()
    return prefix, state, notes


def _prefix(checkpoint: Checkpoint, wanted: set[str]) -> str:
    """What stands before most of the wanted names in the file; nothing, if nothing does."""
    counts = Counter(head for name in checkpoint.state for head, tail in _splits(name) if tail in wanted)
    whole = [head for head, count in counts.items() if 2 * count > len(wanted)]
    averaged = [head for head in whole if "ema" in re.split(r"[._]", head)]
    found = averaged or whole or [""]
    if len(found) > 1:
        raise RequestError(
            f"the weights file {str(checkpoint.path)!r} holds the model {len(found)} times: "
            f"under {listed(map(repr, found))}",
            "save the one you mean to a file of its own, in Python:\n"
            "  import torch\n"
            "  from camcli.models.weights.checkpoint import read\n"
            f"  state = read({str(checkpoint.path)!r}).state\n"
            f"  mine = {{name: value for name, value in state.items() if name.startswith({found[-1]!r})}}\n"
            "  torch.save(mine, 'weights.pth')",
        )
    return found[0]


def _splits(name: str) -> Iterator[tuple[str, str]]:
    yield "", name
    for dot in re.finditer(r"\.", name):
        yield name[: dot.end()], name[dot.end() :]


def _converted(convert: Callable[[State, nn.Module], State], state: State, module: nn.Module) -> State:
    try:
        return convert(dict(state), module)
    except Exception:  # converters expect their own layouts and break on others; the state as it is tells more
        return state
