"""A small residual network in PyTorch and as ONNX files in the forms that exporters write."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

SIDE, CLASSES = 16, 5


class Residual(nn.Module):
    """Two layers that all behind them is computed from: ``act1`` and ``act2``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.act1 = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()
        self.conv2, self.conv3, self.act2 = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()
        self.short = nn.Conv2d(4, 4, 1, 2)
        self.fc = nn.Linear(4, CLASSES)
        nn.init.normal_(self.fc.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        early = self.act1(self.conv1(images))
        late = self.act2(self.conv3(self.conv2(early).relu()) + self.short(early))
        scores: torch.Tensor = self.fc(late.mean((2, 3)))
        return scores


def convolve(name: str, given: str, conv: nn.Conv2d) -> onnx.NodeProto:
    pad, stride = conv.padding[0], conv.stride[0]
    weights = [f"{name}.weight", f"{name}.bias"]
    return helper.make_node("Conv", [given, *weights], [f"/{name}/Conv_output_0"], pads=[pad] * 4, strides=[stride] * 2)


def quantize(name: str) -> list[onnx.NodeProto]:
    """Return the nodes that round a tensor to 8 bits, ``<name>_q``, and back, ``<name>_dq``."""
    scale = ["scale", "zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *scale], [f"{name}_q"], name=f"{name}_round"),
        helper.make_node("DequantizeLinear", [f"{name}_q", *scale], [f"{name}_dq"]),
    ]


def make_model(
    net: Residual, batch: str | int = "n", last: bool = False, reshaped: bool = False, quantized: bool = False
) -> onnx.ModelProto:
    """Make an ONNX model of the network.

    Args:
        net: the network.
        batch: images that it takes.
        last: with the channels of the image last.
        reshaped: flattened by a shape that is computed of the image's.
        quantized: with 8 bits behind the activations.
    """
    shape = [batch, SIDE, SIDE, 3] if last else [batch, 3, SIDE, SIDE]
    nodes, image = [], "images"
    if last:
        nodes.append(helper.make_node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]))
        image = "planes"
    early, late = "/act1/Relu_output_0", "/act2/Relu_output_0"
    nodes += [convolve("conv1", image, net.conv1), helper.make_node("Relu", ["/conv1/Conv_output_0"], [early])]
    nodes += quantize(early) if quantized else []
    read = f"{early}_dq" if quantized else early
    nodes += [
        convolve("conv2", read, net.conv2),
        helper.make_node("Relu", ["/conv2/Conv_output_0"], ["inner"]),
        convolve("conv3", "inner", net.conv3),
        convolve("short", read, net.short),
        helper.make_node("Add", ["/conv3/Conv_output_0", "/short/Conv_output_0"], ["sum"]),
        helper.make_node("Relu", ["sum"], [late]),
        *(quantize(late) if quantized else []),
        helper.make_node("GlobalAveragePool", [f"{late}_dq" if quantized else late], ["pooled"]),
    ]
    if reshaped:
        nodes += [
            helper.make_node("Shape", ["images"], ["shape"]),
            helper.make_node("Slice", ["shape", "begin", "end"], ["count"]),
            helper.make_node("Concat", ["count", "rest"], ["flat_shape"], axis=0),
            helper.make_node("Reshape", ["pooled", "flat_shape"], ["flat"]),
        ]
    else:
        nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["scores"], transB=1))
    arrays = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    arrays |= {"begin": np.array([0]), "end": np.array([1]), "rest": np.array([-1])} if reshaped else {}
    arrays |= {"scale": np.float32(0.02), "zero": np.uint8(3)} if quantized else {}
    return wrap(nodes, shape, [batch, CLASSES], arrays)


def wrap(nodes, given, scores, arrays=()) -> onnx.ModelProto:
    """Make a model of nodes from ``images`` to ``scores`` of these shapes."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", given), ("scores", scores))
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(arrays).items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
