"""What the bodies and definitions of linear operators share: unpacking, bytes of 16-bit codes, variants.

Every product is int8 × int8: processors without dot-product instructions saturate sums of uint8 × int8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.quant.functions.definition import Operator, TensorType
from qcompiler.quant.functions.rescale import CLAMP, call
from qcompiler.quant.integer.linear import Linear

__all__ = ["JOIN", "SPLIT", "UNPACK", "Family", "variants"]

UNPACK: Final = """
width = Constant <value_int: int = @bits> ()
logical = Constant <value_ints: ints = @weight_shape> ()
start = Constant <value_int = 0> ()
step = Constant <value_int = 1> ()
behind_rows = Constant <value_ints = [1]> ()
end = Constant <value_ints = [2147483647]> ()
unit = Constant <value = uint8 {1}> ()
octet = Constant <value = uint8 {8}> ()
eighth = Constant <value = uint64 {3}> ()
seven = Constant <value = uint64 {7}> ()
inner = Slice (logical, behind_rows, end)
depth = ReduceProd <keepdims = 0> (inner)
numbers = Range (start, depth, step)
first_bits = Mul (numbers, width)
addresses = Cast <to = 13> (first_bits)
octets = BitShift <direction = "RIGHT"> (addresses, eighth)
places = BitwiseAnd (addresses, seven)
lower_octet = Cast <to = 7> (octets)
next_octet = Add (lower_octet, step)
octets_per_row = Shape <start = 1> (w)
last_octet = Sub (octets_per_row, step)
upper_octet = Min (next_octet, last_octet)
down = Cast <to = 2> (places)
up = Sub (octet, down)
lower_part = Gather <axis = 1> (w, lower_octet)
upper_part = Gather <axis = 1> (w, upper_octet)
lower_moved = BitShift <direction = "RIGHT"> (lower_part, down)
upper_moved = BitShift <direction = "LEFT"> (upper_part, up)
joined = BitwiseOr (lower_moved, upper_moved)
width_bits = Cast <to = 2> (width)
beyond = BitShift <direction = "LEFT"> (unit, width_bits)
mask = Sub (beyond, unit)
sign = BitShift <direction = "RIGHT"> (beyond, unit)
unsigned = BitwiseAnd (joined, mask)
flipped = BitwiseXor (unsigned, sign)
flipped_signed = Cast <to = 3> (flipped)
sign_signed = Cast <to = 3> (sign)
rows = Sub (flipped_signed, sign_signed)
weight = Reshape (rows, logical)
"""
"""From packed ``w`` to int8 ``weight``; constants all, so a runtime computes them once when it loads the model.

A code lies in one octet or crosses into the next, so two octets hold it. Where it does not cross, whatever the next
one brings lies above the code and is masked away. Everything as large as the weight has 8 bits: a runtime that folds
constants keeps every intermediate result for a while.
"""

SPLIT: Final = """
half_range = Constant <value = int32 {32768}> ()
byte = Constant <value = uint32 {8}> ()
low_byte = Constant <value = uint32 {255}> ()
centre = Constant <value = int32 {128}> ()
shifted = Add (wide, half_range)
pattern = Cast <to = 12> (shifted)
upper_bits = BitShift <direction = "RIGHT"> (pattern, byte)
upper32 = Cast <to = 6> (upper_bits)
upper_signed = Sub (upper32, centre)
upper = Cast <to = 3> (upper_signed)
lower_bits = BitwiseAnd (pattern, low_byte)
lower32 = Cast <to = 6> (lower_bits)
lower_signed = Sub (lower32, centre)
lower = Cast <to = 3> (lower_signed)
lower_zero = Constant <value = int8 {-128}> ()
"""
"""From int32 ``wide`` in 16 bits to int8 ``upper`` and ``lower``: ``wide = 256 * upper + (lower - lower_zero)``."""

JOIN: Final = """
upper_sum64 = Cast <to = 7> (upper_sum)
lower_sum64 = Cast <to = 7> (lower_sum)
base = Constant <value_int = 256> ()
upper_share = Mul (upper_sum64, base)
products = Add (upper_share, lower_sum64)
"""
"""From the sums of both bytes to the sum ``products`` of the 16-bit codes."""

_PACKED: Final = {"bits": "int", "weight_shape": "ints"}


@dataclass(frozen=True, slots=True)
class Family:
    """What the variants of one operator are made from.

    Attributes:
        name: Operator without endings.
        formula: Its accumulator, for the reference table.
        inputs: Inputs before multiplier and shift, with their types: 8-bit activations, plain weights.
        wide_types: Types of the inputs that differ with 16-bit activations.
        attributes: Attributes before those of packing and of the clamp.
        body: Statements that give ``accumulator``, from ``wide`` and ``packed``.
        accumulate: The same in NumPy.
        shape: Shape of the result from types and attributes; a packed weight is given with its logical shape.
        accumulate_packed: The same where weights are packed: rows are output channels. ``None``: nothing is packed.
    """

    name: str
    formula: str
    inputs: Mapping[str, str]
    wide_types: Mapping[str, str]
    attributes: Mapping[str, str]
    body: Callable[[bool, bool], str]
    accumulate: Callable[..., NDArray[np.int64]]
    shape: Callable[[Sequence[TensorType], Mapping[str, Any]], Any]
    accumulate_packed: Callable[..., NDArray[np.int64]] | None


def variants(family: Family) -> tuple[Operator, ...]:
    """All operators of a family: × Wide × Packed × Shift."""
    return tuple(
        _variant(family, wide, packed, multiplies)
        for wide in (False, True)
        for packed in ((False, True) if family.accumulate_packed is not None else (False,))
        for multiplies in (True, False)
    )


def _variant(family: Family, wide: bool, packed: bool, multiplies: bool) -> Operator:
    types = {**family.inputs, **(family.wide_types if wide else {}), **({"w": "uint8"} if packed else {})}
    types |= {"multiplier": "int32", "shift": "uint8"} if multiplies else {"shift": "uint8"}
    accumulate = family.accumulate_packed if packed and family.accumulate_packed is not None else family.accumulate
    endings = ("Wide" if wide else "") + ("Packed" if packed else "") + ("" if multiplies else "Shift")
    return Operator(
        name=family.name + endings,
        formula=family.formula,
        inputs=tuple(types),
        types=types,
        attributes={**family.attributes, **(_PACKED if packed else {}), **CLAMP},
        body=family.body(wide, packed) + call("accumulator", multiplies=multiplies),
        specification=Linear(accumulate, wide, packed, multiplies),
        infer=_Infer(family.shape, packed),
        bound="1" if multiplies else "1/2",
        calls=("Requantize" if multiplies else "RequantizeShift",),
    )


@dataclass(frozen=True, slots=True)
class _Infer:
    shape: Callable[[Sequence[TensorType], Mapping[str, Any]], Any]
    packed: bool

    def __call__(self, types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
        if self.packed:
            weight = TensorType(ir.DataType.INT8, tuple(attributes["weight_shape"]))
            types = [types[0], weight, *types[2:]]
        return TensorType(ir.DataType(int(attributes["to"])), self.shape(types, attributes))
