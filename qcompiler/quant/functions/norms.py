"""QLayerNormalization and QRMSNormalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qcompiler.quant.functions.definition import Operator, TensorType
from qcompiler.quant.functions.rescale import CLAMP, infer_rescaled
from qcompiler.quant.integer import norms
from qcompiler.quant.integer.reciprocal_root import TABLE, THRESHOLDS

__all__ = ["OPERATORS"]

# sum q^2 and the square of sum q leave the zero point in: it cancels in their difference.
_CENTRE = """
over = Constant <value_ints: ints = @axes> ()
count = Constant <value_int: int = @size> ()
codes = Cast <to = 7> (x)
total = ReduceSum <keepdims = 1> (codes, over)
counted = Mul (codes, count)
centred = Sub (counted, total)
squares = Mul (codes, codes)
squares_total = ReduceSum <keepdims = 1> (squares, over)
squares_counted = Mul (squares_total, count)
total_square = Mul (total, total)
moment = Sub (squares_counted, total_square)
"""

_ENERGY = """
over = Constant <value_ints: ints = @axes> ()
zx = Constant <value_int: int = @x_zero_point> ()
codes = Cast <to = 7> (x)
centred = Sub (codes, zx)
squares = Mul (centred, centred)
moment = ReduceSum <keepdims = 1> (squares, over)
"""

# Everything here has one number per row; its last axis has size 1, along which the thresholds are laid out.
_ROOT = f"""
one = Constant <value_int = 1> ()
last = Constant <value_ints = [-1]> ()
left_bits = Constant <value_int: int = @left> ()
right_bits = Constant <value_int: int = @right> ()
left_amount = Cast <to = 13> (left_bits)
right_amount = Cast <to = 13> (right_bits)
moment_bits = Cast <to = 13> (moment)
moment_left = BitShift <direction = "LEFT"> (moment_bits, left_amount)
moment_right = BitShift <direction = "RIGHT"> (moment_left, right_amount)
moment_placed = Cast <to = 7> (moment_right)
epsilon_placed = Constant <value_int: int = @epsilon> ()
radicand = Add (moment_placed, epsilon_placed)
thresholds = Constant <value_ints = {list(THRESHOLDS)}> ()
below = Less (radicand, thresholds)
below_counted = Cast <to = 7> (below)
pairs = ReduceSum <keepdims = 1> (below_counted, last)
places = Add (pairs, pairs)
places_amount = Cast <to = 13> (places)
radicand_bits = Cast <to = 13> (radicand)
normal_bits = BitShift <direction = "LEFT"> (radicand_bits, places_amount)
cell_amount = Constant <value = uint64 {{55}}> ()
cell_bits = BitShift <direction = "RIGHT"> (normal_bits, cell_amount)
cell = Cast <to = 7> (cell_bits)
cell_first = Constant <value_int = 32> ()
entry = Sub (cell, cell_first)
entries = Constant <value_ints = {list(TABLE)}> ()
root_0 = Gather (entries, entry)
leading_amount = Constant <value = uint64 {{31}}> ()
square_amount = Constant <value = uint64 {{29}}> ()
root_amount = Constant <value = uint64 {{30}}> ()
three = Constant <value_int = {3 << 60}> ()
leading_bits = BitShift <direction = "RIGHT"> (normal_bits, leading_amount)
leading = Cast <to = 7> (leading_bits)
"""

_NEWTON = """
full_square_{next} = Mul (root_{last}, root_{last})
full_square_bits_{next} = Cast <to = 13> (full_square_{next})
square_bits_{next} = BitShift <direction = "RIGHT"> (full_square_bits_{next}, square_amount)
square_{next} = Cast <to = 7> (square_bits_{next})
product_{next} = Mul (leading, square_{next})
full_correction_{next} = Sub (three, product_{next})
full_correction_bits_{next} = Cast <to = 13> (full_correction_{next})
correction_bits_{next} = BitShift <direction = "RIGHT"> (full_correction_bits_{next}, leading_amount)
correction_{next} = Cast <to = 7> (correction_bits_{next})
full_root_{next} = Mul (root_{last}, correction_{next})
full_root_bits_{next} = Cast <to = 13> (full_root_{next})
root_bits_{next} = BitShift <direction = "RIGHT"> (full_root_bits_{next}, root_amount)
root_{next} = Cast <to = 7> (root_bits_{next})
"""

_NORMAL = """
root_shift_64 = Constant <value_int: int = @root_shift> ()
amount_any = Sub (root_shift_64, pairs)
amount_low = Less (amount_any, one)
amount_64 = Where (amount_low, one, amount_any)
amount = Cast <to = 2> (amount_64)
root = Cast <to = 6> (root_2)
normal_32 = ai.qcompiler.Requantize <x_zero_point = 0, y_zero_point = 0, to = 6, low = -2147483648, high = 2147483647>
  (centred, root, amount)
normal = Cast <to = 7> (normal_32)
factor = Cast <to = 7> (signed_multiplier)
"""

_BIAS = """
scaled = Mul (normal, factor)
accumulator = Add (scaled, bias)
"""

_NO_BIAS = """
accumulator = Mul (normal, factor)
"""

_TAIL = f"""
unit = Constant <value = int32 {{1}}> ()
y = ai.qcompiler.Requantize <x_zero_point = 0, {", ".join(f"{key}: int = @{key}" for key in CLAMP)}>
  (accumulator, unit, shift)
"""

_MIDDLE: Final = _ROOT + _NEWTON.format(last=0, next=1) + _NEWTON.format(last=1, next=2) + _NORMAL

_CONSTANTS: Final = {"left": "int", "right": "int", "epsilon": "int", "root_shift": "int"}

_TYPES: Final = {"x": "int8 int16", "signed_multiplier": "int32", "bias": "int64", "shift": "uint8"}


def _infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    return infer_rescaled(types[0].shape, attributes)


OPERATORS: Final = (
    Operator(
        name="QLayerNormalization",
        formula="clip(((n * g + bias + 2^(h-1)) >> h) + zy, low, high), n = c / sqrt(v) in fixed point, "
        "c = N * x - sum(x), v = ((N * sum(x^2) - sum(x)^2) << left >> right) + epsilon",
        inputs=("x", "signed_multiplier", "bias", "shift"),
        types=_TYPES,
        attributes={"axes": "ints", "size": "int", **_CONSTANTS, **CLAMP},
        body=_CENTRE + _MIDDLE + _BIAS + _TAIL,
        specification=norms.layer_normalization,
        infer=_infer,
        bound="1",
        calls=("Requantize",),
    ),
    Operator(
        name="QRMSNormalization",
        formula="clip(((n * g + 2^(h-1)) >> h) + zy, low, high), n = c / sqrt(v) in fixed point, "
        "c = x - zx, v = (sum(c^2) << left >> right) + epsilon",
        inputs=("x", "signed_multiplier", "shift"),
        types={name: kinds for name, kinds in _TYPES.items() if name != "bias"},
        attributes={"axes": "ints", "x_zero_point": "int", **_CONSTANTS, **CLAMP},
        body=_ENERGY + _MIDDLE + _NO_BIAS + _TAIL,
        specification=norms.rms_normalization,
        infer=_infer,
        bound="1",
        calls=("Requantize",),
    ),
)
