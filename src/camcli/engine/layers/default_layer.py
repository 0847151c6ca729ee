"""Choice of the layer to explain when none is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.layers.nan import score_depends_on
from camcli.engine.layers.probe import LayerInfo
from camcli.engine.layers.ranking import is_token_norm, rank_layers
from camcli.engine.layers.refusals import lacks_graph, no_grad_fn_error, no_layer_error
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC
from camcli.targets.target import Predictions


def find_default_layer(
    module: nn.Module,
    layers: Sequence[LayerInfo],
    image: Float[Tensor, "n d h w"],
    read: Callable[[Any, int], Predictions] = DEFAULT_OUTPUT_SPEC.read,
    needs_graph: bool = True,
    excluded: Sequence[str] = (),
) -> str:
    """Find the default layer: the first of :func:`~camcli.engine.layers.ranking.rank_layers` that the score depends on.

    Where no gradient shows that (it vanishes on noise, or is not needed), the layer's cells are set to NaN to find out.

    Args:
        module: the network.
        layers: as :func:`camcli.engine.layers.probe.probe_layers` found them.
        image: noise.
        read: from the module's output for a number of images to predictions.
        needs_graph: whether the gradient must reach the layer.
        excluded: layers that cannot be used.

    Raises:
        RequestError: there is no such layer.
    """
    if needs_graph and lacks_graph(layers):
        raise no_grad_fn_error()
    known = {layer.name: layer for layer in layers}
    cut, ranked = False, rank_layers(module, layers, needs_graph)
    has_norms = any(is_token_norm(known[name]) for name in ranked)
    for name in ranked:
        layer = known[name]
        if name in excluded or (cut and has_norms and not is_token_norm(layer)):
            continue
        if layer.reached or score_depends_on(module, layer, image, read):
            return name
        # Behind the last attention the patches have no effect: then the input of that attention is taken, or what it
        # is computed from, where the normalisation is no layer.
        cut |= bool(layer.layout and layer.layout.prefix)
    if needs_graph:
        raise no_layer_error(module, layers)
    raise RequestError(
        f"no layer of this network ({type(module).__name__}) has a spatial grid that the score depends on",
        "use a method that works at the input and needs no gradient: --method rise",
    )
