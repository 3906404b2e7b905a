"""Scaling and shifting the channels of Conv, ConvTranspose, Gemm and MatMul by changing their constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array, is_constant
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import rank
from qcompiler.ir.transformed import transformed
from qcompiler.passes.normalize._affine import Affine
from qcompiler.passes.normalize._rewrite import flag, integers, own_constant, replace_node, static_shape

__all__ = ["LINEAR", "absorb_after", "absorb_before", "channels_out", "why_not_before", "why_not_linear"]

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_Change: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]


def why_not_linear(node: ir.Node) -> str:
    """Why the constants of a linear node cannot be changed; empty where they can."""
    weight = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if not is_constant(weight) or static_shape(weight) is None:
        return "its weight is not constant"
    if bias is not None and not is_constant(bias):
        return "its bias is not constant"
    if has_type(node, "MatMul") and (rank(weight) != 2 or rank(node.inputs[0]) != 2):
        return "its channels are not on axis 1"
    if has_type(node, "Gemm"):
        factors = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
        if factors != (1.0, 1.0) or flag(node, "transA"):
            return "it is not canonical"
        if bias is not None and rank(bias) != 1:
            return "its bias differs from row to row"
    return ""


def channels_out(node: ir.Node) -> int:
    """Number of output channels of a linear node with a constant weight."""
    shape = static_shape(node.inputs[1]) or ()
    if has_type(node, "ConvTranspose"):
        return shape[1] * _groups(node)
    return shape[0] if has_type(node, "Conv") or flag(node, "transB") else shape[1]


def absorb_after(node: ir.Node, affine: Affine, edit: Edit) -> ir.Node:
    """Let the node compute ``affine`` of what it computed; returns it (a MatMul becomes a Gemm)."""
    channels = channels_out(node)
    bias = array(node.inputs[2]) if len(node.inputs) > 2 else None
    shift = affine.shift if bias is None else bias.astype(np.float64).reshape(-1) * affine.scale + affine.shift
    if has_type(node, "MatMul"):
        node = _as_gemm(node, edit)
    _change_weight(node, _scaling(node, affine.scale, channels), edit)
    if bias is not None or affine.shift.any():
        _set_bias(node, shift, edit)
    return node


def _scaling(node: ir.Node, scale: NDArray[np.float64], channels: int) -> _Change:
    """Multiply each output channel of the weight."""
    if has_type(node, "ConvTranspose"):  # [inputs, outputs / groups, …]; output channels run group by group
        groups = _groups(node)
        shape = static_shape(node.inputs[1]) or ()

        def grouped(weight: NDArray[Any]) -> NDArray[Any]:
            split = weight.reshape(groups, shape[0] // groups, shape[1], -1)
            return (split * scale.reshape(groups, 1, shape[1], 1)).reshape(shape)

        return grouped
    if has_type(node, "Gemm") and not flag(node, "transB"):
        return lambda weight: weight * scale
    return lambda weight: weight * scale.reshape(channels, *[1] * (weight.ndim - 1))


def why_not_before(node: ir.Node, index: int, affine: Affine) -> str:
    """Why an affine of the input cannot be absorbed by this consumer; empty where it can."""
    if index != 0 or not has_type(node, *LINEAR):
        return f"{node.op_type} cannot absorb it"
    if reason := why_not_linear(node):
        return reason
    if not affine.shift.any():
        return ""
    if has_type(node, "ConvTranspose"):
        return "a shift of its input acts differently at the border of a transposed convolution"
    automatic = node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    if automatic or any(integers(node, "pads")):
        return "its zero padding would be shifted too"
    return ""


def absorb_before(node: ir.Node, affine: Affine, edit: Edit) -> None:
    """Let the node compute of ``x`` what it computed of ``affine(x)``."""
    if has_type(node, "MatMul"):
        node = _as_gemm(node, edit)
    weight, bias = array(node.inputs[1]), array(node.inputs[2]) if len(node.inputs) > 2 else None
    if weight is None:
        raise ValueError(f"the weight of {node.name} is not constant")
    if affine.shift.any():
        added = _per_input(node, affine.shift)(weight.astype(np.float64))
        axes = tuple(axis for axis in range(added.ndim) if axis != _output_axis(node))
        start = 0.0 if bias is None else bias.astype(np.float64).reshape(-1)
        _set_bias(node, added.sum(axis=axes) + start, edit)
    _change_weight(node, _per_input(node, affine.scale), edit)


def _output_axis(node: ir.Node) -> int:
    return 1 if has_type(node, "Gemm") and not flag(node, "transB") else 0


def _per_input(node: ir.Node, factor: NDArray[np.float64]) -> _Change:
    """Multiply each input channel of the weight."""
    if has_type(node, "ConvTranspose") or (has_type(node, "Gemm") and not flag(node, "transB")):
        return lambda weight: weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    if has_type(node, "Gemm"):
        return lambda weight: weight * factor
    groups = _groups(node)

    def grouped(weight: NDArray[Any]) -> NDArray[Any]:  # [outputs, inputs / groups, …]
        split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return (split * factor.reshape(groups, 1, weight.shape[1], 1)).reshape(weight.shape)

    return grouped


def _groups(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1) or 1


def _as_gemm(node: ir.Node, edit: Edit) -> ir.Node:
    """A MatMul of rank 2 as a canonical Gemm (``transB = 1``) without bias."""
    weight = own_constant(edit, node, 1)
    source, shape = weight.const_value, static_shape(weight)
    if source is None or shape is None:
        raise ValueError(f"the weight of {node.name} is not constant")
    edit.set_constant(weight, transformed(edit, source, np.transpose, shape[::-1]))
    return replace_node(edit, node, "Gemm", node.inputs, {"transB": 1})


def _change_weight(node: ir.Node, change: _Change, edit: Edit) -> None:
    """Change the weight in float64, keeping its shape and element type."""
    weight = own_constant(edit, node, 1)
    source, shape = weight.const_value, static_shape(weight)
    if source is not None and shape is not None:
        edit.set_constant(weight, transformed(edit, source, lambda data: change(data.astype(np.float64)), shape))


def _set_bias(node: ir.Node, bias: NDArray[np.float64], edit: Edit) -> None:
    """Give the node this bias, adding the input where it had none."""
    weight = node.inputs[1]
    dtype = np.float32 if weight is None or weight.dtype is None else weight.dtype.numpy()
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        edit.set_constant(own_constant(edit, node, 2), bias.astype(dtype))
    else:
        edit.set_input(node, 2, edit.constant(f"{node.name}_bias", bias.astype(dtype)))
