"""What makes channels, and what takes them in: matrix products with constant weights, and the end of a norm.

Both are affine in every channel with constants of their own, so that a channel of the result can be divided by a factor
and moved by a shift, and what reads it can multiply the factor in again and add the shift's product to its bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, originals, patterns
from qcompiler.ir.edit import Edit
from qcompiler.ir.transformed import transformed
from qcompiler.ir.uses import use_count

__all__ = ["Linear", "Norm", "change", "linear", "norm", "why_not_constant"]

_NORMS: Final = ("LayerNormalization", "RMSNormalization")
_Floats = NDArray[np.float64]


def why_not_constant(value: ir.Value | None, what: str) -> str:
    """Why a constant cannot be changed; empty where it can."""
    if value is None or not constants.is_constant(value) or value.dtype != ir.DataType.FLOAT:
        return f"its {what} is not a float constant"
    if value.is_graph_output() or use_count(value) != 1:
        return f"its {what} is shared with other nodes"
    if originals.is_kept(value):
        return f"its {what} was fitted to its codes already"
    return ""


def change(value: ir.Value, function: Callable[[NDArray[Any]], NDArray[Any]], edit: Edit) -> None:
    """Let a constant be a function of what it was, computed in float64; its shape stays."""
    tensor = value.const_value
    if tensor is not None:
        shape = [int(size) for size in tensor.shape.numpy()]
        edit.set_constant(value, transformed(edit, tensor, lambda data: function(data.astype(np.float64)), shape))


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A matrix product with a constant matrix, and the bias behind it.

    Attributes:
        node: MatMul or Gemm.
        bias_node: Where a bias can stand: the Gemm itself or the Add behind a MatMul; ``None`` where there is no place.
        bias_index: Which input of that.
        transposed: Whether the weight is ``[outputs, inputs]``.
        size: Inputs and outputs.
    """

    node: ir.Node
    bias_node: ir.Node | None
    bias_index: int
    transposed: bool
    size: tuple[int, int]

    @property
    def result(self) -> ir.Value:
        """The product with the bias added, where there is one."""
        return (self.bias_node or self.node).outputs[0]

    def matrix(self) -> _Floats:
        """The weight as ``[inputs, outputs]``."""
        weight = constants.array(self.node.inputs[1])
        if weight is None:
            raise ValueError(f"the weight of {self.node.name} is not constant")
        return np.asarray(weight.T if self.transposed else weight, np.float64)

    def multiply_inputs(self, factors: _Floats, edit: Edit) -> None:
        """Multiply each row of the matrix by its factor."""
        column = factors if self.transposed else factors[:, None]
        self._weight(lambda weight: weight * column, edit)

    def divide_outputs(self, factors: _Floats, shift: _Floats, edit: Edit) -> None:
        """Let the layer give ``(y - shift) / factors``."""
        row = factors[:, None] if self.transposed else factors
        self._weight(lambda weight: weight / row, edit)
        self._bias(lambda bias: (bias - shift) / factors, edit, needed=bool(shift.any()))

    def turn(self, before: _Floats | None, after: _Floats | None, edit: Edit, *, bias: bool = True) -> None:
        """Replace the matrix by ``before @ matrix @ after``, and the bias (unless left out) by ``bias @ after``."""
        matrix = self.matrix()
        matrix = matrix if before is None else before @ matrix
        turned = matrix if after is None else matrix @ after
        self._weight(lambda _: turned.T if self.transposed else turned, edit)
        if after is not None and bias:
            self._bias(lambda added: added @ after, edit)

    def add_to_bias(self, added: _Floats, edit: Edit) -> None:
        """Add to the bias."""
        self._bias(lambda bias: bias + added, edit, needed=True)

    def _weight(self, function: Callable[[NDArray[Any]], NDArray[Any]], edit: Edit) -> None:
        weight = self.node.inputs[1]
        if weight is not None:
            change(weight, function, edit)

    def _bias(self, function: Callable[[NDArray[Any]], NDArray[Any]], edit: Edit, *, needed: bool = False) -> None:
        node, index = self.bias_node, self.bias_index
        if node is None:
            if needed:
                raise ValueError(f"{self.node.name} has no place for a bias")
            return
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None:
            change(value, function, edit)
        elif needed:
            bias = function(np.zeros(self.size[1]))
            edit.set_input(node, index, edit.constant(f"{node.name}_bias", bias.astype(np.float32)))


def linear(node: ir.Node) -> Linear | str:
    """The layer at a MatMul or Gemm, or why it is none whose constants can be changed."""
    weight = node.inputs[1]
    if reason := why_not_constant(weight, "weight"):
        return reason
    shape = patterns.static_shape(weight)
    if shape is None or len(shape) != 2 or None in shape or 0 in shape:
        return "its weight is no matrix"
    transposed = bool(patterns.integer(node, "transB", 0))
    rows, columns = (int(size or 0) for size in (shape[::-1] if transposed else shape))
    if node.op_type == "MatMul":
        bias_node, index = _bias_behind(node, columns) or (None, 0)
        return Linear(node, bias_node, index, False, (rows, columns))
    plain = (patterns.number(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if patterns.integer(node, "transA", 0) or not all(plain):
        return "it is not canonical"
    if bias is not None and (reason := why_not_constant(bias, "bias")):
        return reason
    if bias is not None and patterns.static_shape(bias) != (columns,):
        return "its bias is no vector of its outputs"
    return Linear(node, node, 2, transposed, (rows, columns))


def _bias_behind(node: ir.Node, columns: int) -> tuple[ir.Node, int] | None:
    add = patterns.only_consumer(node.outputs[0], "Add")
    other = None if add is None else patterns.other_operand(add, node.outputs[0])
    if add is None or other is None or why_not_constant(other, "bias") or patterns.static_shape(other) != (columns,):
        return None
    return add, 0 if add.inputs[0] is other else 1


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """The end of a normalisation: a factor per channel, and a shift where it has one or may get one.

    Attributes:
        node: LayerNormalization, RMSNormalization, or the Mul by a constant that ends a norm written in parts.
        gamma: The factor.
        shift_node: Where the shift stands or can stand; ``None`` where it cannot.
        shift_index: Which input of that.
        result: What comes out.
        size: Channels.
    """

    node: ir.Node
    gamma: ir.Value
    shift_node: ir.Node | None
    shift_index: int
    result: ir.Value
    size: int

    def divide_outputs(self, factors: _Floats, shift: _Floats, edit: Edit) -> None:
        """Let the norm give ``(y - shift) / factors``."""
        change(self.gamma, lambda gamma: gamma / factors, edit)
        node, index = self.shift_node, self.shift_index
        value = None if node is None or index >= len(node.inputs) else node.inputs[index]
        if value is not None:
            change(value, lambda beta: (beta - shift) / factors, edit)
        elif shift.any():
            if node is None:
                raise ValueError(f"{self.node.name} has no place for a shift")
            beta = (-shift / factors).astype(np.float32)
            edit.set_input(node, index, edit.constant(f"{node.name}_shift", beta))


def norm(node: ir.Node) -> Norm | str | None:
    """The norm that ends at a node; why its constants cannot be changed; ``None`` where the node is no such thing."""
    fused = patterns.has_type(node, *_NORMS)
    if not fused and not patterns.has_type(node, "Mul"):
        return None
    gamma = node.inputs[1] if fused else next((item for item in node.inputs if constants.is_constant(item)), None)
    shape = patterns.static_shape(gamma)
    if not fused and (shape is None or len(shape) != 1 or shape[0] in (None, 1)):
        return None
    if gamma is None or (reason := why_not_constant(gamma, "factor")):
        return None if not fused else reason
    rank = patterns.rank(node.inputs[0])
    if fused and (rank is None or patterns.integer(node, "axis", -1) not in (-1, rank - 1)):
        return "it normalises over several axes"
    if shape is None or len(shape) != 1 or shape[0] is None:
        return "its factor is no vector of its channels"
    place = _shift_place(node, shape[0])
    if isinstance(place, str):
        return place
    shift_node, index = place
    result = node.outputs[0] if fused or shift_node is None else shift_node.outputs[0]
    return Norm(node, gamma, shift_node, index, result, shape[0])


def _shift_place(node: ir.Node, size: int) -> tuple[ir.Node | None, int] | str:
    if node.op_type == "RMSNormalization":
        return None, 0
    if node.op_type == "LayerNormalization":
        beta = node.inputs[2] if len(node.inputs) > 2 else None
        return (why_not_constant(beta, "shift") if beta is not None else "") or (node, 2)
    return _bias_behind(node, size) or (None, 0)
