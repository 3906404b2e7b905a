"""Layers whose constants can be scaled channel by channel: Conv, ConvTranspose, Gemm, and MatMul with a weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, originals, patterns
from qcompiler.ir.edit import Edit
from qcompiler.ir.transformed import transformed
from qcompiler.passes.normalize._affine import Affine
from qcompiler.passes.normalize._linear import absorb_after, absorb_before
from qcompiler.passes.normalize._rewrite import own_constant, tensor_shape

__all__ = ["LAYERS", "Channels", "channels", "peaks", "scale_layer", "why_not_layer"]

LAYERS = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True, slots=True)
class Channels:
    """Where the channels of a layer are.

    Attributes:
        inputs: Number of input channels.
        outputs: Number of output channels.
        axis: Their axis in what it reads and in what it gives.
    """

    inputs: int
    outputs: int
    axis: int


def why_not_layer(node: ir.Node) -> str:
    """Why the constants of a layer cannot be scaled; empty where they can."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    for value, what in ((weight, "weight"), (bias, "bias")):
        if value is None:
            continue
        if not constants.is_constant(value) or value.dtype != ir.DataType.FLOAT:
            return f"its {what} is not a float constant"
        if value.is_graph_output() or len(list(value.uses())) > 1:
            return f"its {what} is shared with other nodes"
        if originals.is_kept(value):
            return f"its {what} was fitted to its codes already"
    if weight is None or patterns.rank(weight) is None or 0 in (patterns.static_shape(weight) or (0,)):
        return "its weight is empty"
    if node.op_type == "MatMul":
        return "" if patterns.rank(weight) == 2 else "its weight is no matrix"
    if node.op_type == "Gemm" and (
        patterns.integer(node, "transA", 0)
        or patterns.number(node, "alpha", 1.0) != 1.0
        or patterns.number(node, "beta", 1.0) != 1.0
        or (bias is not None and patterns.rank(bias) != 1)
    ):
        return "it is not canonical"
    return ""


def channels(node: ir.Node) -> Channels:
    """The channels of a layer for which ``why_not_layer`` is empty."""
    shape = [int(size or 0) for size in patterns.static_shape(node.inputs[1]) or ()]
    if node.op_type == "MatMul":
        return Channels(shape[0], shape[1], -1)
    if node.op_type == "Gemm":
        outputs, inputs = shape if patterns.integer(node, "transB", 0) else shape[::-1]
        return Channels(inputs, outputs, 1)
    groups = patterns.integer(node, "group", 1)
    if node.op_type == "Conv":
        return Channels(shape[1] * groups, shape[0], 1)
    return Channels(shape[0], shape[1] * groups, 1)


def peaks(node: ir.Node) -> NDArray[np.float64]:
    """Largest absolute weight over the taps of a kernel: ``[groups, outputs / group, inputs / group]``."""
    weight = constants.array(node.inputs[1])
    if weight is None:
        raise ValueError(f"the weight of {node.name} is not constant")
    size: NDArray[np.float64] = np.abs(weight).astype(np.float64)
    if node.op_type == "MatMul":
        return size.T[None]
    if node.op_type == "Gemm":
        return (size if patterns.integer(node, "transB", 0) else size.T)[None]
    groups = patterns.integer(node, "group", 1)
    split: NDArray[np.float64] = size.reshape(groups, size.shape[0] // groups, size.shape[1], -1).max(-1)
    return split if node.op_type == "Conv" else split.transpose(0, 2, 1)


def scale_layer(node: ir.Node, before: NDArray[np.float64], after: NDArray[np.float64], edit: Edit) -> None:
    """Let a layer compute ``after`` times what it computed, of what now is its input divided by ``before``.

    Args:
        node: The layer.
        before: Factors of its weights per input channel.
        after: Factors per output channel, of its bias as well.
        edit: The mutation interface.
    """
    if node.op_type == "MatMul":
        weight = own_constant(edit, node, 1)
        source = weight.const_value
        if source is None:
            raise ValueError(f"the weight of {node.name} is not constant")
        factors = np.outer(before, after)
        changed = transformed(edit, source, lambda data: np.asarray(data * factors), tensor_shape(source))
        edit.set_constant(weight, changed)
        return
    if (after != 1).any():
        absorb_after(node, Affine(after, np.zeros(after.size)), edit)
    if (before != 1).any():
        absorb_before(node, Affine(before, np.zeros(before.size)), edit)
