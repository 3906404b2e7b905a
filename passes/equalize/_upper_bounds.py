"""Upper bounds of activations, one per channel: what they become, and whether the target's kernel absorbs them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns
from qcompiler.ir.edit import Edit
from qcompiler.passes.equalize._layers import LAYERS
from qcompiler.passes.normalize._rewrite import replace_node
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import Target

__all__ = ["set_bounds", "why_no_bounds"]


def why_no_bounds(node: ir.Node | None, target: Target | None) -> str:
    """Why bounds per channel would leave the integer kernel of the layer before; empty where they would not.

    Args:
        node: ``Clip(x, 0, b)`` or ``Min(x, bounds)``; ``None`` where there is no bound.
        target: The target.
    """
    if target is None or node is None:
        return ""
    data = next((value for value in node.inputs if value is not None and not constants.is_constant(value)), None)
    layer = patterns.producer(patterns.skip_back(data, ("Relu", "Min")))
    if layer is None or not patterns.has_type(layer, *LAYERS):
        return f"{node.name} behind it is not right behind a layer, so {target.name} does not absorb its bounds"
    rule = rule_for(target, layer)
    if rule is not None and not {"Relu", "Min"} <= set(rule.fuse):
        return f"{target.name} absorbs no bound per channel (Relu, Min) behind {layer.op_type}"
    return ""


def set_bounds(node: ir.Node, values: NDArray[np.float64], edit: Edit) -> None:
    """Give an activation these bounds, shape ``(channels,)``; a Clip becomes Relu and Min."""
    if node.op_type == "Min":
        constant = next(value for value in node.inputs if constants.is_constant(value))
        if constant is not None and constant.shape is not None:
            edit.set_constant(constant, values.astype(np.float32).reshape(constant.shape.numpy()))
        return
    data = node.inputs[0]
    if data is None or data.shape is None:
        raise ValueError(f"the input of {node.name} has no rank")
    relu = edit.insert("Relu", [data], before=node, name=f"{node.name}_relu", output_name=f"{data.name}_relu")
    relu.outputs[0].shape, relu.outputs[0].type = data.shape, data.type
    shape = 1, values.size, *[1] * (len(data.shape) - 2)
    bounds = edit.constant(f"{node.name}_bounds", values.astype(np.float32).reshape(shape))
    replace_node(edit, node, "Min", [relu.outputs[0], bounds])
