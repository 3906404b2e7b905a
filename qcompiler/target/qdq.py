"""Read a graph that holds Q/DQ nodes: which operator works on which codes.

An operator runs on integers when every activation it reads comes through a DequantizeLinear and its result goes
into QuantizeLinear nodes only, possibly through an activation that the target absorbs. This module says so without
judging; :mod:`qcompiler.target.checks` judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array, is_constant, tensor
from qcompiler.target.schema import OperatorRule, Output, Role

__all__ = ["Codes", "View", "codes_of", "codes_read", "is_integer", "row_codes", "view"]

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """What one QuantizeLinear or DequantizeLinear says about the tensor of codes beside it.

    Attributes:
        value: The tensor of codes.
        dtype: Its element type.
        scale: Scales as stored; ``None`` where they are not constant.
        zero_point: Zero points as int64, zeros where left out; ``None`` where not constant.
        axis: Axis of per-channel and per-block scales, as stored.
        block: Block size; 0 without blocks.
    """

    value: ir.Value
    dtype: ir.DataType
    scale: Array | None
    zero_point: Array | None
    axis: int
    block: int

    def same_parameters(self, other: Codes) -> bool:
        """Whether both have equal types, scales and zero points."""
        if self.scale is None or other.scale is None or self.zero_point is None or other.zero_point is None:
            return False
        return (
            self.dtype == other.dtype
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One operator and the codes around it.

    Attributes:
        node: The operator.
        rule: The target's rule for it.
        activations: Codes of the activations it reads, by input index; ``None`` for a real-valued one.
        weight: Codes of its constant weight; ``None`` where it has none or it is real-valued.
        float_weight: Whether it has a constant weight that is real-valued.
        bias: Codes of its bias; ``None`` where it has none or it is real-valued.
        float_bias: Whether it has a bias that is real-valued.
        results: Codes written, one per reader of each used output; empty where a reader wants real numbers.
        absorbed: The activation operators between it and its QuantizeLinear.
    """

    node: ir.Node
    rule: OperatorRule
    activations: dict[int, Codes | None]
    weight: Codes | None
    float_weight: bool
    bias: Codes | None
    float_bias: bool
    results: tuple[Codes, ...]
    absorbed: tuple[ir.Node, ...]


def view(node: ir.Node, rule: OperatorRule) -> View:
    """Look at what surrounds a node."""
    activations: dict[int, Codes | None] = {}
    weight = bias = None
    float_weight = float_bias = False
    for index, value in enumerate(node.inputs):
        role = rule.role(index)
        if value is None or role is Role.FLOAT:
            continue
        codes = codes_read(value)
        if role is Role.BIAS:
            bias, float_bias = codes, codes is None
        elif role is Role.WEIGHT and is_constant(codes.value if codes is not None else value):
            weight, float_weight = codes, codes is None
        else:
            activations[index] = codes
    results, absorbed = _results(node, rule)
    return View(node, rule, activations, weight, float_weight, bias, float_bias, results, absorbed)


def is_integer(seen: View) -> bool:
    """Whether the target's integer kernel is meant to take the node.

    A node whose weight is left real-valued on purpose does not count: its bias, where it may have one, comes
    through a DequantizeLinear, which keeps ONNX Runtime from quantizing the weight behind our back.
    """
    if not seen.activations and seen.weight is None:  # (rows of a table of codes are looked up without activations)
        return False
    if any(codes is None for codes in seen.activations.values()):
        return False
    if seen.float_weight and (seen.bias is not None or Role.BIAS not in seen.rule.inputs):
        return False
    if seen.rule.output is Output.QUANTIZED or seen.float_weight:
        return bool(seen.results)
    return True


def codes_read(value: ir.Value) -> Codes | None:
    """The codes behind a value that a DequantizeLinear gives; ``None`` for any other value."""
    producer = value.producer()
    return codes_of(producer) if producer is not None and producer.op_type == "DequantizeLinear" else None


def row_codes(value: ir.Value | None) -> Codes | None:
    """The constant codes ``[V, D]`` behind a table with a scale per row and no zero points; ``None`` for any other."""
    codes = None if value is None else codes_read(value)
    stored = None if codes is None else tensor(codes.value)
    if codes is None or stored is None or codes.scale is None or codes.zero_point is None or codes.zero_point.any():
        return None
    per_row = codes.axis in (0, -2) and not codes.block and len(stored.shape) == 2
    return codes if per_row and codes.scale.shape == (stored.shape[0],) else None


def _results(node: ir.Node, rule: OperatorRule) -> tuple[tuple[Codes, ...], tuple[ir.Node, ...]]:
    """Codes written by each reader of the used outputs, and the activations absorbed on the way."""
    absorbed: list[ir.Node] = []
    outputs = [value for value in node.outputs if value.is_graph_output() or _readers(value)]
    if len(outputs) == 1:
        while (following := _absorbable(outputs[0], rule)) is not None:
            absorbed.append(following)
            outputs = [following.outputs[0]]
    results: list[Codes] = []
    for value in outputs:
        for reader in _readers(value):
            if reader.op_type != "QuantizeLinear" or reader.inputs[0] is not value:
                return (), ()
            results.append(codes_of(reader))
        if value.is_graph_output():
            return (), ()
    return tuple(results), tuple(absorbed)


def _absorbable(value: ir.Value, rule: OperatorRule) -> ir.Node | None:
    uses = list(value.uses())
    if value.is_graph_output() or len(uses) != 1:
        return None
    node, index = uses[0].node, uses[0].idx
    if node.domain or node.op_type not in rule.fuse:
        return None
    if node.op_type == "Add":  # a bias: the other operand is a constant vector, stored as it is or as codes
        other = node.inputs[1 - index]
        codes = codes_read(other) if other is not None else None
        return node if is_constant(codes.value if codes is not None else other) else None
    if node.op_type == "Min":  # an upper bound per channel
        return node if len(node.inputs) == 2 and is_constant(node.inputs[1 - index]) else None
    return node if index == 0 else None


def _readers(value: ir.Value) -> list[ir.Node]:
    return [use.node for use in value.uses()]


def codes_of(node: ir.Node) -> Codes:
    """What a QuantizeLinear or DequantizeLinear node says."""
    writes = node.op_type == "QuantizeLinear"
    value = node.outputs[0] if writes else node.inputs[0]
    if value is None:
        raise ValueError(f"{node.name} reads nothing")
    scale = array(node.inputs[1])
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    points = array(zero) if zero is not None else None
    if zero is None and scale is not None:
        points = np.zeros(scale.shape, np.int64)
    return Codes(
        value,
        _dtype(node, value, zero),
        scale,
        None if points is None else points.astype(np.int64),
        node.attributes.get_int("axis", 1),
        node.attributes.get_int("block_size", 0),
    )


def _dtype(node: ir.Node, value: ir.Value, zero: ir.Value | None) -> ir.DataType:
    """The type of the codes: of the zero point, else as declared, else of the tensor, else uint8."""
    for source in (zero, value):
        if source is not None and source.const_value is not None:
            return source.const_value.dtype
        if source is not None and source.dtype is not None and source.dtype is not ir.DataType.UNDEFINED:
            return source.dtype
    declared = node.attributes.get_int("output_dtype", 0) if node.op_type == "QuantizeLinear" else 0
    return ir.DataType(declared or ir.DataType.UINT8)
