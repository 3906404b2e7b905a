"""Resizing along one axis as a function: gathered taps times integer weights, added and rescaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qcompiler.quant.functions.definition import Operator, TensorType
from qcompiler.quant.functions.rescale import CLAMP, call, infer_rescaled
from qcompiler.quant.integer import resize

__all__ = ["OPERATORS"]

_BODY: Final = """
axis = Constant <value_int: int = @axis> ()
one = Constant <value_int = 1> ()
tap_axis = Add (axis, one)
first = Constant <value_ints = [0]> ()
tap_axes = Unsqueeze (tap_axis, first)
zx = Constant <value_int: int = @x_zero_point> ()
taps = Gather <axis: int = @axis> (x, index)
taps64 = Cast <to = 7> (taps)
centred = Sub (taps64, zx)
weight64 = Cast <to = 7> (weight)
terms = Mul (centred, weight64)
sums = ReduceSum <keepdims = 0> (terms, tap_axes)
"""


def _infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    shape, taps, axis = types[0].shape, types[1].shape, int(attributes["axis"])
    if shape is None:
        return infer_rescaled(None, attributes)
    return infer_rescaled((*shape[:axis], taps[0] if taps else None, *shape[axis + 1 :]), attributes)


def _operator(*, shifts: bool) -> Operator:
    rescale = {"shift": "uint8"} if shifts else {"multiplier": "int32", "shift": "uint8"}
    types = {"x": "int8 int16 int32", "index": "int64", "weight": "int32", **rescale}
    return Operator(
        name="QResizeShift" if shifts else "QResize",
        formula="clip(((sum * b + 2^(c-1)) >> c) + zy, low, high), sum = sum over taps of (x[index] - zx) * weight",
        inputs=tuple(types),
        types=types,
        attributes={"axis": "int", "x_zero_point": "int", **CLAMP},
        body=_BODY + call("sums", multiplies=not shifts),
        specification=resize.resize_shift if shifts else resize.resize,
        infer=_infer,
        bound="1 while s_x <= 4 s_y",
        calls=("RequantizeShift" if shifts else "Requantize",),
    )


OPERATORS: Final = (_operator(shifts=False), _operator(shifts=True))
