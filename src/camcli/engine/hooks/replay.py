"""Running only what comes behind a layer: what ran before it answers from memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.engine.hooks.tensors import first_tensor, replaced, tensor_at

# What a module says instead of running; None: it runs.
Answer = Callable[[], Any] | None
Answers = dict[nn.Module, deque[Answer]]
# In the place of a recorded call: what the network was given.
IMAGES = -1


@dataclass(slots=True)
class Recording:
    """What a forward said up to a layer.

    The calls kept are the largest that ended before the layer began: the calls made directly by those modules that
    were still at work when the layer ran. Without them a module's own code runs again, but meets only answers.

    Attributes:
        images: how many the network was given.
        call: which of the layer's runs counts, from 1 on.
        before: those calls in their order, each a module and its output.
        output: the layer's own.
        part: which of the tensors in it is looked at, from 0 on.
        biggest: the values per image of the largest output before the layer, and behind it.
        versions: how often each output had been changed in place when it was kept.
    """

    images: int
    call: int = 1
    before: list[tuple[nn.Module, Any]] = field(default_factory=list)
    output: Any = None
    part: int = 0
    biggest: tuple[int, int] = (1, 1)
    versions: list[int] = field(default_factory=list)

    @property
    def tensor(self) -> Tensor:
        """The tensor that the layer gave."""
        found = tensor_at(self.output, self.part)
        assert found is not None
        return found

    def changed(self) -> frozenset[nn.Module]:
        """The modules whose output was changed in place after it was kept."""
        pairs = zip(self.before, self.versions, strict=True)
        return frozenset(module for (module, output), version in pairs if changes(output) != version)

    def of(self, rows: Sequence[int]) -> Recording:
        """The same of some of the images alone."""
        if list(rows) == list(range(self.images)):
            return self

        def some(tensor: Tensor) -> Tensor:
            if not tensor.ndim or len(tensor) % self.images:
                return tensor
            pieces = tensor.reshape(self.images, -1, *tensor.shape[1:])
            return pieces[list(rows)].flatten(0, 1)

        before = [(module, mapped(output, some)) for module, output in self.before]
        return replace(self, images=len(rows), before=before, output=mapped(self.output, some))


@dataclass(frozen=True, slots=True)
class Way:
    """How the part of a network behind a layer is run again.

    Attributes:
        owned: the modules whose output something changes in place, so that copies are kept and handed out.
        needed: which of the recorded calls the score depends on, by their place, and ``IMAGES`` if on the images; only
            these are repeated for every variant. None: on any.
        whole: nothing answers from memory; only the layer's own output is replaced.
    """

    owned: frozenset[nn.Module] = frozenset()
    needed: frozenset[int] | None = None
    whole: bool = False


@contextmanager
def recorded(
    model: nn.Module,
    layer: nn.Module,
    call: int,
    images: int,
    owned: frozenset[nn.Module] = frozenset(),
    part: int = 0,
) -> Iterator[Recording]:
    """While it lasts, a forward of the model leaves in the recording what is needed to run the rest behind the layer.

    Args:
        model: the network.
        layer: one of its modules.
        call: which of the layer's runs counts, from 1 on.
        images: how many the network is given.
        owned: modules whose output is kept as a copy, since something changes it in place.
        part: which of the tensors that the layer gives is looked at.
    """
    recording = Recording(images, call, part=part)
    frames: list[list[tuple[nn.Module, Any]]] = []
    runs = 0

    def begin(_module: nn.Module, _inputs: Any) -> None:
        if recording.output is None:
            frames.append([])

    def end(module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal runs
        before, behind = recording.biggest
        tensor = first_tensor(output)
        size = 0 if tensor is None else tensor.numel() // images
        if recording.output is not None:
            recording.biggest = before, max(behind, size)
            return
        recording.biggest = max(before, size), behind
        frames.pop()
        runs += module is layer
        if module is layer and runs == call:
            recording.before = [one for frame in frames for one in frame]
            recording.versions = [changes(one) for _, one in recording.before]
            recording.output = mapped(output, Tensor.detach)
            recording.biggest = max(before, size), size
        elif frames:
            frames[-1].append((module, mapped(output, _copy if module in owned else Tensor.detach)))

    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_pre_hook(begin).remove)
            hooks.callback(module.register_forward_hook(end).remove)
        yield recording


@contextmanager
def replayed(
    layer: nn.Module, recording: Recording, given: Tensor | None, way: Way, variants: int = 0
) -> Iterator[None]:
    """While it lasts, one forward runs only what comes behind the layer, which says ``given``.

    Every module of the recording answers with what it said, for each of the variants of each image: ``given`` has
    ``k`` for each image, those of the first image first. Modules are exactly as before afterwards.

    Args:
        layer: the layer.
        recording: of an ordinary forward.
        given: in place of what the layer said, ``(images * k, ...)``, as it lies in memory; None if it runs too.
        way: how.
        variants: ``k``, where nothing is given.
    """
    variants = variants if given is None else len(given) // recording.images

    def said(place: int, module: nn.Module, output: Any) -> Any:
        if way.needed is None or place in way.needed:
            output = expanded(output, recording.images, variants)
        return mapped(output, Tensor.clone) if module in way.owned else output

    answers: Answers = {}
    if way.whole:
        answers[layer] = deque([None] * (recording.call - 1))
    else:
        for place, (module, output) in enumerate(recording.before):
            answers.setdefault(module, deque()).append(partial(said, place, module, output))
    own = None if given is None else partial(_swapped, recording, given, variants)
    answers.setdefault(layer, deque()).append(own)
    with ExitStack() as patches:
        for module, queue in answers.items():
            patches.enter_context(_patched(module, queue))
        yield
    if answers[layer]:
        raise RuntimeError("the layer did not run again")


def needed(layer: nn.Module, recording: Recording, images: Tensor, run: Callable[[Tensor], Tensor]) -> frozenset[int]:
    """Which of the recorded calls the score depends on when only what comes behind the layer runs.

    Args:
        layer: the layer.
        recording: of an ordinary forward.
        images: what the network was given.
        run: the forward, from the images to a scalar.
    """
    leaves: dict[int, list[Tensor]] = {}
    answers: Answers = {}

    def leaf(place: int, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        leaves.setdefault(place, []).append(tensor.detach().clone().requires_grad_())
        return leaves[place][-1].clone()

    for place, (module, output) in enumerate(recording.before):
        answers.setdefault(module, deque()).append(partial(mapped, output, partial(leaf, place)))
    answers.setdefault(layer, deque()).append(lambda: mapped(recording.output, Tensor.clone))
    with ExitStack() as patches:
        for module, queue in answers.items():
            patches.enter_context(_patched(module, queue))
        score = run(leaf(IMAGES, images))
    points = [(place, one) for place, some in leaves.items() for one in some]
    if not points or not score.requires_grad:
        return frozenset()
    found = torch.autograd.grad(score, [one for _, one in points], allow_unused=True)
    return frozenset(place for (place, _), gradient in zip(points, found, strict=True) if gradient is not None)


@contextmanager
def _patched(module: nn.Module, queue: deque[Answer]) -> Iterator[None]:
    """While it lasts, the module's first calls are answered from the queue; its own code runs where it says None."""
    own, before = module.forward, vars(module).get("forward")

    def forward(*inputs: Any, **named: Any) -> Any:
        answer = queue.popleft() if queue else None
        return own(*inputs, **named) if answer is None else answer()

    vars(module)["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = before


def expanded(output: Any, images: int, variants: int) -> Any:
    """Every tensor of an output repeated for each variant of its image; a view where one image is one row."""

    def expand(tensor: Tensor) -> Tensor:
        if variants == 1 or not tensor.ndim or len(tensor) % images:
            return tensor
        pieces = tensor.reshape(images, 1, len(tensor) // images, *tensor.shape[1:])
        return pieces.expand(-1, variants, *pieces.shape[2:]).reshape(-1, *tensor.shape[1:])

    return mapped(output, expand)


def _swapped(recording: Recording, given: Tensor, variants: int) -> Any:
    """The layer's whole output with another tensor in the place of its own."""
    own = recording.tensor
    output = replaced(recording.output, own, given)
    if isinstance(output, Tensor):
        return output
    return mapped(output, lambda one: one if one is given else expanded(one, recording.images, variants))


def mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """An output with each of its tensors changed."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, Mapping):
        return type(output)({key: mapped(part, change) for key, part in output.items()})  # type: ignore[call-arg]
    if isinstance(output, list | tuple):
        parts: list[Any] = [mapped(part, change) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def changes(output: Any) -> int:
    """How often the tensors of an output were changed in place."""
    found: list[int] = []

    def add(tensor: Tensor) -> Tensor:
        # What torch.inference_mode gives counts no changes; whether it can be replayed is proven anyhow.
        found.append(0 if tensor.is_inference() else tensor._version)
        return tensor

    mapped(output, add)
    return sum(found)
