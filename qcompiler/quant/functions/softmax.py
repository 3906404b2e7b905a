"""QSoftmax: the body of the integer softmax, in two variants that differ in their rescales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qcompiler.quant.functions.definition import Operator, TensorType
from qcompiler.quant.functions.rescale import CLAMP, infer_rescaled
from qcompiler.quant.integer import softmax

__all__ = ["OPERATORS"]

_CALL = "<x_zero_point = 0, y_zero_point = 0, to = 6, low = 0, high = {most}>"
_EXPONENT_CALL: Final = _CALL.format(most=softmax.EXPONENT_LIMIT)
_FACTOR_CALL: Final = _CALL.format(most=2**31 - 1)

_DISTANCE = """
axis_one = Constant <value_int: int = @axis> ()
flat = Constant <value_ints = [-1]> ()
axes = Reshape (axis_one, flat)
x32 = Cast <to = 6> (x)
top = ReduceMax <keepdims = 1> (x32, axes)
distance_32 = Sub (top, x32)
distance = Cast <to = 7> (distance_32)
"""

_EXPONENT = f"""
left_16 = Constant <value_int = 65536> ()
scaled = Mul (distance, left_16)
exponent = ai.qcompiler.Requantize {_EXPONENT_CALL} (scaled, x_multiplier, x_shift)
"""

_EXPONENT_SHIFT = f"""
base = Constant <value_int = {softmax.LOG2E}> ()
scaled = Mul (distance, base)
exponent = ai.qcompiler.RequantizeShift {_EXPONENT_CALL} (scaled, x_shift)
"""

_POWERS = f"""
powers = Constant <value = int32[257] {{{", ".join(map(str, softmax.POWERS))}}}> ()
amount_8 = Constant <value = uint32 {{8}}> ()
amount_16 = Constant <value = uint32 {{16}}> ()
rest = Constant <value = int32 {{255}}> ()
following = Constant <value = int32 {{1}}> ()
half_step = Constant <value = int32 {{128}}> ()
exponent_bits = Cast <to = 12> (exponent)
steps_bits = BitShift <direction = "RIGHT"> (exponent_bits, amount_8)
steps = Cast <to = 6> (steps_bits)
index = BitwiseAnd (steps, rest)
next_index = Add (index, following)
between = BitwiseAnd (exponent, rest)
left = Gather (powers, index)
right = Gather (powers, next_index)
fall = Sub (left, right)
part = Mul (fall, between)
part_rounded = Add (part, half_step)
part_bits = Cast <to = 12> (part_rounded)
drop_bits = BitShift <direction = "RIGHT"> (part_bits, amount_8)
drop = Cast <to = 6> (drop_bits)
fraction_power = Sub (left, drop)
power_bits = Cast <to = 12> (fraction_power)
whole_bits = BitShift <direction = "RIGHT"> (exponent_bits, amount_16)
term_bits = BitShift <direction = "RIGHT"> (power_bits, whole_bits)
terms = Cast <to = 7> (term_bits)
"""

_NORMALISE = f"""
total = ReduceSum <keepdims = 1> (terms, axes)
total_bits = Cast <to = 13> (total)
sixteen = Constant <value = uint64 {{16}}> ()
leading_bits = BitShift <direction = "RIGHT"> (total_bits, sixteen)
leading_32 = Cast <to = 6> (leading_bits)
leading = Unsqueeze (leading_32, flat)
limits = Constant <value = int32[16] {{{", ".join(str(1 << power) for power in range(15, 31))}}}> ()
reached = GreaterOrEqual (leading, limits)
reached_32 = Cast <to = 6> (reached)
places_32 = ReduceSum <keepdims = 0> (reached_32, flat)
places = Cast <to = 13> (places_32)
mantissa_bits = BitShift <direction = "RIGHT"> (total_bits, places)
mantissa = Cast <to = 7> (mantissa_bits)
slope = Constant <value_int = {softmax.SLOPE}> ()
start = Constant <value_int = {softmax.START}> ()
two = Constant <value_int = {1 << 61}> ()
amount_30 = Constant <value = uint64 {{30}}> ()
amount_31 = Constant <value = uint64 {{31}}> ()
full_descent = Mul (mantissa, slope)
full_descent_bits = Cast <to = 13> (full_descent)
descent_bits = BitShift <direction = "RIGHT"> (full_descent_bits, amount_31)
descent = Cast <to = 7> (descent_bits)
reciprocal_0 = Sub (start, descent)
"""

_NEWTON = """
product_{next} = Mul (mantissa, reciprocal_{last})
full_correction_{next} = Sub (two, product_{next})
full_correction_bits_{next} = Cast <to = 13> (full_correction_{next})
correction_bits_{next} = BitShift <direction = "RIGHT"> (full_correction_bits_{next}, amount_30)
correction_{next} = Cast <to = 7> (correction_bits_{next})
full_{next} = Mul (reciprocal_{last}, correction_{next})
full_bits_{next} = Cast <to = 13> (full_{next})
reciprocal_bits_{next} = BitShift <direction = "RIGHT"> (full_bits_{next}, amount_30)
reciprocal_{next} = Cast <to = 7> (reciprocal_bits_{next})
"""

_FACTOR = f"factor_32 = ai.qcompiler.Requantize {_FACTOR_CALL} (reciprocal_3, multiplier, shift)\n"
_FACTOR_SHIFT = f"factor_32 = ai.qcompiler.RequantizeShift {_FACTOR_CALL} (reciprocal_3, shift)\n"

# Everything is positive before the zero point is added: an unsigned shift needs no offset. The last Reshape changes
# nothing, but ONNX shape inference loses the shape in the reductions.
_RESULT = """
factor = Cast <to = 7> (factor_32)
product = Mul (terms, factor)
one = Constant <value = uint64 {1}> ()
before_amount = Constant <value = uint64 {35}> ()
before = Add (places, before_amount)
half = BitShift <direction = "LEFT"> (one, before)
half_64 = Cast <to = 7> (half)
rounded = Add (product, half_64)
rounded_bits = Cast <to = 13> (rounded)
amount = Add (before, one)
share_bits = BitShift <direction = "RIGHT"> (rounded_bits, amount)
share = Cast <to = 7> (share_bits)
zy = Constant <value_int: int = @y_zero_point> ()
least = Constant <value_int: int = @low> ()
most = Constant <value_int: int = @high> ()
code = Add (share, zy)
under = Less (code, least)
raised = Where (under, least, code)
over = Greater (raised, most)
clipped = Where (over, most, raised)
dims = Shape (x)
same = Reshape (clipped, dims)
y = Cast <to: int = @to> (same)
"""

_RECIPROCAL: Final = _NORMALISE + "".join(_NEWTON.format(last=step, next=step + 1) for step in range(3))

_TYPES: Final = {
    "x": "int8 int16",
    "x_multiplier": "int32",
    "x_shift": "uint8",
    "multiplier": "int32",
    "shift": "uint8",
}


def _infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    return infer_rescaled(types[0].shape, attributes)


OPERATORS: Final = (
    Operator(
        name="QSoftmax",
        formula="e = 2^-((max - x) * bx * 2^-cx); clip(e / sum(e) * 2^24 * b * 2^-c + zy, low, high)",
        inputs=("x", "x_multiplier", "x_shift", "multiplier", "shift"),
        types=_TYPES,
        attributes={"axis": "int", **CLAMP},
        body=_DISTANCE + _EXPONENT + _POWERS + _RECIPROCAL + _FACTOR + _RESULT,
        specification=softmax.softmax,
        infer=_infer,
        bound="1; 2 at 16 bits and scales below 1/65535",
        calls=("Requantize",),
    ),
    Operator(
        name="QSoftmaxShift",
        formula="e = 2^-((max - x) * log2(e) * 2^(28-cx)); clip(e / sum(e) * 2^(40-c) + zy, low, high)",
        inputs=("x", "x_shift", "shift"),
        types={name: _TYPES[name] for name in ("x", "x_shift", "shift")},
        attributes={"axis": "int", **CLAMP},
        body=_DISTANCE + _EXPONENT_SHIFT + _POWERS + _RECIPROCAL + _FACTOR_SHIFT + _RESULT,
        specification=softmax.softmax_shift,
        infer=_infer,
        bound="1; 2 at 16 bits and scales below 1/65535",
        calls=("RequantizeShift",),
    ),
)
