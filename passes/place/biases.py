"""Biases of layers: the scale of an integer one, and which float one must be shielded from ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import integer
from qcompiler.quant import state
from qcompiler.quant.operators import BIAS_INPUT, WEIGHT_INPUT
from qcompiler.target.axes import channel_axis

__all__ = ["WITH_BIAS", "accumulator_scale", "bias_scale", "float_bias", "needs_shield"]

WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")
"""Operators with a bias input; ONNX Runtime's WeightBiasQuantization goes after the same."""


def bias_scale(node: ir.Node) -> NDArray[np.float32] | None:
    """The accumulator's scale of an integer node with a constant bias, rounded to float32 (``half_even``)."""
    scale = accumulator_scale(node)
    return None if scale is None else scale.astype(np.float32)


def accumulator_scale(node: ir.Node) -> NDArray[np.float64] | None:
    """The product ``s_x * s_w`` of an integer node with a constant bias, exact; ``None`` for any other node.

    Shape ``()`` or ``(output channels,)``.
    """
    decision = state.node_decision(node)
    if decision is None or not decision.integer or not has_type(node, *WITH_BIAS):
        return None
    if len(node.inputs) <= BIAS_INPUT or not is_constant(node.inputs[BIAS_INPUT]):
        return None
    data, weight = state.edge_quant(node, 0), state.edge_quant(node, WEIGHT_INPUT)
    if data is None or weight is None or weight.format.block is not None:
        return None
    if data.params is None or weight.params is None:
        return None
    scale = data.params.scale.astype(np.float64) * weight.params.scale
    if node.op_type == "ConvTranspose" and scale.ndim:
        # Weights are (C, M/g, …): every group uses the same M/g scales.
        scale = np.tile(scale, integer(node, "group", 1))
    return np.asarray(scale, np.float64)


def needs_shield(node: ir.Node) -> bool:
    """Whether ONNX Runtime might quantize this float node behind our back (``DQ → node → Q``)."""
    decision = state.node_decision(node)
    if not has_type(node, *WITH_BIAS) or decision is None or decision.integer:
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
        return shape[1] * integer(node, "group", 1)
    axis = channel_axis(node)
    return None if axis is None else shape[axis]


def float_bias(node: ir.Node) -> NDArray[np.float32]:
    """The bias of a float node per output channel, zeros where it has none; shape ``(output channels,)``."""
    bias = node.inputs[BIAS_INPUT] if len(node.inputs) > BIAS_INPUT else None
    if bias is not None and bias.const_value is not None:
        array = np.asarray(bias.const_value.numpy(), np.float32)
        return np.broadcast_to(array.reshape(-1), (_channels(node) or array.size,)).astype(np.float32)
    return np.zeros(_channels(node) or 1, np.float32)
