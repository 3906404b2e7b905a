"""One form for every fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array, is_constant
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import rank
from qcompiler.ir.transformed import transformed
from qcompiler.ir.uses import use_count
from qcompiler.passes.normalize._rewrite import (
    flag,
    only_consumer,
    own_constant,
    replace_node,
    static_shape,
    tensor_shape,
)
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["CanonicalizeMatmul"]


@dataclass(frozen=True)
class CanonicalizeMatmul(Pass):
    """Fully connected layers in one form: Gemm for rank 2 with a bias, MatMul (+ Add) otherwise.

    * MatMul of rank 2 with a constant weight, followed by the Add of a constant per-column bias → Gemm. ONNX Runtime
      has an integer Gemm that takes the bias as int32; its integer MatMul takes none.
    * Gemm: ``alpha = beta = 1`` (folded into constants), ``transA = 0``; ``transB = 1`` where the weight is constant
      and its own, so that the weight is [outputs, inputs] and output channels are axis 0, as in Conv. A weight shared
      with another layout keeps its own (read ``transB``). The bias is [outputs]; a constant that differs from row to
      row is added behind it.
    * MatMul of higher rank, or without a bias, stays MatMul: weight [inputs, outputs], channels are the last axis. The
      Add behind it has the bias as its second input, in the shape [outputs]. Nothing is reshaped into a Gemm: that
      costs two Reshapes and hides the layer from the kernels that fuse MatMul, scale and bias.
    """

    name: ClassVar[str] = "canonicalize-matmul"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for node in list(model.graph):
            if has_type(node, "MatMul"):
                _matmul(node, ctx.edit)
        for node in list(model.graph):
            if has_type(node, "Gemm"):
                _gemm(node, ctx)


# -- MatMul --------------------------------------------------------------------------------------------------------


def _matmul(node: ir.Node, edit: Edit) -> None:
    """Find the bias of one MatMul; merge it where a Gemm can hold it."""
    weight, data = node.inputs[1], node.inputs[0]
    add = only_consumer(node.outputs[0])
    if weight is None or add is None or not has_type(add, "Add") or not is_constant(weight) or rank(weight) != 2:
        return
    columns = static_shape(weight)
    index = 1 if add.inputs[0] is node.outputs[0] else 0
    bias = add.inputs[index]
    if bias is None or columns is None or not is_constant(bias) or not _is_row(bias, columns[1], rank(node.outputs[0])):
        return
    if index == 0:
        edit.set_input(add, 0, node.outputs[0])
        edit.set_input(add, 1, bias)
    if static_shape(bias) != (columns[1],):
        bias = _as_row(add, 1, edit)
    if rank(data) == 2:
        name = node.name
        gemm = replace_node(edit, add, "Gemm", [data, weight, bias])
        gemm.name = name  # the layer is known by the node that holds its weight


def _is_row(bias: ir.Value, columns: int, dimensions: int | None) -> bool:
    """Whether a constant adds one number per column and does not widen the result."""
    shape = static_shape(bias)
    if shape is None or not shape or shape[-1] != columns or any(size != 1 for size in shape[:-1]):
        return False
    return len(shape) == 1 or (dimensions is not None and len(shape) <= dimensions)


def _as_row(node: ir.Node, index: int, edit: Edit) -> ir.Value:
    """The bias at this input in the shape [columns]."""
    value = own_constant(edit, node, index)
    if value.const_value is not None:
        edit.set_constant(value, transformed(edit, value.const_value, lambda data: data, [value.const_value.size]))
    return value


# -- Gemm ----------------------------------------------------------------------------------------------------------


def _gemm(node: ir.Node, ctx: Context) -> None:
    """Normalise the attributes of one Gemm."""
    edit = ctx.edit
    if flag(node, "transA"):
        source, order = node.inputs[0], {"perm": [1, 0]}
        flipped = edit.insert("Transpose", [source], before=node, attributes=order, name=f"{node.name}_transA")
        sizes = static_shape(source)
        flipped.outputs[0].type = None if source is None else source.type
        flipped.outputs[0].shape = None if sizes is None else ir.Shape(sizes[::-1])
        edit.set_input(node, 0, flipped.outputs[0])
    _drop(node, "transA", edit)
    _fold_factors(node, ctx)
    _weight_layout(node, ctx)
    _bias_row(node, ctx)


def _drop(node: ir.Node, attribute: str, edit: Edit) -> None:
    if attribute in node.attributes:
        edit.set_attribute(node, attribute, None)


def _fold_factors(node: ir.Node, ctx: Context) -> None:
    """``alpha`` into the weight, ``beta`` into the bias."""
    beta, alpha = node.attributes.get_float("beta", 1.0), node.attributes.get_float("alpha", 1.0)
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if has_bias and beta == 0:
        bias = node.inputs[2]
        ctx.edit.set_input(node, 2, None)
        node.resize_inputs(2)
        if bias is not None:
            ctx.edit.remove_unused([bias])
        has_bias = False
    for factor, index, label in ((alpha, 1, "alpha"), (beta, 2, "beta")):
        if factor == 1.0 or (index == 2 and not has_bias):
            _drop(node, label, ctx.edit)
        elif is_constant(node.inputs[index]):
            _scale(node, index, float(factor), ctx.edit)
            _drop(node, label, ctx.edit)
        else:
            ctx.skip(node, f"{label}={factor:g} multiplies a tensor that is not constant")


def _scale(node: ir.Node, index: int, factor: float, edit: Edit) -> None:
    """Multiply a constant input, in float64."""
    value = own_constant(edit, node, index)
    source = value.const_value
    if source is not None:

        def scaled(data: NDArray[Any]) -> NDArray[Any]:
            return data.astype(np.float64) * factor

        edit.set_constant(value, transformed(edit, source, scaled, tensor_shape(source)))


def _weight_layout(node: ir.Node, ctx: Context) -> None:
    """[outputs, inputs] with ``transB = 1``."""
    weight = node.inputs[1]
    if flag(node, "transB") or weight is None or not is_constant(weight):
        return
    if use_count(weight) > 1:
        ctx.skip(node, "its weight is shared and keeps its layout (transB = 0)")
        return
    source, shape = weight.const_value, static_shape(weight)
    if source is not None and shape is not None:
        ctx.edit.set_constant(weight, transformed(ctx.edit, source, np.transpose, shape[::-1]))
        ctx.edit.set_attribute(node, "transB", 1)


def _bias_row(node: ir.Node, ctx: Context) -> None:
    """A bias that broadcasts along the rows in the shape [outputs]."""
    bias, weight = node.inputs[2] if len(node.inputs) > 2 else None, static_shape(node.inputs[1])
    if bias is None or weight is None or not is_constant(bias):
        return
    columns = weight[0] if flag(node, "transB") else weight[1]
    shape = static_shape(bias)
    if shape == (columns,):
        return
    data = array(bias)
    if data is None:
        return
    if data.ndim == 2 and data.shape[0] != 1:
        _add_behind(node, bias, ctx.edit)
        return
    value = own_constant(ctx.edit, node, 2)
    row = np.ascontiguousarray(np.broadcast_to(data.reshape(-1), (columns,)))
    ctx.edit.set_constant(value, row)


def _add_behind(node: ir.Node, table: ir.Value, edit: Edit) -> None:
    """A constant that differs from row to row is no bias of an integer kernel: an Add of its own adds it."""
    name, output = str(node.name), node.outputs[0]
    attributes = {key: attribute.value for key, attribute in node.attributes.items()}
    product = edit.insert("Gemm", node.inputs[:2], before=node, attributes=attributes, name=f"{name}_product")
    product.outputs[0].shape, product.outputs[0].type = output.shape, output.type
    total = replace_node(edit, node, "Add", [product.outputs[0], table])
    edit.rename(total, f"{name}_bias")
    product.name = name  # the layer is known by the node that holds its weight
