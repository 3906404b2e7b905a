"""Linear layers as bias correction sees them: weight, its quantization error, and where its bias lives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import PassError
from qcompiler.ir import constants, originals
from qcompiler.ir.constants import is_constant
from qcompiler.ir.patterns import integer
from qcompiler.passes.normalize._rewrite import own_constant
from qcompiler.pipeline.base import Context
from qcompiler.quant import arithmetic, state
from qcompiler.quant.operators import BIAS_INPUT, LINEAR, WEIGHT_INPUT
from qcompiler.quant.state import TensorQuant

__all__ = ["Layer", "correctable", "linear_layers", "response", "restore_bias", "set_bias", "weight_error"]


@dataclass(frozen=True, slots=True)
class Layer:
    """An integer linear node with constant weights.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        quant: The weight's decision, with parameters.
        bias_node: The node that holds the bias: ``node`` itself, or the Add behind a MatMul.
        bias_index: Which of its inputs the bias is.
    """

    node: ir.Node
    quant: TensorQuant
    bias_node: ir.Node
    bias_index: int

    @property
    def bias(self) -> ir.Value | None:
        """The constant bias; ``None`` where the layer has none yet."""
        inputs = self.bias_node.inputs
        return inputs[self.bias_index] if self.bias_index < len(inputs) else None


def linear_layers(graph: ir.Graph) -> Iterator[tuple[ir.Node, Layer | str]]:
    """Every integer linear node with its layer, or the reason why its bias cannot be corrected."""
    for node in graph:
        decision = state.node_decision(node)
        if node.op_type not in LINEAR or decision is None or not decision.integer:
            continue
        if not is_constant(node.inputs[WEIGHT_INPUT]):
            continue
        quant = state.edge_quant(node, WEIGHT_INPUT)
        if quant is None or quant.params is None:
            yield node, "its weight has no scale"
        elif node.op_type == "MatMul":
            place = _bias_behind(node)
            yield node, Layer(node, quant, *place) if place else "no bias follows it"
        elif len(node.inputs) > BIAS_INPUT and node.inputs[BIAS_INPUT] and not is_constant(node.inputs[BIAS_INPUT]):
            yield node, "its bias is computed at run time"
        else:
            yield node, Layer(node, quant, node, BIAS_INPUT)


def correctable(graph: ir.Graph, ctx: Context) -> list[Layer]:
    """The layers whose outputs can be corrected; why others cannot is recorded."""
    found = []
    for node, layer in linear_layers(graph):
        if isinstance(layer, str):
            ctx.skip(node, layer)
        else:
            found.append(layer)
    return found


def set_bias(layer: Layer, content: NDArray[np.float64], ctx: Context) -> None:
    """Give a layer a fitted bias of its own; what it had in the float model (zeros where it had none) is kept."""
    array = content.astype(np.float32)
    if constants.is_constant(layer.bias):
        bias = own_constant(ctx.edit, layer.bias_node, layer.bias_index)
        originals.keep(bias)
        ctx.edit.set_constant(bias, array)
        return
    added = ctx.edit.constant(f"{layer.node.name}_bias", array)
    originals.keep(added, ir.tensor(np.zeros_like(array)))
    ctx.edit.set_input(layer.bias_node, layer.bias_index, added)


def restore_bias(layer: Layer, content: ir.TensorProtocol | None, ctx: Context) -> None:
    """Put back what a layer had before ``set_bias``: a bias with this content, or none."""
    bias = layer.bias
    if bias is not None and content is not None:
        ctx.edit.set_constant(bias, content)
        return
    ctx.edit.set_input(layer.bias_node, layer.bias_index, None)
    if bias is not None:
        ctx.edit.remove_unused([bias])


def _bias_behind(node: ir.Node) -> tuple[ir.Node, int] | None:
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add" or node.outputs[0].is_graph_output():
        return None
    add = uses[0].node
    other = 1 - uses[0].idx
    bias, weight = add.inputs[other], node.inputs[WEIGHT_INPUT]
    if bias is None or not is_constant(bias) or bias.shape is None or weight is None or weight.shape is None:
        return None
    return (add, other) if bias.shape == ir.Shape([weight.shape[-1]]) else None


def weight_error(layer: Layer) -> NDArray[np.float32]:
    """``W - Ŵ``: what rounding took from the weight of the float model; the weight's shape."""
    weight, params = layer.node.inputs[WEIGHT_INPUT], layer.quant.params
    now = constants.array(weight)
    before = None if weight is None else originals.original(weight)
    if now is None or before is None or params is None:
        raise PassError("the weight has no content or no scale", where=layer.node.name)
    codes = arithmetic.quantize(np.asarray(now, np.float32), params, layer.quant.format)
    error: NDArray[np.float32] = before.numpy() - arithmetic.dequantize(codes, params, layer.quant.format)
    return error


def response(node: ir.Node, data: NDArray[Any], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the linear part of ``node`` (no bias) gives for ``data`` with ``weight`` instead of its own."""
    if node.op_type == "MatMul":
        return _product(data, weight)
    if node.op_type == "Gemm":
        return _product(data, weight.T if integer(node, "transB", 0) else weight)
    return _convolution(node, data, weight)


def _product(data: NDArray[Any], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    product: NDArray[np.float32] = np.matmul(data, weight)
    return product


def _convolution(node: ir.Node, data: NDArray[Any], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the one node in ONNX Runtime."""
    from qcompiler.ir.execute import session_options
    from qcompiler.ir.parts import open_session

    attributes = [ir.to_proto(attribute) for attribute in node.attributes.values()]
    proto = onnx.helper.make_node(node.op_type, ["x", "w"], ["y"])
    proto.attribute.extend(attributes)
    graph = onnx.helper.make_graph(
        [proto],
        "layer",
        [
            onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape)
            for n, a in (("x", data), ("w", weight))
        ],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = open_session(model.SerializeToString(), {}, session_options())
    result: NDArray[np.float32] = session.run(None, {"x": data, "w": weight})[0]
    return result
