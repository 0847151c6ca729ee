"""The part of a network that no gradient passes, compiled; the rest runs as it is."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camcli.engine.devices import home
from camcli.engine.hooks.replay import recorded
from camcli.methods.rounding import coarse

# Parts that hold less of the weights than this are left as they are: each costs seconds to compile.
WORTH = 0.02
# How often each way is timed; the quickest counts.
ROUNDS = 3
# Of what the network says, how far it may move: in units of its own rounding, or of its weights', if that is more.
SAME, ROUNDED = 256, 8


@dataclass(frozen=True, slots=True)
class Compilation:
    """What came of it.

    Attributes:
        parts: the names of the modules that run compiled; empty if none does.
        seconds: what it took.
        before: seconds for a forward of the batch as the network was.
        after: likewise with its parts compiled.
        reason: why none is.
    """

    parts: tuple[str, ...] = ()
    seconds: float = 0.0
    before: float = 0.0
    after: float = 0.0
    reason: str = ""

    @property
    def pays_after(self) -> float:
        """After how many batches it has cost nothing."""
        return self.seconds / (self.before - self.after) if self.parts else float("inf")


def compiled(model: nn.Module, layer: str, turn: int, run: Callable[[], Tensor], least: float = 0.0) -> Compilation:
    """Compile the largest modules that end before a layer begins, and the layer; kept where that is faster.

    Their weights become constants. What comes in another shape, or needs a gradient, goes through their own code.

    Args:
        model: in evaluation mode.
        layer: the first in running order of those that are looked at.
        turn: which of its runs counts.
        run: one forward of a batch as large as all will be, which gives the scores.
        least: seconds that it must take, or nothing is compiled.
    """
    first = model.get_submodule(layer)
    with torch.no_grad(), recorded(model, first, turn, 1) as recording:
        run()
    names = {module: name for name, module in model.named_modules()}
    modules = dict.fromkeys([module for module, _ in recording.before] + [first])
    weights = {module: sum(one.numel() for one in module.parameters()) for module in modules}
    parts = [_Part(one) for one in modules if weights[one] > WORTH * sum(weights.values())]
    if not parts:
        return Compilation(reason="no part before the layer is large enough")
    said, before = _timed(run)
    if before < least:
        return Compilation(reason=f"a batch takes {1000 * before:.0f} ms, and is worth it from {1000 * least:.0f} on")
    began = time.perf_counter()
    try:
        for part in parts:
            part.install()
        with _quiet(), torch._inductor.config.patch(freezing=True):
            run().cpu()
        seconds = time.perf_counter() - began
        again, after = _timed(run)
    except Exception as error:  # a compiler that is missing, and whatever a compiler cannot do
        return _taken_back(parts, (str(error).strip() or type(error).__name__).splitlines()[0])
    dtypes = [one.dtype for one in model.parameters() if one.is_floating_point()]
    roundings = [
        SAME * torch.finfo(said.dtype).eps,
        ROUNDED * coarse(home(model)),
        *(ROUNDED * torch.finfo(dtype).eps for dtype in dtypes),
    ]
    allowed = max(roundings) * said.abs().max()
    if not bool((said - again).abs().max() <= allowed):
        return _taken_back(parts, "compiled, the network gives another output")
    if after >= before:
        return _taken_back(
            parts, f"compiled it is no faster ({1000 * after:.0f} ms a batch, {1000 * before:.0f} before)"
        )
    return Compilation(tuple(names[part.module] for part in parts), seconds, before, after)


class _Part:
    """A module's forward, compiled for the shapes that it is first given."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self._own, self._before = module, module.forward, vars(module).get("forward")
        self._compiled = torch.compile(module.forward, dynamic=False)
        self._shapes: tuple[Any, ...] = ()

    def install(self) -> None:
        vars(self.module)["forward"] = self

    def remove(self) -> None:
        if self._before is None:
            del vars(self.module)["forward"]
        else:
            vars(self.module)["forward"] = self._before

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        tensors = [one for one in (*inputs, *named.values()) if isinstance(one, Tensor)]
        shapes = tuple((one.shape, one.stride(), one.dtype) for one in tensors)
        self._shapes = self._shapes or shapes
        if shapes != self._shapes or any(one.requires_grad for one in tensors):
            return self._own(*inputs, **named)
        with torch.inference_mode(False), torch.no_grad():
            return self._compiled(*inputs, **named)


def _taken_back(parts: Sequence[_Part], reason: str) -> Compilation:
    for part in parts:
        part.remove()
    return Compilation(reason=reason)


def _timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What a run gives, and the seconds of the quickest of several."""
    seconds = []
    with torch.no_grad():
        for _ in range(ROUNDS):
            began = time.perf_counter()
            said = run().cpu()  # a GPU has then done what it was asked
            seconds.append(time.perf_counter() - began)
    return said, min(seconds)


@contextmanager
def _quiet() -> Iterator[None]:
    """Compilers talk to their authors; what fails is told as such."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
