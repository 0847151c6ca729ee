"""ONNX graphs cut where one tensor holds all that is still needed: the parts of a network before and after a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

# Operators that change a tensor's cells one by one: a layer is named after the last of them.
CELLWISE = frozenset(
    {"Add", "BatchNormalization", "Cast", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf", "Gelu", "HardSigmoid"}
    | {"HardSwish", "Identity", "LeakyRelu", "Mish", "Mul", "PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Softplus"}
    | {"Softsign", "Sub", "Swish", "Tanh", "ThresholdedRelu"}
)
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
SIZES_OF = frozenset({"Shape", "Size"})
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
# Suffix of the tensor that a quantised layer is read from.
READ = "/camcli_dequantized"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a graph.

    Attributes:
        begin: the tensor that it takes.
        ends: the tensors that it gives.
        sizes: tensors of sizes that it needs and cannot compute, by which the graph reshapes.
        model: the part as a model of its own.
    """

    begin: str
    ends: tuple[str, ...]
    sizes: tuple[str, ...]
    model: ModelProto


@dataclass
class Graph:
    """A graph of one image tensor, its nodes told apart by what they compute.

    Attributes:
        model: the model.
        image: the name of its input.
        nodes: its nodes, in the order in which they run.
        constants: tensors that no input changes.
        sizes: tensors that depend on the image's size alone, such as shapes.
        data: indices of the nodes that compute something of the image that an output needs.
    """

    model: ModelProto
    image: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    sizes: set[str] = field(default_factory=set)
    data: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = list(self.model.graph.node)
        self._initializers = {one.name: one for one in self.model.graph.initializer}
        self._sparse = {one.values.name: one for one in self.model.graph.sparse_initializer}
        self.constants = {*self._initializers, *self._sparse}
        of_image = []
        for at, node in enumerate(self.nodes):
            read = set(_list_inputs(node))
            if read <= self.constants:
                self.constants |= set(node.output)
            elif node.op_type in SIZES_OF or read <= self.constants | self.sizes:
                self.sizes |= set(node.output)
            else:
                of_image.append(at)
        self._producers = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        needed = {one.name for one in self.model.graph.output}
        for at in reversed(of_image):
            if needed & set(self.nodes[at].output):
                self.data.insert(0, at)
                needed |= set(_list_inputs(self.nodes[at]))

    def find_cuts(self) -> list[str]:
        """Find the tensors that everything behind them is computed from, in the order in which they are computed.

        Of several in a row that differ by operations on single cells the last is kept. Of a quantised tensor it is the
        one in front of the quantisation.
        """
        last = {name: at for at in self.data for name in _list_inputs(self.nodes[at])}
        last |= {one.name: len(self.nodes) for one in self.model.graph.output}
        live, found = {self.image}, []
        for at in self.data:
            live |= {name for name in self.nodes[at].output if name}
            live = {name for name in live if last.get(name, -1) > at}
            if len(live) == 1 and live <= set(self.nodes[at].output):
                found.append((at, next(iter(live))))
        ends = [*(at for at, _ in found[1:]), len(self.nodes)]
        kinds = [
            {self.nodes[at].op_type for at in self.data if begin < at <= end}
            for (begin, _), end in zip(found, ends, strict=True)
        ]
        cuts = [
            name
            for (at, name), kind in zip(found, kinds, strict=True)
            if kind - CELLWISE and not self._is_quantized(at)
        ]
        return cuts[:-1] if cuts and cuts[-1] in {one.name for one in self.model.graph.output} else cuts

    def _is_quantized(self, at: int) -> bool:
        return self.nodes[at].op_type in (QUANTIZE, DEQUANTIZE)

    def quantizes(self, name: str) -> NodeProto | None:
        """Return the node that quantises a tensor, if nothing else reads it."""
        readers = [self.nodes[at] for at in self.data if name in _list_inputs(self.nodes[at])]
        return readers[0] if [one.op_type for one in readers] == [QUANTIZE] else None

    def list_reads(self, cuts: Iterable[str]) -> list[str]:
        """List the tensors that layers are read from: those of the cuts, of a quantised one what is left of it."""
        return [f"{name}{READ}" if self.quantizes(name) else name for name in cuts]

    def cut(self, cuts: Sequence[str], types: Mapping[str, int]) -> list[Part]:
        """Cut the graph at these tensors.

        Args:
            cuts: some of :meth:`find_cuts`.
            types: types of the elements of all tensors that parts take or give, by their names.
        """
        places = [self._producers[name] for name in cuts]
        outputs = tuple(one.name for one in self.model.graph.output)
        parts = []
        for begin, end, first, last in zip(
            (self.image, *cuts), (*cuts, ""), (-1, *places), (*places, len(self.nodes)), strict=True
        ):
            inside = {at for at in self.data if first < at <= last}
            extra = self._read_quantized(end) if end else []
            ends = (self.list_reads([end])[0],) if end else outputs
            parts.append(self._build(begin, ends, inside, extra, types))
        return parts

    def read_along(self, names: Sequence[str], cuts: Sequence[str]) -> bytes:
        """Return the whole model, serialised, which also gives these tensors."""
        graph = GraphProto()
        graph.CopyFrom(self.model.graph)
        known = {one.name for one in graph.output}
        graph.node.extend(node for name in cuts for node in self._read_quantized(name))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        return bytes(self._wrap(graph).SerializeToString())

    def list_sizes(self, cuts: Sequence[str]) -> list[str]:
        """List the tensors of sizes that some part between these cuts cannot compute."""
        return sorted({name for part in self.cut(cuts, {}) for name in part.sizes})

    def _read_quantized(self, name: str) -> list[NodeProto]:
        """Return the nodes that quantise a tensor and turn it back, as the nodes behind it do; none if it is not."""
        node = self.quantizes(name)
        if node is None:
            return []
        whole = NodeProto()
        whole.CopyFrom(node)
        whole.name, whole.output[0] = "", f"{name}/camcli_quantized"
        options = {
            one.name: helper.get_attribute_value(one) for one in node.attribute if one.name in ("axis", "block_size")
        }
        back = helper.make_node(
            DEQUANTIZE, [whole.output[0], *node.input[1:]], [name + READ], domain=node.domain, **options
        )
        return [whole, back]

    def _build(
        self, begin: str, ends: tuple[str, ...], inside: set[int], extra: list[NodeProto], types: Mapping[str, int]
    ) -> Part:
        here = {begin, *(name for at in inside for name in self.nodes[at].output)}
        here |= {name for node in extra for name in node.output}
        nodes, sizes, kept = set(inside), set[str](), set[str]()
        wanted = [name for at in inside for name in _list_inputs(self.nodes[at])]
        wanted += [name for node in extra for name in node.input]
        while wanted:
            name = wanted.pop()
            at = self._producers.get(name, -1)
            if name in here or at in nodes or name in sizes | kept:
                continue
            if name in self._initializers or name in self._sparse:
                kept.add(name)
            elif at < 0:
                continue
            elif (
                self.nodes[at].op_type in SIZES_OF
                and not set(self.nodes[at].input) <= here | self.sizes | self.constants
            ):
                sizes.add(name)
            else:
                nodes.add(at)
                wanted += _list_inputs(self.nodes[at])
        inputs = [
            next((one for one in self.model.graph.input if one.name == name), None)
            or helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None)
            for name in (begin, *sorted(sizes))
        ]
        known = {one.name: one for one in self.model.graph.output}
        outputs = [
            known.get(name) or helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None)
            for name in ends
        ]
        graph = helper.make_graph(
            [*(self.nodes[at] for at in sorted(nodes)), *extra],
            "part",
            inputs,
            outputs,
            [one for name, one in self._initializers.items() if name in kept],
        )
        graph.sparse_initializer.extend(one for name, one in self._sparse.items() if name in kept)
        return Part(begin, ends, tuple(sorted(sizes)), self._wrap(graph))

    def _wrap(self, graph: GraphProto) -> ModelProto:
        return helper.make_model(
            graph,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
            functions=self.model.functions,
        )


def _list_inputs(node: NodeProto) -> list[str]:
    """List the tensors that a node reads, also those that a graph inside it takes from outside."""
    names = [name for name in node.input if name]
    for inner in _iter_graphs(node):
        own = {one.name for one in (*inner.input, *inner.initializer)} | {
            name for one in inner.node for name in one.output
        }
        names += [name for one in inner.node for name in _list_inputs(one) if name not in own]
        names += [one.name for one in inner.output if one.name not in own]
    return names


def _iter_graphs(node: NodeProto) -> Iterator[Any]:
    for one in node.attribute:
        yield from (one.g,) if one.type == onnx.AttributeProto.GRAPH else one.graphs
