"""Attention computed otherwise than the model does: by a rule, or so that its gradient has a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from camcli.engine.hooks.attention import Attending
from camcli.engine.hooks.attention_weights import MULTI_HEAD, for_heads, projected

# From V ``(n, heads, keys, d)`` to what stands in the place of O = A V, ``(n, heads, queries, d)``.
Rule = Callable[[Tensor], Tensor]


class Ruled(Attending):
    """While it is entered, every attention is told by a rule what to say in the place of its own O = A V.

    Args:
        rule: makes it of V; or what is said, as it is.

    Attributes:
        met: how many attentions there were.
    """

    def __init__(self, rule: Rule | Tensor) -> None:
        super().__init__(0, values=False, graph_from=-1)
        self.met = 0
        self._rule = rule

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call, unless it is attention."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused_by_rule(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            given = MULTI_HEAD.bind(*args, **kwargs).arguments
            weights = func(*args, **kwargs)[1] if given.get("need_weights", True) else None
            told = self._told(projected(given, "value")).to(given["query"].dtype)
            bias = given["out_proj_bias"]
            return F.linear(told.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], bias), weights
        return super().__torch_function__(func, types, args, kwargs)

    def _fused_by_rule(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ARG002
        if query.ndim == 3:
            return self._told(value.unsqueeze(1)).squeeze(1).to(query.dtype)
        return self._told(for_heads(value, query.shape[1])).to(query.dtype)

    def _written_out(self, weights: Tensor, values: Tensor, result: Tensor, *looked: Tensor) -> Tensor:  # noqa: ARG002
        if weights.ndim == 3:
            return self._told(values.unsqueeze(1)).squeeze(1).to(result.dtype)
        return self._told(for_heads(values, weights.shape[1])).to(result.dtype)

    def _told(self, values: Float[Tensor, "n heads k d"]) -> Float[Tensor, "n heads q d"]:
        self.met += 1
        return self._rule if isinstance(self._rule, Tensor) else self._rule(values.detach())


class _ForAll:
    """Turns a switch of the whole process that several threads may need at once: the last to leave turns it back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._switched = Lock(), 0, ExitStack()

    @contextmanager
    def math(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._switched.enter_context(sdpa_kernel(SDPBackend.MATH))
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._switched.close()


# While it lasts, in any thread, fused attention is computed so that its gradient has a gradient too.
twice_differentiable = _ForAll().math
