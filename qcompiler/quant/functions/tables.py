"""Functions of one number: tables over all codes, and interpolated tables over 16-bit codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qcompiler.quant.functions.definition import Operator, TensorType
from qcompiler.quant.functions.rescale import infer_rescaled
from qcompiler.quant.integer import tables

__all__ = ["OPERATORS"]

_LOOKUP = """
code = Cast <to = 6> (x)
first = Constant <value = int32 {128}> ()
index = Add (code, first)
y = Gather (table, index)
"""

# 2^30 makes sums positive, so that an unsigned shift is the arithmetic one; 2^21 and 2^17 take it away again.
_INTERPOLATED = """
code = Cast <to = 6> (x)
first = Constant <value = int32 {32768}> ()
position = Add (code, first)
step_bits = Constant <value = uint32 {7}> ()
rest = Constant <value = int32 {127}> ()
step = Constant <value = int32 {128}> ()
following = Constant <value = int32 {1}> ()
position_bits = Cast <to = 12> (position)
index_bits = BitShift <direction = "RIGHT"> (position_bits, step_bits)
index = Cast <to = 6> (index_bits)
next_index = Add (index, following)
fraction = BitwiseAnd (position, rest)
left = Gather (table, index)
right = Gather (table, next_index)
rise = Sub (right, left)
part = Mul (rise, fraction)
whole = Mul (left, step)
line = Add (whole, part)
head = Constant <value_ints = [0]> ()
inner = Constant <value_ints = [1]> ()
tail = Constant <value_ints = [2]> ()
size = Constant <value_ints = [513]> ()
to_inner = Constant <value_ints = [512]> ()
to_head = Constant <value_ints = [511]> ()
before_each = Slice (table, head, to_head)
each = Slice (table, inner, to_inner)
after_each = Slice (table, tail, size)
descent = Sub (before_each, each)
ascent = Sub (after_each, each)
second = Add (descent, ascent)
none = Constant <value = int32 {0}> ()
final = Constant <value = int32 {510}> ()
left_any = Sub (index, following)
left_index = Max (left_any, none)
right_index = Min (index, final)
left_second = Gather (second, left_index)
right_second = Gather (second, right_index)
both = Add (left_second, right_second)
opposite = Sub (step, fraction)
arch = Mul (fraction, opposite)
curved_any = Constant <value_int: int = @curved> ()
curved_32 = Cast <to = 6> (curved_any)
arch_taken = Mul (arch, curved_32)
bend_fine = Mul (arch_taken, both)
bend_offset = Constant <value = int32 {1073742080}> ()
bend_amount = Constant <value = uint32 {9}> ()
bend_surplus = Constant <value = int32 {2097152}> ()
bend_positive = Add (bend_fine, bend_offset)
bend_bits = Cast <to = 12> (bend_positive)
bend_shifted = BitShift <direction = "RIGHT"> (bend_bits, bend_amount)
bend_32 = Cast <to = 6> (bend_shifted)
bend = Sub (bend_32, bend_surplus)
value = Sub (line, bend)
amount = Constant <value = uint32 {13}> ()
rounding = Constant <value = int32 {1073745920}> ()
positive = Add (value, rounding)
positive_bits = Cast <to = 12> (positive)
shifted_bits = BitShift <direction = "RIGHT"> (positive_bits, amount)
shifted = Cast <to = 6> (shifted_bits)
surplus = Constant <value = int32 {131072}> ()
code_any = Sub (shifted, surplus)
least_64 = Constant <value_int: int = @low> ()
most_64 = Constant <value_int: int = @high> ()
least = Cast <to = 6> (least_64)
most = Cast <to = 6> (most_64)
raised = Max (code_any, least)
clipped = Min (raised, most)
y = Cast <to: int = @to> (clipped)
"""


def _infer_lookup(types: Sequence[TensorType], _: Mapping[str, Any]) -> TensorType:
    return TensorType(types[1].dtype, types[0].shape)


def _infer_interpolated(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    return infer_rescaled(types[0].shape, attributes)


OPERATORS: Final = (
    Operator(
        name="QLookup",
        formula="table[x + 128]",
        inputs=("x", "table"),
        types={"x": "int8", "table": "int8 or int16, 256 entries"},
        attributes={},
        body=_LOOKUP,
        specification=tables.lookup,
        infer=_infer_lookup,
        bound="0",
    ),
    Operator(
        name="QLookupInterpolated",
        formula="clip(line or parabola from t[i] to t[i+1] at f / 128), u = x + 32768, i = u >> 7, f = u & 127",
        inputs=("x", "table"),
        types={"x": "int16", "table": "int32, 513 entries"},
        attributes={"curved": "int", "to": "int", "low": "int", "high": "int"},
        body=_INTERPOLATED,
        specification=tables.lookup_interpolated,
        infer=_infer_interpolated,
        bound="1 for smooth functions; measured when the table is made",
    ),
)
