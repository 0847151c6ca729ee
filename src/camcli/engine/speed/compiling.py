"""Compilation of the part of a network that no gradient passes."""

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

from camcli.engine.devices import device_of
from camcli.engine.hooks.patch import replace_forward
from camcli.engine.hooks.replay import record
from camcli.methods.rounding import reduced_precision_eps

# Parts with a smaller share of the weights are not compiled, since each takes seconds to compile.
MIN_WEIGHT_SHARE = 0.02
# The number of timed runs, of which the fastest counts.
ROUNDS = 3
# The tolerance of the output, in units of its own rounding, or of the weights', whichever is larger.
OUTPUT_TOLERANCE_EPS, WEIGHT_TOLERANCE_EPS = 256, 8


@dataclass(frozen=True, slots=True)
class CompileReport:
    """Result of a compilation.

    Attributes:
        parts: the names of the compiled modules; empty if there are none.
        compile_seconds: the duration of the compilation.
        seconds_before: the duration of a batch's forward without compiled modules.
        seconds_after: the duration of a batch's forward with them.
        reason: why no module is compiled.
    """

    parts: tuple[str, ...] = ()
    compile_seconds: float = 0.0
    seconds_before: float = 0.0
    seconds_after: float = 0.0
    reason: str = ""

    @property
    def break_even_batches(self) -> float:
        """The number of batches after which the compilation has saved the time it took."""
        return self.compile_seconds / (self.seconds_before - self.seconds_after) if self.parts else float("inf")


def compile_modules(
    model: nn.Module, layer: str, call: int, run: Callable[[], Tensor], min_seconds: float = 0.0
) -> CompileReport:
    """Compile the largest modules that end before a layer begins, and the layer; undone where that is not faster.

    Their weights become constants. Inputs of another shape, or that need a gradient, run through the original code.

    Args:
        model: the network, in evaluation mode.
        layer: the first explained layer in running order.
        call: which of the layer's runs counts, from 1 on.
        run: one forward of a batch of the usual size, which returns the scores.
        min_seconds: nothing is compiled if a batch takes less.
    """
    first = model.get_submodule(layer)
    with torch.no_grad(), record(model, first, call, 1) as recording:
        run()
    names = {module: name for name, module in model.named_modules()}
    modules = dict.fromkeys([module for module, _ in recording.earlier_calls] + [first])
    weights = {module: sum(one.numel() for one in module.parameters()) for module in modules}
    parts = [_CompiledModule(one) for one in modules if weights[one] > MIN_WEIGHT_SHARE * sum(weights.values())]
    if not parts:
        return CompileReport(reason="no part before the layer is large enough")
    output, before = time_run(run)
    if before < min_seconds:
        return CompileReport(
            reason=f"a batch takes {1000 * before:.0f} ms, and compiling pays from {1000 * min_seconds:.0f} ms on"
        )
    began = time.perf_counter()
    try:
        for part in parts:
            part.install()
        with _quiet(), torch._inductor.config.patch(freezing=True):
            run().cpu()
        seconds = time.perf_counter() - began
        compiled_output, after = time_run(run)
    except Exception as error:  # a missing compiler, and any failure of it
        return _undo(parts, (str(error).strip() or type(error).__name__).splitlines()[0])
    dtypes = [one.dtype for one in model.parameters() if one.is_floating_point()]
    roundings = [
        OUTPUT_TOLERANCE_EPS * torch.finfo(output.dtype).eps,
        WEIGHT_TOLERANCE_EPS * reduced_precision_eps(device_of(model)),
        *(WEIGHT_TOLERANCE_EPS * torch.finfo(dtype).eps for dtype in dtypes),
    ]
    allowed = max(roundings) * output.abs().max()
    if not bool((output - compiled_output).abs().max() <= allowed):
        return _undo(parts, "the compiled network gives a different output")
    if after >= before:
        return _undo(
            parts, f"the compiled network is not faster ({1000 * after:.0f} ms a batch, {1000 * before:.0f} before)"
        )
    return CompileReport(tuple(names[part.module] for part in parts), seconds, before, after)


class _CompiledModule:
    """A module's forward, compiled for the shapes of its first inputs."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self._original_forward = module, module.forward
        self._compiled = torch.compile(module.forward, dynamic=False)
        self._shapes: tuple[Any, ...] = ()

    def install(self) -> None:
        self.remove = replace_forward(self.module, self)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        tensors = [one for one in (*inputs, *named.values()) if isinstance(one, Tensor)]
        shapes = tuple((one.shape, one.stride(), one.dtype) for one in tensors)
        self._shapes = self._shapes or shapes
        if shapes != self._shapes or any(one.requires_grad for one in tensors):
            return self._original_forward(*inputs, **named)
        with torch.inference_mode(False), torch.no_grad():
            return self._compiled(*inputs, **named)


def _undo(parts: Sequence[_CompiledModule], reason: str) -> CompileReport:
    for part in parts:
        part.remove()
    return CompileReport(reason=reason)


def time_run(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Return a run's output, and the seconds of the fastest of several runs."""
    seconds = []
    with torch.no_grad():
        for _ in range(ROUNDS):
            began = time.perf_counter()
            output = run().cpu()  # waits for the GPU
            seconds.append(time.perf_counter() - began)
    return output, min(seconds)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the compiler's logs and warnings; its failures are reported as such."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
