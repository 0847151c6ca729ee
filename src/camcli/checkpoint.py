"""A user's file of weights: read without running any code in it, and fitted to a model or refused with reasons."""

import argparse
import copy
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from camcli.errors import RequestError

# Where training scripts put the weights inside what they save. Averaged weights come first, as in timm: they are the
# ones such scripts evaluate.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
LISTED = 8  # names shown in a message; a longer list hides the point

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        path: the file.
        state: parameter and buffer names to tensors, on the CPU, freed from the usual wrappers.
        notes: what was chosen among several things in the file.
    """

    path: Path
    state: State
    notes: tuple[str, ...] = ()


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


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


# Reading


def read(path: str | Path) -> Checkpoint:
    """Read a state dict from a safetensors file or from what ``torch.save`` wrote, without running code in it.

    Raises:
        RequestError: there is no such file, it is damaged, it is something else, or it could only be read by running
            code that it names.
    """
    path = Path(path)
    notes: list[str] = []
    content = _unwrapped(_content(path), notes)
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise RequestError(
            f"the weights file {str(path)!r} holds no state dict",
            f"it holds: {listed(map(str, content))}" if content else "it is empty",
        )
    return Checkpoint(path, state, tuple(notes))


def _content(path: Path) -> Mapping[Any, Any]:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise RequestError(f"the weights file {str(path)!r} cannot be read: {error.strerror}") from error
    # What a file is, is told by how it begins: people rename them. A safetensors file has 8 bytes of length, then JSON.
    content = _safetensors(path) if start[8:] == b"{" and not start.startswith(b"PK") else _pickled(path)
    if not isinstance(content, Mapping):
        raise RequestError(
            f"the weights file {str(path)!r} holds a {type(content).__name__}, not a state dict",
            "save model.state_dict()",
        )
    return content


def _safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _pickled(path: Path) -> Any:
    try:
        # Training scripts, timm's among them, save their arguments beside the weights; a Namespace runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except Exception as error:  # a file of another kind fails in as many ways as there are kinds
        raise _damaged(path, error) from error


def _refused(path: Path, error: Exception) -> RequestError:
    code = _code_named(path, error)
    if not code:
        return _damaged(path, error)
    return RequestError(
        f"the weights file {str(path)!r} is refused: to read it, code that it names would have to run ({listed(code)})",
        "if you trust the file, turn it into one that holds weights only, in Python:\n"
        "  import torch, safetensors.torch\n"
        f"  content = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
        "  state = content.state_dict()  # a whole model; for a checkpoint: content['state_dict'] or alike\n"
        "  safetensors.torch.save_file({k: v.contiguous().clone() for k, v in state.items()}, 'weights.safetensors')",
    )


def _code_named(path: Path, error: Exception) -> list[str]:
    """The functions and classes that unpickling would call; none if it failed for another reason."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # files of the format before PyTorch 1.6 cannot be asked
        return re.findall(r"Unsupported (?:global: GLOBAL|operand|class) (\S+)", str(error))


def _damaged(path: Path, error: Exception) -> RequestError:
    reason = (str(error).splitlines() or [""])[0].split(". ")[0] or type(error).__name__
    return RequestError(
        f"the weights file {str(path)!r} is damaged, or neither safetensors nor written by torch.save",
        f"reading it ended with: {type(error).__name__}: {reason}",
    )


def _unwrapped(content: Mapping[Any, Any], notes: list[str]) -> Mapping[Any, Any]:
    for name in WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and _holds_tensors(inner):
            if name in AVERAGED:
                notes.append(f"averaged (EMA) weights {name!r} were taken")
            return _unwrapped(inner, notes)
    return content


def _holds_tensors(content: Mapping[Any, Any]) -> bool:
    return any(
        isinstance(value, Tensor) or (isinstance(value, Mapping) and _holds_tensors(value))
        for value in content.values()
    )


# Fitting


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
    state, notes = _addressed(checkpoint, module)
    load = partial(_loaded, build, module, beheaded=beheaded)
    fitted, mismatch = load(state)
    if mismatch and convert is not None:
        fitted, remains = load(_converted(convert, state, module))
        notes += ("the weights' names were converted from another layout of this model",)
        mismatch = remains and mismatch
    if mismatch:
        raise RequestError(
            f"the weights in {str(checkpoint.path)!r} do not fit {name}: {mismatch.summary}",
            f"{mismatch.details}\nare they of another architecture? --model names it",
        )
    if fitted is not module and beheaded is None:
        notes += ("the head was built with the number of classes in the weights file",)
    return fitted, checkpoint.notes + notes


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
        if name in own and value.shape != own[name].shape
    }
    # Which names are missing is left to the modules: some accept the names of their own older versions.
    result = module.load_state_dict({name: state[name] for name in state if name not in shapes}, strict=False)
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


def _addressed(checkpoint: Checkpoint, module: nn.Module) -> tuple[State, tuple[str, ...]]:
    """The state with the prefix off that stands before the model's names, and what was left out for it."""
    prefix = _prefix(checkpoint, set(module.state_dict()))
    state = {name.removeprefix(prefix): value for name, value in checkpoint.state.items() if name.startswith(prefix)}
    outside = [name for name in checkpoint.state if not name.startswith(prefix)]
    return state, (f"only what the file has under {prefix!r} was taken, not {listed(outside)}",) if outside else ()


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
            "save the one you mean to a file of its own",
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
