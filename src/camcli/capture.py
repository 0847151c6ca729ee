"""Hooks: what a layer said; the model is left exactly as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._script import RecursiveScriptModule

from camcli.errors import RequestError
from camcli.nested import tensors


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, its parameters outside the graph; flags as they were afterwards."""
    # What torch.jit.freeze gives has no such flag.
    training = [module for module in model.modules() if getattr(module, "training", False)]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module in training:
            module.training = False
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in learning:
            parameter.requires_grad_(True)


def quantised(model: nn.Module) -> list[str]:
    """The names of the modules that compute in whole numbers, by PyTorch's own kinds of them."""
    return [name for name, part in model.named_modules() if ".quantized." in f"{type(part).__module__}."]


class Snapshot:
    """What modules are: their attributes, parameters, buffers and children, each by reference.

    Hooks are not among it, since they come and go with those who want to know something.

    Args:
        module: of it and all within.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parts = [
            (part, dict(vars(part)), {name: dict(held) for name, held in vars(part).items() if _holds(name, held)})
            for part in module.modules()
        ]

    def put_back(self) -> None:
        """Make the modules what they were; the values of tensors are as they are."""
        for part, attributes, dictionaries in self._parts:
            vars(part).clear()
            vars(part).update(attributes)
            for name, held in dictionaries.items():
                attributes[name].clear()
                attributes[name].update(held)

    @contextmanager
    def again(self) -> Iterator[None]:
        """While it lasts, the modules are what they were when this was taken."""
        with as_before(self._module):
            self.put_back()
            yield


def _holds(name: str, held: object) -> bool:
    return isinstance(held, dict) and "hooks" not in name


@contextmanager
def as_before(module: nn.Module) -> Iterator[None]:
    """While it lasts, anything but the values of its tensors may be changed; afterwards it is what it was."""
    before = Snapshot(module)
    try:
        yield
    finally:
        before.put_back()


def tensor_at(output: object, place: int = 0) -> Tensor | None:
    """The tensor that a module's output is, or the one at this place in it, counted from 0 (a tuple, list or dict)."""
    return next(islice(tensors(output), place, None), None)


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a module's output is, or the first one in it (a tuple, list or dict)."""
    return tensor_at(output)


def count_tensors(output: object) -> int:
    """How many tensors a module's output holds."""
    return sum(1 for _ in tensors(output))


def tensors_by_name(output: object) -> dict[str, Tensor]:
    """The tensors that a module's output holds side by side, by their keys, or their places from 0 on."""
    if isinstance(output, Mapping):
        parts = list(output.items())
    else:
        parts = list(enumerate(output)) if isinstance(output, list | tuple) else []
    return {str(name): tensor for name, tensor in parts if isinstance(tensor, Tensor)}


def at_layer(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a layer's name stands for, and which of the tensors that it gives.

    ``backbone:p3`` is the tensor ``p3`` among those of ``backbone``; other names say nothing of that: the first.
    """
    try:
        return model.get_submodule(name), ""
    except AttributeError:
        place, colon, part = name.rpartition(":")
        if not colon:
            raise
        return model.get_submodule(place), part


class Taps(dict[str, Tensor]):
    """The outputs of layers, by their names.

    Attributes:
        calls: how often each layer has run.
        parts: how many tensors each one's output holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.parts: dict[str, int] = {}


def replaced(output: object, old: Tensor, new: Tensor) -> object:
    """``output`` with ``new`` where ``old`` stood."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        return type(output)({key: replaced(part, old, new) for key, part in output.items()})  # type: ignore[call-arg]
    if isinstance(output, list | tuple):
        parts: list[Any] = [replaced(part, old, new) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def _no_numbers(name: str, layer: nn.Module, output: object) -> RequestError:
    return RequestError(
        f"the layer {name!r} ({type(layer).__name__}) gives {type(output).__name__}, not a tensor of numbers",
        "choose another layer; `camcli layers MODEL` lists them",
    )


def _no_part(name: str, part: str, output: object) -> RequestError:
    there = ", ".join(tensors_by_name(output)) or "none by name"
    return RequestError(
        f"the layer {name!r} names the tensor {part!r} of what its module gives, and there is none of that name",
        f"there are: {there}",
    )


@contextmanager
def tapped(
    layers: Mapping[str, nn.Module],
    call: int = 0,
    places: Mapping[str, int] = MappingProxyType({}),
    parts: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Taps]:
    """While it lasts, each forward leaves every layer's output in the dictionary, as a point of the graph.

    The graph starts at the earliest layer: nothing before it is kept for the backward. What the layer hands on is a
    clone, so that an in-place operation behind it cannot change what it said.

    Of a module's several tensors that are tapped by name each is a point to itself: the gradient by one holds nothing
    of the way through another that was made of it within the module.

    Args:
        layers: by name.
        call: which of its runs counts where a layer runs several times in one forward, from 1 on; 0 for the last.
        places: of a layer that gives several tensors, which of them is kept, from 0 on; the first where none is named.
        parts: by a layer's name which of its module's tensors it is, where it is not the first.

    Yields:
        The outputs by layer name, filled by the forward. With ``torch.autograd.grad(score, outputs)`` their
        gradients follow.
    """
    taps = Taps()

    def tap(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
            taps.calls[name] += 1
            if call not in (0, taps.calls[name]):
                return output
            part = parts.get(name, "")
            tensor = tensors_by_name(output).get(part) if part else tensor_at(output, places.get(name, 0))
            taps.parts[name] = 1 if part else count_tensors(output)
            if part and tensor is None:
                raise _no_part(name, part, output)
            if tensor is None or not tensor.is_floating_point():
                raise _no_numbers(name, module, output)
            taps[name] = point_of(tensor, alone=taps.parts[name] == 1 and not part)
            return replaced(output, tensor, taps[name].clone())

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(tap(name)).remove)
        yield taps


def point_of(tensor: Tensor, alone: bool = True) -> Tensor:
    """Where the gradient by what a layer hands on can be taken: a leaf where there is no graph yet.

    Args:
        tensor: what it says.
        alone: whether it is all that it says. Else others may be made of it, on a way around what is handed on.
    """
    if not tensor.requires_grad:
        # What torch.inference_mode gives takes no gradient outside of it; its copy does.
        return (tensor.clone() if tensor.is_inference() else tensor).detach().requires_grad_()
    return tensor if alone else tensor.clone()


class _Enough(BaseException):
    """Ends a forward whose rest nobody needs; no ``except Exception`` of a model's own stops it."""


def output_of(model: nn.Module, name: str, images: Tensor, turn: int = 0, place: int = 0) -> Tensor:
    """What a layer gives for a batch, without a graph; what lies behind it is not computed.

    Args:
        model: takes the images.
        name: of the layer.
        images: the batch, where the model is and in its precision.
        turn: which of the layer's runs counts, from 1 on, and the forward ends there; 0 for the last of a whole one.
        place: which of the tensors that it gives, from 0 on.

    Raises:
        RequestError: there is no such run, or it gives no tensor of numbers.
    """
    layer = model.get_submodule(name)
    found: list[Tensor] = []
    runs = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal runs
        runs += 1
        if turn not in (0, runs):
            return
        tensor = tensor_at(output, place)
        if tensor is None or not tensor.is_floating_point():
            raise _no_numbers(name, layer, output)
        if turn:
            found[:] = [tensor]
            raise _Enough
        # A copy, since what lies behind may change it in place.
        found[:] = [tensor.clone()]

    handle = layer.register_forward_hook(hook)
    try:
        with torch.inference_mode(), frozen(model):
            model(images)
    except _Enough:
        pass
    finally:
        handle.remove()
    if not found:
        raise RequestError(
            f"the layer {name!r} {f'has no run {turn}' if runs else 'does not run'} on these pictures",
            "choose another layer; `camcli layers MODEL` lists them",
        )
    return found[0]


def run_until(modules: Iterable[nn.Module], run: Callable[[], Any]) -> None:
    """Run a forward, which ends as soon as all of these modules have run."""
    left = set(modules)

    def hook(module: nn.Module, _inputs: Any, _output: Any) -> None:
        left.discard(module)
        if not left:
            raise _Enough

    with ExitStack() as hooks:
        for module in set(left):
            hooks.callback(module.register_forward_hook(hook).remove)
        with suppress(_Enough):
            run()


@contextmanager
def lent(module: nn.Module, name: str, buffer: Tensor) -> Iterator[None]:
    """While it lasts, a buffer of a module is another tensor."""
    own = module._buffers[name]
    module._buffers[name] = buffer
    try:
        yield
    finally:
        module._buffers[name] = own


def handed(module: nn.Module, run: Callable[[], Any]) -> Tensor:
    """The first tensor that a module is handed in a run, which ends there."""
    found: list[Tensor] = []

    def hook(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensor = first_tensor([*inputs, *named.values()])
        if tensor is not None:
            found.append(tensor)
        raise _Enough

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        run()
    except _Enough:
        pass
    finally:
        handle.remove()
    [tensor] = found
    return tensor


@contextmanager
def listened(model: nn.Module, hear: Callable[[str, Any], Any]) -> Iterator[None]:
    """While it lasts, every module's output is told to ``hear(name, output)``, in the order of their ends.

    What that gives, if it is not None, is handed on in the output's place. What is closed (see :func:`closed_parts`)
    is not listened to.
    """
    closed = closed_parts(model)
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if any(one.hides(name) for one in closed):
                continue

            def hook(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> Any:
                return hear(name, output)

            hooks.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def at_work(model: nn.Module) -> Iterator[list[nn.Module]]:
    """While it lasts, the list holds the modules that are running, the outermost first."""
    running: list[nn.Module] = []

    def begin(module: nn.Module, _inputs: Any) -> None:
        running.append(module)

    def end(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        running.pop()

    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_pre_hook(begin).remove)
            hooks.callback(module.register_forward_hook(end).remove)
        yield running


@dataclass(frozen=True, slots=True)
class Closed:
    """A module that does not run as Python, so that neither hooks nor function modes are sure to see what it does.

    Attributes:
        name: its full name; empty for the model itself.
        how: what made it so: ``torch.compile`` or ``torch.jit``.
        itself: whether the module itself cannot be hooked either.
    """

    name: str
    how: str
    itself: bool

    def hides(self, name: str) -> bool:
        """Whether a module of this name cannot be hooked, because of this one."""
        return self.itself if name == self.name else not self.name or name.startswith(f"{self.name}.")

    @property
    def words(self) -> str:
        """It, in words for people."""
        done = "compiled by torch.compile" if self.how == "torch.compile" else "scripted or traced by torch.jit"
        return f"{f'the module {self.name!r}' if self.name else 'the model'} is {done}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.how == "torch.compile":
            return "explain the model before torch.compile, which has the same weights (compiled._orig_mod)"
        return "explain the model as Python code, with the same weights"


def closed_parts(model: nn.Module) -> list[Closed]:
    """The compiled, scripted and traced modules of a model, without those inside others.

    Hooks inside compiled code run or not as its cache has it, those inside scripted code never. A compiled module by
    itself (``torch.compile(part)``) and a traced one are called from Python and can be hooked as wholes; a scripted one
    cannot, and of one compiled in place (``part.compile()``) the hooks are compiled with it.
    """
    found: list[Closed] = []
    for name, module in model.named_modules():
        if any(not one.name or name.startswith(f"{one.name}.") for one in found):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            found.append(Closed(name, "torch.jit", isinstance(module, RecursiveScriptModule)))
        elif "_orig_mod" in module._modules or _is_compiled(module.forward):
            found.append(Closed(name, "torch.compile", False))
        elif module._compiled_call_impl is not None:
            found.append(Closed(name, "torch.compile", True))
    return found


def _is_compiled(function: Callable[..., Any]) -> bool:
    # What torch.compiler.disable returns bears the first mark too.
    return hasattr(function, "_torchdynamo_orig_callable") and not hasattr(function, "_torchdynamo_disable")
