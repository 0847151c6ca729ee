"""The layer that is explained when none is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.layers.nan import depends
from camcli.engine.layers.probe import Layer
from camcli.engine.layers.ranking import normalises, ranked
from camcli.engine.layers.refusals import no_grad_fn, no_graph, no_layer
from camcli.targets.readers.spec import PLAIN
from camcli.targets.target import Reading


def found_default(
    module: nn.Module,
    layers: Sequence[Layer],
    image: Float[Tensor, "n d h w"],
    read: Callable[[Any, int], Reading] = PLAIN.read,
    graph: bool = True,
    failed: Sequence[str] = (),
) -> str:
    """The layer that is explained when none is named: the first of :func:`ranked` that the score depends on.

    It is tried where the gradient does not tell: it vanishes on noise, or nobody asks for it.

    Args:
        module: the network.
        layers: as :func:`camcli.engine.layers.probe.survey` found them.
        image: noise.
        read: as there.
        graph: whether the layer must be one that the gradient reaches.
        failed: layers that will not do.

    Raises:
        RequestError: there is none.
    """
    if graph and no_graph(layers):
        raise no_grad_fn()
    known = {layer.name: layer for layer in layers}
    cut = False
    for name in ranked(module, layers, graph):
        layer = known[name]
        if name in failed or (cut and not normalises(layer)):
            continue
        if layer.reached or depends(module, layer, image, read):
            return name
        # Behind the last attention the patches speak to nobody: then, as ever, its input.
        cut |= bool(layer.layout and layer.layout.prefix)
    if graph:
        raise no_layer(module, layers)
    raise RequestError(
        f"no layer of this network ({type(module).__name__}) has a spatial grid that the score depends on",
        "use a method that works at the input and needs no gradient: --method rise",
    )
