"""place-qdq: the only pass that turns decisions into QuantizeLinear and DequantizeLinear nodes.

Besides the pairs that the planner lists it stores biases of integer nodes as int32 at ``s_x * s_w``, and keeps
nodes that were left in float out of reach of ONNX Runtime's WeightBiasQuantization (see ``Applier.exact_bias``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.passes.place.apply import Applier
from qcompiler.passes.place.plan import Edge, plan_values
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.operators import BIAS_INPUT, WEIGHT_INPUT, int_attribute, is_constant
from qcompiler.target.axes import channel_axis

__all__ = ["PlaceQdq", "bias_scale", "place"]

_REQUANTIZED_BY_RUNTIME = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(frozen=True)
class PlaceQdq(Pass):
    """Insert Q/DQ pairs, store weights and biases as integers."""

    name: ClassVar[str] = "place-qdq"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Materialise every decision of the main graph."""
        place(model, ctx.edit)


def place(model: ir.Model, edit: Edit) -> None:
    """Materialise every decision of the main graph of ``model``."""
    graph = model.graph
    applier = Applier(edit, graph)
    # Scales of biases and float nodes are read off the decisions, so before any edge is rewired.
    biases = [(Edge(node, BIAS_INPUT), scale) for node in graph if (scale := bias_scale(node)) is not None]
    _lift_vectors(graph, edit)
    shielded = [node for node in graph if _needs_shield(node)]
    for plan in plan_values(graph):
        applier.apply(plan)
    for edge, scale in biases:
        applier.bias_pair(edge, scale)
    for node in shielded:
        applier.exact_bias(Edge(node, BIAS_INPUT), _float_bias(node), f"{node.name}_bias")


def _lift_vectors(graph: ir.Graph, edit: Edit) -> None:
    """Give the vector that is added behind a matrix product of fixed shape the rank of the product.

    ONNX Runtime turns MatMul + Add of a vector into a Gemm *before* it looks for Q/DQ groups: the product then stays
    float, or loses its float weights to WeightBiasQuantization, or (int8, rank 3) fails to load. A bias of shape
    ``(1, …, 1, N)`` broadcasts alike and is left alone.
    """
    for node in graph:
        uses = list(node.outputs[0].uses()) if node.op_type == "MatMul" else []
        if len(uses) != 1 or uses[0].node.op_type != "Add":
            continue
        add, index = uses[0].node, 1 - uses[0].idx
        bias, shape = add.inputs[index], node.outputs[0].shape
        content = constants.array(bias)
        if bias is None or content is None or content.ndim != 1 or shape is None or not shape.is_static():
            continue
        lifted = edit.constant(f"{bias.name}_row", content.reshape([1] * (len(shape) - 1) + [-1]))
        state.set_value_quant(lifted, state.value_quant(bias))
        edit.set_input(add, index, lifted)
        edit.remove_unused([bias])


def bias_scale(node: ir.Node) -> NDArray[np.float32] | None:
    """The accumulator's scale ``s_x * s_w`` of an integer node with a constant bias, else ``None``.

    Shape ``()`` or ``(output channels,)``; the product is rounded once to float32 (``half_even``).
    """
    decision = state.node_decision(node)
    if decision is None or not decision.integer or node.op_type not in _REQUANTIZED_BY_RUNTIME:
        return None
    if len(node.inputs) <= BIAS_INPUT or not is_constant(node.inputs[BIAS_INPUT]):
        return None
    data, weight = state.edge_quant(node, 0), state.edge_quant(node, WEIGHT_INPUT)
    if (
        data is None
        or weight is None
        or data.params is None
        or weight.params is None
        or weight.format.block is not None
    ):
        return None
    scale = (data.params.scale * weight.params.scale).astype(np.float32)
    if node.op_type == "ConvTranspose" and scale.ndim:
        # Weights are (C, M/g, …): every group uses the same M/g scales.
        scale = np.tile(scale, int_attribute(node, "group", 1))
    return scale


def _needs_shield(node: ir.Node) -> bool:
    """Whether ONNX Runtime might quantize this float node behind our back (``DQ → node → Q``)."""
    decision = state.node_decision(node)
    if node.op_type not in _REQUANTIZED_BY_RUNTIME or decision is None or decision.integer:
        return False
    if not is_constant(node.inputs[WEIGHT_INPUT]) or node.outputs[0].is_graph_output():
        return False
    bias = node.inputs[BIAS_INPUT] if len(node.inputs) > BIAS_INPUT else None
    if bias is not None and not is_constant(bias):
        return False
    return _reads_codes(node) and _channels(node) is not None


def _reads_codes(node: ir.Node) -> bool:
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    decision = None if producer is None else state.node_decision(producer)
    return decision is not None and decision.integer and source is not None and state.value_quant(source) is not None


def _channels(node: ir.Node) -> int | None:
    weight = node.inputs[WEIGHT_INPUT]
    if weight is None or weight.shape is None or not weight.shape.is_static():
        return None
    shape = [size for size in weight.shape if isinstance(size, int)]
    if node.op_type == "ConvTranspose":
        return shape[1] * int_attribute(node, "group", 1)
    axis = channel_axis(node)
    return None if axis is None else shape[axis]


def _float_bias(node: ir.Node) -> NDArray[np.float32]:
    bias = node.inputs[BIAS_INPUT] if len(node.inputs) > BIAS_INPUT else None
    if bias is not None and bias.const_value is not None:
        array = np.asarray(bias.const_value.numpy(), np.float32)
        return np.broadcast_to(array.reshape(-1), (_channels(node) or array.size,)).astype(np.float32)
    return np.zeros(_channels(node) or 1, np.float32)
