"""QMatMulWeightOnly: float activations, weights of few bits with an integer multiplier per block.

A runtime multiplies bytes. The weight without the scales of its rows, ``m * (code - zero_point)``, has at most 20
bits: it is cut into three digits of 7 bits, ``low + 128 middle + 16384 high``, when the model is loaded, and three
products are added in 64 bits. So nothing is as large as all blocks of all results, whose sums a body that went block
by block would have to keep.

Why 7 bits: products of unsigned activations (``q + 128``) and signed weights are the fast ones of ONNX Runtime on x86
(25 times faster than signed by signed), but processors without dot-product instructions saturate sums of two in 16
bits. ``2 * 255 * 64 < 2^15``: these cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnx_ir as ir

from qcompiler.quant.functions.definition import Operator, TensorType
from qcompiler.quant.integer.weight_only import matmul_weight_only

__all__ = ["ADDRESSES", "JOIN", "OPERATORS"]

ADDRESSES: Final = """
unit = Constant <value = uint8 {1}> ()
seven = Constant <value = uint8 {7}> ()
eighth = Constant <value = uint64 {3}> ()
last_place = Constant <value = uint64 {7}> ()
depth = Gather (logical, step)
numbers = Range (start, depth, step)
first_bits = Mul (numbers, width)
addresses = Cast <to = 13> (first_bits)
octets = BitShift <direction = "RIGHT"> (addresses, eighth)
places = BitwiseAnd (addresses, last_place)
lower_octet = Cast <to = 7> (octets)
next_octet = Add (lower_octet, step)
octets_per_row = Shape <start = 1> (w)
last_octet = Sub (octets_per_row, step)
upper_octet = Min (next_octet, last_octet)
"""
"""Which octets of a row hold each of its ``depth`` codes, from constants ``width``, ``logical``, ``start``, ``step``.

A code lies in one octet or crosses into the next, which lie at ``lower_octet`` and ``upper_octet``.
"""

JOIN: Final = """
lower_moved = BitShift <direction = "RIGHT"> (lower_part, down)
upper_almost = BitShift <direction = "LEFT"> (upper_part, up)
upper_moved = BitShift <direction = "LEFT"> (upper_almost, unit)
joined = BitwiseOr (lower_moved, upper_moved)
width_bits = Cast <to = 2> (width)
sign_place = Sub (width_bits, unit)
sign = BitShift <direction = "LEFT"> (unit, sign_place)
below_sign = Sub (sign, unit)
mask = BitwiseOr (sign, below_sign)
unsigned = BitwiseAnd (joined, mask)
flipped = BitwiseXor (unsigned, sign)
"""
"""Codes plus ``sign``, in ``flipped``, from both octets and the places ``down`` and ``up = 7 - down``.

Where a code does not cross, the next octet moves by 7 and 1, out of the octet.
"""

# Everything down to the three bytes of the weight is constant. Codes are columns from the first statement on.
_UNPACK: Final = f"""
width = Constant <value_int: int = @bits> ()
block_length = Constant <value_int: int = @block> ()
logical = Constant <value_ints: ints = @weight_shape> ()
start = Constant <value_int = 0> ()
step = Constant <value_int = 1> ()
second = Constant <value_ints = [1]> ()
{ADDRESSES}
place_column = Unsqueeze (places, second)
down = Cast <to = 2> (place_column)
up = Sub (seven, down)
columns = Transpose <perm = [1, 0]> (w)
lower_part = Gather <axis = 0> (columns, lower_octet)
upper_part = Gather <axis = 0> (columns, upper_octet)
{JOIN}"""

# flipped = code + sign, so m (code - zero) = m flipped - m (sign + zero). With 64 (1 + 128) more, the digits of the sum
# are those of low, middle and high, the first two 64 too large; 2^24 keeps it positive and is gone from a byte.
_DIGITS: Final = """
sign_32 = Cast <to = 6> (sign)
zero_columns = Transpose <perm = [1, 0]> (zero_point)
zero_32 = Cast <to = 6> (zero_columns)
origin = Add (zero_32, sign_32)
multiplier_columns = Transpose <perm = [1, 0]> (block_multiplier)
multiplier_32 = Cast <to = 6> (multiplier_columns)
offset = Constant <value = int32 {16785472}> ()
share = Mul (multiplier_32, origin)
rest = Sub (offset, share)
block_of = Div (numbers, block_length)
multipliers = Gather <axis = 0> (multiplier_32, block_of)
rests = Gather <axis = 0> (rest, block_of)
flipped_32 = Cast <to = 6> (flipped)
scaled_codes = Mul (flipped_32, multipliers)
moved = Add (scaled_codes, rests)
pattern = Cast <to = 12> (moved)
one_digit = Constant <value = uint32 {7}> ()
two_digits = Constant <value = uint32 {14}> ()
digit_mask = Constant <value = uint8 {127}> ()
centre = Constant <value = int8 {64}> ()
low_octet = Cast <to = 2> (pattern)
low_digit = BitwiseAnd (low_octet, digit_mask)
low_code = Cast <to = 3> (low_digit)
low = Sub (low_code, centre)
middle_bits = BitShift <direction = "RIGHT"> (pattern, one_digit)
middle_octet = Cast <to = 2> (middle_bits)
middle_digit = BitwiseAnd (middle_octet, digit_mask)
middle_code = Cast <to = 3> (middle_digit)
middle = Sub (middle_code, centre)
high_bits = BitShift <direction = "RIGHT"> (pattern, two_digits)
high = Cast <to = 3> (high_bits)
"""

# The slices change nothing, except that ONNX Runtime before 1.32 keeps the reduced axis where there are no rows.
_ROWS: Final = """
last_axis = Constant <value_ints = [-1]> ()
nothing = Constant <value = float {0}> ()
greatest_code = Constant <value = float {127}> ()
least_magnitude = Constant <value = float {7.888609052210118e-31}> ()
magnitude = Abs (x)
vanished = Mul (magnitude, nothing)
from_start = Constant <value_ints = [0]> ()
one_column = Constant <value_ints = [1]> ()
guard_or_empty = ReduceSum (vanished, last_axis)
guard = Slice (guard_or_empty, from_start, one_column, last_axis)
greatest_or_empty = ReduceMax (magnitude, last_axis)
greatest = Slice (greatest_or_empty, from_start, one_column, last_axis)
large_enough = GreaterOrEqual (greatest, least_magnitude)
is_finite = Equal (guard, nothing)
usable = And (large_enough, is_finite)
inverse = Div (greatest_code, greatest)
scaled = Mul (x, inverse)
rounded = Round (scaled)
kept = Where (usable, rounded, nothing)
zero_code = Constant <value = float {128}> ()
raised = Add (kept, zero_code)
q = Cast <to = 2> (raised)
q_zero = Constant <value = uint8 {128}> ()
row_scale = Div (greatest, greatest_code)
"""

_PRODUCT: Final = """
low_sum = MatMulInteger (q, low, q_zero)
middle_sum = MatMulInteger (q, middle, q_zero)
high_sum = MatMulInteger (q, high, q_zero)
low_64 = Cast <to = 7> (low_sum)
middle_64 = Cast <to = 7> (middle_sum)
high_64 = Cast <to = 7> (high_sum)
base = Constant <value_int = 128> ()
square = Constant <value_int = 16384> ()
middle_share = Mul (middle_64, base)
high_share = Mul (high_64, square)
lower_total = Add (low_64, middle_share)
total = Add (lower_total, high_share)
total_float = Cast <to = 1> (total)
factor = Mul (row_scale, scale)
product = Mul (total_float, factor)
y = Add (product, guard)
"""


def _infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    x = types[0].shape
    shape = None if not x else (*x[:-1], int(attributes["weight_shape"][0]))
    return TensorType(ir.DataType.FLOAT, shape)


OPERATORS: Final = (
    Operator(
        name="QMatMulWeightOnly",
        formula=(
            "float32(total) * (a / 127 * scale) + sum(|x| * 0), a = max |x| of a row, q = round(x * (127 / a)), "
            "total = sum over blocks of block_multiplier * sum of q * (w - zero_point)"
        ),
        inputs=("x", "w", "block_multiplier", "scale", "zero_point"),
        types={
            "x": "float",
            "w": "uint8",
            "block_multiplier": "uint16",
            "scale": "float",
            "zero_point": "int8, per block or [1, 1]",
        },
        attributes={"bits": "int", "block": "int", "weight_shape": "ints"},
        body=_UNPACK + _DIGITS + _ROWS + _PRODUCT,
        specification=matmul_weight_only,
        infer=_infer,
        bound="a float: x in steps of a / 127",
    ),
)
