"""QGather and QGatherWeightOnly: rows of a table of 8, 4, 3 or 2 bits with a scale per row.

Gather of a runtime picks packed rows, so that indices mean what they mean there, and only these rows are unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnx_ir as ir

from qcompiler.quant.functions.definition import Operator, TensorType
from qcompiler.quant.functions.rescale import CLAMP, call
from qcompiler.quant.functions.weight_only import ADDRESSES, JOIN
from qcompiler.quant.integer.gather import gather, gather_weight_only

__all__ = ["OPERATORS"]

_CODES: Final = f"""
width = Constant <value_int: int = @bits> ()
logical = Constant <value_ints: ints = @weight_shape> ()
start = Constant <value_int = 0> ()
step = Constant <value_int = 1> ()
{ADDRESSES}
down = Cast <to = 2> (places)
up = Sub (seven, down)
found = Gather <axis = 0> (w, indices)
lower_part = Gather <axis = -1> (found, lower_octet)
upper_part = Gather <axis = -1> (found, upper_octet)
{JOIN}
flipped_32 = Cast <to = 6> (flipped)
sign_32 = Cast <to = 6> (sign)
code = Sub (flipped_32, sign_32)
last_axis = Constant <value_ints = [-1]> ()
"""
"""int32 ``code`` of the rows at ``indices``."""

_RESCALED: Final = """
multiplier_found = Gather <axis = 0> (multiplier, indices)
multiplier_of = Unsqueeze (multiplier_found, last_axis)
shift_found = Gather <axis = 0> (shift, indices)
shift_of = Unsqueeze (shift_found, last_axis)
"""

_SCALED: Final = """
scale_found = Gather <axis = 0> (scale, indices)
scale_of = Unsqueeze (scale_found, last_axis)
real = Cast <to = 1> (code)
y = Mul (real, scale_of)
"""

_TABLE: Final = {"indices": "int32 int64", "w": "uint8"}
_PACKED: Final = {"bits": "int", "weight_shape": "ints"}


def _infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    indices = types[0].shape
    shape = None if indices is None else (*indices, int(attributes["weight_shape"][1]))
    return TensorType(ir.DataType(int(attributes.get("to", ir.DataType.FLOAT))), shape)


OPERATORS: Final = (
    Operator(
        name="QGather",
        formula="clip(((w[i] * b[i] + 2^(c[i]-1)) >> c[i]) + zy, low, high), i = indices, as in Gather",
        inputs=("indices", "w", "multiplier", "shift"),
        types={**_TABLE, "multiplier": "int32", "shift": "uint8"},
        attributes={**_PACKED, **CLAMP},
        body=_CODES + _RESCALED + call("code", multiplies=True, factor="multiplier_of, shift_of"),
        specification=gather,
        infer=_infer,
        bound="1",
        calls=("Requantize",),
    ),
    Operator(
        name="QGatherWeightOnly",
        formula="float32(w[i]) * scale[i], i = indices, as in Gather",
        inputs=("indices", "w", "scale"),
        types={**_TABLE, "scale": "float"},
        attributes=_PACKED,
        body=_CODES + _SCALED,
        specification=gather_weight_only,
        infer=_infer,
        bound="0: that of Gather of the dequantized table",
    ),
)
