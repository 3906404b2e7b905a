"""Requantize: the rescale that every other operator ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnx_ir as ir

from qcompiler.quant.functions.definition import Operator, TensorType, broadcast
from qcompiler.quant.integer import dyadic

__all__ = ["CLAMP", "OPERATORS", "ROUND_AND_CLAMP", "call", "infer_rescaled"]

CLAMP: Final = {"y_zero_point": "int", "to": "int", "low": "int", "high": "int"}
"""Attributes of everything that ends with a rescale."""

_HEAD = """
zx = Constant <value_int: int = @x_zero_point> ()
zy = Constant <value_int: int = @y_zero_point> ()
least = Constant <value_int: int = @low> ()
most = Constant <value_int: int = @high> ()
x64 = Cast <to = 7> (x)
centred = Sub (x64, zx)
c = Cast <to = 13> (shift)
"""

_MULTIPLY = """
b = Cast <to = 7> (multiplier)
product = Mul (centred, b)
"""

_SHIFT_LEFT = """
pattern = Cast <to = 13> (centred)
left = Constant <value = uint64 {16}> ()
moved = BitShift <direction = "LEFT"> (pattern, left)
product = Cast <to = 7> (moved)
"""

# Not Clip, Min or Max: ONNX Runtime 1.24 to 1.31 compares only parts of 64-bit integers there.
# 2^62 makes every product positive, so that an unsigned shift is the arithmetic one; 2^(62-c) takes it away again.
ROUND_AND_CLAMP: Final = """
one = Constant <value = uint64 {1}> ()
offset = Constant <value = uint64 {4611686018427387904}> ()
before = Sub (c, one)
half = BitShift <direction = "LEFT"> (one, before)
rounding = Add (offset, half)
rounding64 = Cast <to = 7> (rounding)
positive = Add (product, rounding64)
positive_bits = Cast <to = 13> (positive)
shifted_bits = BitShift <direction = "RIGHT"> (positive_bits, c)
shifted = Cast <to = 7> (shifted_bits)
surplus_bits = BitShift <direction = "RIGHT"> (offset, c)
surplus = Cast <to = 7> (surplus_bits)
back = Sub (zy, surplus)
code = Add (shifted, back)
under = Less (code, least)
raised = Where (under, least, code)
over = Greater (raised, most)
clipped = Where (over, most, raised)
y = Cast <to: int = @to> (clipped)
"""


def call(accumulator: str, *, multiplies: bool, factor: str = "multiplier, shift") -> str:
    """The last statement of a body: rescale ``accumulator`` (zero point 0) with the node's own attributes."""
    name, inputs = ("Requantize", factor) if multiplies else ("RequantizeShift", "shift")
    passed = ", ".join(f"{key}: int = @{key}" for key in CLAMP)
    return f"y = ai.qcompiler.{name} <x_zero_point = 0, {passed}> ({accumulator}, {inputs})"


def infer_rescaled(shape: Any, attributes: Mapping[str, Any]) -> TensorType:
    """A result of the given shape whose element type the attribute ``to`` names."""
    return TensorType(ir.DataType(int(attributes["to"])), shape)


def _infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    return infer_rescaled(broadcast(*(item.shape for item in types)), attributes)


_TYPES: Final = {"x": "int8 int16 int32 int64", "multiplier": "int32", "shift": "uint8"}

OPERATORS: Final = (
    Operator(
        name="Requantize",
        formula="clip((((x - zx) * b + 2^(c-1)) >> c) + zy, low, high)",
        inputs=("x", "multiplier", "shift"),
        types=_TYPES,
        attributes={"x_zero_point": "int", **CLAMP},
        body=_HEAD + _MULTIPLY + ROUND_AND_CLAMP,
        specification=dyadic.requantize,
        infer=_infer,
        bound="1",
    ),
    Operator(
        name="RequantizeShift",
        formula="clip(((((x - zx) << 16) + 2^(c-1)) >> c) + zy, low, high)",
        inputs=("x", "shift"),
        types={name: _TYPES[name] for name in ("x", "shift")},
        attributes={"x_zero_point": "int", **CLAMP},
        body=_HEAD + _SHIFT_LEFT + ROUND_AND_CLAMP,
        specification=dyadic.requantize_shift,
        infer=_infer,
        bound="1/2",
    ),
)
