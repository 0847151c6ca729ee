"""Attention whose output is replaced by a rule, or computed so that its gradient is differentiable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.attention_weights import MULTI_HEAD_SIGNATURE, expand_heads, project

# From V ``(n, heads, keys, d)`` to the replacement of O = A V, ``(n, heads, queries, d)``.
AttentionRule = Callable[[Tensor], Tensor]


class AttentionOverride(AttentionCapture):
    """Mode that replaces the output O = A V of every attention.

    Args:
        rule: computes the replacement from V; or the replacement itself.

    Attributes:
        count: the number of attentions so far.
    """

    def __init__(self, rule: AttentionRule | Tensor) -> None:
        super().__init__(0, with_values=False, graph_from=-1)
        self.count = 0
        self._rule = rule

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call, with the replaced output if it is attention."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._override_fused(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            given = MULTI_HEAD_SIGNATURE.bind(*args, **kwargs).arguments
            weights = func(*args, **kwargs)[1] if given.get("need_weights", True) else None
            output = self._override(project(given, "value")).to(given["query"].dtype)
            bias = given["out_proj_bias"]
            return F.linear(output.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], bias), weights
        return super().__torch_function__(func, types, args, kwargs)

    def _override_fused(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ARG002
        if query.ndim == 3:
            return self._override(value.unsqueeze(1)).squeeze(1).to(query.dtype)
        return self._override(expand_heads(value, query.shape[1])).to(query.dtype)

    def _handle_matmul(self, weights: Tensor, values: Tensor, result: Tensor, *query_and_key: Tensor) -> Tensor:  # noqa: ARG002
        if weights.ndim == 3:
            return self._override(values.unsqueeze(1)).squeeze(1).to(result.dtype)
        return self._override(expand_heads(values, weights.shape[1])).to(result.dtype)

    def _override(self, values: Float[Tensor, "n heads k d"]) -> Float[Tensor, "n heads q d"]:
        self.count += 1
        return self._rule if isinstance(self._rule, Tensor) else self._rule(values.detach())


class _SharedKernelSwitch:
    """A process-wide switch that several threads may need at once; the last thread to leave turns it back."""

    def __init__(self) -> None:
        self._lock, self._depth, self._exit_stack = Lock(), 0, ExitStack()

    @contextmanager
    def using_math_kernel(self) -> Iterator[None]:
        with self._lock:
            if not self._depth:
                self._exit_stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if not self._depth:
                    self._exit_stack.close()


# While this context is entered in any thread, fused attention runs by a kernel that is twice differentiable.
twice_differentiable = _SharedKernelSwitch().using_math_kernel
